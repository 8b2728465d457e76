//! Two ends of a link in virtual time: cuts in one or both directions, loss, jitter, traffic, and a process
//! that is not scheduled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use x0_mesh::liveness::{
    Liveness, LivenessInput, LivenessOptions, LivenessOutput, LivenessReason, LivenessState,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A frame on the way: traffic, or a probe.
type Frame = Option<Vec<u8>>;

struct Link {
    now: Duration,
    ends: [Liveness; 2],
    /// By arrival: the receiver and the frame.
    flying: BTreeMap<(Duration, u64), (usize, Frame)>,
    /// From each end.
    loss: [f64; 2],
    delay: Duration,
    jitter: Duration,
    /// Frames wait below the ends until then, as those that wait for the resolution of an address.
    held: Option<Duration>,
    /// The lifetime of a mapping of the NAT of end 0, and when a frame last passed.
    mapping: Option<Duration>,
    passed: Duration,
    /// Whether frames from outside refresh the mapping too (RFC 4787 §4.3 leaves it open).
    is_refreshed_from_outside: bool,
    unmapped: u64,
    /// Traffic of each end, one frame in this time.
    traffic: [Option<Duration>; 2],
    next_traffic: [Duration; 2],
    /// Until then an end does not run.
    stopped: [Duration; 2],
    random: u64,
    frames: u64,
    probes: [u64; 2],
    changes: Vec<(Duration, usize, LivenessState, LivenessReason)>,
}

impl Link {
    fn new(seed: u64) -> Link {
        let end = |instance| Liveness::new(LivenessOptions::new(instance));
        Link {
            now: SECOND,
            ends: [end(1), end(2)],
            flying: BTreeMap::new(),
            loss: [0.0; 2],
            delay: MS / 5,
            jitter: MS / 10,
            held: None,
            mapping: None,
            passed: SECOND,
            is_refreshed_from_outside: true,
            unmapped: 0,
            traffic: [None; 2],
            next_traffic: [SECOND; 2],
            stopped: [Duration::ZERO; 2],
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            frames: 0,
            probes: [0; 2],
            changes: Vec::new(),
        }
    }

    /// A link that is up.
    fn up(seed: u64) -> Link {
        let mut link = Link::new(seed);
        link.run(3 * SECOND);
        assert_eq!(link.states(), [LivenessState::Up; 2]);
        link.changes.clear();
        link
    }

    fn states(&self) -> [LivenessState; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn send(&mut self, from: usize, frame: Frame) {
        if self.draw() < self.loss[from] {
            return;
        }
        if self.mapping.is_some_and(|lifetime| from == 1 && self.now > self.passed + lifetime) {
            self.unmapped += 1;
            return;
        }
        if from == 0 || self.is_refreshed_from_outside {
            self.passed = self.now;
        }
        self.frames += 1;
        let from_below = self.held.map_or(self.now, |held| held.max(self.now));
        let at = from_below + self.delay + self.jitter.mul_f64(self.draw());
        self.flying.insert((at, self.frames), (1 - from, frame));
    }

    fn input(&mut self, at: usize, input: LivenessInput<'_>) {
        self.ends[at].handle(self.now, input);
        while let Some(output) = self.ends[at].poll_output() {
            match output {
                LivenessOutput::Probe(probe) => {
                    self.probes[at] += 1;
                    self.send(at, Some(probe));
                }
                LivenessOutput::Changed { state, reason } => {
                    assert_eq!(self.ends[at].state(), state);
                    self.changes.push((self.now, at, state, reason));
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let mut next = self.flying.keys().next().map_or(until, |(at, _)| *at);
            for at in [0, 1] {
                let timeout = self.ends[at].poll_timeout().unwrap().max(self.stopped[at]);
                next = next.min(timeout);
                if self.traffic[at].is_some() {
                    next = next.min(self.next_traffic[at].max(self.stopped[at]));
                }
            }
            if next >= until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            // Frames first, as the contract asks.
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let ((_, number), (to, frame)) = entry.remove_entry();
                if self.now < self.stopped[to] {
                    self.flying.insert((self.stopped[to], number), (to, frame));
                    continue;
                }
                match frame {
                    Some(probe) => self.input(to, LivenessInput::Probe(&probe)),
                    None => self.input(to, LivenessInput::Received),
                }
            }
            for at in [0, 1] {
                if self.now < self.stopped[at] {
                    continue;
                }
                if let Some(interval) = self.traffic[at]
                    && self.next_traffic[at] <= self.now
                {
                    self.next_traffic[at] = self.now + interval;
                    self.send(at, None);
                    self.input(at, LivenessInput::Sent);
                }
                if self.ends[at].poll_timeout().unwrap() <= self.now {
                    self.input(at, LivenessInput::Timeout);
                }
            }
        }
    }

    fn traffic(&mut self, from: usize, interval: Duration) {
        self.traffic[from] = Some(interval);
        self.next_traffic[from] = self.now;
    }

    /// How long after now each end is down.
    fn detection(&mut self, patience: Duration) -> [Duration; 2] {
        let cut_at = self.now;
        self.changes.clear();
        self.run(patience);
        [0, 1].map(|end| {
            let down = |change: &&(Duration, usize, LivenessState, LivenessReason)| {
                change.1 == end && change.2 == LivenessState::Down
            };
            self.changes.iter().find(down).expect("not noticed").0 - cut_at
        })
    }
}

#[test]
fn a_new_link_is_up_within_two_probes() {
    for seed in 0..20 {
        let mut link = Link::new(seed);
        link.run(110 * MS);
        assert_eq!(link.states(), [LivenessState::Up; 2]);
        assert!(link.changes.iter().all(|change| change.3 == LivenessReason::Heard));
    }
}

/// Traffic in one direction: the end that sends is the one that has to know.
#[test]
fn a_silent_cut_of_an_active_link_is_noticed_within_80_ms() {
    let mut all = Vec::new();
    for seed in 0..50 {
        let mut link = Link::up(seed);
        link.traffic(0, MS);
        link.run(2 * SECOND + MS * u32::try_from(seed).unwrap());
        link.loss = [1.0; 2];
        let detection = link.detection(SECOND);
        assert!(detection.iter().all(|time| *time <= 80 * MS), "seed {seed}: {detection:?}");
        all.push(detection[0]);
    }
    all.sort_unstable();
    assert!(all[25] <= 70 * MS, "median {:?}", all[25]);
}

/// Only one direction is cut. Both ends give the link up, for the reason that each can see.
#[test]
fn an_asymmetric_link_is_down_at_both_ends() {
    for from in [0, 1] {
        let mut link = Link::up(7);
        link.traffic(0, MS);
        link.traffic(1, MS);
        link.run(2 * SECOND);
        link.loss[from] = 1.0;
        let detection = link.detection(SECOND);
        assert!(detection.iter().all(|time| *time <= 80 * MS), "{detection:?}");
        let reason = |end| link.changes.iter().find(|change| change.1 == end).unwrap().3;
        assert_eq!((reason(1 - from), reason(from)), (LivenessReason::Silent, LivenessReason::Unheard));
        link.loss[from] = 0.0;
        link.run(150 * MS);
        assert_eq!(link.states(), [LivenessState::Up; 2]);
    }
}

/// An idle link costs little, and its loss is noticed soon after traffic begins.
#[test]
fn an_idle_link_sends_few_probes_and_is_asked_when_traffic_begins() {
    let mut link = Link::up(3);
    link.probes = [0; 2];
    link.run(10 * SECOND);
    assert!(link.probes.iter().all(|probes| *probes <= 21), "{:?}", link.probes);
    link.loss = [1.0; 2];
    link.run(100 * MS);
    link.traffic(0, MS);
    let cut_at = link.now;
    link.run(SECOND);
    let down = link.changes.iter().find(|change| change.1 == 0).unwrap();
    assert!(down.0 - cut_at <= 80 * MS, "{:?}", down.0 - cut_at);
}

/// Traffic in both directions leaves no room for probes but the few that report the other direction.
#[test]
fn traffic_replaces_probes() {
    let mut link = Link::up(4);
    link.traffic(0, 5 * MS);
    link.run(2 * SECOND);
    link.probes = [0; 2];
    link.run(10 * SECOND);
    // The sender's traffic fills its direction; the other one has a probe every 25 ms.
    assert!(link.probes[0] <= 25, "{:?}", link.probes);
    assert!((360..=430).contains(&link.probes[1]), "{:?}", link.probes);
    link.traffic(1, 5 * MS);
    link.run(2 * SECOND);
    link.probes = [0; 2];
    link.run(10 * SECOND);
    assert!(link.probes.iter().all(|probes| *probes <= 25), "{:?}", link.probes);
    assert!(link.changes.is_empty());
}

#[test]
fn the_peer_is_up_soon_after_healing_however_long_the_cut_was() {
    for seed in 0..10 {
        for cut in [100 * MS, SECOND, 20 * SECOND, 600 * SECOND] {
            let mut link = Link::up(seed);
            link.loss = [1.0; 2];
            link.run(2 * SECOND + cut);
            assert_eq!(link.states(), [LivenessState::Down; 2]);
            link.loss = [0.0; 2];
            link.run(150 * MS);
            assert_eq!(link.states(), [LivenessState::Up; 2], "seed {seed}, {cut:?}");
        }
    }
}

/// The frames of a cut are not lost: they arrive together when it is over. The next cut is noticed all the
/// same.
#[test]
fn frames_that_waited_during_a_cut_do_not_delay_the_detection_of_the_next() {
    for cut in [300, 1500, 5000] {
        for seed in 0..20 {
            let mut link = Link::up(seed);
            link.traffic = [Some(MS); 2];
            link.jitter = Duration::ZERO;
            link.run(500 * MS);
            link.held = Some(link.now + cut * MS);
            link.run(cut * MS + 100 * MS);
            assert_eq!(link.states(), [LivenessState::Up; 2], "cut of {cut} ms, seed {seed}");
            for end in &link.ends {
                let rtt = end.sample().rtt.unwrap();
                assert!(rtt < 2 * MS, "after a cut of {cut} ms, seed {seed}: {rtt:?}");
            }
            link.loss = [1.0; 2];
            link.run(80 * MS);
            assert_eq!(link.states(), [LivenessState::Down; 2], "after a cut of {cut} ms, seed {seed}");
        }
    }
}

/// The first probes to a peer that is not there yet may wait as well.
#[test]
fn the_first_round_trip_is_not_the_time_until_the_peer_is_there() {
    for seed in 0..20 {
        let mut link = Link::new(seed);
        link.jitter = Duration::ZERO;
        link.held = Some(link.now + 3 * SECOND);
        link.run(5 * SECOND);
        assert_eq!(link.states(), [LivenessState::Up; 2], "seed {seed}");
        let rtt = link.ends.each_ref().map(|end| end.sample().rtt.unwrap());
        assert!(rtt.iter().all(|rtt| *rtt < 2 * MS), "seed {seed}: {rtt:?}");
    }
}

/// A tenth of all frames is lost, in both directions, for ten minutes: no link goes down.
#[test]
fn loss_of_a_tenth_is_no_cut() {
    for seed in 0..4 {
        for traffic in [None, Some(MS * 2)] {
            let mut link = Link::up(seed);
            if let Some(interval) = traffic {
                link.traffic(0, interval);
            }
            link.loss = [0.1; 2];
            link.run(600 * SECOND);
            let down = link.changes.iter().filter(|change| change.2 == LivenessState::Down).count();
            assert_eq!(down, 0, "seed {seed}: {:?}", link.changes.last());
        }
    }
}

#[test]
fn heavy_loss_degrades_and_ends() {
    let mut link = Link::up(2);
    link.traffic(0, 2 * MS);
    link.loss = [0.35; 2];
    link.run(30 * SECOND);
    let degraded =
        |change: &&(Duration, usize, LivenessState, LivenessReason)| change.2 == LivenessState::Degraded;
    assert!(link.changes.iter().any(|change| degraded(&change) && change.3 == LivenessReason::Loss));
    link.loss = [0.0; 2];
    link.run(20 * SECOND);
    assert_eq!(link.states(), [LivenessState::Up; 2]);
    let ratio = link.ends[0].sample().receive_ratio.unwrap();
    assert!(ratio > 0.99, "{ratio}");
}

/// A process that does not run for a while does not take that for the silence of its peer, and its peer,
/// which sees the same jitter again and again, becomes patient.
#[test]
fn a_process_that_was_not_scheduled_does_not_cut_its_link() {
    let mut link = Link::up(6);
    link.traffic(1, 2 * MS);
    link.run(2 * SECOND);
    link.changes.clear();
    for _ in 0..100 {
        // Both stop: the host is loaded. Their frames wait.
        link.stopped = [link.now + 150 * MS, link.now + 150 * MS];
        link.run(400 * MS);
    }
    assert!(link.changes.is_empty(), "{:?}", link.changes);
    // Its timers are no excuse for ever.
    link.loss = [1.0; 2];
    let detection = link.detection(3 * SECOND);
    assert!(detection.iter().all(|time| *time < SECOND), "{detection:?}");
}

/// Jitter makes an end patient, and calm makes it quick again.
#[test]
fn detection_follows_jitter() {
    let mut link = Link::up(8);
    link.traffic(0, MS);
    link.jitter = 40 * MS;
    link.run(20 * SECOND);
    assert!(link.changes.is_empty(), "{:?}", link.changes);
    link.loss = [1.0; 2];
    let patient = link.detection(SECOND)[0];
    link.loss = [0.0; 2];
    link.jitter = MS / 10;
    link.run(30 * SECOND);
    link.loss = [1.0; 2];
    let quick = link.detection(SECOND)[0];
    assert!(patient > quick + 10 * MS, "{patient:?}, {quick:?}");
    assert!(quick <= 80 * MS);
}

/// A round trip that is longer than the whole detection would be.
#[test]
fn a_distant_peer_is_not_given_up() {
    let mut link = Link::new(9);
    link.delay = 150 * MS;
    link.traffic(0, 10 * MS);
    link.run(5 * SECOND);
    link.changes.clear();
    link.loss = [0.05; 2];
    link.run(60 * SECOND);
    assert!(link.changes.is_empty(), "{:?}", link.changes);
    let rtt = link.ends[0].sample().rtt.unwrap();
    assert!(rtt > 295 * MS && rtt < 310 * MS, "{rtt:?}");
    link.loss = [1.0; 2];
    assert!(link.detection(2 * SECOND)[0] < SECOND);
}

#[test]
fn a_restart_of_the_peer_ends_the_link_and_begins_it() {
    let mut link = Link::up(10);
    link.ends[1] = Liveness::new(LivenessOptions::new(3));
    link.run(300 * MS);
    assert_eq!(link.states(), [LivenessState::Up; 2]);
    let reasons: Vec<LivenessReason> =
        link.changes.iter().filter(|change| change.1 == 0).map(|change| change.3).collect();
    assert_eq!(reasons, [LivenessReason::Restarted, LivenessReason::Heard]);
}

/// End 0 is behind a NAT: frames of end 1 pass as long as there is a mapping.
#[test]
fn the_pause_of_an_idle_link_follows_the_mapping_of_a_nat() {
    let max = 60 * SECOND;
    for (lifetime, outside) in [(2, false), (2, true), (10, true), (30, false), (30, true), (300, false)] {
        for loss in [0.0, 0.02] {
            let mut link = Link::new(lifetime);
            let options = |instance| LivenessOptions::new(instance).interval_idle_max(max);
            link.ends = [1, 2].map(|instance| Liveness::new(options(instance)));
            link.mapping = Some(SECOND * u32::try_from(lifetime).unwrap());
            link.is_refreshed_from_outside = outside;
            link.run(3 * SECOND);
            assert_eq!(link.states(), [LivenessState::Up; 2]);
            link.changes.clear();
            link.loss = [loss; 2];
            // The lifetime is found within half an hour, and kept for two hours.
            link.run(1800 * SECOND);
            let (before, mut pauses) = (link.unmapped, Vec::new());
            for _ in 0..2 * 60 {
                link.run(60 * SECOND);
                pauses.push(link.ends[0].keep_alive().as_secs_f64());
            }
            let lost = link.unmapped - before;
            // A lost frame of end 0 while there is no mapping: end 1 asks in vain, until end 0 sends again.
            let downs = link.changes.iter().filter(|change| change.2 == LivenessState::Down).count();
            assert!(downs <= if loss > 0.0 { 60 } else { 0 }, "{:?}", link.changes);
            pauses.sort_unstable_by(f64::total_cmp);
            let median = pauses[pauses.len() / 2];
            println!(
                "lifetime {lifetime} s, {outside}, loss {loss}: pause {median:.1} s, {lost} frames without a mapping"
            );
            // Where both ends refresh the mapping, each may pause for twice its lifetime. A pause that is too
            // long is found with the first frame that is lost.
            let lifetime = lifetime as f64;
            let most = lifetime * if outside { 2.0 } else { 1.0 };
            // Each pause is shorter than the longest one by up to a quarter, on average by an eighth.
            assert!(median * 0.875 <= most, "{median}");
            assert!(loss > 0.0 || median >= (lifetime * 0.4).min(60.0), "{median}");
            // Few frames are lost for the measurement.
            assert!(loss > 0.0 || lost < 20, "{lost}");
        }
    }
}

/// Unless set otherwise the pause is constant.
#[test]
fn the_pause_of_an_idle_link_is_constant_by_default() {
    let mut link = Link::up(3);
    link.loss = [0.1; 2];
    link.run(600 * SECOND);
    assert_eq!(link.ends[0].keep_alive(), MS * 600);
}
