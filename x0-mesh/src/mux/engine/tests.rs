//! Two engines and what lies between them, driven at random: whatever happens, the contract of `Transport`
//! about epochs holds, and once nothing happens any more both sides agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const BUDGET: u32 = 4096;
const LEN_MAX: usize = 3000;

fn node(side: usize) -> NodeId {
    NodeId::new(side as u64 + 1).unwrap()
}

fn offer(name: usize, versions: (u16, u16)) -> Offer {
    Offer {
        channel: ChannelId::new(CHANNELS[name]).unwrap(),
        version_min: versions.0,
        version_max: versions.1,
        lane_budget: BUDGET,
        ordered_lanes: 2,
        ordered_len_max: u32::try_from(LEN_MAX).unwrap(),
        bulk_len_max: u32::try_from(LEN_MAX).unwrap(),
        datagram_len_max: 500,
    }
}

/// One end of a channel, as its owner sees it.
#[derive(Debug, Default)]
struct Owner {
    slot: usize,
    epoch: Option<u64>,
    last_epoch: u64,
    /// The session of the epoch, as the messages say, and per lane what came.
    session: Option<u32>,
    next: BTreeMap<u8, u64>,
    bulk: BTreeSet<u64>,
    /// By session and lane, how many were sent.
    sent: BTreeMap<(u32, u8), u64>,
}

type Wires = Vec<VecDeque<(Lane, Vec<u8>)>>;

struct World {
    random: SplitMix64,
    engines: [Engine; 2],
    owners: [BTreeMap<usize, Owner>; 2],
    /// The messages of each side that the transport carries, by lane; the last is bulk, and in no order.
    wires: [Wires; 2],
    /// The events that the transport reports and the engine has not taken. Before it has, it receives
    /// nothing.
    events: [VecDeque<PeerEventKind>; 2],
    epoch: u64,
    is_connected: bool,
    received: usize,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: SplitMix64::new(seed),
            engines: [0, 1].map(|side| Engine::new(node(side), seed)),
            owners: Default::default(),
            wires: [0, 1].map(|_| vec![VecDeque::new(); 4]),
            events: Default::default(),
            epoch: 0,
            is_connected: false,
            received: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next() % bound as u64).unwrap()
    }

    fn connect(&mut self) {
        if !self.is_connected {
            self.is_connected = true;
            self.epoch += 1;
            for events in &mut self.events {
                events.push_back(PeerEventKind::Up { epoch: self.epoch });
            }
        }
    }

    /// Messages on the way are lost. A message that an engine sends before it knows travels in the next
    /// epoch, as the contract of `Transport` permits.
    fn disconnect(&mut self) {
        if self.is_connected {
            self.is_connected = false;
            for side in 0..2 {
                self.wires[side].iter_mut().for_each(VecDeque::clear);
                self.events[side]
                    .push_back(PeerEventKind::Down { epoch: self.epoch, reason: DownReason::Closed });
            }
        }
    }

    /// The connection of one side began again, and the other has not noticed, as with a fault injector.
    fn restart(&mut self, side: usize) {
        if self.is_connected && self.events[side].is_empty() {
            self.epoch += 1;
            self.events[side]
                .push_back(PeerEventKind::Down { epoch: self.epoch - 1, reason: DownReason::Blocked });
            self.events[side].push_back(PeerEventKind::Up { epoch: self.epoch });
        }
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.engines[side].poll_output() {
            if let Output::Control { body, .. } = output
                && self.is_connected
            {
                let message = [body.as_slice(), &Trailer::CONTROL.encode()].concat();
                self.wires[side][0].push_back((Lane::Ordered(0), message));
            }
        }
    }

    fn report(&mut self, side: usize) {
        if let Some(kind) = self.events[side].pop_front() {
            let event = PeerEvent { peer: node(1 - side), kind };
            self.engines[side].handle(Duration::ZERO, Input::Event(event)).unwrap();
            self.drain(side);
        }
    }

    fn carry(&mut self, side: usize, lane: usize) {
        let to = 1 - side;
        if !self.events[to].is_empty() {
            self.report(to);
            return;
        }
        let at = if lane == 3 { self.random.next() } else { 0 };
        let wire = &mut self.wires[side][lane];
        let at = if wire.is_empty() { 0 } else { usize::try_from(at % wire.len() as u64).unwrap() };
        let Some((lane, message)) = wire.remove(at) else { return };
        let input = Input::Message { from: node(side), lane, message };
        self.engines[to].handle(Duration::ZERO, input).unwrap();
        self.drain(to);
    }

    fn register(&mut self, side: usize, name: usize) {
        let low = u16::try_from(1 + self.below(3)).unwrap();
        let high = low + u16::try_from(self.below(3)).unwrap();
        // One channel never fits, so that refusals by version are among what happens.
        let versions = if name == 2 { (low, high) } else { (1, high) };
        if let Ok(slot) = self.engines[side].register(offer(name, versions)) {
            self.owners[side].insert(name, Owner { slot, ..Owner::default() });
        }
        self.drain(side);
    }

    fn unregister(&mut self, side: usize, name: usize) {
        if let Some(owner) = self.owners[side].remove(&name) {
            self.engines[side].unregister(owner.slot);
            self.drain(side);
        }
    }

    /// Whether the message was sent.
    fn send(&mut self, side: usize, name: usize) -> bool {
        let number = self.below(4);
        let lane = [Lane::Ordered(0), Lane::Ordered(1), Lane::Bulk, Lane::Datagram][number];
        let len = 8 + if lane == Lane::Datagram { 0 } else { self.below(LEN_MAX - 8) };
        let Some(owner) = self.owners[side].get_mut(&name) else { return false };
        let Ok(trailer) = self.engines[side].reserve(owner.slot, node(1 - side), lane, len) else {
            return false;
        };
        self.engines[side].sent(owner.slot, node(1 - side), lane, len);
        let sent = owner.sent.entry((trailer.session, trailer.encode()[4])).or_default();
        let mut message = sent.to_le_bytes().to_vec();
        *sent += 1;
        message.resize(len, 0);
        message.extend_from_slice(&trailer.encode());
        if self.is_connected {
            let outer = if let Lane::Ordered(_) = lane { Lane::Ordered(1) } else { lane };
            self.wires[side][number.clamp(1, 3)].push_back((outer, message));
        }
        true
    }

    /// The owner takes one event or message.
    fn take(&mut self, side: usize, name: usize) -> bool {
        let Some(owner) = self.owners[side].get_mut(&name) else { return false };
        let engine = &mut self.engines[side];
        if let Some(event) = engine.next_event(owner.slot) {
            match event.kind {
                PeerEventKind::Up { epoch } => {
                    assert!(owner.epoch.is_none(), "an epoch begins before the one before has ended");
                    assert!(epoch > owner.last_epoch);
                    owner.epoch = Some(epoch);
                    assert!(engine.version(owner.slot, node(1 - side)).is_some());
                    (owner.session, owner.next, owner.bulk) = (None, BTreeMap::new(), BTreeSet::new());
                }
                PeerEventKind::Down { epoch, .. } => {
                    assert!(epoch > owner.last_epoch, "epochs rise");
                    assert!(
                        owner.epoch.is_none_or(|up| up == epoch),
                        "another epoch ends than the one that is up"
                    );
                    owner.epoch = None;
                    owner.last_epoch = epoch;
                    assert_eq!(engine.version(owner.slot, node(1 - side)), None);
                }
                PeerEventKind::Degraded => {}
            }
        } else if let Some(taken) = engine.next_message(owner.slot) {
            assert!(owner.epoch.is_some(), "a message outside of an epoch");
            self.received += 1;
            let number = u64::from_le_bytes(taken.payload[..8].try_into().unwrap());
            match taken.received.lane {
                Lane::Ordered(lane) => {
                    let next = owner.next.entry(lane).or_default();
                    assert_eq!(number, *next, "a gap, a repetition, or the wrong order");
                    *next += 1;
                }
                Lane::Bulk => assert!(owner.bulk.insert(number), "a bulk message came twice"),
                Lane::Datagram => {}
            }
        } else {
            return false;
        }
        self.drain(side);
        true
    }

    fn step(&mut self) {
        let (side, name) = (self.below(2), self.below(CHANNELS.len()));
        match self.below(100) {
            0 => self.connect(),
            1 if self.below(4) == 0 => self.disconnect(),
            2 if self.below(4) == 0 => self.restart(side),
            3 | 4 => self.register(side, name),
            5 if self.below(2) == 0 => self.unregister(side, name),
            6..=9 => self.report(side),
            10..=39 => {
                let lane = self.below(4);
                self.carry(side, lane);
            }
            40..=69 => {
                self.send(side, name);
            }
            _ => {
                self.take(side, name);
            }
        }
    }

    /// Everything on the way arrives, and the owners take everything.
    fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for side in 0..2 {
                while !self.events[side].is_empty() {
                    is_quiet = false;
                    self.report(side);
                }
                for lane in 0..4 {
                    while !self.wires[side][lane].is_empty() {
                        is_quiet = false;
                        self.carry(side, lane);
                    }
                }
                for name in 0..CHANNELS.len() {
                    while self.take(side, name) {
                        is_quiet = false;
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Both sides see the same of each channel.
    fn check(&mut self) {
        for (name, channel) in CHANNELS.into_iter().enumerate() {
            let found = [0, 1].map(|side| {
                let owner = self.owners[side].get(&name)?;
                let registered = self.engines[side].channels[owner.slot].as_ref()?;
                Some((registered.links[&node(1 - side)].state, registered.offer))
            });
            let channel = ChannelId::new(channel).unwrap();
            match found {
                [Some((one, ours)), Some((other, theirs))] => match ours.agree(&theirs) {
                    Some(version) => {
                        assert!(
                            matches!(one, LinkState::Open { version: found, .. } if found == version),
                            "{one:?}"
                        );
                        assert_eq!(one, other);
                    }
                    None => {
                        for (side, state) in [one, other].into_iter().enumerate() {
                            let peer = node(1 - side);
                            assert_eq!(
                                state,
                                LinkState::Refused(SendError::ChannelVersion { peer, channel })
                            );
                        }
                    }
                },
                [Some((state, _)), None] | [None, Some((state, _))] => {
                    assert!(matches!(state, LinkState::Refused(SendError::NoChannel { .. })), "{state:?}");
                }
                [None, None] => {}
            }
        }
        for side in 0..2 {
            assert_eq!(self.engines[side].stats.violations, 0);
        }
    }
}

#[test]
fn whatever_happens_epochs_are_kept_and_both_sides_agree() {
    let mut received = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.connect();
        for _ in 0..4 {
            for _ in 0..1500 {
                world.step();
            }
            world.connect();
            world.settle();
            world.check();
            // No lane is stuck: on a channel that is up each lane takes more than its budget, as long as it
            // is received.
            let is_open = (0..2).all(|side| world.owners[side].contains_key(&0));
            if is_open {
                let taken = (0..64).filter(|_| {
                    let is_sent = world.send(0, 0);
                    world.settle();
                    is_sent
                });
                assert_eq!(taken.count(), 64, "seed {seed}");
            }
        }
        received += world.received;
    }
    assert!(received > 100_000, "{received}");
}

/// An engine that has agreed on channel `a` with its peer, and the session.
fn open(local: usize) -> (Engine, usize, u32) {
    let mut engine = Engine::new(node(local), 1);
    let peer = node(1 - local);
    let slot = engine.register(offer(0, (1, 1))).unwrap();
    let up = PeerEvent { peer, kind: PeerEventKind::Up { epoch: 1 } };
    engine.handle(Duration::ZERO, Input::Event(up)).unwrap();
    let hello = Frame::Hello { version_min: 1, version_max: 9, instance: 1 };
    control(&mut engine, peer, &[hello, Frame::Offer(offer(0, (1, 1))), Frame::OffersEnd]).unwrap();
    let session = if local == 0 {
        let opened = outputs(&mut engine).into_iter().find_map(|frame| match frame {
            Frame::Open { session, .. } => Some(session),
            _ => None,
        });
        control(&mut engine, peer, &[Frame::Accept { session: opened.unwrap() }]).unwrap();
        opened.unwrap()
    } else {
        control(&mut engine, peer, &[Frame::Open { session: 77, channel: offer(0, (1, 1)).channel }])
            .unwrap();
        assert!(outputs(&mut engine).contains(&Frame::Accept { session: 77 }));
        77
    };
    assert!(matches!(engine.next_event(slot).unwrap().kind, PeerEventKind::Up { .. }));
    (engine, slot, session)
}

fn control(engine: &mut Engine, from: NodeId, frames: &[Frame]) -> Result<(), HandleError> {
    let mut message = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut message));
    message.extend_from_slice(&Trailer::CONTROL.encode());
    engine.handle(Duration::ZERO, Input::Message { from, lane: Lane::Ordered(0), message })
}

fn outputs(engine: &mut Engine) -> Vec<Frame> {
    let mut found = Vec::new();
    while let Some(output) = engine.poll_output() {
        if let Output::Control { body, .. } = output {
            let mut frames = Frames::new(&body);
            while let Some(frame) = frames.next().unwrap() {
                found.push(frame);
            }
        }
    }
    found
}

#[test]
fn a_peer_that_breaks_the_protocol_is_ignored_until_it_connects_again() {
    let channel = offer(0, (1, 1)).channel;
    let many: Vec<Frame> = (0..=CHANNELS_MAX)
        .map(|number| {
            Frame::Offer(Offer {
                channel: ChannelId::new(&format!("n{number}")).unwrap(),
                ..offer(0, (1, 1))
            })
        })
        .collect();
    for local in [0, 1] {
        let (_, _, session) = open(local);
        let cases: [(&[Frame], Violation); 5] = [
            (
                &[Frame::Hello { version_min: 2, version_max: 9, instance: 5 }],
                Violation::MuxVersion { version_min: 2, version_max: 9 },
            ),
            (&[Frame::Open { session, channel }], Violation::Open),
            (&[Frame::Credit { session, lane: Lane::Ordered(0), consumed: 1 }], Violation::Credit),
            (&[Frame::Credit { session, lane: Lane::Ordered(9), consumed: 0 }], Violation::Credit),
            (&many, Violation::ControlFlood),
        ];
        for (frames, violation) in cases {
            let (mut engine, slot, _) = open(local);
            let peer = node(1 - local);
            assert_eq!(control(&mut engine, peer, frames), Err(HandleError::Violation { peer, violation }));
            let reason = DownReason::Malformed { violation };
            assert!(
                matches!(engine.next_event(slot).unwrap().kind, PeerEventKind::Down { reason: found, .. } if found == reason)
            );
            let refused = Err(NotNow::Refused(SendError::Unreachable { peer }));
            assert_eq!(engine.reserve(slot, peer, Lane::Bulk, 1), refused);
            assert_eq!(engine.stats.violations, 1);
            // Everything else from it is ignored, violations included.
            assert_eq!(control(&mut engine, peer, frames), Ok(()));
            assert!(outputs(&mut engine).is_empty());
            for kind in
                [PeerEventKind::Down { epoch: 1, reason: DownReason::Closed }, PeerEventKind::Up { epoch: 2 }]
            {
                engine.handle(Duration::ZERO, Input::Event(PeerEvent { peer, kind })).unwrap();
            }
            assert!(matches!(outputs(&mut engine)[0], Frame::Hello { .. }));
        }
    }
}

#[test]
fn frames_before_hello_are_skipped_and_messages_without_trailer_are_violations() {
    let peer = node(1);
    let up = || Input::Event(PeerEvent { peer, kind: PeerEventKind::Up { epoch: 1 } });
    let mut engine = Engine::new(node(0), 1);
    engine.handle(Duration::ZERO, up()).unwrap();
    assert_eq!(control(&mut engine, peer, &[]), Ok(()), "an empty control message is a probe");
    assert_eq!(control(&mut engine, peer, &[Frame::OffersEnd, Frame::Accept { session: 1 }]), Ok(()));
    assert_eq!(engine.stats.violations, 0);
    for (lane, message) in [(Lane::Ordered(0), vec![1, 2]), (Lane::Bulk, vec![0, 0, 0, 0, 255])] {
        let mut engine = Engine::new(node(0), 1);
        engine.handle(Duration::ZERO, up()).unwrap();
        let refused = engine.handle(Duration::ZERO, Input::Message { from: peer, lane, message });
        assert_eq!(refused, Err(HandleError::Violation { peer, violation: Violation::Trailer }));
    }
}

#[test]
fn a_sender_over_the_budget_loses_the_channel_and_no_other() {
    let (mut engine, slot, session) = open(1);
    let peer = node(0);
    let message = |len: usize| {
        let trailer = Trailer { session, lane: Lane::Ordered(0) };
        let message = [vec![0; len].as_slice(), &trailer.encode()].concat();
        Input::Message { from: peer, lane: Lane::Ordered(0), message }
    };
    // The budget, and the one message by which it may be exceeded.
    for _ in 0..2 {
        engine.handle(Duration::ZERO, message(LEN_MAX)).unwrap();
    }
    engine.handle(Duration::ZERO, message(800)).unwrap();
    assert!(outputs(&mut engine).is_empty());
    engine.handle(Duration::ZERO, message(LEN_MAX)).unwrap();
    assert_eq!(outputs(&mut engine), [Frame::Close { session, code: CloseCode::Budget }]);
    // Earlier messages can be received, then the end.
    for len in [LEN_MAX, LEN_MAX, 800] {
        assert_eq!(engine.next_message(slot).unwrap().payload.len(), len);
    }
    let reason = DownReason::Malformed { violation: Violation::ChannelBudget };
    assert!(
        matches!(engine.next_event(slot).unwrap().kind, PeerEventKind::Down { reason: found, .. } if found == reason)
    );
    engine.handle(Duration::ZERO, message(1)).unwrap();
    assert_eq!(engine.stats.stale_messages, 1);
    // The side that sent too much learns why.
    let (mut sender, slot, session) = open(0);
    control(&mut sender, node(1), &[Frame::Close { session, code: CloseCode::Budget }]).unwrap();
    assert!(matches!(
        sender.next_event(slot).unwrap().kind,
        PeerEventKind::Down { reason: DownReason::Refused { .. }, .. }
    ));
}

#[test]
fn a_message_that_is_longer_than_was_offered_is_a_violation() {
    let (mut engine, _, session) = open(1);
    let trailer = Trailer { session, lane: Lane::Ordered(0) };
    let message = [vec![0; LEN_MAX + 1].as_slice(), &trailer.encode()].concat();
    let refused =
        engine.handle(Duration::ZERO, Input::Message { from: node(0), lane: Lane::Ordered(0), message });
    assert!(matches!(
        refused,
        Err(HandleError::Violation { violation: Violation::MessageLength { .. }, .. })
    ));
}

#[test]
fn an_owner_that_polls_no_events_gets_a_bounded_number_of_epochs() {
    let (mut engine, slot, _) = open(1);
    let peer = node(0);
    let channel = offer(0, (1, 1)).channel;
    for session in 100..300 {
        control(&mut engine, peer, &[Frame::Open { session, channel }]).unwrap();
    }
    let mut events = 0;
    while engine.next_event(slot).is_some() {
        events += 1;
    }
    assert!(events < 64, "{events}");
    // The one that was put off is accepted once there is room.
    assert!(outputs(&mut engine).contains(&Frame::Accept { session: 299 }));
    assert!(engine.reserve(slot, peer, Lane::Bulk, 1).is_ok());
}

#[test]
fn a_peer_that_is_degraded_is_reported_once() {
    let (mut engine, slot, _) = open(1);
    let peer = node(0);
    let mut event = |kind| engine.handle(Duration::ZERO, Input::Event(PeerEvent { peer, kind })).unwrap();
    // Not polled in between: it is no news that it came and went.
    for _ in 0..1000 {
        event(PeerEventKind::Degraded);
        event(PeerEventKind::Up { epoch: 1 });
    }
    event(PeerEventKind::Degraded);
    event(PeerEventKind::Degraded);
    assert_eq!(engine.next_event(slot).map(|event| event.kind), Some(PeerEventKind::Degraded));
    assert_eq!(engine.next_event(slot), None);
    let up = PeerEvent { peer, kind: PeerEventKind::Up { epoch: 1 } };
    engine.handle(Duration::ZERO, Input::Event(up)).unwrap();
    assert!(matches!(engine.next_event(slot).unwrap().kind, PeerEventKind::Up { .. }));
}

#[test]
fn channels_are_bounded() {
    let mut engine = Engine::new(node(0), 1);
    let named =
        |number: usize| Offer { channel: ChannelId::new(&format!("n{number}")).unwrap(), ..offer(0, (1, 1)) };
    for number in 0..CHANNELS_MAX {
        engine.register(named(number)).unwrap();
    }
    assert!(matches!(engine.register(named(CHANNELS_MAX)), Err(RegisterError::Full { .. })));
}

/// The body of `fuzz/fuzz_targets/mux.rs`, with bytes from a seed.
#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut random = SplitMix64::new(3);
    for number in 0..20_000 {
        let len = random.next() % 200;
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| {
                let [byte, choice, ..] = random.next().to_le_bytes();
                // Small numbers are kinds, lengths and lanes more often than not.
                if choice < 180 { byte % 10 } else { byte }
            })
            .collect();
        if number % 3 == 0 {
            // Frames that are almost right.
            let session = (random.next() >> 32) as u32;
            let channel = ChannelId::new("c").unwrap();
            bytes.truncate(1);
            bytes.extend([1, 90]);
            for frame in [
                Frame::Offer(offer(0, (1, 2))),
                Frame::Open { session: session | 1, channel },
                Frame::OffersEnd,
            ] {
                frame.encode(&mut bytes);
            }
            let at = usize::try_from(random.next() % bytes.len() as u64).unwrap();
            bytes[at] ^= random.next().to_le_bytes()[0] & 3;
        }
        super::super::fuzz::run(&bytes);
    }
}
