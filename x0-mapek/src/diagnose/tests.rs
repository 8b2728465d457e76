use std::collections::BTreeSet;

use super::*;
use crate::codec::DecodeError;

const NOW: Duration = Duration::from_secs(100);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn silent(age: f64) -> Sighting {
    Sighting { silent: seconds(age), ..Sighting::default() }
}

fn slow(factor: f64) -> Sighting {
    Sighting { slowness: Some(factor), ..Sighting::default() }
}

fn late_calls() -> Sighting {
    Sighting { timeouts: 3, ..Sighting::default() }
}

/// What each observer sees: all is well, unless said otherwise. Clients are numbered from 101.
struct World {
    members: u64,
    clients: u64,
    sightings: BTreeMap<(u64, u64), Sighting>,
    own: BTreeMap<u64, OwnState>,
    lateness: BTreeMap<u64, u32>,
    /// Observers whose summaries do not arrive.
    missing: BTreeSet<u64>,
}

impl World {
    fn new(members: u64, clients: u64) -> World {
        let (sightings, own, lateness, missing) = Default::default();
        World { members, clients, sightings, own, lateness, missing }
    }

    fn see(mut self, observers: impl IntoIterator<Item = u64>, member: u64, sighting: Sighting) -> World {
        for observer in observers {
            self.sightings.insert((observer, member), sighting);
        }
        self
    }

    fn missing(mut self, observers: impl IntoIterator<Item = u64>) -> World {
        self.missing.extend(observers);
        self
    }

    fn own(mut self, member: u64, own: OwnState) -> World {
        self.own.insert(member, own);
        self
    }

    fn late(mut self, observer: u64) -> World {
        self.lateness.insert(observer, 4);
        self
    }

    fn board(&self) -> Board {
        let mut board = Board::new(1..=self.members, DiagnoseOptions::new());
        for number in (1..=self.members).chain(101..101 + self.clients) {
            if self.missing.contains(&number) {
                continue;
            }
            let observer = if number > 100 { Observer::Client(number) } else { Observer::Member(number) };
            let mut summary = Summary::new(observer, 1)
                .lateness(self.lateness.get(&number).copied().unwrap_or(0))
                .own(self.own.get(&number).copied().unwrap_or_default());
            for member in (1..=self.members).filter(|member| *member != number) {
                let sighting = self.sightings.get(&(number, member)).copied().unwrap_or_default();
                summary = summary.sighting(member, sighting);
            }
            board.observe(NOW, summary).unwrap();
        }
        board
    }

    fn findings(&self) -> Vec<(Cause, Vec<u64>)> {
        let findings = self.board().diagnose(NOW);
        for finding in &findings {
            assert!((0.0..=1.0).contains(&finding.confidence), "{finding:?}");
            assert!(finding.witnesses <= finding.observers, "{finding:?}");
        }
        findings.into_iter().map(|finding| (finding.cause, finding.members)).collect()
    }
}

#[test]
fn no_symptom_no_finding() {
    assert_eq!(World::new(5, 3).findings(), []);
    assert_eq!(World::new(3, 0).missing([1, 2, 3]).findings(), []);
    assert_eq!(Board::new([], DiagnoseOptions::new()).diagnose(NOW), []);
}

#[test]
fn a_dead_member_is_told_from_a_hung_one_and_a_cut_one() {
    let dead = |sighting| World::new(5, 2).missing([3]).see([1, 2, 4, 5, 101, 102], 3, sighting);
    let closed = Sighting { is_closed: true, ..silent(4.0) };
    assert_eq!(dead(closed).findings(), [(Cause::Crash, vec![3])]);
    assert_eq!(dead(silent(4.0)).findings(), [(Cause::Hang, vec![3])]);
    // Its clients still get answers: it is alive, and the other members do not hear it.
    let cut = dead(silent(4.0)).see([101, 102], 3, silent(0.1));
    assert_eq!(cut.findings(), [(Cause::Cut, vec![3])]);
    let finding = &dead(silent(4.0)).board().diagnose(NOW)[0];
    assert_eq!((finding.witnesses, finding.observers), (4, 4));
    let diagnosis = finding.diagnosis();
    assert_eq!((diagnosis.cause, diagnosis.runner_up.unwrap().0), ("hang", "cut"));
}

#[test]
fn members_that_fall_silent_together_are_one_cut_and_not_three_deaths() {
    let mut world = World::new(7, 0).missing([5, 6, 7]);
    for member in [5, 6, 7] {
        world = world.see(1..=4, member, silent(2.0 + member as f64 * 0.1));
    }
    assert_eq!(world.findings(), [(Cause::Cut, vec![5, 6, 7])]);
    assert!(world.board().diagnose(NOW)[0].confidence > 0.8);
    // One after the other they are deaths.
    let world = World::new(7, 0).missing([6, 7]).see(1..=5, 6, silent(60.0)).see(1..=5, 7, silent(5.0));
    assert_eq!(world.findings(), [(Cause::Hang, vec![6]), (Cause::Hang, vec![7])]);
    // And if their hosts answer that nothing listens, they are crashes.
    let closed = Sighting { is_closed: true, ..silent(2.0) };
    let world = World::new(5, 0).missing([4, 5]).see(1..=3, 4, closed).see(1..=3, 5, closed);
    assert_eq!(world.findings(), [(Cause::Crash, vec![4]), (Cause::Crash, vec![5])]);
}

#[test]
fn a_minority_accuses_only_itself() {
    let mut world = World::new(5, 0).missing([3, 4, 5]);
    for member in [3, 4, 5] {
        world = world.see([1, 2], member, silent(9.0));
    }
    assert_eq!(world.findings(), [(Cause::Cut, vec![1, 2])]);
    // Half of an even number is no majority either.
    let world = World::new(4, 0).missing([3, 4]).see([1, 2], 3, silent(9.0)).see([1, 2], 4, silent(9.0));
    assert_eq!(world.findings(), [(Cause::Cut, vec![1, 2])]);
    // Late summaries alone are no cut.
    assert_eq!(World::new(5, 0).missing([3, 4, 5]).findings(), []);
}

#[test]
fn links_are_told_from_members() {
    let world = World::new(5, 0).see([1], 2, silent(3.0)).see([2], 1, silent(3.0));
    assert_eq!(world.findings(), [(Cause::Link, vec![1, 2])]);
    // 2 does not hear 4; 4 hears 2.
    assert_eq!(World::new(5, 0).see([2], 4, silent(3.0)).findings(), [(Cause::OneWayCut, vec![4, 2])]);
    assert_eq!(World::new(5, 0).see([4], 2, silent(3.0)).findings(), [(Cause::OneWayCut, vec![2, 4])]);
}

#[test]
fn a_slow_member_is_judged_by_its_callers_and_its_own_report() {
    let waits = OwnState { durable_age: seconds(0.6), ..OwnState::default() };
    let full = OwnState { is_disk_full: true, ..OwnState::default() };
    let slow_leader = || World::new(3, 2).see([2, 3, 101, 102], 1, slow(20.0));
    assert_eq!(slow_leader().own(1, waits).findings(), [(Cause::SlowDisk, vec![1])]);
    assert_eq!(slow_leader().own(1, full).findings(), [(Cause::DiskFull, vec![1])]);
    assert_eq!(slow_leader().late(1).findings(), [(Cause::Starved, vec![1])]);
    assert_eq!(slow_leader().late(1).own(1, waits).findings(), [(Cause::Starved, vec![1])]);
    // Callers agree that it is slow, and it reports nothing: a person is called.
    assert_eq!(slow_leader().findings(), [(Cause::Unknown, vec![1])]);
    assert_eq!(slow_leader().missing([1]).findings(), [(Cause::Unknown, vec![1])]);
    // A slow disk that no caller notices is no fault, and neither is a latency below the limit.
    assert_eq!(World::new(3, 2).own(1, waits).findings(), []);
    assert_eq!(World::new(3, 2).see([2, 3, 101, 102], 1, slow(2.9)).findings(), []);
}

#[test]
fn clients_that_are_cut_off_are_told_from_a_sick_member() {
    let world = World::new(5, 3).see(101..=103, 1, late_calls());
    assert_eq!(world.findings(), [(Cause::ClientCut, vec![1])]);
    // Members see it slow too, or one client of three alone complains.
    assert_eq!(World::new(5, 3).see([101], 1, late_calls()).findings(), []);
    let world = World::new(5, 3).see(101..=103, 1, late_calls()).see([2, 3, 4, 5], 1, slow(9.0));
    assert_eq!(world.findings(), [(Cause::Unknown, vec![1])]);
}

#[test]
fn if_most_members_are_slow_the_cause_is_load() {
    let mut world = World::new(5, 0);
    for member in 1..=4 {
        world = world.see((1..=5).filter(|observer| *observer != member), member, slow(5.0));
    }
    assert_eq!(world.findings(), [(Cause::Overload, vec![1, 2, 3, 4])]);
}

#[test]
fn a_refused_identity_is_no_crash() {
    let refused = Sighting { is_refused: true, timeouts: 5, ..Sighting::default() };
    assert_eq!(World::new(3, 0).see([1, 2], 3, refused).findings(), [(Cause::Identity, vec![3])]);
}

#[test]
fn an_observer_with_late_timers_is_no_witness() {
    let world = |late: &[u64]| {
        late.iter()
            .fold(World::new(3, 0).missing([3]).see([1, 2], 3, silent(4.0)), |world, late| world.late(*late))
    };
    assert_eq!(world(&[]).findings(), [(Cause::Hang, vec![3])]);
    assert_eq!(world(&[2]).findings(), []);
    // A starved observer sees all others late (Pekko #578: one marked twenty others as down).
    let mut starved = World::new(20, 0).late(1);
    for member in 2..=20 {
        starved = starved.see([1], member, silent(9.0));
    }
    assert_eq!(starved.findings(), []);
}

/// Whatever one of five observers writes, no finding names another member alone, and each that names one is
/// about its own links.
#[test]
fn one_misbehaving_observer_of_five_causes_nothing() {
    let mut state = 11_u64;
    let mut random = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for _ in 0..20_000 {
        let own = OwnState { durable_age: seconds(random(9) as f64), is_disk_full: random(2) == 0 };
        let mut world = World::new(5, 3).own(5, own);
        for member in 1..=4 {
            let sighting = Sighting {
                silent: seconds(random(9) as f64),
                slowness: [None, Some(f64::NAN), Some(1.0), Some(1e300)][usize::try_from(random(4)).unwrap()],
                timeouts: u32::try_from(random(3)).unwrap(),
                is_closed: random(2) == 0,
                is_refused: random(2) == 0,
            };
            world = world.see([5], member, sighting);
        }
        for (cause, members) in world.findings() {
            assert!(cause == Cause::OneWayCut && members.contains(&5), "{cause:?} {members:?}");
        }
    }
}

#[test]
fn a_board_is_bounded_and_takes_only_newer_summaries_of_its_members() {
    let mut board = Board::new(1..=1000, DiagnoseOptions::new());
    assert_eq!(board.members().len(), MEMBERS_MAX);
    board.observe(NOW, Summary::new(Observer::Member(1), 5)).unwrap();
    let old = board.observe(NOW, Summary::new(Observer::Member(1), 5));
    assert_eq!(old, Err(SummaryError::Old { sequence: 5, last: 5 }));
    let foreign = board.observe(NOW, Summary::new(Observer::Member(2000), 1));
    assert_eq!(foreign, Err(SummaryError::NotMember { member: 2000 }));
    for client in 0..CLIENTS_MAX as u64 {
        board.observe(NOW, Summary::new(Observer::Client(client), 1)).unwrap();
    }
    let one_more = Summary::new(Observer::Client(9999), 1);
    assert_eq!(board.observe(NOW, one_more.clone()), Err(SummaryError::TooManyClients));
    // Summaries of clients that have gone make room.
    board.observe(NOW + Duration::from_secs(3), one_more).unwrap();
    assert_eq!(board.posted.len(), 2);
    board.set_members([2, 3]);
    assert_eq!(board.posted.len(), 1);
}

#[test]
fn stale_summaries_say_nothing() {
    let board = World::new(3, 0).missing([3]).see([1, 2], 3, silent(4.0)).board();
    assert_eq!(board.diagnose(NOW + seconds(2.9)).len(), 1);
    assert_eq!(board.diagnose(NOW + seconds(3.0)), []);
    let quick = DiagnoseOptions::new().stale_after(seconds(1.0)).silent_after(seconds(5.0)).slow_from(2.0);
    let quick = Board { options: quick.durable_after(seconds(1.0)), ..board };
    assert_eq!(quick.diagnose(NOW), []);
}

fn example() -> Summary {
    let refused = Sighting { is_refused: true, is_closed: true, timeouts: 7, ..slow(2.5) };
    Summary::new(Observer::Client(9), 3)
        .lateness(2)
        .own(OwnState { durable_age: seconds(0.5), is_disk_full: true })
        .sighting(4, refused)
        .sighting(2, silent(1.5))
}

#[test]
fn bytes_are_canonical_and_every_cut_is_an_error() {
    let summary = example();
    let bytes = summary.to_bytes();
    assert_eq!(Summary::from_bytes(&bytes), Ok(summary));
    for end in 0..bytes.len() {
        assert_eq!(
            Summary::from_bytes(&bytes[..end]),
            Err(DecodeError::Cut { object: "summary", offset: end })
        );
    }
    let many = (0..200).fold(Summary::new(Observer::Member(1), 1), |summary, member| {
        summary.sighting(member, Sighting::default())
    });
    assert_eq!(many.sightings().len(), SIGHTINGS_MAX);
    assert_eq!(Summary::from_bytes(&many.to_bytes()), Ok(many));
}

/// Mutated summaries and claims: refused or canonical, and nothing panics, diagnosis included.
#[test]
fn mutated_summaries_and_claims_cause_no_panic_and_no_finding() {
    let mut state = 7_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let claim = crate::claim::Claim::new(7, 9, "replace-voter", "member 3").to_bytes();
    let hostile = (1..=4)
        .fold(Summary::new(Observer::Member(5), 1), |summary, member| summary.sighting(member, silent(9.0)));
    let mut board = World::new(5, 2).board();
    let mut taken = 0;
    for round in 0..crate::mutations() {
        let mut bytes = hostile.to_bytes();
        let mut mutate = |bytes: &mut Vec<u8>| {
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                bytes[place] = u8::try_from(random(256)).unwrap();
            }
        };
        mutate(&mut bytes);
        let mut claim = claim.clone();
        mutate(&mut claim);
        if let Ok(read) = crate::claim::Claim::from_bytes(&claim) {
            assert_eq!(read.to_bytes(), claim);
        }
        let Ok(mut summary) = Summary::from_bytes(&bytes) else { continue };
        assert_eq!(summary.to_bytes(), bytes);
        // A summary is signed by its channel: a hostile member writes only its own.
        (summary.observer, summary.sequence) = (Observer::Member(5), round + 2);
        board.observe(NOW, summary).unwrap();
        taken += 1;
        for finding in board.diagnose(NOW) {
            assert!(finding.cause == Cause::OneWayCut && finding.members.contains(&5), "{finding:?}");
        }
    }
    assert!(taken > crate::mutations() / 10, "{taken}");
}
