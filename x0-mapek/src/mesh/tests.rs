use super::*;
use crate::{Knowledge as _, Mode, Reading};

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A peer that is connected and has just sent a message.
fn well(peer: u64) -> LinkSample {
    LinkSample::new(id(peer)).epoch(Some(1)).silent(Some(SAMPLE))
}

/// What a healer did: the step, the verb and the peer.
type Deed = (u32, &'static str, u64);

/// The healer of node 1 among `count` members, played with the samples of its peers.
struct Played {
    healer: Healer,
    deeds: Vec<Deed>,
    records: Vec<Record>,
    step: u32,
}

impl Played {
    fn new(mode: Mode) -> Played {
        let healer = Healer::new(&HealerOptions::new().mode(mode));
        Played { healer, deeds: Vec::new(), records: Vec::new(), step: 0 }
    }

    fn run(&mut self, steps: u32, links: impl Fn(u32, &[Deed]) -> Vec<LinkSample>) {
        for _ in 0..steps {
            let now = SAMPLE * self.step;
            let observation = Observation::new(links(self.step, &self.deeds));
            self.healer.handle(now, Input::Sample(&observation)).unwrap();
            self.drain();
            self.step += 1;
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.healer.poll_output() {
            let (verb, peer) = match output {
                Output::Reconnect { id, peer } => {
                    let outcome = Input::Outcome { id, result: Ok(()) };
                    self.healer.handle(SAMPLE * self.step, outcome).unwrap();
                    ("reconnect", peer)
                }
                Output::Block { peer } => ("block", peer),
                Output::Unblock { peer } => ("unblock", peer),
                Output::Notify { to, .. } => ("notify", to),
                Output::Record(record) => {
                    record.recompute().unwrap();
                    self.records.push(*record);
                    continue;
                }
            };
            self.deeds.push((self.step, verb, peer.get()));
        }
    }

    fn receive(&mut self, from: u64, message: &[u8]) {
        let input = Input::Received { from: id(from), message };
        self.healer.handle(SAMPLE * self.step, input).unwrap();
        self.drain();
    }

    fn names(&self) -> Vec<&'static str> {
        self.records.iter().map(|record| record.event.name()).collect()
    }
}

/// Peer 2 is connected and silent from step 200 on, until it has a new connection.
fn stuck(step: u32, deeds: &[Deed]) -> Vec<LinkSample> {
    let begun = deeds.iter().find(|(_, verb, _)| *verb == "reconnect").map(|(at, ..)| *at);
    let bad = match begun {
        None => well(2).silent(Some(SAMPLE * (1 + step.saturating_sub(200)))),
        // The handshake takes a moment.
        Some(at) if step < at + 3 => well(2).epoch(None).silent(Some(SAMPLE * (step - 199))),
        Some(_) => well(2).epoch(Some(2)),
    };
    vec![bad, well(3)]
}

#[test]
fn a_connection_that_carries_nothing_is_made_again_once() {
    let mut played = Played::new(Mode::Active);
    played.run(600, stuck);
    let [(at, "reconnect", 2)] = played.deeds[..] else { panic!("{:?}", played.deeds) };
    // Four seconds of silence, and one of stability.
    assert!((245..260).contains(&at), "{at}");
    assert_eq!(played.names(), ["refused", "executing", "executed", "improved"]);
    assert_eq!(played.records[1].cause, "stuck-connection");
    assert_eq!(played.records[1].subject, "node 0000000000000002");
}

/// The links of a node at a step, after what the healer did.
type Links = fn(u32, &[Deed]) -> Vec<LinkSample>;

#[test]
fn a_peer_that_is_down_owes_nothing_or_is_silent_with_all_others_is_left_alone() {
    let silent = |peer| well(peer).silent(Some(SECOND * 60));
    let cases: [(&str, Links); 4] = [
        ("down", |_, _| vec![well(2).epoch(None).silent(Some(SECOND * 60)), well(3)]),
        ("owes nothing", |_, _| vec![well(2).silent(None), well(3)]),
        ("well", |_, _| vec![well(2), well(3)]),
        ("a message within four seconds", |_, _| vec![well(2).silent(Some(SAMPLE * 39)), well(3)]),
    ];
    for (case, links) in cases {
        let mut played = Played::new(Mode::Active);
        played.run(600, links);
        assert_eq!((&played.deeds[..], played.names()), (&[][..], vec![]), "{case}");
    }
    // All peers at once: the cause is this node, or the network.
    let mut played = Played::new(Mode::Active);
    played.run(600, |_, _| vec![silent(2), silent(3), silent(4)]);
    assert!(played.deeds.is_empty() && played.names().iter().all(|name| *name == "refused"));
    let mut played = Played::new(Mode::DryRun);
    played.run(600, stuck);
    assert!(played.deeds.is_empty() && played.names().contains(&"would-execute"));
}

/// Peer 2 has another connection each second from step 200 on.
fn flapping(step: u32, _: &[Deed]) -> Vec<LinkSample> {
    let epoch = u64::from(step.max(200) / 10);
    vec![well(2).epoch(Some(epoch)), well(3), well(4), well(5)]
}

#[test]
fn a_peer_whose_connections_do_not_last_is_kept_away_for_a_while() {
    let mut played = Played::new(Mode::Active);
    played.run(1000, flapping);
    let [(at, "notify", 2), (block, "block", 2), (end, "unblock", 2)] = played.deeds[..3] else {
        panic!("{:?}", played.deeds)
    };
    // Six new connections, and a second of stability.
    assert!(at == block && (265..285).contains(&at), "{at}");
    assert_eq!(end, at + 600);
    let names = played.names();
    assert_eq!(names[..4], ["refused", "executing", "executed", "improved"], "{names:?}");
    assert_eq!(played.records[1].cause, "flapping");
}

#[test]
fn nobody_is_kept_away_if_no_majority_would_be_left() {
    // Two of five members are down.
    let links = |step, deeds: &[Deed]| {
        let mut links = flapping(step, deeds);
        links[2] = well(4).epoch(None);
        links[3] = well(5).epoch(None);
        links
    };
    let mut played = Played::new(Mode::Active);
    played.run(600, links);
    assert!(played.deeds.is_empty(), "{:?}", played.deeds);
    let reasons: Vec<_> = played.records.iter().map(Record::explain).collect();
    assert!(reasons.iter().any(|reason| reason.contains("no majority")), "{reasons:?}");
}

#[test]
fn both_ends_of_a_quarantine_keep_away_and_a_pause_does_not_prolong_it() {
    let notice = Notice { lasts: SECOND * 5 }.to_bytes();
    let all = |_: u32, _: &[Deed]| vec![well(2), well(3), well(4), well(5)];
    let mut played = Played::new(Mode::Active);
    played.run(10, all);
    played.receive(9, &notice);
    assert!(played.deeds.is_empty(), "of no peer");
    played.receive(2, &notice);
    played.receive(2, &notice);
    let pause = Input::Command(Command::Pause { until: None });
    played.healer.handle(SAMPLE * 10, pause).unwrap();
    played.run(100, all);
    assert_eq!(played.deeds, [(10, "block", 2), (60, "unblock", 2)]);
    // Not for ever, and of two of four peers at most.
    played.deeds.clear();
    let long = Notice { lasts: Duration::MAX }.to_bytes();
    [2, 3, 4, 5].into_iter().for_each(|peer| played.receive(peer, &long));
    played.run(700, all);
    assert_eq!(
        played.deeds,
        [(110, "block", 2), (110, "block", 3), (710, "unblock", 2), (710, "unblock", 3)]
    );
    // A healer that does not act takes no notice of others.
    let mut played = Played::new(Mode::DryRun);
    played.run(10, all);
    played.receive(2, &notice);
    assert!(played.deeds.is_empty());
}

#[test]
fn an_operator_takes_a_quarantine_back() {
    let mut played = Played::new(Mode::Active);
    played.run(300, flapping);
    let action = played.records.iter().find(|record| record.event.name() == "executing").unwrap().action;
    let undo = Input::Command(Command::Undo { id: action });
    played.healer.handle(SAMPLE * 300, undo).unwrap();
    played.drain();
    assert_eq!(played.deeds.last(), Some(&(300, "unblock", 2)));
}

#[test]
fn a_notice_has_one_form() {
    let notice = Notice { lasts: Duration::from_millis(1500) };
    let bytes = notice.to_bytes();
    assert_eq!(Notice::from_bytes(&bytes), Ok(notice));
    for end in 0..bytes.len() {
        assert!(Notice::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(Notice::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

/// Mutated notices of a peer in a running loop block nobody but this peer, and nothing for long.
#[test]
fn hostile_notices_cut_off_their_sender_alone() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let good = Notice { lasts: SECOND }.to_bytes();
    let mut healer = Healer::new(&HealerOptions::new().mode(Mode::Active));
    let observation = Observation::new([2, 3, 4, 5].map(well));
    let mut blocked: Option<Duration> = None;
    for step in 0..u32::try_from(crate::mutations()).unwrap() {
        let now = SAMPLE * step;
        healer.handle(now, Input::Sample(&observation)).unwrap();
        let mut message = good.clone();
        for _ in 0..next() % 3 {
            let place = usize::try_from(next()).unwrap() % message.len();
            message[place] = next().to_le_bytes()[0];
        }
        message.truncate(usize::try_from(next() % 16).unwrap().max(1) * message.len() / 15);
        healer.handle(now, Input::Received { from: id(3), message: &message }).unwrap();
        while let Some(output) = healer.poll_output() {
            match output {
                Output::Block { peer } if peer == id(3) && blocked.is_none() => blocked = Some(now),
                Output::Unblock { peer } if peer == id(3) => {
                    let since = blocked.take().unwrap();
                    assert!(now - since <= SECOND * 60);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_view_is_bounded() {
    let mut view = HealerOptions::new().flaps_max(0).silent_max(Duration::ZERO).view();
    let many = Observation::new((1..5000).map(well));
    let readings = view.set(SECOND, &many);
    assert_eq!((view.peers().count(), readings.len()), (PEERS_MAX, 2 * PEERS_MAX));
    for step in 0..1000 {
        view.set(SECOND, &Observation::new([well(1).epoch(Some(step))]));
    }
    let connections = view.set(SECOND, &Observation::new([well(1)]))[0].value;
    assert!(connections <= 100.0, "{connections}");
    let mut refuse = |subject, signal, value| {
        assert!(view.observe(SECOND, &Reading { subject: Peer(id(subject)), signal, value }).is_err());
    };
    refuse(2, SILENCE, 1.0);
    refuse(1, "other", 1.0);
    for value in [f64::NAN, f64::INFINITY, -1.0, 1e99] {
        refuse(1, SILENCE, value);
        refuse(1, CONNECTIONS, value);
    }
}

#[cfg(feature = "conformance")]
#[test]
fn the_policy_keeps_the_contract() {
    use crate::conformance::{Situation, check};
    let knowledge = || {
        let mut view = HealerOptions::new().view();
        view.set(Duration::ZERO, &Observation::new([well(2), well(3)]));
        view
    };
    let situation = |signal, value, is_healed| Situation {
        readings: vec![(SECOND, Reading { subject: Peer(id(2)), signal, value })],
        stale_after: SECOND * 2,
        is_healed,
    };
    let situations = [
        situation(SILENCE, 1.0, false),
        situation(SILENCE, 5.0, true),
        situation(CONNECTIONS, 3.0, false),
        situation(CONNECTIONS, 9.0, true),
    ];
    check(knowledge, || Heal, &situations).unwrap();
}
