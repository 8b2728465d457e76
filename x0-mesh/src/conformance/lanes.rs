//! Rules about what arrives, and in which order.

use std::task::Poll;

use super::pair::{Pair, Side, pattern};
use super::{Bench, Transport};
use crate::{Lane, SendError, Transmit};

/// The longest messages that are tried, in bytes: longer ones take the same path.
const LEN_TRIED_MAX: usize = 16 << 20;
/// A datagram may be lost, but not each of so many.
const DATAGRAMS: usize = 10_000;
const DATAGRAMS_AT_A_TIME: usize = 16;

fn lanes<T: Transport>(transport: &T) -> Vec<Lane> {
    let lanes = [Lane::Ordered(0), Lane::Ordered(1), Lane::Bulk];
    lanes.into_iter().filter(|lane| transport.message_len_max(*lane) > 0).collect()
}

pub(super) fn round_trip<B: Bench>(pair: &mut Pair<'_, B>) {
    for lane in lanes(&pair.nodes.left) {
        let len_max = pair.nodes.left.message_len_max(lane);
        for (number, len) in
            [1, 2, 255, 256, 1199, 1200, 1201, 65_535, 65_536, 300_000].into_iter().enumerate()
        {
            let payload = pattern(number, len.min(len_max));
            pair.send(Side::Left, lane, &payload);
            pair.expect(Side::Right, lane, &payload);
            pair.send(Side::Right, lane, &payload);
            pair.expect(Side::Left, lane, &payload);
        }
    }
}

pub(super) fn empty<B: Bench>(pair: &mut Pair<'_, B>) {
    for lane in lanes(&pair.nodes.left) {
        for _ in 0..3 {
            pair.send(Side::Left, lane, b"");
            pair.expect(Side::Right, lane, b"");
        }
    }
}

pub(super) fn longest<B: Bench>(pair: &mut Pair<'_, B>) {
    for lane in lanes(&pair.nodes.left).into_iter().chain([Lane::Datagram]) {
        let len_max = pair.nodes.left.message_len_max(lane);
        if len_max >= LEN_TRIED_MAX || (len_max == 0 && lane == Lane::Datagram) {
            continue;
        }
        let payload = pattern(1, len_max + 1);
        let refusal = pair.refusal(Side::Left.peer(), lane, &payload);
        if refusal != (SendError::TooLong { len: len_max + 1, len_max }) {
            pair.broken(&format!("{refusal:?} for {} bytes on {lane}", len_max + 1));
        }
        if lane == Lane::Datagram {
            continue;
        }
        let payload = &payload[..len_max];
        let mut sent = false;
        // The receiver makes room.
        let transmit = Transmit { to: Side::Left.peer(), lane, payload };
        let mut found = Vec::new();
        let received = pair.wait(|nodes, cx| {
            if !sent {
                sent = matches!(nodes.side(Side::Left).poll_send(cx, &transmit), Poll::Ready(Ok(())));
            }
            nodes.side(Side::Right).poll_recv(cx, &mut found)
        });
        if received.is_err() || found != payload {
            pair.broken(&format!("{} bytes on {lane} did not arrive as they were sent", payload.len()));
        }
    }
}

pub(super) fn order<B: Bench>(pair: &mut Pair<'_, B>) {
    const COUNT: usize = 400;
    for lane in [Lane::Ordered(0), Lane::Ordered(1)] {
        if pair.nodes.left.message_len_max(lane) == 0 {
            continue;
        }
        let message = |number: usize| pattern(number, 8 + number * 37 % 3000);
        for number in 0..COUNT {
            pair.send(Side::Left, lane, &message(number));
            pair.send(Side::Right, lane, &message(number));
            // A few under way at a time, on every transport.
            if let Some(earlier) = number.checked_sub(5) {
                pair.expect(Side::Right, lane, &message(earlier));
                pair.expect(Side::Left, lane, &message(earlier));
            }
        }
        for number in COUNT - 5..COUNT {
            pair.expect(Side::Right, lane, &message(number));
            pair.expect(Side::Left, lane, &message(number));
        }
    }
}

pub(super) fn bulk<B: Bench>(pair: &mut Pair<'_, B>) {
    const COUNT: usize = 60;
    let lane = Lane::Bulk;
    if pair.nodes.left.message_len_max(lane) == 0 {
        return;
    }
    let message = |number: usize| pattern(number, 8 + number * 997);
    let (mut sent, mut received) = (0, vec![0_usize; COUNT]);
    let mut found = Vec::new();
    let strange = pair.wait(|nodes, cx| {
        while sent < COUNT {
            let payload = message(sent);
            let transmit = Transmit { to: Side::Left.peer(), lane, payload: &payload };
            match nodes.side(Side::Left).poll_send(cx, &transmit) {
                Poll::Ready(Ok(())) => sent += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error.to_string())),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(answer) = nodes.side(Side::Right).poll_recv(cx, &mut found) {
            let number = (0..COUNT).find(|number| found == message(*number));
            match (answer, number) {
                (Ok(_), Some(number)) => received[number] += 1,
                (answer, _) => return Poll::Ready(Some(format!("{answer:?} that was never sent"))),
            }
        }
        if received.iter().sum::<usize>() >= COUNT { Poll::Ready(None) } else { Poll::Pending }
    });
    if let Some(strange) = strange {
        pair.broken(&strange);
    }
    if received.iter().any(|count| *count != 1) {
        pair.broken("a message came twice, another not at all");
    }
}

pub(super) fn buffer<B: Bench>(pair: &mut Pair<'_, B>) {
    let mut buffer = b"earlier content".to_vec();
    let pending = pair.wait(|nodes, cx| Poll::Ready(nodes.side(Side::Right).poll_recv(cx, &mut buffer)));
    if pending.is_ready() || buffer != b"earlier content" {
        pair.broken("a call that is pending changed the buffer, or there was a message that was not sent");
    }
    pair.send(Side::Left, Lane::Ordered(0), b"new");
    let received = pair.wait(|nodes, cx| nodes.side(Side::Right).poll_recv(cx, &mut buffer));
    if received.is_err() || buffer != b"new" {
        pair.broken("a received message did not replace what the buffer held");
    }
}

pub(super) fn datagram<B: Bench>(pair: &mut Pair<'_, B>) {
    let len_max = pair.nodes.left.message_len_max(Lane::Datagram);
    if len_max == 0 {
        return;
    }
    let payload = pattern(9, len_max);
    let mut found = Vec::new();
    let mut sent = 0;
    let answer = pair.wait(|nodes, cx| {
        if let Poll::Ready(received) = nodes.side(Side::Right).poll_recv(cx, &mut found) {
            return Poll::Ready(received.map_err(|error| error.to_string()));
        }
        if sent >= DATAGRAMS {
            return Poll::Ready(Err("none of many datagrams arrived".to_owned()));
        }
        // Several at a time: where one is lost, nothing else may happen that polls this again.
        for _ in 0..DATAGRAMS_AT_A_TIME {
            sent += 1;
            let transmit = Transmit { to: Side::Left.peer(), lane: Lane::Datagram, payload: &payload };
            match nodes.side(Side::Left).poll_send(cx, &transmit) {
                Poll::Pending => return Poll::Ready(Err("a datagram is pending".to_owned())),
                Poll::Ready(Ok(()) | Err(SendError::Congested { .. })) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
            }
        }
        Poll::Pending
    });
    match answer {
        Ok(received) if received.lane == Lane::Datagram && found == payload => {}
        other => pair.broken(&format!("{other:?}, or altered bytes")),
    }
}
