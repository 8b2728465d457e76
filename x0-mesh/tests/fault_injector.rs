//! Faults as middleware, over the simulated network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::task::{Context, Poll, Waker};

use x0_identity::NodeId;
use x0_mesh::sim::{SimMesh, SimTransport};
use x0_mesh::{
    ChannelOptions, Direction, DownReason, FaultHandle, FaultInjector, Lane, Mux, MuxOptions, Next,
    PeerEvent, PeerEventKind, SendError, Transmit, Transport,
};

const LANE: Lane = Lane::Ordered(0);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct Pair {
    mesh: SimMesh,
    one: FaultInjector<SimTransport>,
    handle: FaultHandle,
    two: SimTransport,
}

impl Pair {
    fn new() -> Pair {
        let mesh = SimMesh::new(4);
        let (one, handle) = FaultInjector::new(mesh.transport(node(1)));
        let two = mesh.transport(node(2));
        let mut pair = Pair { mesh, one, handle, two };
        pair.settle();
        assert!(matches!(pair.events()[..], [PeerEventKind::Up { .. }]));
        pair
    }

    fn settle(&self) {
        while self.mesh.step() {}
    }

    /// The events of node 1.
    fn events(&mut self) -> Vec<PeerEventKind> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut kinds = Vec::new();
        while let Poll::Ready(PeerEvent { kind, .. }) = self.one.poll_event(&mut cx) {
            kinds.push(kind);
        }
        kinds
    }

    fn send(&mut self, payload: &[u8]) -> Poll<Result<(), SendError>> {
        let mut cx = Context::from_waker(Waker::noop());
        let sent = self.one.poll_send(&mut cx, &Transmit { to: node(2), lane: LANE, payload });
        self.settle();
        sent
    }

    fn reply(&mut self, payload: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        let sent = self.two.poll_send(&mut cx, &Transmit { to: node(1), lane: LANE, payload });
        assert_eq!(sent, Poll::Ready(Ok(())));
        self.settle();
    }
}

fn received(transport: &mut impl Transport) -> Vec<Vec<u8>> {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut messages, mut payload) = (Vec::new(), Vec::new());
    while transport.poll_event(&mut cx).is_ready() {}
    while let Poll::Ready(found) = transport.poll_recv(&mut cx, &mut payload) {
        found.unwrap();
        messages.push(payload.clone());
    }
    messages
}

#[test]
fn a_blocked_peer_is_down_until_it_is_unblocked() {
    let mut pair = Pair::new();
    for (block, unblock) in [
        (FaultHandle::block_all as fn(&FaultHandle), FaultHandle::unblock_all as fn(&FaultHandle)),
        (|handle| handle.block(node(2)), |handle| handle.unblock(node(2))),
        (
            |handle| {
                handle.cut(node(2), Direction::Send);
                handle.cut_all(Direction::Receive);
            },
            FaultHandle::unblock_all,
        ),
    ] {
        block(&pair.handle);
        assert!(pair.handle.is_blocked(node(2)));
        let events = pair.events();
        assert!(
            matches!(events[..], [PeerEventKind::Down { reason: DownReason::Blocked, .. }]),
            "{events:?}"
        );
        assert_eq!(pair.send(b"no"), Poll::Ready(Err(SendError::Unreachable { peer: node(2) })));
        pair.reply(b"dropped");
        assert!(received(&mut pair.one).is_empty());
        unblock(&pair.handle);
        assert!(matches!(pair.events()[..], [PeerEventKind::Up { .. }]));
        assert_eq!(pair.send(b"yes"), Poll::Ready(Ok(())));
        assert_eq!(received(&mut pair.two), [b"yes"]);
    }
}

#[test]
fn a_cut_of_what_is_sent_leaves_what_is_received() {
    let mut pair = Pair::new();
    pair.handle.cut(node(2), Direction::Send);
    assert!(pair.events().is_empty(), "a gray fault is not an event");
    assert_eq!(pair.send(b"lost"), Poll::Ready(Ok(())));
    pair.reply(b"through");
    assert!(received(&mut pair.two).is_empty());
    assert_eq!(received(&mut pair.one), [b"through"]);
    // The epoch lost a message, so it ends with the cut.
    pair.handle.unblock(node(2));
    let events = pair.events();
    assert!(
        matches!(events[..], [PeerEventKind::Down { epoch: lost, .. }, PeerEventKind::Up { epoch }] if epoch > lost),
        "{events:?}"
    );
    assert_eq!(pair.send(b"through"), Poll::Ready(Ok(())));
    assert_eq!(received(&mut pair.two), [b"through"]);
}

#[test]
fn a_cut_of_what_is_received_leaves_what_is_sent() {
    let mut pair = Pair::new();
    pair.handle.cut_all(Direction::Receive);
    assert_eq!(pair.send(b"through"), Poll::Ready(Ok(())));
    pair.reply(b"lost");
    assert_eq!(received(&mut pair.two), [b"through"]);
    assert!(received(&mut pair.one).is_empty());
    pair.handle.unblock_all();
    assert_eq!(pair.events().len(), 2);
    pair.reply(b"through");
    assert_eq!(received(&mut pair.one), [b"through"]);
}

/// A mux loses control messages to the cut, and starts from nothing when it ends.
#[test]
fn a_mux_recovers_from_a_cut_in_one_direction() {
    for direction in [Direction::Send, Direction::Receive] {
        let mesh = SimMesh::new(5);
        let (transport, handle) = FaultInjector::new(mesh.transport(node(1)));
        let one = Mux::new(transport, MuxOptions::default().seed(1));
        let two = Mux::new(mesh.transport(node(2)), MuxOptions::default().seed(2));
        let mut cx = Context::from_waker(Waker::noop());
        let settle = |cx: &mut Context<'_>| {
            for _ in 0..10 {
                let _ = (one.poll_drive(cx), two.poll_drive(cx));
                while mesh.step() {}
            }
        };
        let mut channels = [&one, &two].map(|mux| mux.channel(ChannelOptions::new("c")).unwrap());
        settle(&mut cx);
        handle.cut_all(direction);
        settle(&mut cx);
        for (channel, to) in channels.iter_mut().zip([2, 1]) {
            for _ in 0..100 {
                let _ =
                    channel.poll_send(&mut cx, &Transmit { to: node(to), lane: LANE, payload: &[0; 100] });
            }
        }
        settle(&mut cx);
        handle.unblock_all();
        settle(&mut cx);
        for (channel, to) in channels.iter_mut().zip([2, 1]) {
            let transmit = Transmit { to: node(to), lane: LANE, payload: b"again" };
            assert_eq!(channel.poll_send(&mut cx, &transmit), Poll::Ready(Ok(())), "{direction:?}");
        }
        settle(&mut cx);
        for channel in &mut channels {
            let (mut last, mut payload) = (Vec::new(), Vec::new());
            while let Poll::Ready(next) = channel.poll_next(&mut cx, &mut payload) {
                if matches!(next, Ok(Next::Message(_))) {
                    last.clone_from(&payload);
                }
            }
            assert_eq!(last, b"again", "{direction:?}");
        }
    }
}
