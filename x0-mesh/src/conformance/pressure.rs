//! Rules about full lanes, and about futures that are dropped.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use super::Bench;
use super::pair::{Pair, Side, pattern};
use crate::{Lane, Transmit, Transport, TransportExt};

const LEN: usize = 32 << 10;
/// A lane that takes so many messages without any being received has no bound.
const MESSAGES_MAX: usize = 1 << 13;
/// How often in a row a lane refuses before it counts as full: messages that it took may still be on their
/// way out.
const REFUSALS: usize = 64;

/// Lanes take turns: after so many messages of one, another has had its turn.
const TURNS_MAX: usize = 8;

const FULL: Lane = Lane::Ordered(0);
const OTHER: Lane = Lane::Ordered(1);

/// Sends until the lane takes no more although time passes. Returns how many messages it took.
fn fill<B: Bench>(pair: &mut Pair<'_, B>) -> usize {
    let (mut taken, mut refused) = (0, 0);
    while refused < REFUSALS {
        match pair.try_send(Side::Left, FULL, &pattern(taken, LEN)) {
            Poll::Ready(Ok(())) => (taken, refused) = (taken + 1, 0),
            Poll::Ready(Err(error)) => pair.broken(&format!("an error where waiting is due: {error}")),
            Poll::Pending => {
                refused += 1;
                let_time_pass(pair);
            }
        }
        if taken > MESSAGES_MAX {
            pair.broken("it takes messages without end although none is received");
        }
    }
    taken
}

/// Lets time pass: a message travels on another lane.
fn let_time_pass<B: Bench>(pair: &mut Pair<'_, B>) {
    pair.send(Side::Right, OTHER, b"round");
    pair.expect(Side::Left, OTHER, b"round");
}

pub(super) fn full_lane<B: Bench>(pair: &mut Pair<'_, B>) {
    let taken = fill(pair);
    let waiting = pattern(taken, LEN);
    let transmit = Transmit { to: Side::Left.peer(), lane: FULL, payload: &waiting };
    // One is offered again and again while the others are received; it must find room in the end, and be
    // there once.
    let (mut sent, mut number) = (false, 0);
    let mut found = Vec::new();
    let strange = pair.wait(|nodes, cx| {
        while let Poll::Ready(received) = nodes.side(Side::Right).poll_recv(cx, &mut found) {
            if received.is_err() || found != pattern(number, LEN) {
                return Poll::Ready(Some(format!("message {number} is lost, altered or out of order")));
            }
            number += 1;
        }
        if !sent {
            match nodes.side(Side::Left).poll_send(cx, &transmit) {
                Poll::Ready(Ok(())) => sent = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error.to_string())),
                Poll::Pending => {}
            }
        }
        if number > taken { Poll::Ready(None) } else { Poll::Pending }
    });
    if let Some(strange) = strange {
        pair.broken(&strange);
    }
    let_time_pass(pair);
}

pub(super) fn other_lane<B: Bench>(pair: &mut Pair<'_, B>) {
    let taken = fill(pair);
    for number in 0..10 {
        match pair.try_send(Side::Left, OTHER, &pattern(number, 100)) {
            Poll::Ready(Ok(())) => {}
            other => pair.broken(&format!("{other:?} on a lane that is empty")),
        }
    }
    // Time to arrive, while there is no receiver.
    for _ in 0..REFUSALS {
        let_time_pass(pair);
    }
    let (mut full, mut other) = (0, 0);
    while full < taken || other < 10 {
        let (received, found) = pair.receive(Side::Right);
        let expected = if received.lane == FULL {
            full += 1;
            pattern(full - 1, LEN)
        } else {
            other += 1;
            pattern(other - 1, 100)
        };
        if found != expected {
            pair.broken("a message is lost, altered or out of order");
        }
        if other == 0 && full > TURNS_MAX {
            pair.broken("a lane has no turn while another is full");
        }
    }
}

pub(super) fn cancel<B: Bench>(pair: &mut Pair<'_, B>) {
    let taken = fill(pair);
    let lost = pattern(usize::MAX, LEN);
    let transmit = Transmit { to: Side::Left.peer(), lane: FULL, payload: &lost };
    let pending = pair.wait(|nodes, cx| {
        let left = nodes.side(Side::Left);
        Poll::Ready(pin!(left.send(&transmit)).poll(cx).is_pending())
    });
    // A future of a receiver that has nothing, dropped as well.
    let mut nothing = Vec::new();
    pair.wait(|nodes, cx| {
        let left = nodes.side(Side::Left);
        let _ = pin!(left.recv(&mut nothing)).poll(cx);
        Poll::Ready(())
    });
    for number in 0..taken {
        pair.expect(Side::Right, FULL, &pattern(number, LEN));
    }
    if !pending {
        pair.expect(Side::Right, FULL, &lost);
    }
    pair.send(Side::Left, FULL, b"last");
    pair.expect(Side::Right, FULL, b"last");
}
