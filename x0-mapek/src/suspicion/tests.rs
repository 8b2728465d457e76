//! Detection, false verdicts, bytes and hostile messages, in a simulated group.
//!
//! `X0_MAPEK_SEEDS` multiplies the seeds (1).

use std::collections::BTreeSet;
use std::time::Duration;

use super::message::{ACCUSED_MAX, Message, Report};
use super::ring::Ring;
use super::world::{Random, World, ms};
use super::{Detector, DetectorOptions, HandleError, Input, MEMBERS_MAX, Output};

fn seeds(count: u64) -> std::ops::Range<u64> {
    let factor = std::env::var("X0_MAPEK_SEEDS").ok().and_then(|factor| factor.parse().ok());
    0..count * factor.unwrap_or(1_u64)
}

/// A process that never runs again.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Median and largest of some times.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], *times.last().unwrap())
}

#[test]
fn a_killed_or_hung_member_is_known_to_all_within_a_second() {
    for is_kill in [true, false] {
        let mut times = Vec::new();
        for seed in seeds(150) {
            let mut world = World::new(seed, 5);
            let at = world.random.time(ms(5000), ms(6000));
            world.run_until(at);
            assert_eq!(world.seen, [], "seed {seed}");
            let victim = 1 + world.random.below(5);
            if is_kill {
                world.kill(victim);
            } else {
                world.stop(victim, FOR_EVER);
            }
            let at = world.now;
            world.run_until(at + ms(3000));
            let known = world.known_after(victim, at);
            let others: BTreeSet<u64> = (1..=5).filter(|member| *member != victim).collect();
            assert_eq!(known.keys().copied().collect::<BTreeSet<_>>(), others, "seed {seed}");
            assert!(world.seen.iter().all(|seen| seen.member == victim), "seed {seed}: {:?}", world.seen);
            // The begin of the silence is found, between the last heartbeat and the death.
            for other in others {
                let suspect = &world.processes[&other].detector.suspects()[0];
                let since = suspect.silent_since;
                assert!(since <= at + ms(100) && since + ms(600) >= at, "seed {seed}: {since:?}, {at:?}");
                assert!(since < suspect.since);
            }
            times.extend(known.into_values());
        }
        let (median, worst) = spread(times);
        println!("five members, kill {is_kill}: median {median:?}, worst {worst:?}");
        assert!(median <= ms(1000) && worst <= ms(1500), "median {median:?}, worst {worst:?}");
    }
}

#[test]
fn two_of_five_that_die_at_once_are_both_known() {
    let mut times = Vec::new();
    for seed in seeds(60) {
        let mut world = World::new(seed, 5);
        world.run_until(ms(5000));
        let first = 1 + world.random.below(5);
        let second = 1 + (first + world.random.below(4)) % 5;
        world.kill(first);
        world.kill(second);
        world.run_until(ms(9000));
        for victim in [first, second] {
            let known = world.known_after(victim, ms(5000));
            assert_eq!(known.len(), 3, "seed {seed}: {victim} of {first} and {second}");
            times.extend(known.into_values());
        }
    }
    let (median, worst) = spread(times);
    println!("two of five: median {median:?}, worst {worst:?}");
    assert!(worst <= ms(3000), "median {median:?}, worst {worst:?}");
}

/// An agent of Serf in a group of five sends 267 bytes/s.
#[test]
fn five_calm_members_send_as_little_as_serf() {
    let mut world = World::new(1, 5);
    world.run_until(ms(5000));
    let sent = |world: &World| world.processes.values().map(|process| process.sent_bytes).sum::<usize>();
    let before = sent(&world);
    world.run_until(ms(65_000));
    let each = (sent(&world) - before) / 60 / 5;
    println!("five members: {each} bytes/s per member in a calm group");
    assert!(each <= 267, "{each}");
}

#[test]
fn a_hundred_members_send_little_and_know_soon() {
    let mut times = Vec::new();
    for seed in seeds(2) {
        let mut world = World::new(seed, 100);
        world.run_until(ms(5000));
        let bytes = |world: &World| -> Vec<usize> {
            world.processes.values().map(|process| process.sent_bytes).collect()
        };
        let rate = |before: &[usize], after: &[usize], seconds: usize| {
            let each: Vec<usize> =
                before.iter().zip(after).map(|(before, after)| (after - before) / seconds).collect();
            (each.iter().sum::<usize>() / each.len(), *each.iter().max().unwrap())
        };
        let before = bytes(&world);
        world.run_until(ms(15_000));
        let calm = rate(&before, &bytes(&world), 10);
        // Three neighbours: nobody watches the one in the middle at first.
        let ring = Ring::new(&(1..=100).collect());
        let middle = 1 + world.random.below(100);
        let beside = ring.watchers(middle, |_| false);
        let victims = [middle, beside[0], beside[1]];
        let at = world.now;
        victims.iter().for_each(|victim| world.kill(*victim));
        let before = bytes(&world);
        world.run_until(at + ms(10_000));
        let event = rate(&before, &bytes(&world), 10);
        for victim in victims {
            let known = world.known_after(victim, at);
            assert_eq!(known.len(), 97, "seed {seed}: {victim}");
            times.extend(known.into_values());
        }
        assert!(world.seen.iter().all(|seen| victims.contains(&seen.member)), "seed {seed}");
        println!("100 members: bytes/s per member, mean and largest: calm {calm:?}, three deaths {event:?}");
        assert!(calm.1 <= 5000 && event.0 <= 5000, "{calm:?} {event:?}");
    }
    let (median, worst) = spread(times);
    println!("100 members, three neighbours die: median {median:?}, worst {worst:?}");
    assert!(median <= ms(2000), "median {median:?}, worst {worst:?}");
}

/// Members that starve, several at once, and read what came meanwhile late, accuse nobody falsely enough for
/// a verdict: a member that has run for half a second is not declared dead.
#[test]
fn starved_observers_declare_nobody_dead() {
    let mut pauses = 0;
    let (mut accused, mut verdicts) = (0, 0);
    for seed in seeds(60) {
        let size = 3 + seed % 5;
        let mut world = World::new(seed, size);
        world.run_until(ms(4000));
        for _ in 0..120 {
            let until = world.now + world.random.time(ms(20), ms(500));
            world.run_until(until);
            let member = 1 + world.random.below(size);
            // Up to all but one at once: they share their processors.
            let count = world.random.below(size);
            for place in 0..count {
                let starved = 1 + (member + place) % size;
                let pause = world.random.time(ms(50), ms(2500));
                pauses += 1;
                match world.random.below(3) {
                    0 => world.stop(starved, pause),
                    1 => world.read_late(starved, pause),
                    _ => {
                        let late = world.random.time(ms(50), ms(1500));
                        world.stop(starved, pause);
                        world.read_late(starved, pause + late);
                    }
                }
            }
            let (seen, accusations) = (world.seen.len(), world.accusations.len());
            let until = world.now + ms(1500);
            while world.now < until {
                let next = world.now + ms(1);
                world.run_until(next);
                for number in seen..world.seen.len() {
                    let event = world.seen[number].clone();
                    if event.is_suspect && event.at == world.now {
                        verdicts += 1;
                        assert!(
                            !world.is_well(event.member, ms(500)),
                            "seed {seed}: {event:?} although it runs since {:?}",
                            world.processes[&event.member].well_since
                        );
                    }
                }
            }
            accused += world.accusations.len() - accusations;
        }
        // All are well again.
        let end = world.now + ms(15_000);
        world.run_until(end);
        for process in world.processes.values() {
            assert_eq!(process.detector.suspects(), [], "seed {seed}: member {}", process.detector.local());
            assert!(process.detector.may_accuse(), "seed {seed}");
        }
    }
    println!("{pauses} pauses: {accused} accusations, {verdicts} verdicts, none of a member that runs");
    assert!(accused > 0 && verdicts > 0, "the pauses are long enough to be seen");
}

/// One process starves and the others are well: it accuses nobody.
#[test]
fn a_starved_process_that_reads_late_accuses_nobody() {
    for seed in seeds(100) {
        let mut world = World::new(seed, 5);
        world.run_until(ms(4000));
        for _ in 0..10 {
            let starved = 1 + world.random.below(5);
            let (pause, late) = (world.random.time(ms(100), ms(4000)), world.random.time(ms(0), ms(1500)));
            world.stop(starved, pause);
            world.read_late(starved, pause + late);
            let until = world.now + pause + late + ms(2500);
            world.run_until(until);
            let wrong = world.accusations.iter().find(|(_, _, accused)| *accused != starved);
            assert_eq!(wrong, None, "seed {seed}");
            world.accusations.clear();
        }
    }
}

/// Messages that are read late: a member whose answer comes later than that of the control is not accused
/// before it has had as much time again.
#[test]
fn a_member_has_as_much_time_again_as_the_control_took() {
    let accused = |control_after: u64, answer_after: u64| {
        let mut detector = Detector::new(1, 1, DetectorOptions::new(), Duration::ZERO);
        detector.handle(Duration::ZERO, Input::Members(&(1..=4).collect())).unwrap();
        let watched = Ring::new(&(1..=4).collect()).watchers(1, |_| false);
        let (silent, other) = (watched[0], watched[1]);
        let (mut probe, mut accused) = (None, false);
        for step in 0..700 {
            let now = ms(step * 10);
            let mut receive = |from: u64, message: &Message| {
                detector.handle(now, Input::Received { from, message: &message.to_bytes() }).unwrap();
            };
            if step % 20 == 0 {
                receive(other, &Message::Heartbeat);
                if step < 400 {
                    receive(silent, &Message::Heartbeat);
                }
            }
            if let Some((number, at)) = probe {
                let (is_sure, report) = (true, Report::default());
                let answer = Message::Answer { number, is_sure, report };
                if now == at + ms(control_after) {
                    receive(other, &answer);
                } else if now == at + ms(answer_after) {
                    receive(silent, &answer);
                    break;
                }
            }
            detector.handle(now, Input::Timeout).unwrap();
            accused |= detector.accused() == [silent];
            while let Some(output) = detector.poll_output() {
                let Output::Send { to, message } = output else { continue };
                if let Ok(Message::Probe { number }) = Message::from_bytes(&message)
                    && to.contains(&silent)
                {
                    probe.get_or_insert((number, now));
                }
            }
        }
        accused
    };
    assert!(!accused(350, 600));
    assert!(accused(350, 800));
    assert!(accused(10, 500));
    assert!(!accused(10, 390));
}

/// The messages of a detector's outputs.
fn messages(detector: &mut Detector) -> Vec<(Vec<u64>, Message)> {
    let mut messages = Vec::new();
    while let Some(output) = detector.poll_output() {
        if let Output::Send { to, message } = output {
            messages.push((to, Message::from_bytes(&message).unwrap()));
        }
    }
    messages
}

/// A detector of member 1 of five that has heard all others for some seconds, and the time.
fn listening(options: DetectorOptions) -> (Detector, Duration) {
    let mut detector = Detector::new(1, 1, options, Duration::ZERO);
    detector.handle(Duration::ZERO, Input::Members(&(1..=5).collect())).unwrap();
    let mut now = Duration::ZERO;
    while now < ms(4000) {
        now += ms(50);
        if now.as_millis().is_multiple_of(200) {
            for from in 2..=5 {
                let message = Message::Heartbeat.to_bytes();
                detector.handle(now, Input::Received { from, message: &message }).unwrap();
            }
        }
        detector.handle(now, Input::Timeout).unwrap();
    }
    messages(&mut detector);
    (detector, now)
}

/// After a pause a process has heard nobody: it doubts nobody before it has listened, and accuses nobody
/// before its timers were punctual for a while.
#[test]
fn a_process_that_runs_again_listens_first() {
    let (mut detector, now) = listening(DetectorOptions::new());
    assert!(detector.may_accuse());
    let woke = now + ms(2000);
    for after in (0..350).step_by(50) {
        detector.handle(woke + ms(after), Input::Timeout).unwrap();
        assert!(!detector.may_accuse(), "after {after} ms");
        let sent = messages(&mut detector);
        assert!(sent.iter().all(|(_, message)| *message == Message::Heartbeat), "after {after} ms: {sent:?}");
    }
    // A probe takes a tenth of a second here: late timers count for longer.
    let (mut detector, now) = listening(DetectorOptions::new().answer_within(ms(100)));
    let woke = now + ms(2000);
    let mut accused_at = None;
    for after in (0..1500).step_by(50) {
        let at = woke + ms(after);
        detector.handle(at, Input::Timeout).unwrap();
        messages_answered(&mut detector, at);
        for from in 3..=5 {
            let message = Message::Heartbeat.to_bytes();
            detector.handle(at, Input::Received { from, message: &message }).unwrap();
        }
        // Others doubt it from the beginning.
        let doubt = Message::Doubt { member: 2 }.to_bytes();
        detector.handle(at, Input::Received { from: 3, message: &doubt }).unwrap();
        messages_answered(&mut detector, at);
        if detector.accused() == [2] {
            accused_at.get_or_insert(after);
        }
    }
    assert_eq!(accused_at, Some(400));
}

/// Answers the probes of a detector in the name of all members but 2.
fn messages_answered(detector: &mut Detector, at: Duration) {
    for (to, message) in messages(detector) {
        let Message::Probe { number } = message else { continue };
        for from in to.into_iter().filter(|from| *from != 2) {
            let answer = Message::Answer { number, is_sure: true, report: Report::default() }.to_bytes();
            detector.handle(at, Input::Received { from, message: &answer }).unwrap();
        }
    }
}

/// A majority that is not sure of its reports makes no verdict, and one that shrinks ends it.
#[test]
fn accusers_are_asked_before_they_are_believed() {
    let (mut detector, now) = listening(DetectorOptions::new());
    let report = |sequence, accuses: bool| Report {
        instance: 1,
        sequence,
        accused: if accuses { BTreeSet::from([5]) } else { BTreeSet::new() },
    };
    for from in 2..=4 {
        let message = Message::Report(report(1, true)).to_bytes();
        detector.handle(now, Input::Received { from, message: &message }).unwrap();
    }
    let asked = |detector: &mut Detector| -> Vec<(u64, u64)> {
        let probe = |(to, message): (Vec<u64>, Message)| match message {
            Message::Probe { number } if to.len() == 1 => Some((to[0], number)),
            _ => None,
        };
        messages(detector).into_iter().filter_map(probe).collect()
    };
    let first = asked(&mut detector);
    assert_eq!(first.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [2, 3, 4]);
    let answer = |detector: &mut Detector, at, asked: &[(u64, u64)], is_sure| {
        for (from, number) in asked {
            let message = Message::Answer { number: *number, is_sure, report: report(1, true) }.to_bytes();
            detector.handle(at, Input::Received { from: *from, message: &message }).unwrap();
        }
    };
    answer(&mut detector, now, &first, false);
    assert_eq!(detector.suspects(), []);
    let at = now + ms(250);
    detector.handle(at, Input::Timeout).unwrap();
    let second = asked(&mut detector);
    assert_eq!(second.len(), 3, "they are asked again");
    answer(&mut detector, at, &second[..2], true);
    assert_eq!(detector.suspects(), [], "two of five");
    answer(&mut detector, at, &second[2..], true);
    assert_eq!(detector.suspects()[0].accusers, [2, 3, 4]);
    assert!(matches!(detector.poll_output(), Some(Output::Suspect(suspect)) if suspect.member == 5));
    let message = Message::Report(report(2, false)).to_bytes();
    detector.handle(at, Input::Received { from: 2, message: &message }).unwrap();
    assert_eq!(detector.suspects(), []);
    assert_eq!(detector.poll_output(), Some(Output::Cleared { member: 5 }));
    // An old report changes nothing.
    let message = Message::Report(report(1, true)).to_bytes();
    detector.handle(at, Input::Received { from: 2, message: &message }).unwrap();
    assert_eq!(asked(&mut detector), []);
}

#[test]
fn a_minority_that_is_cut_off_declares_nobody_dead() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 5);
        world.run_until(ms(4000));
        world.cut = BTreeSet::from([2, 4]);
        world.run_until(ms(10_000));
        for member in 1..=5 {
            let suspects: Vec<u64> =
                world.processes[&member].detector.suspects().iter().map(|suspect| suspect.member).collect();
            let expected = if world.cut.contains(&member) { vec![] } else { vec![2, 4] };
            assert_eq!(suspects, expected, "seed {seed}: member {member}");
        }
        world.cut.clear();
        world.run_until(ms(16_000));
        assert!(
            world.processes.values().all(|process| process.detector.suspects().is_empty()),
            "seed {seed}"
        );
        // One alone has no control that answers.
        world.cut = BTreeSet::from([3]);
        world.accusations.clear();
        world.run_until(ms(22_000));
        assert!(world.accusations.iter().all(|(_, by, accused)| *by != 3 && *accused == 3), "seed {seed}");
        assert_eq!(world.processes[&1].detector.suspects()[0].accusers.len(), 4);
    }
}

#[test]
fn a_member_that_returns_is_cleared_soon() {
    for (seed, is_restart) in seeds(30).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = World::new(seed, 5);
        world.run_until(ms(4000));
        if is_restart {
            world.kill(2);
        } else {
            world.stop(2, ms(6000));
        }
        world.run_until(ms(10_000));
        assert_eq!(world.known_after(2, ms(4000)).len(), 4, "seed {seed}");
        if is_restart {
            let now = world.now;
            world.start(2, now);
            world.set_members(&(1..=5).collect());
        }
        world.run_until(ms(12_000));
        let cleared: BTreeSet<u64> = world
            .seen
            .iter()
            .filter(|seen| !seen.is_suspect && seen.member == 2)
            .map(|seen| seen.by)
            .collect();
        assert_eq!(cleared, BTreeSet::from([1, 3, 4, 5]), "seed {seed}");
        let accuses = |process: &super::world::Process| !process.detector.accused().is_empty();
        assert!(!world.processes.values().any(accuses), "seed {seed}");
        // The member is watched as before.
        world.kill(2);
        world.run_until(ms(15_000));
        assert_eq!(world.known_after(2, ms(12_000)).len(), 4, "seed {seed}");
    }
}

/// A member outside of the jury that receives none of the reports that take an accusation back.
#[test]
fn a_verdict_ends_although_its_end_was_not_heard() {
    for seed in seeds(5) {
        let mut world = World::new(seed, 16);
        let ring = Ring::new(&(1..=16).collect());
        let outside = (1..=16).find(|member| *member != 3 && !ring.jury(3).contains(member)).unwrap();
        world.run_until(ms(4000));
        world.kill(3);
        world.run_until(ms(8000));
        assert_eq!(world.processes[&outside].detector.suspects().len(), 1, "seed {seed}");
        world.cut = BTreeSet::from([outside]);
        world.start(3, ms(8000));
        world.set_members(&(1..=16).collect());
        world.run_until(ms(14_000));
        world.cut.clear();
        world.run_until(ms(40_000));
        for (member, process) in &world.processes {
            assert_eq!(process.detector.suspects(), [], "seed {seed}: {member}");
        }
    }
}

/// Jurors that start again while a member is away, which is back before they could accuse it.
#[test]
fn the_accusations_of_a_process_end_with_its_next_instance() {
    let mut world = World::new(1, 5);
    world.run_until(ms(4000));
    world.kill(2);
    world.run_until(ms(8000));
    assert_eq!(world.known_after(2, ms(4000)).len(), 4);
    for member in [2, 3, 4, 5] {
        world.start(member, ms(8000));
    }
    world.set_members(&(1..=5).collect());
    world.run_until(ms(10_000));
    assert_eq!(world.processes[&1].detector.suspects(), []);
}

/// A juror that starts after the death learns it, and takes part.
#[test]
fn a_restarted_member_knows_the_dead() {
    let mut world = World::new(1, 5);
    world.run_until(ms(4000));
    world.kill(2);
    world.run_until(ms(8000));
    world.kill(3);
    world.run_until(ms(10_000));
    world.start(3, ms(10_000));
    world.set_members(&(1..=5).collect());
    world.run_until(ms(24_000));
    let suspects = world.processes[&3].detector.suspects();
    assert_eq!(suspects.len(), 1);
    assert_eq!((suspects[0].member, suspects[0].accusers.clone()), (2, vec![1, 3, 4, 5]));
    // A removed member is no suspect.
    world.set_members(&BTreeSet::from([1, 3, 4, 5]));
    assert!(world.processes.values().all(|process| process.detector.suspects().is_empty()));
    let stranger = world.processes.get_mut(&1).unwrap().detector.handle(ms(24_000), Input::Alive { from: 2 });
    assert_eq!(stranger, Err(HandleError::NotAMember { from: 2 }));
}

/// A member of five that accuses all others, and answers that it is sure, causes no verdict. Nor do mutated
/// messages.
#[test]
fn hostile_messages_cause_no_verdict() {
    let mut world = World::new(3, 5);
    world.run_until(ms(2000));
    world.kill(5);
    let mut random = Random(9);
    let accused = BTreeSet::from([1, 2, 3, 4]);
    let mutations = crate::mutations();
    for number in 0..mutations {
        let report = Report { instance: random.below(3), sequence: number, accused: accused.clone() };
        let message = match random.below(5) {
            0 => Message::Report(report),
            1 => Message::Answer { number: random.below(40), is_sure: true, report },
            2 => Message::Doubt { member: 1 + random.below(6) },
            3 => Message::Probe { number: random.next() },
            _ => Message::Heartbeat,
        };
        let mut bytes = message.to_bytes();
        if random.below(2) == 0 {
            let (at, bit) = (random.below(bytes.len() as u64), random.below(8));
            bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
        }
        if random.below(8) == 0 {
            bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap());
        }
        if let Ok(read) = Message::from_bytes(&bytes) {
            assert_eq!(read.to_bytes(), bytes, "one form of bytes");
        }
        world.handle(1 + number % 4, Input::Received { from: 5, message: &bytes });
        if number % 200 == 0 {
            let next = world.now + ms(20);
            world.run_until(next);
        }
    }
    let wrong = world.seen.iter().find(|seen| seen.member != 5);
    assert_eq!(wrong, None);
}

#[test]
fn messages_are_bounded_and_have_one_form() {
    let report = Report { instance: 1, sequence: 2, accused: (1..=20).collect() };
    let bytes = Message::Report(report).to_bytes();
    let Ok(Message::Report(read)) = Message::from_bytes(&bytes) else { panic!("a report") };
    assert_eq!(read.accused.len(), ACCUSED_MAX);
    assert!(bytes.len() <= 100 && Message::Heartbeat.to_bytes().len() == 2);
    for len in 0..bytes.len() {
        assert!(Message::from_bytes(&bytes[..len]).is_err());
    }
    let mut swapped = bytes.clone();
    swapped[19] = 9;
    assert!(Message::from_bytes(&swapped).is_err(), "not ascending");
    let mut count = bytes;
    count[18] = u8::MAX;
    assert!(Message::from_bytes(&count).is_err(), "too many");
}

/// One recorded message of each kind means what it meant.
#[test]
fn recorded_messages_mean_what_they_meant() {
    let report = Report { instance: 1, sequence: 2, accused: BTreeSet::from([3]) };
    let tail = "0100000000000000020000000000000001 0300000000000000".replace(' ', "");
    for (message, expect) in [
        (Message::Heartbeat, "0100".to_owned()),
        (Message::Probe { number: 7 }, "01010700000000000000".into()),
        (
            Message::Answer { number: 7, is_sure: true, report: report.clone() },
            format!("0102070000000000000001{tail}"),
        ),
        (Message::Doubt { member: 9 }, "01030900000000000000".into()),
        (Message::Report(report), format!("0104{tail}")),
    ] {
        let hex: String = message.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expect);
        assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message));
    }
}

#[test]
fn groups_of_every_size_have_a_ring() {
    for size in 0..12 {
        let members: BTreeSet<u64> = (1..=size).collect();
        let ring = Ring::new(&members);
        for member in 1..=size {
            let (jury, watchers) = (ring.jury(member), ring.watchers(member, |_| false));
            assert_eq!(jury.len() as u64, (size - 1).min(6));
            assert_eq!(watchers.len() as u64, (size - 1).min(2));
            assert!(watchers.iter().all(|watcher| jury.contains(watcher)) && !jury.contains(&member));
            // For every set of suspects, a watcher of a member is watched by it.
            for suspects in 0..(1_u64 << size.min(7)) {
                let is_suspect = |other: u64| suspects & (1 << (other - 1)) != 0;
                for watcher in ring.watchers(member, is_suspect).into_iter().filter(|_| !is_suspect(member)) {
                    assert!(ring.watchers(watcher, is_suspect).contains(&member));
                }
            }
        }
        assert!(ring.jury(99).is_empty() && ring.watchers(99, |_| false).is_empty());
    }
    let needed: Vec<usize> = (1..=6).map(Ring::needed).collect();
    assert_eq!(needed, [2, 2, 3, 3, 4, 4]);
    let mut detector = Detector::new(1, 1, DetectorOptions::new(), Duration::ZERO);
    let many: BTreeSet<u64> = (0..=MEMBERS_MAX as u64).collect();
    let refused = detector.handle(Duration::ZERO, Input::Members(&many));
    assert_eq!(refused, Err(HandleError::MembersExceeded { count: MEMBERS_MAX + 1 }));
    assert_eq!(detector.poll_output(), None::<Output>);
}
