use std::collections::BTreeSet;
use std::time::Duration;

use super::options::HealerOptions;
use super::samples::Samples;
use super::*;
use crate::{Input, Mode, Record};

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The place of node 1 in a group of three that all reach each other.
fn place_of(is_leader: bool, heir: Option<NodeId>) -> Place {
    let voters: BTreeSet<_> = [id(1), id(2), id(3)].into();
    let reached = [id(2), id(3)].into();
    let leader = Some(if is_leader { id(1) } else { id(2) });
    Place { is_leader, leader, term: 7, heir, spare: None, voters, reached }
}

/// The next leader, if this is a transfer.
fn next_leader(action: &Act) -> Option<NodeId> {
    match action {
        Act::Transfer { to, .. } => Some(*to),
        _ => None,
    }
}

fn engine(mode: Mode) -> Loop<View, Act> {
    HealerOptions::new().mode(mode).engine(id(1), false)
}

/// Readings of one value every 100 ms for a minute: what was done, and the records.
fn minute(mode: Mode, is_leader: bool, heir: Option<NodeId>, age: f64) -> (Vec<NodeId>, Vec<Record>) {
    let mut healer = engine(mode);
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for step in 0..600_u32 {
        let now = Duration::from_millis(100) * step;
        // The leadership is gone once it is handed over.
        healer.knowledge_mut().set(place_of(is_leader && done.is_empty(), heir));
        let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: age };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let decided = healer.drain(now, |action| {
            done.extend(next_leader(action));
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

fn names(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(|record| record.event.name()).collect()
}

#[test]
fn a_leader_with_a_slow_disk_hands_the_leadership_over_once() {
    let (done, records) = minute(Mode::Active, true, Some(id(2)), 0.5);
    assert_eq!(done, [id(2)]);
    // Grace and stability refuse it first.
    assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
    let executing = &records[1];
    assert!(executing.at >= 10 * SECOND && executing.at < 12 * SECOND, "{:?}", executing.at);
    assert_eq!((executing.cause.as_str(), executing.evidence[0].threshold), ("slow-disk", 0.3));
    for record in &records {
        record.recompute().unwrap();
    }
}

#[test]
fn nothing_is_done_in_a_dry_run_without_an_heir_or_as_a_follower() {
    let (done, records) = minute(Mode::DryRun, true, Some(id(2)), 0.5);
    assert!(done.is_empty() && names(&records).contains(&"would-execute"), "{:?}", names(&records));
    for (mode, is_leader, heir, age) in [
        (Mode::Observe, true, Some(id(2)), 0.5),
        (Mode::Active, false, Some(id(2)), 0.5),
        (Mode::Active, true, None, 0.5),
        (Mode::Active, true, Some(id(2)), 0.299),
    ] {
        assert_eq!(
            minute(mode, is_leader, heir, age),
            (vec![], vec![]),
            "{mode:?} {is_leader} {heir:?} {age}"
        );
    }
}

/// Several disks that are slow at once have a common cause.
#[test]
fn a_leader_stays_while_other_voters_wait_for_their_disks_too() {
    // Voter 3 reports a write age every second until the end, or until 20 s.
    let minute = |age: u64, until: u32| {
        let mut healer = engine(Mode::Active);
        let (mut done, mut records) = (Vec::new(), Vec::new());
        for step in 0..600_u32 {
            let now = Duration::from_millis(100) * step;
            healer.knowledge_mut().set(place_of(done.is_empty(), Some(id(2))));
            if step % 10 == 0 && step <= until {
                healer.knowledge_mut().heard(now, id(3), Duration::from_millis(age));
                // A node that is no voter says nothing.
                healer.knowledge_mut().heard(now, id(9), Duration::from_secs(9));
            }
            let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.5 };
            healer.handle(now, Input::Reading(reading)).unwrap();
            let decided = healer.drain(now, |action| {
                done.extend(next_leader(action));
                Ok(())
            });
            records.extend(decided.unwrap());
        }
        (done, records)
    };
    let (done, records) = minute(150, 600);
    assert!(done.is_empty(), "{done:?}");
    let reasons: Vec<_> = records.iter().map(Record::explain).collect();
    assert!(reasons.iter().any(|reason| reason.contains("1 of 2 other voters wait")), "{reasons:?}");
    // Below half of the limit, and once the others are well again.
    assert_eq!(minute(149, 600).0, [id(2)]);
    let (done, records) = minute(150, 200);
    assert_eq!(done, [id(2)]);
    let executing = records.iter().find(|record| record.event.name() == "executing").unwrap();
    assert!(executing.at >= 22 * SECOND && executing.at < 24 * SECOND, "{:?}", executing.at);
}

/// A leader that runs only part of the time: readings of a minute.
fn starved_minute(share: f64, stalls: f64) -> (Vec<NodeId>, Vec<Record>) {
    let mut healer = engine(Mode::Active);
    let (mut done, mut records) = (Vec::new(), Vec::new());
    // A node whose timers are this late may accuse no other node; it may judge itself.
    for step in 0..60_u32 {
        let now = Duration::from_millis(1100) * step;
        healer.knowledge_mut().set(place_of(done.is_empty(), Some(id(3))));
        for (signal, value) in [(STALLS, stalls), (STALLED_SHARE, share), (WRITE_AGE, 0.0)] {
            healer.handle(now, Input::Reading(Reading { subject: Member(id(1)), signal, value })).unwrap();
        }
        let decided = healer.drain(now, |action| {
            done.extend(next_leader(action));
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

#[test]
fn a_starved_leader_hands_the_leadership_over_and_a_paused_one_does_not() {
    let (done, records) = starved_minute(0.8, 4.0);
    assert_eq!(done, [id(3)]);
    assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
    assert_eq!((records[1].cause.as_str(), records[1].evidence.len()), ("starved", 2));
    for record in &records {
        record.recompute().unwrap();
    }
    // One long pause, and many short ones.
    assert_eq!(starved_minute(0.8, 2.0), (vec![], vec![]));
    assert_eq!(starved_minute(0.4, 9.0), (vec![], vec![]));
}

/// A minute and a half of a leader whose voter 3 is dead, with spare 4 if `has_spare`. What was done, and the
/// records.
fn dead_voter(mode: Mode, after: Option<u64>, reached: &[u64], has_spare: bool) -> (Vec<Act>, Vec<Record>) {
    let options = HealerOptions::new().mode(mode).replace_after(after.map(Duration::from_secs));
    let mut healer = options.engine(id(1), false);
    let mut samples = Samples::default();
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for step in 0..900_u32 {
        let now = Duration::from_millis(100) * step;
        let mut place = place_of(true, Some(id(2)));
        place.reached = reached.iter().copied().map(id).collect();
        place.spare = has_spare.then_some(id(4));
        if !done.is_empty() {
            place.voters = [id(1), id(2), id(4)].into();
            place.spare = None;
        }
        let others: Vec<_> = place.voters.iter().copied().filter(|voter| *voter != id(1)).collect();
        let silences = samples.silences(
            now,
            others.into_iter(),
            |voter| place.reached.contains(&voter),
            &BTreeMap::new(),
        );
        healer.knowledge_mut().set(place);
        let own = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.0 };
        healer.handle(now, Input::Reading(own)).unwrap();
        for (subject, silent) in silences {
            let reading = Reading { subject: Member(subject), signal: SILENCE, value: silent.as_secs_f64() };
            healer.handle(now, Input::Reading(reading)).unwrap();
        }
        let decided = healer.drain(now, |action| {
            done.push(*action);
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

#[test]
fn a_dead_voter_is_replaced_by_a_spare_after_its_time() {
    let (done, records) = dead_voter(Mode::Active, Some(60), &[2, 4], true);
    assert_eq!(done, [Act::Replace { dead: Member(id(3)), spare: id(4) }]);
    assert_eq!(names(&records), ["executing", "executed", "improved"]);
    assert!(records[0].at >= 60 * SECOND && records[0].at < 61 * SECOND, "{:?}", records[0].at);
    assert_eq!((records[0].cause.as_str(), records[0].evidence[0].threshold), ("dead", 60.0));
    for record in &records {
        record.recompute().unwrap();
    }
}

#[test]
fn a_dead_voter_is_kept_without_a_setting_a_spare_or_a_majority() {
    for (after, reached, has_spare) in [
        (None, &[2, 4][..], true),
        (Some(60), &[2][..], false),
        (Some(120), &[2, 4][..], true),
        (Some(60), &[2, 3, 4][..], true),
    ] {
        let (done, records) = dead_voter(Mode::Active, after, reached, has_spare);
        assert_eq!((done, records), (vec![], vec![]), "{after:?} {reached:?} {has_spare}");
    }
    // Two of three voters are dead: a common cause is likely, and no change could be committed.
    let (done, records) = dead_voter(Mode::Active, Some(60), &[4], true);
    assert!(done.is_empty() && names(&records).iter().all(|name| *name == "refused"), "{records:?}");
    let (done, records) = dead_voter(Mode::DryRun, Some(60), &[2, 4], true);
    assert!(done.is_empty() && names(&records).contains(&"would-execute"), "{records:?}");
}

/// The leader alone is cut off from a voter that the others reach, or nobody else answers.
#[test]
fn a_voter_is_dead_only_for_a_majority() {
    let voters: BTreeSet<_> = (1..=5).map(id).collect();
    let with =
        |answers: &[(u64, bool)]| witnessed(&voters, answers.iter().map(|(node, is)| (id(*node), *is)));
    assert_eq!(with(&[(2, false), (3, false), (4, false)]), Ok(()));
    assert_eq!(with(&[(2, false), (3, false)]), Ok(()));
    assert!(with(&[(2, false)]).unwrap_err().contains("only 2 of 5 voters"));
    assert!(with(&[]).unwrap_err().contains("only 1 of 5 voters"));
    assert!(with(&[(2, false), (3, false), (4, true)]).unwrap_err().contains("reaches it"));
}

#[test]
fn a_change_that_leaves_no_reached_majority_is_unsafe() {
    let mut view = View::new(id(1), SECOND, Some(60 * SECOND));
    let action = Act::Replace { dead: Member(id(3)), spare: id(4) };
    for (reached, expect) in [(&[2, 4][..], true), (&[4][..], true), (&[2][..], true), (&[][..], false)] {
        let reached = reached.iter().copied().map(id).collect();
        let place = Place { spare: Some(id(4)), reached, ..place_of(true, None) };
        view.set(place);
        assert_eq!(action.is_safe(&view).is_ok(), expect, "{:?}", view.place().reached);
    }
    // The voter has returned.
    view.set(Place { spare: Some(id(4)), ..place_of(true, None) });
    assert!(action.precondition(&view).unwrap_err().contains("reached again"));
}

/// Both disks are slow: each healer hands over at most three times, and then calls a person.
#[test]
fn a_transfer_that_does_not_help_ends_with_an_escalation() {
    let mut healer = engine(Mode::Active);
    let (mut done, mut records) = (0, Vec::new());
    for step in 0..36_000_u32 {
        let now = Duration::from_millis(100) * step;
        // The node is the leader again at once.
        healer.knowledge_mut().set(place_of(true, Some(id(2))));
        let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.5 };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let decided = healer.drain(now, |_| {
            done += 1;
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    assert_eq!(done, 3);
    assert!(names(&records).contains(&"escalated"));
}

#[cfg(feature = "conformance")]
#[test]
fn the_policy_keeps_the_contract() {
    use super::action::Heal;
    use crate::conformance::{Situation, check};
    let knowledge = || {
        let mut view = View::new(id(1), Duration::from_millis(300), Some(60 * SECOND));
        view.set(place_of(true, Some(id(2))));
        view
    };
    let situation = |value, is_healed| Situation {
        readings: vec![(SECOND, Reading { subject: Member(id(1)), signal: WRITE_AGE, value })],
        stale_after: 2 * SECOND,
        is_healed,
    };
    check(knowledge, || Heal, &[situation(0.1, false), situation(0.5, true)]).unwrap();
    // Too few voters and a spare, or too many: proposed as long as the sample is fresh.
    for voters in [2, 4] {
        let knowledge = || {
            let mut view = View::new(id(1), Duration::from_millis(300), None).voters(Some(voters));
            view.set(Place { spare: Some(id(4)), ..place_of(true, Some(id(2))) });
            view
        };
        let due = |signal| Situation {
            readings: vec![(SECOND, Reading { subject: Member(id(1)), signal, value: 1.0 })],
            stale_after: 2 * SECOND,
            is_healed: true,
        };
        let due = due(if voters == 2 { SURPLUS_VOTERS } else { MISSING_VOTERS });
        check(knowledge, || Heal, &[situation(0.1, false), due]).unwrap();
    }
}

/// What a leading healer of node 1 asks for within some time, with the answers of a store that grants every
/// claim.
fn changes(options: &HealerOptions, voters: &[u64], learners: &[u64], dead: &[u64]) -> Vec<Output> {
    asked(options, voters, learners, dead, false)
}

/// As [`changes`], of a leader whose disk may take no write.
fn asked(
    options: &HealerOptions,
    voters: &[u64],
    learners: &[u64],
    dead: &[u64],
    is_slow: bool,
) -> Vec<Output> {
    let mut healer = Healer::new(id(1), options);
    let mut asked = Vec::new();
    for step in 0..600 {
        let now = SAMPLE * step;
        let mut observation = follower(1, 0);
        observation.voters = voters.iter().copied().map(id).collect();
        observation.learners = learners.iter().copied().map(id).collect();
        observation.writing_since = is_slow.then_some(SECOND);
        let all = voters.iter().chain(learners).copied().filter(|node| *node != 1 && !dead.contains(node));
        observation.reached = all.map(id).collect();
        observation.acknowledged = observation.reached.iter().map(|node| (*node, 0)).collect();
        healer.handle(now, super::Input::Sample(&observation)).unwrap();
        while let Some(output) = healer.poll_output() {
            let revision = x0_kv::Revision::new(9);
            let answer = match output {
                Output::Ask(Ask::Read) => Answer::Read(Ok(None)),
                Output::Ask(Ask::Write { .. }) => Answer::Written(Ok(Some(revision))),
                Output::Ask(Ask::Remove { .. }) => Answer::Removed,
                Output::Record(record) => {
                    record.recompute().unwrap();
                    continue;
                }
                Output::Notify { .. } => continue,
                output => {
                    asked.push(output);
                    continue;
                }
            };
            healer.handle(now, super::Input::Stored(answer)).unwrap();
        }
        if !asked.is_empty() {
            break;
        }
    }
    asked
}

/// The kind of the first change, and its subject.
fn change(voters: &[u64], learners: &[u64], dead: &[u64]) -> Option<(&'static str, u64)> {
    let options =
        HealerOptions::new().mode(Mode::Active).voters(Some(3)).replace_after(Some(Duration::from_secs(5)));
    let planned: BTreeSet<NodeId> = voters.iter().copied().map(id).collect();
    match changes(&options, voters, learners, dead).first()? {
        Output::Promote { spare, voters, .. } => {
            assert_eq!(*voters, planned);
            Some(("promote", spare.get()))
        }
        Output::Demote { voter, is_dead, voters, .. } => {
            assert_eq!(*voters, planned);
            Some((if *is_dead { "demote dead" } else { "demote" }, voter.get()))
        }
        Output::Replace { dead, .. } => Some(("replace", dead.get())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_number_of_voters_is_kept() {
    assert_eq!(change(&[1, 2, 3], &[4], &[]), None);
    // Too few: a spare becomes a voter, if there is one that is reached.
    assert_eq!(change(&[1, 2], &[4], &[]), Some(("promote", 4)));
    assert_eq!(change(&[1, 2], &[4], &[4]), None);
    assert_eq!(change(&[1, 2], &[], &[]), None);
    assert_eq!(change(&[1], &[4, 5], &[]), Some(("promote", 5)));
    // Too many: a dead one first, then the one with the largest number, never the leader.
    assert_eq!(change(&[1, 2, 3, 4], &[], &[]), Some(("demote", 4)));
    assert_eq!(change(&[1, 2, 3, 4], &[5], &[2]), Some(("demote dead", 2)));
    assert_eq!(change(&[1, 2, 3, 4, 5], &[], &[3]), Some(("demote dead", 3)));
    // As many as there should be, and one is dead: it is replaced.
    assert_eq!(change(&[1, 2, 3], &[4], &[2]), Some(("replace", 2)));
    assert_eq!(change(&[1, 2, 3], &[], &[2]), None);
    // Too few, and one is dead: its place comes first, as long as a majority is reached.
    assert_eq!(change(&[1, 2], &[4], &[2]), Some(("replace", 2)));
    // Without a setting their number stays.
    let unset = HealerOptions::new().mode(Mode::Active);
    assert_eq!(changes(&unset, &[1, 2], &[4], &[]), []);
    assert_eq!(changes(&unset, &[1, 2, 3, 4], &[], &[]), []);
    let dry = HealerOptions::new().voters(Some(3));
    assert_eq!(changes(&dry, &[1, 2], &[4], &[]), []);
}

/// When a leading healer of voters 1 to 3 replaces voter 3, which dies after 12 s: its transport notices it
/// 2.4 s later, and these members accuse it after 0.7 s.
fn replaced_at(accusers: &[u64]) -> Option<Duration> {
    let options = HealerOptions::new().mode(Mode::Active).replace_after(Some(5 * SECOND));
    let mut healer = Healer::new(id(1), &options);
    for step in 0..300 {
        let now = SAMPLE * step;
        let mut observation = follower(1, 3);
        observation.leader = Some(id(1));
        observation.learners = [id(4)].into();
        observation.reached = [id(2), id(3), id(4)].into();
        if now >= Duration::from_millis(14_400) {
            observation.reached.remove(&id(3));
        }
        if now >= Duration::from_millis(12_700) {
            observation.suspects.insert(id(3), accusers.iter().copied().map(id).collect());
        }
        observation.acknowledged = observation.reached.iter().map(|node| (*node, 0)).collect();
        healer.handle(now, super::Input::Sample(&observation)).unwrap();
        while let Some(output) = healer.poll_output() {
            let answer = match output {
                Output::Ask(Ask::Read) => Answer::Read(Ok(None)),
                Output::Ask(Ask::Write { .. }) => Answer::Written(Ok(Some(x0_kv::Revision::new(9)))),
                Output::Replace { .. } => return Some(now),
                _ => continue,
            };
            healer.handle(now, super::Input::Stored(answer)).unwrap();
        }
    }
    None
}

/// From the death to the replacement it takes the set time and a second, at most.
#[test]
fn the_time_of_a_dead_voter_begins_when_a_majority_of_the_voters_accuses_it() {
    let time = |accusers: &[u64]| replaced_at(accusers).unwrap() - 12 * SECOND;
    let known = Duration::from_millis(5_700);
    let soon = time(&[1, 2, 4]);
    assert!((known..=6 * SECOND).contains(&soon), "{soon:?}");
    // One of three voters is no majority, nor is a learner a voter: the time begins with the transport's
    // report.
    let known = Duration::from_millis(7_400);
    for accusers in [&[][..], &[2], &[2, 4], &[4, 5]] {
        let late = time(accusers);
        assert!((known..known + SECOND / 2).contains(&late), "{accusers:?}: {late:?}");
    }
}

/// Neither voters that are one too many nor a dead one that a spare can replace hold the transfer back.
#[test]
fn a_slow_leader_hands_over_before_it_changes_the_voters() {
    let options = HealerOptions::new().mode(Mode::Active).voters(Some(3)).replace_after(Some(SECOND));
    for (voters, learners, dead) in [
        (&[1, 2, 3, 4][..], &[][..], &[][..]),
        (&[1, 2], &[4], &[]),
        (&[1, 2, 3], &[4], &[3]),
        (&[1, 2, 3, 4], &[5], &[4]),
    ] {
        let first = asked(&options, voters, learners, dead, true);
        assert!(
            matches!(first[..], [Output::Transfer { .. }]),
            "{voters:?} {learners:?} {dead:?}: {first:?}"
        );
    }
}

#[test]
fn a_change_of_the_number_of_voters_leaves_a_reached_majority() {
    let view = |voters: &[u64], reached: &[u64]| {
        let mut view = View::new(id(1), SECOND, Some(60 * SECOND)).voters(Some(3));
        let voters = voters.iter().copied().map(id).collect();
        let reached = reached.iter().copied().map(id).collect();
        view.set(Place { voters, reached, spare: Some(id(4)), ..place_of(true, None) });
        view
    };
    let promote = Act::Promote { spare: Member(id(4)) };
    assert!(promote.is_safe(&view(&[1, 2], &[2, 4])).is_ok());
    assert!(promote.is_safe(&view(&[1, 2], &[4])).is_ok(), "two of three");
    assert!(promote.is_safe(&view(&[1, 2], &[])).unwrap_err().contains("majority"));
    assert!(promote.precondition(&view(&[1, 2, 3], &[4])).unwrap_err().contains("enough"));
    assert!(promote.precondition(&view(&[1, 4], &[4])).unwrap_err().contains("already"));
    let other = Act::Promote { spare: Member(id(5)) };
    assert!(other.is_safe(&view(&[1, 2], &[2, 4, 5])).unwrap_err().contains("spare"));
    let demote = |voter, is_dead| Act::Demote { voter: Member(id(voter)), is_dead };
    assert!(demote(5, false).is_safe(&view(&[1, 2, 3, 5], &[2, 5])).is_ok());
    assert!(demote(5, false).is_safe(&view(&[1, 2, 3, 5], &[5])).unwrap_err().contains("majority"));
    assert!(demote(1, false).is_safe(&view(&[1, 2, 3, 5], &[2, 3])).unwrap_err().contains("leads"));
    assert!(demote(3, false).precondition(&view(&[1, 2, 3], &[2, 3])).unwrap_err().contains("too many"));
    assert!(demote(9, false).precondition(&view(&[1, 2, 3, 5], &[2, 3])).unwrap_err().contains("no voter"));
    let back = demote(5, true).precondition(&view(&[1, 2, 3, 5], &[2, 5]));
    assert!(back.unwrap_err().contains("reached again"));
    assert!(demote(5, true).precondition(&view(&[1, 2, 3, 5], &[2])).is_ok());
    assert!(demote(5, true).accuses_other() && !demote(5, false).accuses_other() && !promote.accuses_other());
}

/// A follower of node 1 among voters 1 to `count`, all of which are reached.
fn follower(node: u64, count: u64) -> Observation {
    let mut observation = Observation::new(id(node));
    (observation.leader, observation.term) = (Some(id(1)), 7);
    observation.voters = (1..=count).map(id).collect();
    observation.reached = (1..=count).filter(|other| *other != node).map(id).collect();
    observation
}

/// Healers of the followers of a leader for some time; what each did, by time in ms, and the records. The
/// leader's messages arrive when `hears` says so, for a node and a sample.
struct Followers {
    healers: Vec<(u64, Healer)>,
    count: u64,
    done: Vec<(u64, u128)>,
    records: Vec<Record>,
}

impl Followers {
    fn new(nodes: &[u64], count: u64) -> Followers {
        let healer = |node: &u64| (*node, Healer::new(id(*node), &HealerOptions::new().mode(Mode::Active)));
        Followers {
            healers: nodes.iter().map(healer).collect(),
            count,
            done: Vec::new(),
            records: Vec::new(),
        }
    }

    fn run(&mut self, steps: std::ops::Range<u32>, hears: impl Fn(u64, u32) -> u32) {
        self.run_with(steps, hears, |_, _| true);
    }

    /// As `run`, with processes that do not run at some steps.
    fn run_with(
        &mut self,
        steps: std::ops::Range<u32>,
        hears: impl Fn(u64, u32) -> u32,
        runs: impl Fn(u64, u32) -> bool,
    ) {
        for step in steps {
            let now = SAMPLE * step;
            let mut told = Vec::new();
            for (node, healer) in &mut self.healers {
                if !runs(*node, step) {
                    continue;
                }
                let mut observation = follower(*node, self.count);
                observation.leader_last_message = Some(SAMPLE * hears(*node, step));
                if self.done.iter().any(|_| true) {
                    // The new leader sends its heartbeats in time.
                    (observation.leader, observation.term) = (Some(id(self.done[0].0)), 8);
                    observation.leader_last_message = Some(now);
                }
                healer.handle(now, super::Input::Sample(&observation)).unwrap();
                while let Some(output) = healer.poll_output() {
                    match output {
                        Output::TakeOver { id } => {
                            self.done.push((*node, now.as_millis()));
                            healer.handle(now, super::Input::Outcome { id, result: Ok(()) }).unwrap();
                        }
                        Output::Notify { message, .. } => told.push((*node, message)),
                        Output::Record(record) => self.records.push(*record),
                        other => panic!("{other:?}"),
                    }
                }
            }
            for (from, message) in told {
                for (node, healer) in &mut self.healers {
                    if *node != from {
                        let from = id(from);
                        healer.handle(now, super::Input::Received { from, message: &message }).unwrap();
                    }
                }
            }
        }
    }
}

/// Heartbeats in time.
fn healthy(_: u64, step: u32) -> u32 {
    step
}

/// The leader runs for 50 of every 400 ms.
fn starved(_: u64, step: u32) -> u32 {
    step / 4 * 4
}

#[test]
fn one_successor_takes_over_from_a_leader_that_runs_part_of_the_time() {
    let mut group = Followers::new(&[2, 3], 3);
    group.run(0..200, healthy);
    assert_eq!((group.done.len(), group.records.len()), (0, 0));
    group.run(200..400, starved);
    let [(node, at)] = group.done[..] else { panic!("{:?}", group.done) };
    assert_eq!(node, 2);
    assert!((21_000..23_500).contains(&at), "{at}");
    let executing = group.records.iter().find(|record| record.event.name() == "executing").unwrap();
    assert_eq!((executing.kind.as_str(), executing.cause.as_str()), ("take-over", "starved"));
    assert_eq!(executing.subject, "node 0000000000000001");
    assert_eq!(names(&group.records).last(), Some(&"improved"));
    for record in &group.records {
        record.recompute().unwrap();
    }
}

#[test]
fn a_minority_takes_nothing_over() {
    // One of four followers sees it: a bad link, or a node that lies.
    let mut group = Followers::new(&[2, 3, 4, 5], 5);
    group.run(0..600, |node, step| if node == 2 { starved(node, step) } else { step });
    assert_eq!((group.done.len(), group.records.len()), (0, 0), "{:?}", group.records);
    // Two of four: no majority of five voters.
    group.run(600..1200, |node, step| if node <= 3 { starved(node, step) } else { step });
    assert!(group.done.is_empty(), "{:?}", group.done);
    group.run(1200..1800, |node, step| if node <= 4 { starved(node, step) } else { step });
    assert_eq!(group.done.len(), 1);
}

/// A busy machine takes the processor from each follower for a moment, again and again. The leader once
/// stayed for 21 s because of it: no follower was a witness in the two seconds after a late sample.
#[test]
fn followers_with_single_late_samples_are_witnesses() {
    for (every, late) in [(10, 1), (10, 2), (15, 2), (20, 3)] {
        let runs = |node, step| (step + u32::try_from(node).unwrap() * 7) % every >= late;
        let mut group = Followers::new(&[2, 3], 3);
        group.run_with(0..200, healthy, runs);
        assert_eq!((group.done.len(), group.records.len()), (0, 0), "{late} of {every}");
        group.run_with(200..400, starved, runs);
        let [(_, at)] = group.done[..] else { panic!("{late} of {every}: {:?}", group.done) };
        assert!((21_000..25_000).contains(&at), "{late} of {every}: {at}");
    }
}

#[test]
fn followers_whose_own_timers_are_late_accuse_nobody() {
    // The leader is silent for 300 of every 500 ms, and this process does not run for 300 of them or does.
    let told = |is_late: bool| {
        let mut healer = Healer::new(id(2), &HealerOptions::new().mode(Mode::Active));
        let mut told = 0;
        for cycle in 0..100 {
            let begin = SAMPLE * 5 * cycle;
            for step in [0, 1, 2, 3, 4].into_iter().filter(|step| !is_late || *step < 2) {
                let mut observation = follower(2, 3);
                observation.leader_last_message = Some(if step < 4 { begin } else { begin + SAMPLE * 4 });
                healer.handle(begin + SAMPLE * step, super::Input::Sample(&observation)).unwrap();
                while let Some(output) = healer.poll_output() {
                    assert!(matches!(output, Output::Notify { .. }), "{output:?}");
                    told += 1;
                }
            }
        }
        told
    };
    assert!(told(false) > 50);
    assert_eq!(told(true), 0);
}

#[test]
fn a_node_speaks_for_itself_alone_and_of_the_present_leader() {
    let mut healer = Healer::new(id(2), &HealerOptions::new());
    healer.handle(SECOND, super::Input::Sample(&follower(2, 3))).unwrap();
    let sighting = Sighting { timeouts: 4, ..Sighting::default() };
    let own = OwnState { durable_age: SECOND, ..OwnState::default() };
    let message = |observer, leader| {
        Summary::new(Observer::Member(observer), 1).own(own).sighting(leader, sighting).to_bytes()
    };
    let mut hear = |from: u64, message: &[u8]| {
        healer.handle(SECOND, super::Input::Received { from: id(from), message }).unwrap();
        let view = healer.engine().knowledge();
        (view.suspecting(SECOND).len(), view.others_pressed().0)
    };
    assert_eq!(hear(3, &message(1, 1)), (0, 0), "of another node");
    assert_eq!(hear(4, &message(4, 1)), (0, 0), "of no voter");
    let bytes = message(3, 1);
    for end in 0..bytes.len() {
        assert_eq!(hear(3, &bytes[..end]), (0, 0), "cut at {end}");
    }
    assert_eq!(hear(3, &message(3, 2)), (0, 1), "of another leader");
    assert_eq!(hear(3, &bytes), (1, 1));
}

/// Random and mutated messages, and answers of the store that nobody asked for, cause nothing.
#[test]
fn hostile_messages_cause_no_action() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let sighting = Sighting { timeouts: 9, ..Sighting::default() };
    let good = Summary::new(Observer::Member(3), 1).sighting(1, sighting).to_bytes();
    let mut healer = Healer::new(id(2), &HealerOptions::new().mode(Mode::Active));
    let mutations = u32::try_from(crate::mutations()).unwrap();
    for step in 0..mutations {
        let now = SAMPLE * step;
        let mut observation = follower(2, 5);
        observation.leader_last_message = Some(now);
        healer.handle(now, super::Input::Sample(&observation)).unwrap();
        let mut message = good.clone();
        for _ in 0..next() % 4 {
            let place = usize::try_from(next()).unwrap() % message.len();
            message[place] = next().to_le_bytes()[0];
        }
        message.truncate(usize::try_from(next() % 8).unwrap().max(1) * message.len() / 7);
        let from = id(3 + next() % 2);
        healer.handle(now, super::Input::Received { from, message: &message }).unwrap();
        if step % 16 == 0 {
            let answers = [Answer::Removed, Answer::Written(Ok(None)), Answer::Read(Ok(None))];
            healer.handle(now, super::Input::Stored(answers[step as usize / 16 % 3].clone())).unwrap();
        }
        assert_eq!(healer.poll_output(), None);
    }
}

/// The whole way of a replacement through the outputs: read, claim, begin, act.
#[test]
fn a_replacement_is_claimed_before_it_begins() {
    let options = HealerOptions::new().mode(Mode::Active).replace_after(Some(20 * SECOND));
    let mut healer = Healer::new(id(1), &options);
    let mut seen = Vec::new();
    for step in 0..400 {
        let now = SAMPLE * step;
        let mut observation = follower(1, 3);
        observation.reached = [id(2), id(4)].into();
        observation.learners = [id(4)].into();
        observation.acknowledged = [(id(2), 0), (id(4), 0)].into();
        healer.handle(now, super::Input::Sample(&observation)).unwrap();
        while let Some(output) = healer.poll_output() {
            let revision = x0_kv::Revision::new(9);
            match output {
                Output::Ask(Ask::Read) => {
                    seen.push("read");
                    healer.handle(now, super::Input::Stored(Answer::Read(Ok(None)))).unwrap();
                }
                Output::Ask(Ask::Write { claim, .. }) => {
                    seen.push(if claim.step == crate::claim::ClaimStep::Claimed { "claim" } else { "begin" });
                    healer.handle(now, super::Input::Stored(Answer::Written(Ok(Some(revision))))).unwrap();
                }
                Output::Replace { dead, spare, .. } => {
                    assert_eq!((dead, spare), (id(3), id(4)));
                    seen.push("replace");
                }
                Output::Record(record) => seen.push(record.event.name()),
                _ => {}
            }
        }
        if seen.last() == Some(&"replace") {
            break;
        }
    }
    let place = |what: &str| seen.iter().position(|seen| *seen == what).unwrap();
    assert!(place("read") < place("claim") && place("claim") < place("begin"), "{seen:?}");
    assert!(place("begin") < place("replace"), "{seen:?}");
}
