//! One node's driver on scripted links, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use quinn::udp::{EcnCodepoint, RecvMeta};

use super::super::port_socket::PortSocket;
use super::*;
use crate::datagram::{DatagramOptions, PortOptions};
use crate::link::{Link, LinkRecvError, LinkSendError};

const MS: Duration = Duration::from_millis(1);
const PORT: PortId = PortId(0);
const MTU: usize = 1232;

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn at(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

/// What the link of a test has and does.
#[derive(Debug, Default)]
struct Wire {
    /// Frames that wait to be received.
    incoming: VecDeque<Vec<u8>>,
    /// Frames that were sent, and how many each call took.
    sent: Vec<Vec<u8>>,
    calls: Vec<usize>,
    /// How many calls are taken until the link is busy; `None`: all.
    room: Option<usize>,
    /// The number of the call that is refused, from 0.
    refused: Option<usize>,
    waker: Option<Waker>,
    /// Whether the link has failed, and what happens to it.
    is_broken: bool,
    event: Option<LinkEvent>,
}

/// A link to one node. Several frames at once if `takes_many`, else one by one.
#[derive(Debug, Clone)]
struct ScriptedLink {
    wire: Arc<Mutex<Wire>>,
    takes_many: bool,
    /// Where its frames come from.
    peer: SocketAddr,
}

impl ScriptedLink {
    fn take(
        &self,
        cx: &mut Context<'_>,
        frames: &[u8],
        frame_len: usize,
    ) -> Poll<Result<usize, LinkSendError>> {
        let mut wire = self.wire.lock().unwrap();
        if wire.room == Some(0) {
            wire.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.room = wire.room.map(|room| room - 1);
        wire.calls.push(frames.len());
        if wire.refused == Some(wire.calls.len() - 1) {
            return Poll::Ready(Err(LinkSendError::TooLong { len: frame_len, mtu: 0 }));
        }
        wire.sent.extend(frames.chunks(frame_len).map(<[u8]>::to_vec));
        Poll::Ready(Ok(frames.len()))
    }
}

impl Link for ScriptedLink {
    fn local(&self) -> SocketAddr {
        at(1)
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        _: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        self.take(cx, frame, frame.len()).map_ok(|_| ())
    }

    fn poll_send_many(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frames: &[u8],
        frame_len: usize,
    ) -> Poll<Result<usize, LinkSendError>> {
        if self.takes_many {
            return self.take(cx, frames, frame_len);
        }
        // As the seam provides it for a link that implements `poll_send` only.
        let first = &frames[..frame_len.min(frames.len())];
        self.poll_send(cx, to, first).map_ok(|()| first.len())
    }

    fn poll_recv(
        &mut self,
        _: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        let mut wire = self.wire.lock().unwrap();
        if wire.is_broken {
            return Poll::Ready(Err(LinkRecvError::Closed));
        }
        match wire.incoming.pop_front() {
            Some(next) => {
                *frame = next;
                Poll::Ready(Ok(self.peer))
            }
            None => Poll::Pending,
        }
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<LinkEvent> {
        self.wire.lock().unwrap().event.take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Node 1, whose driver is examined, and the engine of node 2.
struct Pair {
    now: Duration,
    core: Core,
    wire: Arc<Mutex<Wire>>,
    peer: Datagrams,
    datagrams: Arc<Packets>,
    wakes: Arc<Wakes>,
}

impl Pair {
    fn new(takes_many: bool) -> Pair {
        Pair::with(takes_many, |options| options)
    }

    /// Both are up, and have short labels for each other.
    fn with(takes_many: bool, change: impl Fn(DatagramOptions) -> DatagramOptions) -> Pair {
        let [engine, peer] = [1, 2].map(|number| {
            let mut engine = Datagrams::new(node(number), change(DatagramOptions::new(number)));
            engine.add_port(PORT, PortOptions::new(MTU));
            engine
        });
        let wire = Arc::new(Mutex::new(Wire::default()));
        let link = ScriptedLink { wire: Arc::clone(&wire), takes_many, peer: at(2) };
        let datagrams = Arc::new(Packets::new(1 << 20));
        let port = Port::new(Box::new(link), Arc::new(PortSocket::new(at(1))), None);
        let core = Core::new(engine, vec![port], Arc::clone(&datagrams));
        let mut pair = Pair { now: MS, core, wire, peer, datagrams, wakes: Arc::default() };
        let material = [9; FrameKeys::MATERIAL_LEN];
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        let place = (PORT, node(2), at(2));
        pair.core.keyed(pair.now, place, None, FrameKeys::new(&material, true), expiry).unwrap();
        let keys = FrameKeys::new(&material, false);
        pair.peer
            .handle(pair.now, Input::Keyed { port: PORT, peer: node(1), number: 0, address: at(1), keys })
            .unwrap();
        pair.pass(300);
        pair.core.send(pair.now, node(2), Ecn::Ect0, b"label", 5);
        pair.peer.send_many(pair.now, node(1), Ecn::Ect0, b"label", 5).unwrap();
        pair.pass(300);
        assert_eq!(pair.marks(), [EcnCodepoint::Ect0]);
        pair.wire.lock().unwrap().calls.clear();
        pair.wakes.0.store(0, Ordering::SeqCst);
        pair
    }

    /// One round of the driver: whether more may be waiting.
    fn round(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.core.round(self.now, &mut Context::from_waker(&waker)).1
    }

    /// Milliseconds in which frames of both arrive at once.
    fn pass(&mut self, times: usize) {
        for _ in 0..times {
            self.now += MS;
            let _ = self.peer.handle(self.now, Input::Timeout);
            self.hand_to_core();
            self.round();
            self.hand_to_peer();
        }
    }

    /// Frames of node 2 wait at node 1.
    fn hand_to_core(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            if let Output::Transmit { frames, .. } = output {
                self.wire.lock().unwrap().incoming.extend(frames.items().map(<[u8]>::to_vec));
            }
        }
    }

    /// Frames that node 1 has sent arrive; the payloads of datagrams among them.
    fn hand_to_peer(&mut self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for mut frame in std::mem::take(&mut self.wire.lock().unwrap().sent) {
            self.peer.handle(self.now, Input::Frame { port: PORT, from: at(1), frame: &mut frame }).unwrap();
        }
        let mut others = VecDeque::new();
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Datagrams { payloads: batch, .. } => {
                    payloads.extend(batch.items().map(<[u8]>::to_vec));
                }
                Output::Transmit { frames, .. } => others.extend(frames.items().map(<[u8]>::to_vec)),
                _ => {}
            }
        }
        self.wire.lock().unwrap().incoming.extend(others);
        payloads
    }

    /// Node 2 sends datagrams of 100 bytes, of which the first one is the number.
    fn feed(&mut self, count: u8) {
        let payloads: Vec<u8> = (0..count).flat_map(|number| [number; 100]).collect();
        self.peer.send_many(self.now, node(1), Ecn::Ect0, &payloads, 100).unwrap();
        self.hand_to_core();
    }

    /// The datagrams that wait for QUIC: the mark of each.
    fn marks(&self) -> Vec<EcnCodepoint> {
        self.read().into_iter().map(|(_, mark)| mark).collect()
    }

    fn read(&self) -> Vec<(Vec<u8>, EcnCodepoint)> {
        let mut found = Vec::new();
        let mut space = vec![0; 1 << 16];
        let mut meta = [RecvMeta::default()];
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut buffers = [IoSliceMut::new(&mut space)];
            let Poll::Ready(count) = self.datagrams.poll_recv(&mut cx, &mut buffers, &mut meta) else {
                return found;
            };
            assert_eq!(count.unwrap(), 1);
            let RecvMeta { len, stride, ecn, .. } = meta[0];
            let packets = space[..len].chunks(stride);
            found.extend(packets.map(|packet| (packet.to_vec(), ecn.unwrap())));
        }
    }
}

/// Short batches that wait for a busy port do not occupy the spaces of long ones.
#[test]
fn frames_that_wait_for_a_port_occupy_little_more_than_their_length() {
    let wire = Arc::new(Mutex::new(Wire { room: Some(0), ..Wire::default() }));
    let link = ScriptedLink { wire, takes_many: true, peer: at(2) };
    let mut port = Port::new(Box::new(link), Arc::new(PortSocket::new(at(1))), None);
    let mut push = |len: usize| {
        let mut batch = Batch::from(&vec![7; len][..]);
        batch.end().reserve_exact(64_000 - len);
        port.push(at(2), batch).map(|batch| batch.space_len())
    };
    // The first one would be sent at once.
    assert_eq!([1000; 3].map(&mut push), [None, Some(64_000), Some(64_000)]);
    assert_eq!(push(20_000), None);
    // A batch that is lost is handed back too.
    assert_eq!(push(0), Some(64_000));
}

/// A queue that lasts is marked: after 128 frames without a pause, which took 500 us.
#[test]
fn datagrams_that_wait_in_a_lasting_queue_are_marked() {
    use EcnCodepoint::{Ce, Ect0};
    let micros = Duration::from_micros;
    // Rounds of 64 frames: after which time each comes, and its mark.
    let busy = [(micros(0), Ect0), (micros(300), Ect0), (micros(300), Ce), (micros(300), Ce)];
    let burst = [(micros(0), Ect0), (micros(100), Ect0), (micros(100), Ect0), (micros(200), Ect0)];
    // The process was not scheduled: little waits.
    let late = [(micros(0), Ect0), (micros(9000), Ect0), (micros(9000), Ce)];
    for rounds in [&busy[..], &burst, &late] {
        let mut pair = Pair::new(true);
        for (number, (after, mark)) in rounds.iter().enumerate() {
            pair.now += *after;
            pair.feed(if number == 0 { 66 } else { 64 });
            assert!(pair.round(), "more is waiting");
            assert_eq!(pair.marks(), [*mark; 64], "round {number} of {rounds:?}");
        }
        // A pause ends the queue.
        assert!(!pair.round());
        pair.now += micros(9000);
        pair.feed(10);
        pair.round();
        let marks = pair.marks();
        assert_eq!(marks[marks.len() - 10..], [Ect0; 10]);
    }
}

/// A relay between node 2 on one port, and node 3 on another.
struct Relay {
    pair: Pair,
    far: Datagrams,
    wire: Arc<Mutex<Wire>>,
}

const FAR: PortId = PortId(1);

impl Relay {
    fn new() -> Relay {
        let mut pair = Pair::new(true);
        let wire = Arc::new(Mutex::new(Wire::default()));
        let link = ScriptedLink { wire: Arc::clone(&wire), takes_many: true, peer: at(3) };
        pair.core.ports.push(Port::new(Box::new(link), Arc::new(PortSocket::new(at(1))), None));
        pair.core.engine.add_port(FAR, PortOptions::new(MTU));
        let mut far = Datagrams::new(node(3), DatagramOptions::new(3));
        far.add_port(PORT, PortOptions::new(MTU));
        let material = [5; FrameKeys::MATERIAL_LEN];
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        let place = (FAR, node(3), at(3));
        pair.core.keyed(pair.now, place, None, FrameKeys::new(&material, true), expiry).unwrap();
        let keys = FrameKeys::new(&material, false);
        far.handle(pair.now, Input::Keyed { port: PORT, peer: node(1), number: 0, address: at(1), keys })
            .unwrap();
        let mut relay = Relay { pair, far, wire };
        relay.pass(600);
        relay.pair.peer.send_many(relay.pair.now, node(3), Ecn::Ect0, b"label", 5).unwrap();
        assert_eq!(relay.pass(300), [Ecn::Ect0]);
        relay
    }

    /// Milliseconds in which frames arrive at once: the marks of the datagrams that arrive at node 3.
    fn pass(&mut self, times: usize) -> Vec<Ecn> {
        let mut marks = Vec::new();
        for _ in 0..times {
            let _ = self.far.handle(self.pair.now, Input::Timeout);
            self.pair.pass(1);
            for mut frame in std::mem::take(&mut self.wire.lock().unwrap().sent) {
                let input = Input::Frame { port: PORT, from: at(1), frame: &mut frame };
                self.far.handle(self.pair.now, input).unwrap();
            }
            while let Some(output) = self.far.poll_output() {
                match output {
                    Output::Transmit { frames, .. } => {
                        self.wire.lock().unwrap().incoming.extend(frames.items().map(<[u8]>::to_vec));
                    }
                    Output::Datagrams { ecn, payloads, .. } => marks.extend(payloads.items().map(|_| ecn)),
                    _ => {}
                }
            }
        }
        marks
    }

    /// Frames to node 3 wait, until the port is busy.
    fn fill(&mut self) {
        self.wire.lock().unwrap().room = Some(0);
        for _ in 0..200 {
            if self.pair.core.is_congested(FAR) {
                return;
            }
            self.pair.core.send(self.pair.now, node(3), Ecn::Ect0, &[7; 1000], 1000);
            self.pair.core.flush(self.pair.now);
        }
        panic!("128 KiB are a queue");
    }

    fn empty(&mut self) {
        self.wire.lock().unwrap().room = None;
        self.wire.lock().unwrap().waker.take().unwrap().wake();
    }
}

/// Frames wait at a busy port: what leaves over it is marked, and nothing else.
#[test]
fn datagrams_are_marked_that_leave_over_a_busy_port() {
    let mut relay = Relay::new();
    relay.fill();
    let now = relay.pair.now;
    relay.pair.peer.send_many(now, node(3), Ecn::Ect0, b"to the busy port", 16).unwrap();
    relay.pair.feed(1);
    relay.pair.core.send(now, node(2), Ecn::Ect0, b"to the other port", 17);
    relay.pair.round();
    assert_eq!(relay.pair.marks(), [EcnCodepoint::Ect0]);
    let mut marks = Vec::new();
    for mut frame in std::mem::take(&mut relay.pair.wire.lock().unwrap().sent) {
        relay.pair.peer.handle(now, Input::Frame { port: PORT, from: at(1), frame: &mut frame }).unwrap();
    }
    while let Some(output) = relay.pair.peer.poll_output() {
        if let Output::Datagrams { ecn, .. } = output {
            marks.push(ecn);
        }
    }
    assert_eq!(marks, [Ecn::Ect0]);
    relay.empty();
    let marks = relay.pass(2);
    let (last, others) = marks.split_last().unwrap();
    assert_eq!(*last, Ecn::Congested);
    assert!(others.len() > 100 && others.iter().all(|mark| *mark == Ecn::Ect0), "{}", others.len());
    // The queue is over.
    relay.pair.peer.send_many(relay.pair.now, node(3), Ecn::Ect0, b"later", 5).unwrap();
    assert_eq!(relay.pass(2), [Ecn::Ect0]);
}

/// A sender waits for the port that it needs, and is woken when that has room, or when its path has changed.
/// Senders to other ports go on.
#[test]
fn a_sender_waits_for_the_port_towards_its_peer() {
    let mut relay = Relay::new();
    let [near, far] = [(); 2].map(|()| Arc::new(Sender::default()));
    let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
    let wakers = wakes.each_ref().map(|wakes| Waker::from(Arc::clone(wakes)));
    let count = |at: usize| wakes[at].0.load(Ordering::SeqCst);
    for round in 0..2 {
        relay.fill();
        let core = &mut relay.pair.core;
        // As quinn does: ask, try, and ask again after a refusal.
        assert!(core.poll_writable(&far, &wakers[1]).is_ready());
        assert!(!core.takes(node(3)));
        assert!(core.poll_writable(&far, &wakers[1]).is_pending());
        for _ in 0..3 {
            assert!(core.poll_writable(&near, &wakers[0]).is_ready());
            assert!(core.takes(node(2)));
        }
        // A packet to an address beside the mesh.
        assert!(core.poll_writable(&near, &wakers[0]).is_ready());
        core.passes();
        // What the endpoint sends by itself changes nothing.
        assert!(!core.takes(node(3)));
        assert!(core.poll_writable(&near, &wakers[0]).is_ready());
        // Another connection on another thread, in the middle of its own try.
        let other = Arc::new(Sender::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(core.poll_writable(&other, &wakers[0]).is_ready());
                assert!(!core.takes(node(3)));
                assert!(core.poll_writable(&other, Waker::noop()).is_pending());
            });
        });
        assert!(core.takes(node(2)));
        assert!(core.poll_writable(&near, &wakers[0]).is_ready());
        assert!(core.takes(node(2)));
        relay.pass(2);
        assert_eq!((count(0), count(1)), (0, round));
        if round == 0 {
            relay.empty();
            relay.pass(2);
        } else {
            // The link of the busy port ends, and with it the route.
            let core = &mut relay.pair.core;
            let link = core.engine.link(FAR, node(3), 0).unwrap();
            core.engine.handle(relay.pair.now, Input::Ended { link }).unwrap();
            core.flush(relay.pair.now);
        }
        assert_eq!((count(0), count(1)), (0, round + 1));
        let core = &mut relay.pair.core;
        assert!(core.poll_writable(&far, &wakers[1]).is_ready());
        assert!(core.takes(node(3)));
    }
}

/// Packets of handshakes do not wait until a port has no more frames to receive.
#[test]
fn handshakes_go_on_under_load() {
    use quinn::AsyncUdpSocket as _;
    let mut pair = Pair::new(true);
    let packet = [0xc0; 1200];
    let transmit = quinn::udp::Transmit {
        destination: at(3),
        ecn: None,
        contents: &packet,
        segment_size: None,
        src_ip: None,
    };
    pair.core.ports[0].socket.try_send(&transmit).unwrap();
    pair.feed(200);
    assert!(pair.round(), "more is waiting");
    assert!(pair.wire.lock().unwrap().sent.iter().any(|frame| frame[..] == packet));
}

/// A second link to the same neighbour takes over: the route does not change, and the sender goes on.
#[test]
fn a_sender_goes_on_over_another_link_to_its_peer() {
    let mut pair = Pair::new(true);
    let wire = Arc::new(Mutex::new(Wire::default()));
    let link = ScriptedLink { wire: Arc::clone(&wire), takes_many: true, peer: at(2) };
    pair.core.ports.push(Port::new(Box::new(link), Arc::new(PortSocket::new(at(1))), None));
    pair.core.engine.add_port(FAR, PortOptions::new(MTU));
    pair.peer.add_port(FAR, PortOptions::new(MTU));
    let material = [5; FrameKeys::MATERIAL_LEN];
    let expiry = SystemTime::now() + Duration::from_secs(3600);
    let place = (FAR, node(2), at(2));
    pair.core.keyed(pair.now, place, None, FrameKeys::new(&material, true), expiry).unwrap();
    let keys = FrameKeys::new(&material, false);
    pair.peer
        .handle(pair.now, Input::Keyed { port: FAR, peer: node(1), number: 0, address: at(1), keys })
        .unwrap();
    // Both links come up: frames of each port arrive over its own wire.
    let pass = |pair: &mut Pair, times: usize, is_first_cut: bool| {
        for _ in 0..times {
            pair.now += MS;
            let _ = pair.peer.handle(pair.now, Input::Timeout);
            pair.round();
            for (port, wire) in [(PORT, &pair.wire), (FAR, &wire)] {
                for mut frame in std::mem::take(&mut wire.lock().unwrap().sent) {
                    if port == FAR || !is_first_cut {
                        let input = Input::Frame { port, from: at(1), frame: &mut frame };
                        pair.peer.handle(pair.now, input).unwrap();
                    }
                }
            }
            while let Some(output) = pair.peer.poll_output() {
                if let Output::Transmit { port, frames, .. } = output
                    && (port == FAR || !is_first_cut)
                {
                    let wire = if port == FAR { &wire } else { &pair.wire };
                    wire.lock().unwrap().incoming.extend(frames.items().map(<[u8]>::to_vec));
                }
            }
        }
    };
    pass(&mut pair, 600, false);
    assert_eq!(pair.core.engine.port_to(node(2)), Some(PORT));
    // The first port takes nothing any more.
    pair.wire.lock().unwrap().room = Some(0);
    for _ in 0..200 {
        pair.core.send(pair.now, node(2), Ecn::Ect0, &[7; 1000], 1000);
        pair.core.flush(pair.now);
    }
    let (sender, wakes) = (Arc::new(Sender::default()), Arc::new(Wakes::default()));
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(pair.core.poll_writable(&sender, &waker).is_ready());
    assert!(!pair.core.takes(node(2)));
    assert!(pair.core.poll_writable(&sender, &waker).is_pending());
    pass(&mut pair, 300, true);
    assert_eq!(pair.core.engine.port_to(node(2)), Some(FAR));
    assert!(wakes.0.load(Ordering::SeqCst) > 0, "the sender is woken");
    assert!(pair.core.poll_writable(&sender, &waker).is_ready());
    assert!(pair.core.takes(node(2)));
}

/// A link that is ended in favour of a new neighbour leaves nothing behind.
#[test]
fn a_replaced_link_has_no_expiry_and_no_renewal() {
    let mut pair = Pair::with(true, |options| options.links_max(1));
    let keyed = |pair: &mut Pair| {
        let keys = FrameKeys::new(&[8; FrameKeys::MATERIAL_LEN], true);
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        pair.core.keyed(pair.now, (PORT, node(3), at(3)), None, keys, expiry)
    };
    assert!(matches!(keyed(&mut pair), Err(KeyedError::Refused(HandleError::Full { .. }))));
    let old = pair.core.engine.link(PORT, node(2), 0).unwrap();
    pair.core.renewals.insert(old);
    for _ in 0..120 {
        pair.now += 100 * MS;
        pair.round();
    }
    let (new, number) = keyed(&mut pair).unwrap();
    assert_eq!(number, 0);
    assert_eq!(pair.core.expiries.keys().collect::<Vec<_>>(), [&new]);
    assert!(pair.core.leads_to(new, at(3)) && !pair.core.leads_to(old, at(2)));
    assert!(pair.core.renewals.is_empty());
}

/// A link that fails is reported with its cause, and opened again until that succeeds.
#[test]
fn a_failed_link_is_opened_again() {
    let mut pair = Pair::new(true);
    let failure = |pair: &Pair| pair.core.ports()[0].failure.clone();
    assert_eq!(pair.core.ports(), [PortFacts { port: PORT, local: at(1), failure: None }]);
    let (wire, calls) = (Arc::clone(&pair.wire), Arc::new(AtomicUsize::new(0)));
    let opened = Arc::clone(&calls);
    pair.core.ports[0].open = Some(Box::new(move || {
        if opened.fetch_add(1, Ordering::SeqCst) == 0 {
            let source = std::io::Error::other("the interface is gone");
            return Err(Box::new(LinkRecvError::Failed { source }));
        }
        wire.lock().unwrap().is_broken = false;
        Ok(Box::new(ScriptedLink { wire: Arc::clone(&wire), takes_many: true, peer: at(2) }))
    }));
    pair.wire.lock().unwrap().is_broken = true;
    pair.round();
    let failed_at = pair.now;
    assert_eq!(failure(&pair), Some(LinkRecvError::Closed.to_string()));
    // What is sent meanwhile is lost, and nobody waits for it.
    let waker = Waker::from(Arc::clone(&pair.wakes));
    for second in 1..=2 {
        for _ in 0..200 {
            pair.core.send(pair.now, node(2), Ecn::Ect0, &[7; 1000], 1000);
        }
        let (timeout, is_more) = pair.core.round(pair.now, &mut Context::from_waker(&waker));
        assert!(!is_more && !pair.core.is_congested(PORT));
        assert!(timeout.unwrap() <= failed_at + Duration::from_secs(second));
        pair.now = failed_at + Duration::from_secs(second) - MS;
        pair.round();
        assert_eq!(calls.load(Ordering::SeqCst), usize::try_from(second).unwrap() - 1);
        pair.now += MS;
        pair.round();
        assert_eq!(calls.load(Ordering::SeqCst), usize::try_from(second).unwrap());
        let expected = (second == 1).then_some("the interface is gone");
        assert_eq!(failure(&pair).is_some(), expected.is_some());
        assert!(expected.is_none_or(|text| failure(&pair).unwrap().contains(text)));
    }
    pair.wire.lock().unwrap().sent.clear();
    pair.pass(300);
    pair.core.send(pair.now, node(2), Ecn::Ect0, b"again", 5);
    pair.core.flush(pair.now);
    assert_eq!(pair.hand_to_peer(), [b"again"]);
    // A link that nobody can open remains closed.
    pair.core.ports[0].open = None;
    pair.wire.lock().unwrap().is_broken = true;
    pair.round();
    pair.now += Duration::from_secs(9);
    pair.round();
    assert!(failure(&pair).is_some());
}

/// The driver wakes up for it also without any neighbour.
#[test]
fn a_failed_link_wakes_the_driver() {
    let wire = Arc::new(Mutex::new(Wire { is_broken: true, ..Wire::default() }));
    let link = Box::new(ScriptedLink { wire, takes_many: true, peer: at(2) });
    let open: super::super::port::Open = Box::new(|| Err("not yet".into()));
    let port = Port::new(link, Arc::new(PortSocket::new(at(1))), Some(open));
    let mut engine = Datagrams::new(node(1), DatagramOptions::new(1));
    engine.add_port(PORT, PortOptions::new(MTU));
    let mut core = Core::new(engine, vec![port], Arc::new(Packets::new(1)));
    let mut cx = Context::from_waker(Waker::noop());
    for second in 1..4 {
        let second = Duration::from_secs(second);
        assert_eq!(core.round(second - Duration::from_secs(1), &mut cx), (Some(second), false));
    }
    assert_eq!(core.ports()[0].failure.as_deref(), Some("not yet"));
}

/// A neighbour learns another address of this node from a frame that is sent at once, also on an idle link.
#[test]
fn another_address_is_shown_at_once() {
    let mut pair = Pair::new(true);
    pair.pass(3000);
    pair.round();
    pair.wire.lock().unwrap().sent.clear();
    pair.now += MS;
    pair.wire.lock().unwrap().event = Some(LinkEvent::AddressChanged { address: at(7) });
    pair.round();
    assert_eq!(pair.wire.lock().unwrap().sent.len(), 1);
    assert_eq!(pair.core.ports()[0].local, at(7));
    assert!(pair.core.changes.links);
}

/// A batch that is to be followed by another one waits for it, until the driver runs or there is enough.
#[test]
fn what_is_sent_soon_leaves_with_what_follows() {
    let mut pair = Pair::new(true);
    let payloads: Vec<u8> = (0..10).flat_map(|number| [number; 1200]).collect();
    let len = payloads.len();
    let wakes = |pair: &Pair| pair.wakes.0.load(Ordering::SeqCst);
    let calls = |pair: &Pair| std::mem::take(&mut pair.wire.lock().unwrap().calls);
    for _ in 0..2 {
        // The driver is woken once, and sends both in one call.
        let before = wakes(&pair);
        for number in 1..=2 {
            pair.core.send(pair.now, node(2), Ecn::Ect0, &payloads, 1200);
            pair.core.flush_soon(pair.now, len);
            assert_eq!((calls(&pair).len(), wakes(&pair) - before), (0, 1), "batch {number}");
        }
        pair.round();
        assert_eq!(calls(&pair), [20 * MTU]);
        assert_eq!(pair.hand_to_peer(), [&payloads[..], &payloads].concat().chunks(1200).collect::<Vec<_>>());
    }
    // More than one call of the system takes does not wait.
    let mut sent = 0;
    while calls(&pair).is_empty() && sent < 2 * DEFERRED_LEN_MAX {
        pair.core.send(pair.now, node(2), Ecn::Ect0, &payloads, 1200);
        pair.core.flush_soon(pair.now, len);
        sent += len;
    }
    assert_eq!(sent, DEFERRED_LEN_MAX.next_multiple_of(len));
    // What does not wait for more takes along what waits.
    pair.hand_to_peer();
    pair.core.send(pair.now, node(2), Ecn::Ect0, &payloads, 1200);
    pair.core.flush_soon(pair.now, len);
    pair.core.send(pair.now, node(2), Ecn::Ect0, b"last", 4);
    pair.core.flush(pair.now);
    assert_eq!(pair.hand_to_peer().len(), 11);
}

/// A link as Ethernet, which takes and gives frames one by one, is busy and refuses in the middle of a batch.
#[test]
fn a_link_that_takes_single_frames_carries_batches() {
    let mut pair = Pair::new(false);
    let payloads: Vec<u8> = (0..10).flat_map(|number| [number; 1200]).collect();
    {
        let mut wire = pair.wire.lock().unwrap();
        (wire.room, wire.refused) = (Some(4), Some(6));
    }
    pair.core.send(pair.now, node(2), Ecn::Ect0, &payloads, 1200);
    pair.core.flush(pair.now);
    let numbers = |payloads: Vec<Vec<u8>>| payloads.iter().map(|payload| payload[0]).collect::<Vec<_>>();
    assert_eq!(numbers(pair.hand_to_peer()), [0, 1, 2, 3]);
    // The rest leaves when there is room, but for the one that is refused.
    pair.wire.lock().unwrap().room = Some(2);
    pair.core.flush(pair.now);
    assert_eq!(numbers(pair.hand_to_peer()), [4, 5]);
    pair.wire.lock().unwrap().room = None;
    pair.core.flush(pair.now);
    assert_eq!(numbers(pair.hand_to_peer()), [7, 8, 9]);
    assert_eq!(pair.wire.lock().unwrap().calls, [MTU; 10]);
    // What such a link has received waits for QUIC in its order.
    pair.round();
    pair.read();
    pair.feed(20);
    pair.round();
    let received: Vec<u8> = pair.read().into_iter().map(|(payload, _)| payload[0]).collect();
    assert_eq!(received, (0..20).collect::<Vec<_>>());
}
