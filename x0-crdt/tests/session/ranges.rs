//! Transfers by key range: states that are too long for one transfer.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use x0_crdt::internal::{StageBegin, StageStep, Transfer};
use x0_crdt::{
    CausalMap, CausalReplica, Joined, MapDelta, ReplicaId, Session, SessionInput, SessionOptions,
    SessionOutput,
};

use super::net::{Link, Net};
use super::pump::{Seen, pump};
use super::random::Random;
use super::subject::{Composed, KEY, Subject};

/// The most bytes that may be in transfer on either side.
const IN_TRANSFER_MAX: usize = 8 << 20;

fn fill<R: Subject>(map: &mut R, keys: u32, value_len: usize, random: &mut Random) {
    for _ in 0..keys {
        let key = [random.next().to_le_bytes(), random.next().to_le_bytes()].concat();
        let value: Vec<u8> = (0..value_len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        map.put_value(&key, 0, &value[..value_len]);
    }
}

/// Everything that goes over a link of 1 MB/s that loses a tenth, while either side is killed and started
/// again from its disk.
#[test]
fn a_long_state_arrives_at_a_twentieth_above_its_length_and_the_loss_with_twenty_kills_of_each_side() {
    let kilobytes =
        std::env::var("X0_CRDT_KILOBYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(16_000_u32);
    println!("{}", transfer_with_kills::<CausalMap>(kilobytes, 40, 400_000));
}

/// The same of a composed type, whose slices are twice as long.
#[test]
fn a_long_state_of_a_composed_type_arrives_with_ten_kills_of_each_side() {
    println!("{}", transfer_with_kills::<CausalReplica<Composed>>(40_000, 20, 900_000));
}

/// Returns the figures. `kill_len`: the bytes that a kill costs at most.
fn transfer_with_kills<R: Subject>(kilobytes: u32, kills: usize, kill_len: u32) -> String {
    let link =
        Link { bytes_per_second: 1_000_000, delay: Duration::from_millis(20), loss: 10, ..Link::default() };
    let options = SessionOptions::default().bytes_per_second(1_000_000);
    let mut net = Net::<R>::new(2, 1, &options, link);
    let mut random = Random::new(1);
    fill(net.map_mut(0), kilobytes, 1_000, &mut random);
    let len = net.map(0).saved().len() as u64;
    net.changed(0);
    let (begin, mut pending_max, mut serving_max) = (net.now(), 0, 0);
    // The kills are spread over the transfer; a range needs half a second.
    let pause = (Duration::from_secs(u64::from(kilobytes)) / 40_000)
        .max(Duration::from_millis(800))
        .max(Duration::from_micros(u64::from(kill_len) * 3 / 2));
    for kill in 0..kills {
        for _ in 0..10 {
            net.run(pause / 10);
            pending_max = pending_max.max(net.session(1).pending_bytes());
            serving_max = serving_max.max(net.session(0).serving_bytes());
        }
        let counts = [0, 1].map(|at| net.map(at).value_count());
        assert!(counts[0] > 0 && counts[1] == 0, "nothing of it is visible before the end");
        let at = kill % 2;
        let (saved, id) = (net.map(at).saved(), net.map(at).replica());
        net.boot_as(at, &saved, id, random.next());
        net.changed(at);
    }
    net.run_until_agreed(Duration::from_secs(u64::from(kilobytes)));
    net.run_until_in_sync(Duration::from_secs(60));
    net.check(1);
    let ratio = net.bytes() as f64 * 0.9 / len as f64;
    let figures = format!(
        "{len} B arrived after {:?} with {kills} kills: {} B sent, {ratio:.3} times the state without \
         the loss; at most {pending_max} B in transfer at the receiver, {serving_max} B at the sender",
        net.now() - begin,
        net.bytes()
    );
    // A kill costs up to a range, which a gibibyte pays from its twentieth, and a smaller state does not.
    let kills = if len < 1 << 30 { kills as f64 * f64::from(kill_len) / len as f64 } else { 0.0 };
    assert!(ratio <= 1.05 + kills, "{ratio}");
    assert!(pending_max > 0 && pending_max <= IN_TRANSFER_MAX, "{pending_max}");
    assert!(serving_max > 0 && serving_max <= IN_TRANSFER_MAX, "{serving_max}");
    figures
}

#[test]
fn a_long_state_arrives_at_a_twentieth_above_its_length_without_kills() {
    let link =
        Link { bytes_per_second: 1_000_000, delay: Duration::from_millis(20), loss: 10, ..Link::default() };
    let options = SessionOptions::default().bytes_per_second(1_000_000);
    let mut net = Net::<CausalMap>::new(2, 1, &options, link);
    fill(net.map_mut(0), 12_000, 1_000, &mut Random::new(1));
    let len = net.map(0).save().len() as u64;
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(600));
    net.check(1);
    let ratio = net.bytes() as f64 * 0.9 / len as f64;
    println!("{len} B: {} B sent, {ratio:.3} times the state without the loss", net.bytes());
    assert!(ratio <= 1.05, "{ratio}");
}

/// The CPU time of this thread where the system tells it, and the time elsewhere: other programs run
/// meanwhile.
fn cpu_time() -> Duration {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = text.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGIN.elapsed(), Duration::from_nanos)
}

/// What a synchronization took of each side's thread.
struct Took {
    longest: [Duration; 2],
    all: [Duration; 2],
    ranges: u32,
    /// The slowest calls and what they did.
    slow: Vec<(Duration, String)>,
}

fn sync(now: &mut Duration, maps: &mut [CausalMap; 2], sessions: &mut [Session; 2]) -> Took {
    let mut took =
        Took { longest: [Duration::ZERO; 2], all: [Duration::ZERO; 2], ranges: 0, slow: Vec::new() };
    let end = *now + Duration::from_secs(600);
    // Until nothing of the work on a stage is left either.
    let mut quiet = 0;
    while maps[0].frontier() != maps[1].frontier() || quiet < 1_000 {
        quiet += u32::from(maps[0].frontier() == maps[1].frontier());
        assert!(*now < end);
        let mut inputs: Vec<(usize, Option<Vec<u8>>)> = vec![(0, None), (1, None)];
        while let Some((to, datagram)) = inputs.pop() {
            let input = datagram.as_deref().map_or(SessionInput::Timeout, SessionInput::Datagram);
            let mut what =
                format!("side {to} with {:?}:", datagram.as_ref().map(|bytes| (bytes[0], bytes.len())));
            let begin = cpu_time();
            sessions[to].handle(*now, input, &mut maps[to]).unwrap();
            let mut sends = Vec::new();
            while let Some(output) = sessions[to].poll_output() {
                match output {
                    SessionOutput::Send(datagram) => sends.push(datagram),
                    SessionOutput::Staged(_) => took.ranges += 1,
                    SessionOutput::Joined(joined) => what += &format!(" joined {}", joined.keys.len()),
                }
            }
            let time = cpu_time().saturating_sub(begin);
            took.longest[to] = took.longest[to].max(time);
            took.all[to] += time;
            if took.slow.len() < 4 || took.slow.last().is_some_and(|(least, _)| time > *least) {
                what += &format!(" sent {:?}", sends.first().map(|bytes| (bytes[0], bytes.len())));
                took.slow.push((time, what));
                took.slow.sort_by(|a, b| b.cmp(a));
                took.slow.truncate(4);
            }
            inputs.extend(sends.into_iter().map(|datagram| (1 - to, Some(datagram))));
        }
        *now += Duration::from_micros(200);
    }
    took
}

/// The longest call of `handle` on each side for a state of many keys, and for a hundredth of it.
#[test]
fn no_call_takes_long() {
    let keys = std::env::var("X0_CRDT_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000_u32);
    let options = SessionOptions::default();
    let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), KEY));
    fill(&mut maps[0], keys, 8, &mut Random::new(1));
    let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&options, seed));
    let mut now = Duration::ZERO;
    let Took { longest, all, ranges, slow } = sync(&mut now, &mut maps, &mut sessions);
    println!(
        "{keys} keys in {ranges} ranges: the longest call took {longest:?}, all of them {all:?}\n{slow:?}"
    );
    assert!(ranges >= keys / 4096, "{ranges} ranges");
    let hundredth: Vec<Vec<u8>> = maps[0].range(b"").map(|entry| entry.key().to_vec()).step_by(100).collect();
    for key in &hundredth {
        maps[0].put(key, 1, b"changed").unwrap();
    }
    sessions[0].handle(now, SessionInput::Changed, &mut maps[0]).unwrap();
    let begin = maps[1].clone();
    let Took { longest: of_delta, all, slow, .. } = sync(&mut now, &mut maps, &mut sessions);
    println!(
        "{} changed: the longest call took {of_delta:?}, all of them {all:?}\n{slow:?}",
        hundredth.len()
    );
    let mut other = begin;
    let delta = maps[0].delta(&other.version()).unwrap();
    let begin = cpu_time();
    other.join(&delta).unwrap();
    println!("the join of them takes {:?}", cpu_time().saturating_sub(begin));
    // The figures that count are printed; a loaded machine must not fail the test.
    assert!(longest.iter().all(|took| *took < Duration::from_secs(1)), "{longest:?}");
}

/// The same where no history is left: new values alone, and a comparison of the states.
#[test]
fn no_call_takes_long_without_history() {
    let keys = std::env::var("X0_CRDT_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000_u32);
    let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), KEY));
    fill(&mut maps[0], keys, 8, &mut Random::new(1));
    let whole = maps[0].complete(&maps[1].version());
    maps[1].join(&whole).unwrap();
    for map in &mut maps {
        let version = map.version();
        map.collect_tombstones(&version);
    }
    let mut now = Duration::ZERO;
    for (what, is_removed, sides) in
        [("one side overwrites", false, 1), ("one side removes", true, 1), ("both sides change", true, 2)]
    {
        for (side, map) in maps.iter_mut().enumerate().take(sides) {
            let changed: Vec<Vec<u8>> = map.range(b"").map(|entry| entry.key().to_vec()).collect();
            for (number, key) in changed.iter().skip(side * 7).step_by(1_000).enumerate() {
                if is_removed && number % 2 == 0 {
                    map.remove(key).unwrap();
                } else {
                    map.put(key, 1, what.as_bytes()).unwrap();
                }
            }
            let version = map.version();
            map.collect_tombstones(&version);
        }
        let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&SessionOptions::default(), seed));
        let Took { longest, all, slow, .. } = sync(&mut now, &mut maps, &mut sessions);
        println!("{keys} keys, {what}: the longest call took {longest:?}, all of them {all:?}\n{slow:?}");
        assert!(maps[0].encode_state() == maps[1].encode_state());
        assert!(sessions.iter().any(|session| session.stats().reconciliations > 0), "{what}");
        assert!(longest.iter().all(|took| *took < Duration::from_secs(1)), "{longest:?}");
    }
}

/// Two replicas that both hold much: the long delta is joined beside the map, which is written to meanwhile.
#[test]
fn writes_and_removals_during_a_transfer_count() {
    writes_during_a_transfer::<CausalMap>();
}

#[test]
fn writes_and_removals_during_a_transfer_of_a_composed_type_count() {
    writes_during_a_transfer::<CausalReplica<Composed>>();
}

fn writes_during_a_transfer<R: Subject>() {
    for seed in 0..super::seeds(30) {
        let mut random = Random::new(seed);
        let options = SessionOptions::default()
            .transfer_len_max(3_000)
            .datagram_len_max(500)
            .join_items_max(super::steps::items_max(seed));
        let link = Link { bytes_per_second: 20_000, delay: Duration::from_millis(30), ..Link::default() };
        let mut net = Net::<R>::new(3, seed, &options, link);
        for number in 0..600_u32 {
            let key = format!("key-{number:03}");
            net.map_mut(0).put_value(key.as_bytes(), 0, b"shared by all of them");
        }
        net.fast_forward();
        net.set_cut(true);
        for number in 0..600_u32 {
            let key = format!("key-{number:03}");
            match random.below(4) {
                0 => net.map_mut(0).put_value(key.as_bytes(), 1, &random.next().to_le_bytes()),
                1 => drop(net.map_mut(0).remove_key(key.as_bytes())),
                2 => net.map_mut(1).put_value(key.as_bytes(), 1, &random.next().to_le_bytes()),
                _ => {}
            }
        }
        if seed % 2 == 0 {
            // History does not reach back: ranges say what is held.
            let version = net.map(0).version();
            net.map_mut(0).collect_tombstones(&version);
        }
        net.set_cut(false);
        net.changed(0);
        let mut removed = Vec::new();
        let mut written = Vec::new();
        for round in 0..40_u64 {
            net.run(Duration::from_millis(20 + random.below(40)));
            let at = random.below(3) as usize;
            let key = format!("key-{:03}", random.below(600)).into_bytes();
            if random.below(2) == 0 {
                net.map_mut(at).put_value(&key, round + 2, b"meanwhile");
                removed.retain(|other| *other != key);
                written.push(key);
            } else if net.map_mut(at).remove_key(&key) && !written.contains(&key) {
                removed.push(key);
            }
            net.changed(at);
        }
        net.run_until_in_sync(Duration::from_secs(600));
        net.check(seed);
        assert!(!net.staged.is_empty(), "seed {seed}: it came by ranges");
    }
}

/// A value that the sender has removed, with all history of it collected, is not kept by a range, and one
/// that the receiver has removed is not brought back by one.
#[test]
fn removed_values_do_not_come_back_by_ranges() {
    removed_values_stay_removed::<CausalMap>();
}

#[test]
fn removed_values_of_a_composed_type_do_not_come_back_by_slices() {
    removed_values_stay_removed::<CausalReplica<Composed>>();
}

fn removed_values_stay_removed<R: Subject>() {
    let options = SessionOptions::default().transfer_len_max(2_000);
    let mut net = Net::<R>::new(2, 1, &options, Link::default());
    for number in 0..500_u32 {
        net.map_mut(0).put_value(&number.to_be_bytes(), 0, &number.to_le_bytes());
    }
    net.fast_forward();
    net.set_cut(true);
    for number in (0..500_u32).step_by(2) {
        net.map_mut(0).remove_key(&number.to_be_bytes());
    }
    for number in (0..500_u32).step_by(3) {
        net.map_mut(1).remove_key(&number.to_be_bytes());
    }
    for number in 500..900_u32 {
        net.map_mut(0).put_value(&number.to_be_bytes(), 0, &number.to_le_bytes());
    }
    let version = net.map(0).version();
    net.map_mut(0).collect_tombstones(&version);
    net.set_cut(false);
    net.changed(1);
    net.run_until_in_sync(Duration::from_secs(60));
    net.check(1);
    assert!(net.staged.iter().filter(|(at, _)| *at == 1).count() > 3, "{} ranges", net.staged.len());
    let expected: Vec<Vec<u8>> = (0..900_u32)
        .filter(|number| *number >= 500 || number % 2 != 0 && number % 3 != 0)
        .map(|number| number.to_be_bytes().to_vec())
        .collect();
    assert_eq!(net.map(1).keys(), expected);
}

/// The changed keys of a long state are reported while the next one waits for its peer, which is gone.
#[test]
fn a_session_that_waits_for_a_range_reports_what_was_changed_before_and_then_rests() {
    let [mut here, mut first, second] = [1, 2, 3].map(|node| CausalMap::new(ReplicaId::new(node), KEY));
    fill(&mut first, 40_000, 8, &mut Random::new(1));
    let mut maps = [here.clone(), second];
    fill(&mut maps[1], 40_000, 8, &mut Random::new(2));
    let StageBegin::Ready(claim) = here.begin_stage(Duration::ZERO, None, Duration::ZERO, true) else {
        panic!("no other session fetches");
    };
    let mut reported = loop {
        if let Some((since, from)) = here.stage_needs() {
            let range = first.encode_range(&since, &from, 1 << 19).unwrap();
            here.take_range(Duration::ZERO, Some(claim), &range).unwrap();
        }
        if let StageStep::Done(_, joined) = here.step_stage() {
            break joined.keys.len();
        }
    };
    assert!(reported < 10_000 && here.has_reports(), "{reported}");
    maps[0] = here;
    let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&SessionOptions::default(), seed));
    let mut now = Duration::ZERO;
    while maps[0].stage_needs().is_none() {
        for begins in 0..2 {
            pump(now, begins, &mut maps, &mut sessions, |side, map, seen| {
                if let (0, Seen::Output(SessionOutput::Joined(joined))) = (side, &seen) {
                    reported += joined.keys.len();
                }
                // The request for a range does not arrive.
                seen.datagram().filter(|_| side == 1 || map.stage_needs().is_none())
            });
        }
        now += Duration::from_millis(1);
    }
    assert!(maps[0].has_reports(), "the stage begins before all is reported");
    let mut calls = 0;
    while sessions[0].poll_timeout().is_some_and(|at| at <= now) {
        sessions[0].handle(now, SessionInput::Timeout, &mut maps[0]).unwrap();
        while let Some(output) = sessions[0].poll_output() {
            if let SessionOutput::Joined(joined) = output {
                reported += joined.keys.len();
            }
        }
        calls += 1;
        assert!(calls < 100, "the session is due again and again");
    }
    assert_eq!(reported, 40_000);
    assert!(maps[0].stage_needs().is_some(), "the range is awaited");
}

/// Keys that are longer than a datagram: the request for the next range is collected in parts.
#[test]
fn keys_longer_than_a_datagram_arrive() {
    let options = SessionOptions::default().transfer_len_max(12_000).datagram_len_max(300);
    let link = Link { loss: 10, ..Link::default() };
    let mut net = Net::<CausalMap>::new(2, 1, &options, link);
    for number in 0..40_u32 {
        let key = [&[7; 4_000][..], &number.to_be_bytes()].concat();
        net.map_mut(0).put(&key, 0, &[number as u8; 700]).unwrap();
    }
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(60));
    net.check(1);
    assert!(net.staged.len() > 2, "{}", net.staged.len());
}

/// The driver of one side: a map, and its journal.
struct Journal {
    whole: Vec<u8>,
    records: Vec<Record>,
}

enum Record {
    Range(Vec<u8>),
    Joined,
    Delta(Vec<u8>),
}

impl Journal {
    fn open(&self, id: ReplicaId) -> CausalMap {
        let mut map = CausalMap::restore(&self.whole, id, KEY).unwrap();
        for record in &self.records {
            match record {
                Record::Range(record) => map.replay_range(record).unwrap(),
                Record::Joined => assert!(map.replay_ranges()),
                Record::Delta(bytes) => {
                    let delta = MapDelta::decode(bytes, &map.version()).unwrap();
                    map.replay(&delta).unwrap();
                }
            }
        }
        map
    }
}

#[test]
fn a_journal_rebuilds_what_has_arrived() {
    let options = SessionOptions::default().transfer_len_max(4_000);
    let (source, id) = (ReplicaId::new(1), ReplicaId::new(2));
    let mut random = Random::new(5);
    let mut maps = [source, id].map(|id| CausalMap::new(id, KEY));
    fill(&mut maps[0], 500, 20, &mut random);
    fill(&mut maps[1], 100, 20, &mut random);
    let mut journal = Journal { whole: maps[1].save(), records: Vec::new() };
    let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&options, seed));
    let (mut kills, mut resumed) = (0, 0);
    let mut now = Duration::ZERO;
    while maps[0].frontier() != maps[1].frontier() {
        assert!(now < Duration::from_secs(600));
        for side in 0..2 {
            let mut before = maps[1].version();
            pump(now, side, &mut maps, &mut sessions, |of, map: &CausalMap, seen| {
                match seen {
                    Seen::Output(SessionOutput::Staged(record)) if of == 1 => {
                        journal.records.push(Record::Range(record));
                    }
                    Seen::Output(SessionOutput::Joined(Joined { ranges: Some(_), .. })) if of == 1 => {
                        journal.records.push(Record::Joined);
                    }
                    Seen::Output(SessionOutput::Joined(_)) if of == 1 => {
                        let delta = map.delta(&before).unwrap().encode(&before);
                        journal.records.push(Record::Delta(delta));
                    }
                    seen => return seen.datagram(),
                }
                before = map.version();
                None
            });
        }
        now += Duration::from_millis(1);
        if now.as_millis().is_multiple_of(20) && kills < 10 {
            kills += 1;
            let before = maps[1].version();
            maps[1].put(&[kills], 9, b"mine").unwrap();
            journal.records.push(Record::Delta(maps[1].delta(&before).unwrap().encode(&before)));
            resumed += usize::from(journal.records.iter().any(|record| matches!(record, Record::Range(_))));
            let opened = journal.open(id);
            assert_eq!(opened.frontier(), maps[1].frontier());
            maps[1] = opened;
            sessions[1] = Session::new(&options, u64::from(kills) + 10);
        }
    }
    assert!(resumed > 0);
    let ranges = journal.records.iter().filter(|record| matches!(record, Record::Range(_))).count();
    println!("{ranges} ranges with {kills} kills");
    assert!(ranges <= 12, "{ranges}: a kill costs no range that was staged");
    assert_eq!(journal.open(id).encode_state(), maps[0].encode_state());
}

/// Damaged records and saved stages are refused, or are others; nothing panics.
#[test]
fn damaged_records_are_refused() {
    let options = SessionOptions::default().transfer_len_max(2_000);
    let mut net = Net::<CausalMap>::new(2, 1, &options, Link::default());
    fill(net.map_mut(0), 300, 20, &mut Random::new(5));
    net.changed(0);
    let mut saved = Vec::new();
    while net.staged.len() < 4 {
        net.run(Duration::from_millis(1));
        saved = net.map(1).save();
    }
    assert_eq!(saved[0], 2, "with a stage");
    let mut random = Random::new(9);
    let id = ReplicaId::new(2);
    let fresh = CausalMap::new(id, KEY);
    let records = net.staged.clone();
    for _ in 0..super::seeds(3_000) {
        let (record, mut bytes) = (&records[0].1, saved.clone());
        let mut damaged = record.clone();
        for of in [&mut damaged, &mut bytes] {
            let at = random.below(of.len() as u64) as usize;
            match random.below(3) {
                0 => of.truncate(at),
                1 => of[at] ^= 1 << random.below(8),
                _ => of[at] = random.next() as u8,
            }
        }
        let mut map = fresh.clone();
        if map.replay_range(&damaged).is_ok() {
            let _ = map.save();
        }
        if let Ok(restored) = CausalMap::restore(&bytes, id, KEY) {
            let again = restored.save();
            let result = CausalMap::restore(&again, id, KEY);
            assert!(result.is_ok(), "{result:?}");
        }
    }
    let mut map = fresh.clone();
    assert!(map.replay_range(&records[1].1).is_err(), "the first one is missing");
    map.replay_range(&records[0].1).unwrap();
    assert!(map.replay_range(&records[2].1).is_err(), "the second one is missing");
    assert!(!map.replay_ranges(), "it is not complete");
    assert_eq!(map.frontier(), fresh.frontier());
}
