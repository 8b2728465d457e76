//! Peers with which no progress is possible: each costs at most one datagram in each `retry_max`.

use std::time::Duration;

use x0_crdt::{
    CausalMap, HashKey, ReplicaId, Session, SessionError, SessionInput, SessionOptions, SessionOutput,
};

use super::subject::{KEY, Subject};

const MINUTES: u64 = 60;

/// The tags of datagrams.
const FRONTIER: u8 = 0x11;
const PULL: u8 = 0x12;
const PART: u8 = 0x14;
const BEHIND: u8 = 0x15;
const GONE: u8 = 0x16;
const HERE: u8 = 0x19;

/// Turns a datagram of the peer, given what the session sent last, into others.
type Tamper<'a> = dyn FnMut(&[u8], &[u8]) -> Vec<Vec<u8>> + 'a;

/// A session, and a peer that is one too, whose datagrams are tampered with.
struct Pair {
    now: Duration,
    maps: [CausalMap; 2],
    sessions: [Session; 2],
    errors: [Vec<SessionError>; 2],
    /// Under way: when it arrives, to which node.
    wire: Vec<(Duration, usize, Vec<u8>)>,
    sent: [u64; 2],
}

impl Pair {
    fn new(keys: [HashKey; 2]) -> Self {
        let mut maps = [0, 1].map(|at| CausalMap::new(ReplicaId::new(at as u64 + 1), keys[at]));
        for (at, map) in maps.iter_mut().enumerate() {
            for number in 0..50 {
                map.put(format!("key-{at}-{number}").as_bytes(), 0, b"value").unwrap();
            }
        }
        Self {
            now: Duration::ZERO,
            maps,
            sessions: [1, 2].map(|seed| Session::new(&SessionOptions::default(), seed)),
            errors: [Vec::new(), Vec::new()],
            wire: Vec::new(),
            sent: [0, 0],
        }
    }

    /// Runs for a time. `tamper` turns each datagram of the second side, given what the first one sent last,
    /// into others.
    fn run(&mut self, time: Duration, tamper: &mut Tamper<'_>) {
        let end = self.now + time;
        let mut last = Vec::new();
        while self.now < end {
            for side in 0..2 {
                while let Some(output) = self.sessions[side].poll_output() {
                    let SessionOutput::Send(datagram) = output else { continue };
                    self.sent[side] += 1;
                    let arrives = self.now + Duration::from_millis(5);
                    if side == 0 {
                        last.clone_from(&datagram);
                        self.wire.push((arrives, 1, datagram));
                    } else {
                        self.wire
                            .extend(tamper(&datagram, &last).into_iter().map(|bytes| (arrives, 0, bytes)));
                    }
                }
            }
            let due = self.sessions.iter().filter_map(Session::poll_timeout).min().unwrap_or(end);
            let arrival = self.wire.iter().map(|(at, ..)| *at).min().unwrap_or(end);
            self.now = due.min(arrival).min(end).max(self.now + Duration::from_micros(1));
            let (due, rest) =
                std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= self.now);
            self.wire = rest;
            for (_, to, datagram) in due {
                self.handle(to, SessionInput::Datagram(&datagram));
            }
            for side in 0..2 {
                if self.sessions[side].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.handle(side, SessionInput::Timeout);
                }
            }
        }
    }

    fn handle(&mut self, side: usize, input: SessionInput<'_>) {
        let before = self.maps[side].frontier();
        if let Err(error) = self.sessions[side].handle(self.now, input, &mut self.maps[side]) {
            self.errors[side].push(error);
            assert_eq!(self.maps[side].frontier(), before, "an error changes nothing");
        }
    }
}

fn keep(datagram: &[u8], _: &[u8]) -> Vec<Vec<u8>> {
    vec![datagram.to_vec()]
}

#[test]
fn another_hash_key_is_an_error_within_a_round_trip_and_costs_one_datagram_per_retry_max() {
    let mut pair = Pair::new([KEY, HashKey::new([9; 16])]);
    // The second side starts when the first one's announcement arrives.
    pair.handle(0, SessionInput::Timeout);
    let Some(SessionOutput::Send(first)) = pair.sessions[0].poll_output() else { panic!("it announces") };
    pair.handle(1, SessionInput::Datagram(&first));
    assert_eq!(pair.errors[1], [SessionError::KeyMismatch]);
    let Some(SessionOutput::Send(answer)) = pair.sessions[1].poll_output() else { panic!("it answers") };
    pair.handle(0, SessionInput::Datagram(&answer));
    assert_eq!(pair.errors[0], [SessionError::KeyMismatch], "within one round trip");
    assert!(pair.sessions.iter().all(Session::has_key_mismatch));
    pair.run(Duration::from_secs(10 * MINUTES), &mut keep);
    println!("with another key: {:?} datagrams in 600 s", pair.sent);
    assert!(pair.sent.iter().all(|sent| *sent <= 61), "{:?}", pair.sent);
    for side in 0..2 {
        assert!(pair.errors[side].iter().all(|error| *error == SessionError::KeyMismatch));
        while pair.sessions[side].poll_output().is_some() {}
        // Neither changes of the state nor a transport that comes and goes make it send more.
        for _ in 0..100 {
            pair.handle(side, SessionInput::Changed);
            pair.handle(side, SessionInput::Reachable);
        }
        assert_eq!(pair.sessions[side].poll_output(), None);
    }
    // The other side restarts with the right key, and both converge.
    pair.maps[1] = CausalMap::create(ReplicaId::new(2));
    pair.sessions[1] = Session::new(&SessionOptions::default(), 7);
    pair.run(Duration::from_secs(30), &mut keep);
    assert_eq!(pair.maps[0].frontier(), pair.maps[1].frontier());
    assert!(!pair.sessions[0].has_key_mismatch());
}

/// Datagrams of the first side in ten minutes, after ten minutes; and whether it converged.
fn cost(tamper: &mut Tamper<'_>) -> (u64, bool) {
    let mut pair = Pair::new([KEY, KEY]);
    pair.run(Duration::from_secs(10 * MINUTES), tamper);
    let before = pair.sent[0];
    pair.run(Duration::from_secs(10 * MINUTES), tamper);
    (pair.sent[0] - before, pair.maps[0].frontier() == pair.maps[1].frontier())
}

#[test]
fn peers_without_progress_cost_one_datagram_per_retry_max() {
    let number = |request: &[u8]| {
        let end = 1 + request[1..].iter().position(|byte| byte & 0x80 == 0).unwrap_or(0);
        request[1..=end].to_vec()
    };
    let answer = |tag: u8, request: &[u8], rest: &[u8]| [&[tag][..], &number(request), rest].concat();
    let is = |datagram: &[u8], tag: u8| datagram.first() == Some(&tag);
    let mut count = 0_u64;
    let peers: Vec<(&str, Box<Tamper<'_>>)> = vec![
        ("silent", Box::new(|_, _| Vec::new())),
        (
            "announces and answers no request",
            Box::new(|d, _| if is(d, FRONTIER) { keep(d, d) } else { Vec::new() }),
        ),
        (
            "has dropped all that it served",
            Box::new(|d, last| match is(d, PART) && is(last, PULL) {
                true => vec![answer(GONE, last, &[])],
                false if is(d, PART) => Vec::new(),
                false => keep(d, d),
            }),
        ),
        (
            "has no history, ever",
            Box::new(|d, last| match is(d, PART) && is(last, PULL) {
                true => vec![answer(BEHIND, last, &[40])],
                false if is(d, PART) => Vec::new(),
                false => keep(d, d),
            }),
        ),
        (
            "damages every part",
            Box::new(|d, _| {
                let mut bytes = d.to_vec();
                if is(d, PART) {
                    *bytes.last_mut().unwrap() ^= 1;
                }
                vec![bytes]
            }),
        ),
        (
            "says that it is there, and nothing else",
            Box::new(|d, _| if is(d, FRONTIER) { vec![d.to_vec(), vec![HERE]] } else { vec![vec![HERE]] }),
        ),
        ("sends bytes without meaning", Box::new(|d, _| vec![d.iter().map(|byte| !byte).collect()])),
        (
            "announces another content than it has",
            Box::new(|d, _| {
                let mut bytes = d.to_vec();
                if is(d, FRONTIER) {
                    bytes[12] ^= 1;
                }
                // The short form of an announcement is of no use to it.
                if bytes[0] == 0x1a { Vec::new() } else { vec![bytes] }
            }),
        ),
        (
            "announces another version than it has, each time another one",
            Box::new(|d, _| {
                let mut bytes = d.to_vec();
                count += 1;
                if is(d, FRONTIER) {
                    bytes[1..9].copy_from_slice(&count.to_le_bytes());
                }
                if bytes[0] == 0x1a { Vec::new() } else { vec![bytes] }
            }),
        ),
    ];
    for (name, mut tamper) in peers {
        let (sent, converged) = cost(&mut *tamper);
        println!("{name}: {sent} datagrams in 600 s");
        // One in ten seconds, and the answers to what the honest half of the peer requests.
        assert!(sent <= 61, "{name}: {sent}");
        assert!(!converged || name.contains("another"), "{name}");
    }
}

/// A writer without an answer sends no more than one without changes.
#[test]
fn changes_do_not_wake_a_link_that_is_down() {
    let mut pair = Pair::new([KEY, KEY]);
    pair.run(Duration::from_secs(60), &mut |_, _| Vec::new());
    let before = pair.sent[0];
    for _ in 0..1_000 {
        pair.maps[0].put(b"key", 0, b"value").unwrap();
        pair.handle(0, SessionInput::Changed);
        pair.run(Duration::from_millis(100), &mut |_, _| Vec::new());
    }
    assert!(pair.sent[0] - before <= 11, "{}", pair.sent[0] - before);
    // The transport reports the peer: the pause ends.
    pair.handle(0, SessionInput::Reachable);
    pair.handle(1, SessionInput::Reachable);
    pair.run(Duration::from_secs(1), &mut keep);
    assert_eq!(pair.maps[0].frontier(), pair.maps[1].frontier());
}
