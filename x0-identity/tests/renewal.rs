//! The renewal engine over seeds, in virtual time: skewed clocks, lost answers, restarts, a suspend and clock
//! jumps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

use std::time::Duration;

use x0_identity::{Renewal, RenewalError, RenewalInput, RenewalOptions, RenewalOutput};

const VALIDITY: Duration = Duration::from_secs(3600);
/// At the latest at six tenths of the validity.
const INTERVAL: Duration = Duration::from_secs(2160);
/// By the issuer's clock at the beginning.
const BEGIN: Duration = Duration::from_secs(2_000_000_000);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A node whose clock differs from the issuer's, and an issuer that answers or not.
struct World {
    renewal: Renewal,
    seed: u64,
    /// True time since the beginning.
    time: Duration,
    /// The time that the engine's clock did not count.
    suspended: Duration,
    /// The node's clock is this much behind 300 seconds ahead.
    skew: Duration,
    svid: Option<(Duration, Duration)>,
    attested: u32,
    renewed: u32,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            renewal: Renewal::new(RenewalOptions::default(), seed),
            seed,
            time: Duration::ZERO,
            suspended: Duration::ZERO,
            skew: seconds(300),
            svid: None,
            attested: 0,
            renewed: 0,
        }
    }

    fn now(&self) -> Duration {
        self.time - self.suspended
    }

    fn wall(&self) -> Duration {
        BEGIN + self.time + seconds(300) - self.skew
    }

    /// Valid by the node's clock, as its peers would judge with the same clock.
    fn is_valid(&self) -> bool {
        self.svid.is_some_and(|(from, to)| (from..=to).contains(&self.wall()))
    }

    /// One step: to the next time-out, and what the issuer makes of an attempt.
    fn step(&mut self, until: Duration, mut answer: impl FnMut(RenewalOutput) -> Answer) {
        let due = self.renewal.poll_timeout().unwrap() + self.suspended;
        self.time = due.max(self.time).min(until);
        let wall = self.wall();
        self.renewal.handle(self.now(), RenewalInput::Timeout { wall }).unwrap();
        while let Some(output) = self.renewal.poll_output() {
            match output {
                RenewalOutput::Attest { .. } => self.attested += 1,
                RenewalOutput::Renew { .. } => self.renewed += 1,
                _ => panic!("{output:?}"),
            }
            let wall = self.wall();
            match answer(output) {
                Answer::Lost => {}
                Answer::Failed => self.renewal.handle(self.now(), RenewalInput::Failed { wall }).unwrap(),
                Answer::Rejected => self.renewal.handle(self.now(), RenewalInput::Rejected { wall }).unwrap(),
                Answer::Issued => {
                    // By the issuer's clock, backdated for clocks that lag by up to 5 minutes.
                    let issuer = BEGIN + self.time;
                    let (not_before, not_after) = (issuer - seconds(300), issuer + VALIDITY);
                    self.svid = Some((not_before, not_after));
                    let issued = RenewalInput::Issued { wall, not_before, not_after };
                    self.renewal.handle(self.now(), issued).unwrap();
                }
            }
        }
    }

    fn run(&mut self, duration: Duration, mut answer: impl FnMut(RenewalOutput) -> Answer) {
        let until = self.time + duration;
        while self.time < until {
            self.step(until, &mut answer);
        }
    }

    /// The process starts again: with the SVID that its folder holds, if it is there.
    fn restart(&mut self) {
        self.renewal = Renewal::new(RenewalOptions::default(), self.seed ^ self.time.as_secs());
        // The engine's clock may have any origin; here it goes on.
        if let Some((not_before, not_after)) = self.svid {
            let issued = RenewalInput::Issued { wall: self.wall(), not_before, not_after };
            self.renewal.handle(self.now(), issued).unwrap();
        }
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Issued,
    Failed,
    Rejected,
    Lost,
}

#[test]
fn without_faults_an_svid_never_expires_and_is_renewed_at_half_life() {
    let mut world = World::new(1);
    world.run(seconds(1), |_| Answer::Issued);
    assert_eq!((world.attested, world.is_valid()), (1, true));
    let mut expired = false;
    for _ in 0..24 * 60 {
        world.run(seconds(60), |_| Answer::Issued);
        expired |= !world.is_valid();
    }
    assert!(!expired);
    assert_eq!(world.attested, 1);
    // Every 27 to 39 minutes.
    assert!((36..=54).contains(&world.renewed), "{}", world.renewed);
}

#[test]
fn a_thousand_seeds_recover_within_one_renewal_interval() {
    for seed in 0..1000 {
        let mut random = Random(seed);
        let mut world = World::new(seed);
        world.skew = seconds(random.below(601));
        // Faults for up to two days, in pieces.
        for _ in 0..random.below(12) {
            let lossy = random.below(4);
            let duration = seconds(random.below(14_400));
            let mut answers = Random(seed ^ duration.as_secs());
            world.run(duration, |_| match (lossy, answers.below(8)) {
                (0, _) => Answer::Lost,
                (1, 0..=6) => Answer::Failed,
                (2, 0..=3) => Answer::Lost,
                (2, 4) => Answer::Rejected,
                _ => Answer::Issued,
            });
            match random.below(6) {
                0 => world.restart(),
                1 => {
                    // 24 hours of suspend: the clock goes on, the engine's does not.
                    world.time += seconds(86_400);
                    world.suspended += seconds(86_400);
                }
                2 => world.skew = seconds(random.below(601)),
                3 => {
                    world.svid = None;
                    world.restart();
                }
                _ => {}
            }
        }
        // The faults end. The skew stays, as it does on real machines.
        world.run(INTERVAL, |_| Answer::Issued);
        assert!(world.is_valid(), "seed {seed}: {:?}", world.svid);
        // And from then on it stays valid.
        for _ in 0..120 {
            world.run(seconds(60), |_| Answer::Issued);
            assert!(world.is_valid(), "seed {seed}");
        }
    }
}

#[test]
fn after_a_suspend_it_attests_within_a_look_at_the_clock() {
    let mut world = World::new(3);
    world.run(seconds(60), |_| Answer::Issued);
    world.time += seconds(86_400);
    world.suspended += seconds(86_400);
    assert!(!world.is_valid());
    world.run(seconds(31), |_| Answer::Issued);
    assert!(world.is_valid());
    assert_eq!(world.attested, 2);
}

#[test]
fn an_issuer_that_rejects_the_svid_gets_an_attestation() {
    let mut world = World::new(4);
    world.run(seconds(60), |_| Answer::Issued);
    world.run(INTERVAL, |output| match output {
        RenewalOutput::Renew { .. } => Answer::Rejected,
        _ => Answer::Issued,
    });
    assert_eq!((world.renewed, world.attested), (1, 2));
    assert!(world.is_valid());
}

#[test]
fn renewal_never_gives_up_and_never_floods() {
    let mut world = World::new(5);
    world.run(seconds(30 * 86_400), |_| Answer::Failed);
    // Between one attempt in 60 s and one in 30 s.
    let attempts = world.attested;
    assert!((43_200..=86_500).contains(&attempts), "{attempts}");
    world.run(seconds(61), |_| Answer::Issued);
    assert!(world.is_valid());
}

#[test]
fn the_same_seed_does_the_same_and_another_seed_does_not() {
    let renew_at = |seed| {
        let mut world = World::new(seed);
        world.run(seconds(60), |_| Answer::Issued);
        world.renewal.renew_at().unwrap()
    };
    assert_eq!(renew_at(7), renew_at(7));
    let mut times: Vec<Duration> = (0..100).map(renew_at).collect();
    times.sort();
    times.dedup();
    assert!(times.len() > 90);
    // A fifth of the validity apart, so that they do not come together.
    assert!(times[times.len() - 1] - times[0] > VALIDITY / 6, "{times:?}");
}

#[test]
fn answers_without_an_attempt_change_nothing() {
    let mut renewal =
        Renewal::new(RenewalOptions::default().clock_look(seconds(5)).answer_max(seconds(2)), 1);
    let wall = BEGIN;
    assert_eq!(renewal.handle(seconds(0), RenewalInput::Failed { wall }), Err(RenewalError::NoAttempt));
    assert_eq!(renewal.handle(seconds(0), RenewalInput::Rejected { wall }), Err(RenewalError::NoAttempt));
    renewal.handle(seconds(0), RenewalInput::Timeout { wall }).unwrap();
    assert_eq!(renewal.poll_output(), Some(RenewalOutput::Attest { attempt: 1 }));
    let backwards = RenewalInput::Issued { wall, not_before: wall, not_after: wall - seconds(1) };
    assert_eq!(renewal.handle(seconds(1), backwards), Err(RenewalError::Validity));
    assert_eq!(renewal.renew_at(), None);
    assert!(renewal.poll_timeout().unwrap() <= seconds(2));
    // The answer to the next attempt is lost; a third follows.
    renewal.handle(seconds(2), RenewalInput::Timeout { wall }).unwrap();
    assert_eq!(renewal.poll_output(), Some(RenewalOutput::Attest { attempt: 2 }));
    renewal.handle(seconds(3), RenewalInput::Timeout { wall }).unwrap();
    assert_eq!(renewal.poll_output(), None);
    renewal.handle(seconds(4), RenewalInput::Timeout { wall }).unwrap();
    renewal.handle(seconds(9), RenewalInput::Timeout { wall }).unwrap();
    assert_eq!(renewal.poll_output(), Some(RenewalOutput::Attest { attempt: 3 }));
    let defaults = RenewalOptions::default().pauses(seconds(5), seconds(1));
    assert_eq!(defaults.pause_max, seconds(5));
}

/// Issuers backdate by minutes, for clocks that lag, and SVIDs may be valid for less than that.
#[test]
fn a_validity_below_the_backdating_is_renewed_at_its_half() {
    let mut renewal = Renewal::new(RenewalOptions::default(), 1);
    let (mut attempts, mut now) = (0, Duration::ZERO);
    while now < seconds(600) {
        let wall = BEGIN + now;
        renewal.handle(now, RenewalInput::Timeout { wall }).unwrap();
        while renewal.poll_output().is_some() {
            attempts += 1;
            let (not_before, not_after) = (wall - seconds(360), wall + seconds(60));
            renewal.handle(now, RenewalInput::Issued { wall, not_before, not_after }).unwrap();
            let due = renewal.renew_at().unwrap() - wall;
            assert!(due >= seconds(24) && due <= seconds(36), "{due:?}");
        }
        now = renewal.poll_timeout().unwrap();
    }
    assert!((16..=26).contains(&attempts), "{attempts}");
}

#[test]
fn an_svid_that_is_over_when_it_comes_makes_no_storm() {
    let mut renewal = Renewal::new(RenewalOptions::default(), 1);
    let mut attempts = 0;
    let mut now = Duration::ZERO;
    // The clocks differ by more than the validity.
    while now < seconds(600) {
        let wall = BEGIN + now;
        renewal.handle(now, RenewalInput::Timeout { wall }).unwrap();
        while renewal.poll_output().is_some() {
            attempts += 1;
            let (not_before, not_after) = (wall - seconds(900), wall - seconds(600));
            renewal.handle(now, RenewalInput::Issued { wall, not_before, not_after }).unwrap();
        }
        let due = renewal.poll_timeout().unwrap();
        assert!(due > now);
        now = due;
    }
    assert!((10..=30).contains(&attempts), "{attempts}");
}
