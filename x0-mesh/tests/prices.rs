//! Lanes that use paths up to a price only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod quic_common;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use quic_common::{Domain, node, soon};
use x0_identity::{Identity, NodeId};
use x0_mesh::link::{LinkFaultInjector, MemorySegment};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort, PriceLimiter, PriceLimits, address};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::router::{Cost, Etx};
use x0_mesh::{
    DownReason, Lane, Next, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
    TransportExt,
};

fn end(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

fn transport(identity: &Identity, number: u64, mesh: &Mesh) -> QuicTransport {
    let (server, client) = (identity.server_config(), identity.client_config());
    let peer = 3 - number;
    let options = QuicOptions::new(node(number), address(node(number)), server, client)
        .idle_timeout(std::time::Duration::from_secs(60))
        .peer(node(peer), address(node(peer)));
    QuicTransport::bind_on(options, mesh.socket()).unwrap()
}

/// What a lane says to a message for node 2.
fn offer<T: Transport>(limiter: &mut PriceLimiter<T>, lane: Lane) -> Poll<Result<(), SendError>> {
    offer_with(limiter, lane, Waker::noop())
}

fn offer_with<T: Transport>(
    limiter: &mut PriceLimiter<T>,
    lane: Lane,
    waker: &Waker,
) -> Poll<Result<(), SendError>> {
    let transmit = Transmit { to: node(2), lane, payload: b"offered" };
    limiter.poll_send(&mut Context::from_waker(waker), &transmit)
}

/// Counts how often it is called.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A transport that is over, with events that were not polled.
#[derive(Default)]
struct Over(VecDeque<PeerEvent>);

impl Transport for Over {
    fn local(&self) -> NodeId {
        node(1)
    }

    fn message_len_max(&self, _: Lane) -> usize {
        100
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Err(SendError::Closed))
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut Vec<u8>) -> Poll<Result<Received, RecvError>> {
        Poll::Ready(Err(RecvError::Closed))
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<PeerEvent> {
        self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

fn price(mesh: &Mesh) -> Option<u16> {
    mesh.paths().into_iter().find(|path| path.destination == node(2)).map(|path| path.price)
}

/// Two nodes with a free link and a paid one. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_lane_without_a_budget_waits_for_the_free_path() {
    let domain = Domain::new("mesh.test");
    let (free, paid) = (MemorySegment::new(1232), MemorySegment::new(1232));
    let cost = || Cost::new(Etx).preference(1).price(9);
    let (free_link, fault) = LinkFaultInjector::new(free.link(end(1)), 1);
    let identities = [1, 2].map(|number| domain.identity(number));
    let start = |number: u64, ports: [MeshPort; 2]| {
        let identity = &identities[usize::try_from(number - 1).unwrap()];
        let options = MeshOptions::new(node(number), identity.server_config(), identity.client_config());
        Mesh::start(ports.into_iter().fold(options, MeshOptions::port)).unwrap()
    };
    let paid_port = MeshPort::new(paid.link(end(1))).neighbour(end(2)).metric(cost());
    let mut one = start(1, [MeshPort::new(free_link).neighbour(end(2)), paid_port]);
    let two = start(2, [MeshPort::new(free.link(end(2))), MeshPort::new(paid.link(end(2))).metric(cost())]);
    let inner = transport(&identities[0], 1, &one);
    let limits = PriceLimits::new().lane(Lane::Bulk, 8).lane(Lane::Datagram, 0).lane(Lane::Ordered(1), 9);
    let mut sender = one.limit_prices(inner, limits);
    let mut receiver = transport(&identities[1], 2, &two);
    assert_eq!((sender.local(), sender.get_ref().local()), (node(1), node(1)));
    assert_eq!(sender.message_len_max(Lane::Bulk), sender.get_ref().message_len_max(Lane::Bulk));
    let both = |mesh: &Mesh| mesh.links().iter().filter(|link| link.peer == node(2)).count() == 2;
    soon(one.until(|mesh| both(mesh) && price(mesh) == Some(0))).await;
    let mut payload = Vec::new();
    let event = soon(sender.next(&mut payload)).await.unwrap();
    assert!(
        matches!(&event, Next::Event(event) if matches!(event.kind, PeerEventKind::Up { .. })),
        "{event:?}"
    );

    for lane in [Lane::Bulk, Lane::Datagram, Lane::Ordered(0), Lane::Ordered(1)] {
        assert_eq!(offer(&mut sender, lane), Poll::Ready(Ok(())), "{lane}");
        let received = soon(receiver.recv(&mut payload)).await.unwrap();
        assert_eq!((received.lane, &payload[..]), (lane, &b"offered"[..]));
    }

    fault.cut();
    soon(one.until(|mesh| price(mesh) == Some(9))).await;
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
    let refused = SendError::Congested { peer: node(2), lane: Lane::Datagram };
    assert_eq!(offer(&mut sender, Lane::Datagram), Poll::Ready(Err(refused)));
    for lane in [Lane::Ordered(0), Lane::Ordered(1)] {
        assert_eq!(offer(&mut sender, lane), Poll::Ready(Ok(())), "{lane}");
        assert_eq!(soon(receiver.recv(&mut payload)).await.unwrap().lane, lane);
    }
    // The waker is called when the free link works again.
    let transmit = Transmit { to: node(2), lane: Lane::Bulk, payload: b"patient" };
    let begin = tokio::time::Instant::now();
    let (sent, ()) = soon(async { tokio::join!(sender.send(&transmit), async { fault.mend() }) }).await;
    sent.unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(price(&one), Some(0));
    assert_eq!(soon(receiver.recv(&mut payload)).await.unwrap().lane, Lane::Bulk);
    assert_eq!(payload, b"patient");

    // Nor does a message wait for a path to a node that is gone.
    fault.cut();
    soon(one.until(|mesh| price(mesh) == Some(9))).await;
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
    let begin = tokio::time::Instant::now();
    receiver.close().await;
    println!("closed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < std::time::Duration::from_secs(4), "{:?}", begin.elapsed());
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Ready(Err(SendError::Unreachable { peer: node(2) })));
}

/// Two nodes with a paid link alone; a limiter and a transport on them.
struct Paid {
    mesh: Mesh,
    sender: PriceLimiter<QuicTransport>,
    receiver: Option<QuicTransport>,
    peer: Mesh,
    peer_identity: Identity,
}

impl Paid {
    async fn start() -> Paid {
        let mut paid = Paid::start_without_receiver().await;
        paid.receiver = Some(transport(&paid.peer_identity, 2, &paid.peer));
        paid
    }

    /// Without a transport on the mesh of node 2, which node 1 dials in vain.
    async fn start_without_receiver() -> Paid {
        let domain = Domain::new("mesh.test");
        let segment = MemorySegment::new(1232);
        let [one, two] = [1, 2].map(|number| domain.identity(number));
        let start = |number: u16, identity: &Identity, port: MeshPort| {
            let (server, client) = (identity.server_config(), identity.client_config());
            let port = port.metric(Cost::new(Etx).price(9));
            Mesh::start(MeshOptions::new(node(number.into()), server, client).port(port)).unwrap()
        };
        let mut mesh = start(1, &one, MeshPort::new(segment.link(end(1))).neighbour(end(2)));
        let peer = start(2, &two, MeshPort::new(segment.link(end(2))));
        let limits = PriceLimits::new().lane(Lane::Bulk, 8).lane(Lane::Datagram, 8);
        let inner = transport(&one, 1, &mesh);
        let sender = mesh.limit_prices(inner, limits.lane(Lane::Ordered(200), 8));
        soon(mesh.until(|mesh| price(mesh) == Some(9))).await;
        Paid { mesh, sender, receiver: None, peer, peer_identity: two }
    }
}

/// QUIC takes messages for a peer that it is reaching, and a paid path is the first one here.
#[tokio::test(start_paused = true)]
async fn limits_hold_before_the_first_event() {
    let Paid { mesh, mut sender, receiver, peer: _peer, .. } = Paid::start().await;
    let mut receiver = receiver.unwrap();
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
    let refused = SendError::Congested { peer: node(2), lane: Lane::Datagram };
    assert_eq!(offer(&mut sender, Lane::Datagram), Poll::Ready(Err(refused)));
    assert_eq!(offer(&mut sender, Lane::Ordered(0)), Poll::Ready(Ok(())));
    let mut payload = Vec::new();
    assert_eq!(soon(receiver.recv(&mut payload)).await.unwrap().lane, Lane::Ordered(0));
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
    // The event that was taken meanwhile is not lost.
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Up { .. }), "{event:?}");
    assert_eq!((offer(&mut sender, Lane::Bulk), price(&mesh)), (Poll::Pending, Some(9)));
}

/// An error that the transport has for a message comes first: no path makes the message shorter.
#[tokio::test(start_paused = true)]
async fn a_message_that_no_path_carries_does_not_wait() {
    let Paid { mesh: _mesh, mut sender, .. } = Paid::start().await;
    let lane = Lane::Ordered(200);
    assert_eq!(offer(&mut sender, lane), Poll::Ready(Err(SendError::NoLane { lane })));
    let len_max = sender.message_len_max(Lane::Bulk);
    let transmit = Transmit { to: node(2), lane: Lane::Bulk, payload: &vec![7; len_max + 1] };
    let refused = sender.poll_send(&mut Context::from_waker(Waker::noop()), &transmit);
    assert_eq!(refused, Poll::Ready(Err(SendError::TooLong { len: len_max + 1, len_max })));
}

/// The owner waits for its message alone, and polls no events.
#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_longer_than_epoch_and_mesh() {
    let transmit = Transmit { to: node(2), lane: Lane::Bulk, payload: b"patient" };
    let Paid { mesh: _mesh, mut sender, receiver: _receiver, peer: _peer, .. } = Paid::start().await;
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Up { .. }), "{event:?}");
    let book = sender.get_ref().peers();
    let removed = async { book.remove_peer(node(2)) };
    let (sent, ()) = soon(async { tokio::join!(sender.send(&transmit), removed) }).await;
    let error = sent.unwrap_err();
    assert!(matches!(error, SendError::Unreachable { .. } | SendError::UnknownPeer { .. }), "{error}");
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");

    let Paid { mesh, mut sender, receiver: _receiver, peer: _peer, .. } = Paid::start().await;
    soon(sender.event()).await;
    // The transport notices the end of the mesh before or after it is offered the message.
    let (_, ()) = soon(async { tokio::join!(sender.send(&transmit), async { drop(mesh) }) }).await;
}

/// A peer that was never reached has no event, unless it is removed.
#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_longer_than_the_attempt_to_reach_its_peer() {
    let transmit = Transmit { to: node(2), lane: Lane::Bulk, payload: b"patient" };
    let Paid { mesh: _mesh, mut sender, peer: _peer, .. } = Paid::start_without_receiver().await;
    let book = sender.get_ref().peers();
    let removed = async { book.remove_peer(node(2)) };
    let (sent, ()) = soon(async { tokio::join!(sender.send(&transmit), removed) }).await;
    assert_eq!(sent, Err(SendError::Unreachable { peer: node(2) }));
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");
}

/// A transport that is over has no event for a peer that it has never reached.
#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_longer_than_the_transport() {
    let Paid { mut mesh, peer: _peer, .. } = Paid::start_without_receiver().await;
    let count = Arc::new(Count(AtomicUsize::new(0)));
    for is_next in [false, true] {
        let mut limiter = mesh.limit_prices(Over::default(), PriceLimits::new().lane(Lane::Bulk, 8));
        let waker = Waker::from(Arc::clone(&count));
        assert_eq!(offer_with(&mut limiter, Lane::Bulk, &waker), Poll::Pending);
        count.0.store(0, Ordering::Relaxed);
        let (mut cx, mut payload) = (Context::from_waker(Waker::noop()), Vec::new());
        if is_next {
            assert_eq!(limiter.poll_next(&mut cx, &mut payload), Poll::Ready(Err(RecvError::Closed)));
        } else {
            assert_eq!(limiter.poll_recv(&mut cx, &mut payload), Poll::Ready(Err(RecvError::Closed)));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(offer(&mut limiter, Lane::Bulk), Poll::Ready(Err(SendError::Closed)));
    }
}

/// The `Up` of a peer may be among the events that an owner leaves unpolled.
#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_for_an_owner_that_leaves_events_unpolled() {
    let Paid { mut mesh, peer: _peer, .. } = Paid::start_without_receiver().await;
    let event = |number, kind| PeerEvent { peer: node(number), kind };
    let mut events = vec![event(3, PeerEventKind::Degraded); 1025];
    events[0] = event(2, PeerEventKind::Down { epoch: 1, reason: DownReason::Local });
    events[1024] = event(2, PeerEventKind::Up { epoch: 2 });
    let mut limiter = mesh.limit_prices(Over(VecDeque::from(events)), PriceLimits::new().lane(Lane::Bulk, 8));
    let congested = SendError::Congested { peer: node(2), lane: Lane::Bulk };
    assert_eq!(offer(&mut limiter, Lane::Bulk), Poll::Ready(Err(congested)));
    soon(limiter.event()).await;
    assert_eq!(offer(&mut limiter, Lane::Bulk), Poll::Ready(Err(congested)));
    soon(limiter.event()).await;
    assert_eq!(offer(&mut limiter, Lane::Bulk), Poll::Pending);
}

/// A peer that is added again is reached for the first time, and QUIC takes messages for it before the owner
/// knows that it is up.
#[tokio::test(start_paused = true)]
async fn limits_hold_for_a_peer_that_is_added_again() {
    let Paid { mesh: _mesh, mut sender, receiver: _receiver, peer: _peer, .. } = Paid::start().await;
    soon(sender.event()).await;
    let book = sender.get_ref().peers();
    book.remove_peer(node(2));
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");
    book.set_peer(node(2), address(node(2)));
    let refused = Poll::Ready(Err(SendError::Unreachable { peer: node(2) }));
    for lane in [Lane::Bulk, Lane::Datagram] {
        assert_eq!(offer(&mut sender, lane), refused);
    }
    assert_eq!(offer(&mut sender, Lane::Ordered(0)), Poll::Ready(Ok(())));
    let event = soon(sender.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Up { .. }), "{event:?}");
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
}

/// Events wake the owner that waits for one, also when a sender with another waker has come after it.
#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_takes_no_wake_up_from_the_owner() {
    let Paid { mesh: _mesh, mut sender, receiver: _receiver, peer: _peer, .. } = Paid::start().await;
    soon(sender.event()).await;
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    assert!(sender.poll_event(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(offer(&mut sender, Lane::Bulk), Poll::Pending);
    sender.get_ref().peers().remove_peer(node(2));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}
