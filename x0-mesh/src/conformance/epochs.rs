//! Rules about epochs.

use std::task::Poll;

use super::Bench;
use super::pair::{Pair, RIGHT, Side};
use crate::{Lane, PeerEvent, PeerEventKind, SendError, Transmit, Transport};

const LANE: Lane = Lane::Ordered(0);

pub(super) fn up_first<B: Bench>(pair: &mut Pair<'_, B>) {
    if !pair.bench_can_restart() {
        return;
    }
    // A node that has just started receives nothing before it has polled an event.
    pair.nodes.right = None;
    pair.restart_right();
    pair.await_up(Side::Left);
    pair.send(Side::Left, LANE, b"first");
    let mut found = Vec::new();
    let mut up = false;
    let early = pair.wait(|nodes, cx| {
        let right = nodes.side(Side::Right);
        // An owner drains the events before each message.
        while let Poll::Ready(event) = right.poll_event(cx) {
            up |= matches!(event.kind, PeerEventKind::Up { .. });
        }
        right.poll_recv(cx, &mut found).map(|_| !up)
    });
    if early || found != b"first" {
        pair.broken("a message could be received before its epoch was up");
    }
}

pub(super) fn restart<B: Bench>(pair: &mut Pair<'_, B>) {
    // Messages that arrived before the end can be received before `Down` is polled.
    pair.send(Side::Right, LANE, b"last words");
    pair.expect(Side::Left, LANE, b"last words");
    let mut before = 0;
    for _ in 0..3 {
        pair.nodes.right = None;
        let ended = loop {
            if let PeerEvent { peer: RIGHT, kind: PeerEventKind::Down { epoch, .. } } = pair.event(Side::Left)
            {
                break epoch;
            }
        };
        pair.restart_right();
        let begun = pair.await_up(Side::Left);
        if begun <= ended || ended < before {
            pair.broken(&format!("epoch {begun} follows {ended}, which follows {before}"));
        }
        before = begun;
        pair.await_up(Side::Right);
        pair.send(Side::Left, LANE, b"again");
        pair.expect(Side::Right, LANE, b"again");
        pair.send(Side::Right, LANE, b"indeed");
        pair.expect(Side::Left, LANE, b"indeed");
    }
}

pub(super) fn unreachable<B: Bench>(pair: &mut Pair<'_, B>) {
    pair.nodes.right = None;
    loop {
        if let PeerEvent { peer: RIGHT, kind: PeerEventKind::Down { .. } } = pair.event(Side::Left) {
            break;
        }
    }
    let transmit = Transmit { to: RIGHT, lane: LANE, payload: b"into the void" };
    let answer = pair.wait(|nodes, cx| Poll::Ready(nodes.left.poll_send(cx, &transmit)));
    if answer != Poll::Ready(Err(SendError::Unreachable { peer: RIGHT })) {
        pair.broken(&format!("{answer:?} instead of Unreachable"));
    }
    pair.restart_right();
    pair.await_up(Side::Left);
    pair.await_up(Side::Right);
    pair.send(Side::Left, LANE, b"back");
    pair.expect(Side::Right, LANE, b"back");
}
