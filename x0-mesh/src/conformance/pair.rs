//! Two nodes, as the rules use them.

use std::task::{Context, Poll};

use x0_identity::NodeId;

use super::Bench;
use crate::{Lane, PeerEvent, PeerEventKind, Received, SendError, Transmit, Transport};

// Evaluated when this is compiled.
pub(super) const LEFT: NodeId = NodeId::new(1).unwrap();
pub(super) const RIGHT: NodeId = NodeId::new(2).unwrap();
/// A node that is never started.
pub(super) const NOBODY: NodeId = NodeId::new(0xdead).unwrap();

/// Two nodes that can reach each other.
pub(super) struct Pair<'a, B: Bench> {
    bench: &'a mut B,
    pub(super) rule: &'static str,
    pub(super) nodes: Nodes<B::Transport>,
}

/// The transports by themselves, so that they can be polled while the bench waits.
pub(super) struct Nodes<T> {
    pub(super) left: T,
    /// Gone while the node is down.
    pub(super) right: Option<T>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) fn peer(self) -> NodeId {
        match self {
            Side::Left => RIGHT,
            Side::Right => LEFT,
        }
    }
}

impl<T> Nodes<T> {
    pub(super) fn side(&mut self, side: Side) -> &mut T {
        match (side, &mut self.right) {
            (Side::Right, Some(right)) => right,
            // No rule polls a node that it has dropped.
            _ => &mut self.left,
        }
    }
}

#[expect(clippy::panic, reason = "a broken rule is a panic, as in any test")]
pub(super) fn broken(rule: &str, what: &str) -> ! {
    panic!("the transport breaks the rule \"{rule}\": {what}")
}

impl<'a, B: Bench> Pair<'a, B> {
    pub(super) fn start(bench: &'a mut B, rule: &'static str) -> Pair<'a, B> {
        let (left, right) = (bench.start(LEFT), bench.start(RIGHT));
        if (left.local(), right.local()) != (LEFT, RIGHT) {
            broken(rule, "local() is not the node that was started");
        }
        Pair { bench, rule, nodes: Nodes { left, right: Some(right) } }
    }

    pub(super) fn broken(&self, what: &str) -> ! {
        broken(self.rule, what)
    }

    pub(super) fn bench_can_restart(&self) -> bool {
        self.bench.can_restart()
    }

    /// Starts the right node again.
    pub(super) fn restart_right(&mut self) {
        self.nodes.right = Some(self.bench.start(RIGHT));
    }

    /// Polls until there is an answer.
    pub(super) fn wait<R>(
        &mut self,
        mut poll: impl FnMut(&mut Nodes<B::Transport>, &mut Context<'_>) -> Poll<R>,
    ) -> R {
        let mut answer = None;
        let nodes = &mut self.nodes;
        self.bench.wait(&mut |cx| match poll(nodes, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(ready) => {
                answer = Some(ready);
                Poll::Ready(())
            }
        });
        match answer {
            Some(answer) => answer,
            None => self.broken("the bench stopped waiting without an answer"),
        }
    }

    /// Waits until both know each other, and takes the events of that.
    pub(super) fn meet(&mut self) {
        for side in [Side::Left, Side::Right] {
            self.await_up(side);
        }
    }

    pub(super) fn await_up(&mut self, side: Side) -> u64 {
        loop {
            if let PeerEvent { peer, kind: PeerEventKind::Up { epoch } } = self.event(side)
                && peer == side.peer()
            {
                return epoch;
            }
        }
    }

    pub(super) fn event(&mut self, side: Side) -> PeerEvent {
        self.wait(|nodes, cx| nodes.side(side).poll_event(cx))
    }

    pub(super) fn send(&mut self, side: Side, lane: Lane, payload: &[u8]) {
        let transmit = Transmit { to: side.peer(), lane, payload };
        if let Err(error) = self.wait(|nodes, cx| nodes.side(side).poll_send(cx, &transmit)) {
            self.broken(&format!("a message of {} bytes was not taken: {error}", payload.len()));
        }
    }

    /// Sends if there is room at this moment.
    pub(super) fn try_send(&mut self, side: Side, lane: Lane, payload: &[u8]) -> Poll<Result<(), SendError>> {
        let transmit = Transmit { to: side.peer(), lane, payload };
        self.wait(|nodes, cx| Poll::Ready(nodes.side(side).poll_send(cx, &transmit)))
    }

    /// The error for a message that no transport takes.
    pub(super) fn refusal(&mut self, to: NodeId, lane: Lane, payload: &[u8]) -> SendError {
        let transmit = Transmit { to, lane, payload };
        match self.wait(|nodes, cx| Poll::Ready(nodes.left.poll_send(cx, &transmit))) {
            Poll::Ready(Err(error)) => error,
            other => self.broken(&format!("{other:?} instead of a refusal")),
        }
    }

    pub(super) fn receive(&mut self, side: Side) -> (Received, Vec<u8>) {
        let mut payload = Vec::new();
        let received = self.wait(|nodes, cx| nodes.side(side).poll_recv(cx, &mut payload));
        match received {
            Ok(received) if received.from == side.peer() => (received, payload),
            other => {
                self.broken(&format!("received {other:?}, where node {} is the only sender", side.peer()))
            }
        }
    }

    /// Receives a message, which must be this one.
    pub(super) fn expect(&mut self, side: Side, lane: Lane, payload: &[u8]) {
        let (received, found) = self.receive(side);
        if received.lane != lane || found != payload {
            self.broken(&format!(
                "{} bytes on {} instead of {} bytes on {lane}, or other bytes",
                found.len(),
                received.lane,
                payload.len()
            ));
        }
    }
}

/// Bytes that depend on a number and on the lower 16 bits of their place.
pub(super) fn pattern(number: usize, len: usize) -> Vec<u8> {
    const PERIOD: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(number.to_le_bytes().into_iter().cycle().take(len.min(PERIOD)));
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte ^= place.to_le_bytes()[0].rotate_left(3) ^ place.to_le_bytes()[1];
    }
    // The longest messages have 16 MiB, and copying is faster by far.
    while bytes.len() < len {
        bytes.extend_from_within(..bytes.len().min(len - bytes.len()));
    }
    bytes
}
