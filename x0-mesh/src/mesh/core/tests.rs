//! One node's driver on scripted links, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use quinn::udp::{EcnCodepoint, RecvMeta};

use super::*;
use crate::datagram::{DatagramOptions, PortOptions};
use crate::link::{LinkRecvError, LinkSendError};

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
}

/// A link to node 2. Several frames at once if `takes_many`, else one by one.
#[derive(Debug, Clone)]
struct ScriptedLink {
    wire: Arc<Mutex<Wire>>,
    takes_many: bool,
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
        match self.wire.lock().unwrap().incoming.pop_front() {
            Some(next) => {
                *frame = next;
                Poll::Ready(Ok(at(2)))
            }
            None => Poll::Pending,
        }
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<LinkEvent> {
        Poll::Pending
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
    /// Both are up, and have short labels for each other.
    fn new(takes_many: bool) -> Pair {
        let [engine, peer] = [1, 2].map(|number| {
            let mut engine = Datagrams::new(node(number), DatagramOptions::new(number));
            engine.add_port(PORT, PortOptions::new(MTU));
            engine
        });
        let wire = Arc::new(Mutex::new(Wire::default()));
        let link = ScriptedLink { wire: Arc::clone(&wire), takes_many };
        let datagrams = Arc::new(Packets::new(1 << 20));
        let port = Port::new(Box::new(link), Arc::new(PortSocket::new(at(1))));
        let core = Core::new(engine, vec![port], Arc::clone(&datagrams));
        let mut pair = Pair { now: MS, core, wire, peer, datagrams, wakes: Arc::default() };
        let material = [9; FrameKeys::MATERIAL_LEN];
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        let place = (PORT, node(2), at(2));
        pair.core.keyed(pair.now, place, FrameKeys::new(&material, true), expiry).unwrap();
        let keys = FrameKeys::new(&material, false);
        pair.peer.handle(pair.now, Input::Keyed { port: PORT, peer: node(1), address: at(1), keys }).unwrap();
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

/// Frames that this node sends on wait at a busy port: what arrives is marked at once.
#[test]
fn datagrams_are_marked_while_frames_wait_to_be_sent() {
    let mut pair = Pair::new(true);
    pair.wire.lock().unwrap().room = Some(0);
    let payloads = vec![7; 1000];
    let mut count = 0;
    while !pair.core.is_congested() {
        pair.feed(1);
        pair.round();
        assert_eq!(pair.marks(), [EcnCodepoint::Ect0]);
        pair.core.send(pair.now, node(2), Ecn::Ect0, &payloads, payloads.len());
        pair.core.flush(pair.now);
        count += 1;
        assert!(count < 200, "128 KiB are a queue");
    }
    pair.feed(1);
    pair.round();
    assert_eq!(pair.marks(), [EcnCodepoint::Ce]);
    // A sender waits for room, and is woken when there is.
    let sender = Arc::new(Wakes::default());
    pair.core.wait(&Waker::from(Arc::clone(&sender)));
    pair.round();
    assert_eq!(sender.0.load(Ordering::SeqCst), 0);
    pair.wire.lock().unwrap().room = None;
    pair.wire.lock().unwrap().waker.take().unwrap().wake();
    pair.feed(1);
    pair.round();
    assert_eq!(sender.0.load(Ordering::SeqCst), 1);
    assert_eq!(pair.hand_to_peer().len(), count);
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
