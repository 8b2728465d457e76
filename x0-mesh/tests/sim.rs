//! The simulated network: the contract, determinism, and transports that break the contract on purpose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use x0_identity::NodeId;
use x0_mesh::conformance::{self, Bench};
use x0_mesh::sim::{Input, LinkProfile, Network, Output, SimMesh, SimTransport};
use x0_mesh::{
    FaultInjector, Lane, Next, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
    TransportExt,
};

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

const BAD: LinkProfile = LinkProfile {
    delay_min: Duration::from_micros(50),
    delay_max: Duration::from_millis(20),
    loss: 0.3,
    duplication: 0.2,
    reordering: 0.3,
};

/// Transports of the mesh, each inside what `wrap` makes of it.
struct Wrapped<W> {
    mesh: SimMesh,
    wrap: W,
}

impl<T: Transport, W: FnMut(SimTransport) -> T> Bench for Wrapped<W> {
    type Transport = T;

    fn start(&mut self, node: NodeId) -> T {
        (self.wrap)(self.mesh.transport(node))
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let mut cx = Context::from_waker(Waker::noop());
        while poll(&mut cx).is_pending() {
            assert!(self.mesh.step(), "nothing will happen any more");
        }
    }
}

fn conforms<T: Transport>(seed: u64, profile: LinkProfile, wrap: impl FnMut(SimTransport) -> T) {
    let mesh = SimMesh::new(seed);
    mesh.set_profile(profile);
    let report = conformance::check(&mut Wrapped { mesh, wrap });
    assert_eq!((report.passed.len(), report.skipped.len()), (16, 0));
}

#[test]
fn the_simulation_keeps_the_contract() {
    for seed in 0..10 {
        conforms(seed, LinkProfile::default(), |transport| transport);
        conforms(seed, BAD, |transport| transport);
    }
}

#[test]
fn a_fault_injector_without_faults_keeps_the_contract() {
    conforms(1, BAD, |transport| FaultInjector::new(transport).0);
    conforms(1, LinkProfile::default(), |transport| Box::new(FaultInjector::new(transport).0));
}

/// The change that a faulty transport makes to a received message.
#[derive(Clone, Copy)]
enum Fault {
    Swap,
    Repeat,
    Shorten,
    Lose,
    Append,
    WrongSender,
    SameEpoch,
    TakesAnyLength,
    TakesWithoutBound,
}

struct Faulty {
    inner: SimTransport,
    fault: Fault,
    count: usize,
    stash: VecDeque<(Received, Vec<u8>)>,
    swallowed: Vec<(NodeId, Lane, Vec<u8>)>,
}

impl Faulty {
    fn new(inner: SimTransport, fault: Fault) -> Faulty {
        Faulty { inner, fault, count: 0, stash: VecDeque::new(), swallowed: Vec::new() }
    }
}

impl Transport for Faulty {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        match self.fault {
            Fault::TakesAnyLength => self.inner.message_len_max(lane).min(1 << 16),
            _ => self.inner.message_len_max(lane),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        let sent = self.inner.poll_send(cx, transmit);
        if matches!(self.fault, Fault::TakesWithoutBound) && sent.is_pending() {
            self.swallowed.push((transmit.to, transmit.lane, transmit.payload.to_vec()));
            return Poll::Ready(Ok(()));
        }
        sent
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        if let Some((received, message)) = self.stash.pop_front() {
            *payload = message;
            return Poll::Ready(Ok(received));
        }
        let before = payload.clone();
        let Poll::Ready(received) = self.inner.poll_recv(cx, payload) else { return Poll::Pending };
        let mut received = received?;
        self.count += 1;
        let is_due = self.count.is_multiple_of(7);
        match self.fault {
            Fault::Swap if is_due => {
                let mut next = Vec::new();
                if let Poll::Ready(Ok(second)) = self.inner.poll_recv(cx, &mut next) {
                    self.stash.push_back((received, std::mem::replace(payload, next)));
                    received = second;
                }
            }
            Fault::Repeat if is_due => self.stash.push_back((received, payload.clone())),
            Fault::Shorten if payload.len() > 1000 => payload.truncate(1000),
            Fault::Lose if is_due => return self.poll_recv(cx, payload),
            Fault::Append => {
                let message = std::mem::replace(payload, before);
                payload.extend(message);
            }
            Fault::WrongSender => received.from = node(99),
            _ => {}
        }
        Poll::Ready(Ok(received))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let Poll::Ready(mut event) = self.inner.poll_event(cx) else {
            return Poll::Pending;
        };
        if matches!(self.fault, Fault::SameEpoch)
            && let PeerEventKind::Up { epoch } = &mut event.kind
        {
            *epoch = 1;
        }
        Poll::Ready(event)
    }
}

#[test]
fn broken_transports_are_caught() {
    let faults = [
        (Fault::Swap, "order"),
        (Fault::Repeat, ""),
        (Fault::Shorten, "arrives as it was sent"),
        (Fault::Lose, ""),
        (Fault::Append, ""),
        (Fault::WrongSender, "received"),
        (Fault::SameEpoch, "epochs rise"),
        (Fault::TakesAnyLength, "longest"),
        (Fault::TakesWithoutBound, "without end"),
    ];
    for (fault, says) in faults {
        let caught = std::panic::catch_unwind(|| {
            conforms(5, LinkProfile::default(), |inner| Faulty::new(inner, fault));
        });
        let message = caught.expect_err("a fault went unnoticed");
        let message = message.downcast_ref::<String>().map_or("nothing will happen any more", String::as_str);
        assert!(message.contains(says) || message.contains("nothing will happen"), "{message}");
    }
}

/// A run with every fault; its digest.
fn eventful_run(seed: u64) -> (u64, Vec<Vec<u8>>) {
    let mesh = SimMesh::new(seed);
    mesh.set_profile(BAD);
    let mut transports: Vec<_> = (1..=4).map(|number| mesh.transport(node(number))).collect();
    let mut received = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0_u64..200 {
        match round % 40 {
            10 => mesh.partition(&[&[node(1), node(2)]]),
            20 => mesh.heal(),
            30 => mesh.cut(node(3), node(4)),
            35 => mesh.heal(),
            _ => {}
        }
        for (from, transport) in transports.iter_mut().enumerate() {
            let to = node((round + from as u64) % 4 + 1);
            let lane = [Lane::Datagram, Lane::Ordered(0), Lane::Bulk][usize::try_from(round % 3).unwrap()];
            let payload = [round.to_le_bytes(), (from as u64).to_le_bytes()].concat();
            let _ = transport.poll_send(&mut cx, &Transmit { to, lane, payload: &payload });
        }
        mesh.advance(Duration::from_millis(80));
        for transport in &mut transports {
            let mut payload = Vec::new();
            while transport.poll_event(&mut cx).is_ready() {}
            while transport.poll_recv(&mut cx, &mut payload).is_ready() {
                received.push(payload.clone());
                while transport.poll_event(&mut cx).is_ready() {}
            }
        }
    }
    (mesh.trace_hash(), received)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = eventful_run(11);
    assert_eq!(first, eventful_run(11));
    assert_ne!(first.0, eventful_run(12).0);
    assert!(first.1.len() > 100);
}

#[test]
fn a_cut_in_one_direction_stops_that_direction() {
    let mut network = Network::new(3);
    let (one, two) = (node(1), node(2));
    network.start(Duration::ZERO, one);
    network.start(Duration::ZERO, two);
    network.cut(Duration::ZERO, one, two);
    let send = |from, to, lane, payload: &[u8]| Input::Send { from, to, lane, payload: payload.to_vec() };
    // The network's outputs, after its occurrences until then.
    let run = |network: &mut Network, end| {
        let mut outputs = Vec::new();
        while network.poll_timeout().is_some_and(|due| due <= end) {
            network.handle(end, Input::Timeout).unwrap();
            outputs.extend(std::iter::from_fn(|| network.poll_output()));
        }
        outputs
    };
    assert_eq!(std::iter::from_fn(|| network.poll_output()).count(), 2, "both ends are connected");
    network.handle(Duration::ZERO, send(one, two, Lane::Datagram, b"lost")).unwrap();
    network.handle(Duration::ZERO, send(two, one, Lane::Datagram, b"received")).unwrap();
    let received = run(&mut network, Duration::from_millis(300));
    assert!(
        matches!(&received[..], [Output::Deliver(delivery)] if delivery.payload == b"received"),
        "{received:?}"
    );
    let silent = PeerEvent { peer: one, kind: PeerEventKind::Degraded };
    assert_eq!(run(&mut network, Duration::from_millis(900)), [Output::Event { at: two, event: silent }]);
    // A side that receives nothing gives the connection up, and so does the other.
    let ended = run(&mut network, Duration::from_secs(2));
    assert_eq!(ended.len(), 2);
    assert_eq!(
        network.handle(Duration::from_secs(2), send(two, one, Lane::Bulk, b"")),
        Err(SendError::Unreachable { peer: one })
    );
}

/// The end that hears nothing reports it before the epoch ends, and that it hears its peer again.
#[test]
fn a_silent_peer_is_degraded_and_comes_back() {
    let ms = Duration::from_millis;
    let (one, two) = (node(1), node(2));
    // After which time the cut is healed, and what each end reports.
    for (healed, expected) in [
        (ms(100), [vec![], vec![]]),
        (ms(300), [vec![], vec![PeerEventKind::Degraded, PeerEventKind::Up { epoch: 1 }]]),
    ] {
        let mesh = SimMesh::new(5);
        mesh.set_silence(ms(200));
        let mut transports = [mesh.transport(one), mesh.transport(two)];
        let mut cx = Context::from_waker(Waker::noop());
        let mut events = |at: usize| {
            let mut kinds = Vec::new();
            while let Poll::Ready(event) = transports[at].poll_event(&mut cx) {
                kinds.push(event.kind);
            }
            kinds
        };
        for at in [0, 1] {
            assert_eq!(events(at), [PeerEventKind::Up { epoch: 1 }]);
        }
        mesh.cut(one, two);
        let mut found = [Vec::new(), Vec::new()];
        for step in 0..20 {
            mesh.advance(ms(50));
            if (step + 1) * ms(50) == healed {
                mesh.heal();
            }
            for (at, found) in found.iter_mut().enumerate() {
                found.extend(events(at));
            }
        }
        assert_eq!(found, expected, "healed after {healed:?}");
        // A report that was not taken before it is over is none, nor is one of an epoch that was not taken.
        mesh.cut(one, two);
        mesh.advance(ms(300));
        mesh.heal();
        mesh.advance(ms(100));
        assert_eq!(events(1), []);
        mesh.reset(one, two);
        mesh.cut(one, two);
        mesh.advance(ms(300));
        let kinds = events(1);
        assert!(
            matches!(kinds[..], [PeerEventKind::Down { .. }, PeerEventKind::Up { epoch: 2 }]),
            "{kinds:?}"
        );
        mesh.heal();
        mesh.advance(ms(100));
        assert_eq!(events(1), []);
    }
    // A peer that crashes is silent too, and its own end reports nothing.
    let mut network = Network::new(1);
    network.start(Duration::ZERO, one);
    network.start(Duration::ZERO, two);
    while network.poll_output().is_some() {}
    network.crash(Duration::ZERO, one);
    let mut outputs = Vec::new();
    while let Some(due) = network.poll_timeout() {
        network.handle(due, Input::Timeout).unwrap();
        outputs.extend(std::iter::from_fn(|| network.poll_output()).map(|output| (due, output)));
    }
    let [(silent_at, Output::Event { at, event }), (_, Output::Event { event: end, .. })] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((*silent_at, *at, event.kind.clone()), (ms(375), two, PeerEventKind::Degraded));
    assert!(matches!(end.kind, PeerEventKind::Down { .. }));
}

#[test]
fn a_short_cut_loses_nothing() {
    let mesh = SimMesh::new(4);
    let (mut one, mut two) = (mesh.transport(node(1)), mesh.transport(node(2)));
    mesh.cut(node(1), node(2));
    let transmit = Transmit { to: node(2), lane: Lane::Ordered(0), payload: b"patience" };
    mesh.block_on(one.send(&transmit)).unwrap().unwrap();
    mesh.advance(Duration::from_millis(500));
    mesh.heal();
    let mut received = Vec::new();
    while !matches!(mesh.block_on(two.next(&mut received)).unwrap(), Ok(Next::Message(_))) {}
    assert_eq!(received, b"patience");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the link does, an ordered lane gives what was sent, in order, as long as its epoch lasts.
    #[test]
    fn ordered_lanes_are_ordered(
        seed: u64, loss in 0.0..0.9, delay_ms in 1_u64..50, lens in prop::collection::vec(0_usize..5000, 1..80)
    ) {
        let mesh = SimMesh::new(seed);
        let delay_max = Duration::from_millis(delay_ms);
        mesh.set_profile(LinkProfile { delay_max, loss, duplication: loss, reordering: loss, ..LinkProfile::default() });
        let (mut one, mut two) = (mesh.transport(node(1)), mesh.transport(node(2)));
        for (number, len) in lens.iter().enumerate() {
            let payload = vec![number.to_le_bytes()[0]; *len];
            let transmit = Transmit { to: node(2), lane: Lane::Ordered(3), payload: &payload };
            mesh.block_on(one.send(&transmit)).unwrap().unwrap();
        }
        let mut received = Vec::new();
        for (number, len) in lens.iter().enumerate() {
            while !matches!(mesh.block_on(two.next(&mut received)).unwrap(), Ok(Next::Message(_))) {}
            prop_assert_eq!(&received, &vec![number.to_le_bytes()[0]; *len]);
        }
    }
}
