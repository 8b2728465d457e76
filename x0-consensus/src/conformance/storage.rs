//! The cases of the contract of [`Storage`].

use std::fmt::Debug;
use std::io::{Read, Seek, SeekFrom, Write as _};

use bytes::Bytes;
use x0_identity::NodeId;

use super::{Failure, Open};
use crate::{
    Entry, EntryKind, HardState, LogBase, Membership, ReadError, Recovered, SnapshotMeta, Storage, TermRun,
    Write, WriteError,
};

/// The result of a case: the violation, if any.
type Checked = Result<(), String>;

/// Runs all cases, each on a new, empty storage that `fresh` opens.
///
/// # Errors
/// The first case that failed.
pub fn check_storage(fresh: &mut dyn FnMut() -> Open) -> Result<(), Failure> {
    for (case, check) in CASES {
        let mut open = fresh();
        check(&mut open).map_err(|what| Failure { case, what })?;
    }
    Ok(())
}

type Case = (&'static str, fn(&mut Open) -> Checked);

const CASES: &[Case] = &[
    ("a new storage is empty", new_is_empty),
    ("writes survive a restart", survives_restart),
    ("entries replace those at and after their index", entries_overwrite),
    ("a read is bounded by bytes and by the log", readings_are_bounded),
    ("a batch with a gap is refused as a whole", gaps_are_refused),
    ("the base moves forward and removes the entries before it", base_moves),
    ("a base at the same index replaces the membership", base_restates),
    ("a snapshot that matches the log keeps the log", snapshot_of_own_past),
    ("a snapshot that conflicts with the log replaces it", snapshot_from_elsewhere),
    ("a snapshot is in use only when finished and adopted", snapshot_needs_adoption),
    ("older snapshots are refused", older_snapshots_are_refused),
    ("a snapshot can be read from any offset", snapshot_seeks),
    ("a reader stays valid when a newer snapshot is adopted", reader_outlives),
    ("many writes and restarts give the expected contents", long_run),
];

#[expect(clippy::needless_pass_by_value, reason = "most values are made for the comparison")]
fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn show(error: impl std::error::Error) -> String {
    error.to_string()
}

fn node(number: u64) -> Result<NodeId, String> {
    NodeId::new(number).ok_or_else(|| "0 is not a node id".to_owned())
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let filler = u8::try_from((index * 31 + term) % 251).unwrap_or(0);
    let kind = if index % 7 == 3 { EntryKind::Membership } else { EntryKind::Normal };
    Entry { term, index, kind, payload: Bytes::from(vec![filler; len]) }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, usize::try_from(index % 40).unwrap_or(0))).collect()
}

fn append(entries: Vec<Entry>) -> Write {
    Write { entries, ..Write::default() }
}

fn all(storage: &mut dyn Storage) -> Result<Vec<Entry>, String> {
    let recovered = storage.recover().map_err(show)?;
    storage.read(recovered.base.index + 1..recovered.last_index + 1, usize::MAX).map_err(show)
}

fn stage(storage: &mut dyn Storage, meta: &SnapshotMeta, bytes: &[u8]) -> Checked {
    let mut writer = storage.snapshot_writer(meta).map_err(show)?;
    writer.write_all(bytes).map_err(show)?;
    same("bytes taken by the snapshot's writer", writer.len_bytes(), bytes.len() as u64)?;
    writer.finish().map_err(show)
}

fn snapshot_bytes(storage: &mut dyn Storage) -> Result<Option<(SnapshotMeta, Vec<u8>)>, String> {
    let Some(mut reader) = storage.snapshot_reader().map_err(show)? else { return Ok(None) };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(show)?;
    same("the snapshot's length", reader.len_bytes(), bytes.len() as u64)?;
    Ok(Some((reader.meta().clone(), bytes)))
}

fn meta(index: u64, term: u64) -> Result<SnapshotMeta, String> {
    Ok(SnapshotMeta { index, term, membership: Membership::of_voters([node(1)?, node(2)?]) })
}

fn new_is_empty(open: &mut Open) -> Checked {
    for _ in 0..2 {
        let mut storage = open();
        let recovered = storage.recover().map_err(show)?;
        same("what a new storage holds", &recovered, &Recovered::default())?;
        same("whether it is new", recovered.is_new(), true)?;
        same("the term of index 0", storage.term(0).map_err(show)?, Some(0))?;
        same("the term of index 1", storage.term(1).map_err(show)?, None)?;
        same("an empty reading", storage.read(1..1, 0).map_err(show)?, vec![])?;
        storage.write(&[]).map_err(show)?;
        storage.write(&[Write::default()]).map_err(show)?;
        same("whether there is a snapshot", storage.snapshot_reader().map_err(show)?.is_none(), true)?;
    }
    Ok(())
}

fn survives_restart(open: &mut Open) -> Checked {
    let hard_state = HardState { term: 3, vote: Some(node(u64::MAX)?), commit: 2 };
    let mut storage = open();
    storage.recover().map_err(show)?;
    let first = Write { hard_state: Some(hard_state), ..append(entries(1..=4, 2)) };
    storage.write(&[first, append(entries(5..=9, 3))]).map_err(show)?;
    let later = HardState { commit: 9, ..hard_state };
    storage
        .write(&[Write { hard_state: Some(later), must_sync: false, ..Write::default() }, Write::default()])
        .map_err(show)?;
    drop(storage);
    for _ in 0..2 {
        let mut storage = open();
        let recovered = storage.recover().map_err(show)?;
        same("the hard state", recovered.hard_state, later)?;
        same("the last index", recovered.last_index, 9)?;
        let runs = vec![TermRun { first_index: 1, term: 2 }, TermRun { first_index: 5, term: 3 }];
        same("the runs of terms", &recovered.term_runs, &runs)?;
        let members: Vec<u64> = recovered.membership_entries.iter().map(|entry| entry.index).collect();
        same("the membership entries", members, vec![3])?;
        same("a membership entry", recovered.membership_entries.first(), entries(3..=3, 2).first())?;
        same("the entries", all(&mut *storage)?, [entries(1..=4, 2), entries(5..=9, 3)].concat())?;
        for index in 0..11 {
            let term = match index {
                0 => Some(0),
                1..=4 => Some(2),
                5..=9 => Some(3),
                _ => None,
            };
            same("a term", storage.term(index).map_err(show)?, term)?;
            same("a recovered term", recovered.term(index), term)?;
        }
    }
    Ok(())
}

fn entries_overwrite(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=20, 1))]).map_err(show)?;
    storage.write(&[append(entries(11..=12, 2)), append(entries(13..=14, 2))]).map_err(show)?;
    storage
        .write(&[append(entries(12..=12, 3)), append(entries(13..=15, 4)), append(entries(14..=14, 5))])
        .map_err(show)?;
    let expected = [
        entries(1..=10, 1),
        entries(11..=11, 2),
        entries(12..=12, 3),
        entries(13..=13, 4),
        entries(14..=14, 5),
    ];
    same("the entries", all(&mut *storage)?, expected.concat())?;
    for index in 1..=14 {
        let read = storage.read(index..index + 1, 0).map_err(show)?;
        same(
            "one entry",
            read.as_slice(),
            &expected.concat()[usize::try_from(index).unwrap_or(0) - 1..][..1],
        )?;
    }
    drop(storage);
    same("the entries after a restart", all(&mut *open())?, expected.concat())?;
    // The whole log may be replaced, too.
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=1, 6))]).map_err(show)?;
    same("the one entry", all(&mut *storage)?, entries(1..=1, 6))
}

fn readings_are_bounded(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    let hundred: Vec<Entry> = (1..=50).map(|index| entry(index, 1, 100)).collect();
    for few in hundred.chunks(7) {
        storage.write(&[append(few.to_vec())]).map_err(show)?;
    }
    for (start, end, len_bytes_max, count) in [
        (1, 51, usize::MAX, 50),
        (1, 51, 0, 1),
        (1, 51, 99, 1),
        (1, 51, 250, 2),
        (4, 51, 1000, 10),
        (4, 6, 1000, 2),
        (9, 9, 5, 0),
    ] {
        let read = storage.read(start..end, len_bytes_max).map_err(show)?;
        let from = usize::try_from(start).unwrap_or(0) - 1;
        same("a bounded reading", read.as_slice(), &hundred[from..from + count])?;
    }
    let outside = storage.read(50..52, usize::MAX);
    if !matches!(outside, Err(ReadError::BeyondEnd { index: 51, last_index: 50 })) {
        return Err(format!("a read after the end returned {outside:?}"));
    }
    let before = storage.read(0..2, usize::MAX);
    if !matches!(before, Err(ReadError::Compacted { index: 0, base_index: 0 })) {
        return Err(format!("a read before the log returned {before:?}"));
    }
    Ok(())
}

fn gaps_are_refused(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    let held =
        Write { hard_state: Some(HardState { term: 1, vote: None, commit: 0 }), ..append(entries(1..=3, 1)) };
    storage.write(&[held]).map_err(show)?;
    let before = storage.recover().map_err(show)?;
    let good =
        Write { hard_state: Some(HardState { term: 9, vote: None, commit: 3 }), ..append(entries(3..=4, 9)) };
    let torn = append(vec![entry(4, 1, 1), entry(6, 1, 1)]);
    let back = append(vec![entry(5, 1, 1), entry(4, 1, 1)]);
    for bad in [append(entries(6..=7, 1)), append(vec![entry(0, 1, 1)]), torn, back] {
        let refused = storage.write(&[good.clone(), bad]);
        if !matches!(refused, Err(WriteError::Gap { .. })) {
            return Err(format!("entries with a gap returned {refused:?}"));
        }
    }
    for base in [
        LogBase { index: 5, term: 9, ..LogBase::default() },
        LogBase { index: 2, term: 7, ..LogBase::default() },
    ] {
        let refused = storage.write(&[good.clone(), Write { base: Some(base), ..Write::default() }]);
        if !matches!(refused, Err(WriteError::BaseUnknown { .. })) {
            return Err(format!("a base without an entry returned {refused:?}"));
        }
    }
    same("what is held after refusals", storage.recover().map_err(show)?, before.clone())?;
    drop(storage);
    let mut storage = open();
    same("what is held after refusals and a restart", storage.recover().map_err(show)?, before)?;
    same("the entries", all(&mut *storage)?, entries(1..=3, 1))?;
    storage.write(&[good]).map_err(show)?;
    same("the last index", storage.recover().map_err(show)?.last_index, 4)
}

fn base_moves(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=10, 1)), append(entries(11..=30, 2))]).map_err(show)?;
    let base = LogBase { index: 12, term: 2, membership: Membership::of_voters([node(5)?]) };
    let back = LogBase { index: 3, term: 1, ..LogBase::default() };
    storage.write(&[Write { base: Some(base.clone()), ..Write::default() }]).map_err(show)?;
    storage.write(&[Write { base: Some(back), ..Write::default() }]).map_err(show)?;
    for _ in 0..2 {
        let recovered = storage.recover().map_err(show)?;
        same("the base", &recovered.base, &base)?;
        same("the runs of terms", recovered.term_runs, vec![TermRun { first_index: 13, term: 2 }])?;
        let members: Vec<u64> = recovered.membership_entries.iter().map(|entry| entry.index).collect();
        same("the membership entries", members, vec![17, 24])?;
        same("the entries", all(&mut *storage)?, entries(13..=30, 2))?;
        same("the term before the base", storage.term(11).map_err(show)?, None)?;
        same("the base's term", storage.term(12).map_err(show)?, Some(2))?;
        let gone = storage.read(12..14, usize::MAX);
        if !matches!(gone, Err(ReadError::Compacted { index: 12, base_index: 12 })) {
            return Err(format!("a read of removed entries returned {gone:?}"));
        }
        let over = storage.write(&[append(entries(12..=13, 3))]);
        if !matches!(over, Err(WriteError::Gap { .. })) {
            return Err(format!("entries at the base returned {over:?}"));
        }
        drop(storage);
        storage = open();
        storage.recover().map_err(show)?;
    }
    // To the end: the log is empty and can be continued.
    let end = LogBase { index: 30, term: 2, ..LogBase::default() };
    storage.write(&[Write { base: Some(end), ..append(entries(20..=30, 2)) }]).map_err(show)?;
    same("the entries", all(&mut *storage)?, vec![])?;
    storage.write(&[append(entries(31..=32, 4))]).map_err(show)?;
    drop(storage);
    same("the entries behind the end", all(&mut *open())?, entries(31..=32, 4))
}

fn base_restates(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    let mut members = Membership::of_voters([node(1)?, node(2)?]);
    members.voters_outgoing.insert(node(3)?);
    members.learners.insert(node(4)?);
    members.learners_next.insert(node(3)?);
    members.auto_leave = true;
    let base = LogBase { membership: members, ..LogBase::default() };
    storage.write(&[Write { base: Some(base.clone()), ..append(entries(1..=2, 1)) }]).map_err(show)?;
    drop(storage);
    let mut storage = open();
    let recovered = storage.recover().map_err(show)?;
    same("the base", recovered.base, base)?;
    same("the entries", all(&mut *storage)?, entries(1..=2, 1))
}

fn snapshot_of_own_past(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=20, 1))]).map_err(show)?;
    stage(&mut *storage, &meta(10, 1)?, b"ten")?;
    storage.write(&[Write { snapshot: Some(meta(10, 1)?), ..Write::default() }]).map_err(show)?;
    same("the entries", all(&mut *storage)?, entries(1..=20, 1))?;
    let base = LogBase::from(meta(10, 1)?);
    stage(&mut *storage, &meta(15, 1)?, b"fifteen")?;
    storage
        .write(&[Write { snapshot: Some(meta(15, 1)?), base: Some(base), ..append(entries(21..=22, 2)) }])
        .map_err(show)?;
    drop(storage);
    let mut storage = open();
    let recovered = storage.recover().map_err(show)?;
    same("the base", recovered.base.index, 10)?;
    same("the snapshot", recovered.snapshot, Some(meta(15, 1)?))?;
    same("the snapshot's bytes", snapshot_bytes(&mut *storage)?, Some((meta(15, 1)?, b"fifteen".to_vec())))?;
    same("the entries", all(&mut *storage)?, [entries(11..=20, 1), entries(21..=22, 2)].concat())
}

fn snapshot_from_elsewhere(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=20, 1))]).map_err(show)?;
    // The log has index 15 with another term: it conflicts with the snapshot.
    stage(&mut *storage, &meta(15, 4)?, b"elsewhere")?;
    let hard_state = HardState { term: 4, vote: None, commit: 15 };
    let adopt =
        Write { hard_state: Some(hard_state), snapshot: Some(meta(15, 4)?), ..append(entries(16..=17, 4)) };
    storage.write(&[adopt, append(entries(18..=18, 4))]).map_err(show)?;
    for _ in 0..2 {
        let recovered = storage.recover().map_err(show)?;
        same("the base", recovered.base, LogBase::from(meta(15, 4)?))?;
        same("the hard state", recovered.hard_state, hard_state)?;
        same("the entries", all(&mut *storage)?, entries(16..=18, 4))?;
        let members = recovered.membership_entries.iter().map(|entry| entry.index).collect::<Vec<_>>();
        same("the membership entries", members, vec![17])?;
        drop(storage);
        storage = open();
        storage.recover().map_err(show)?;
    }
    // And one far after the end.
    stage(&mut *storage, &meta(1_000_000, 7)?, &[])?;
    storage.write(&[Write { snapshot: Some(meta(1_000_000, 7)?), ..Write::default() }]).map_err(show)?;
    drop(storage);
    let mut storage = open();
    let recovered = storage.recover().map_err(show)?;
    same("the last index", recovered.last_index, 1_000_000)?;
    same("the term of the last index", storage.term(1_000_000).map_err(show)?, Some(7))?;
    same("the snapshot's bytes", snapshot_bytes(&mut *storage)?, Some((meta(1_000_000, 7)?, vec![])))?;
    storage.write(&[append(entries(1_000_001..=1_000_002, 7))]).map_err(show)
}

fn snapshot_needs_adoption(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=5, 1))]).map_err(show)?;
    let adopt = Write { snapshot: Some(meta(4, 1)?), ..append(entries(6..=7, 1)) };
    let mut unfinished = storage.snapshot_writer(&meta(4, 1)?).map_err(show)?;
    unfinished.write_all(b"half").map_err(show)?;
    let refused = storage.write(std::slice::from_ref(&adopt));
    if !matches!(refused, Err(WriteError::SnapshotNotStaged { index: 4, term: 1 })) {
        return Err(format!("adopting an unfinished snapshot returned {refused:?}"));
    }
    drop(unfinished);
    stage(&mut *storage, &meta(4, 1)?, b"never adopted")?;
    same("a staged snapshot", snapshot_bytes(&mut *storage)?, None)?;
    drop(storage);
    let mut storage = open();
    same("the snapshot after a restart", storage.recover().map_err(show)?.snapshot, None)?;
    let refused = storage.write(std::slice::from_ref(&adopt));
    if !matches!(refused, Err(WriteError::SnapshotNotStaged { index: 4, term: 1 })) {
        return Err(format!("adopting a snapshot staged before a restart returned {refused:?}"));
    }
    same("the entries", all(&mut *storage)?, entries(1..=5, 1))?;
    // Two concurrent writers of the same snapshot do not affect each other; the one that finishes last is
    // adopted.
    let mut first = storage.snapshot_writer(&meta(4, 1)?).map_err(show)?;
    let mut second = storage.snapshot_writer(&meta(4, 1)?).map_err(show)?;
    first.write_all(b"first").map_err(show)?;
    second.write_all(b"second").map_err(show)?;
    second.finish().map_err(show)?;
    first.finish().map_err(show)?;
    storage.write(&[adopt]).map_err(show)?;
    same("the snapshot", snapshot_bytes(&mut *storage)?, Some((meta(4, 1)?, b"first".to_vec())))
}

fn older_snapshots_are_refused(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=20, 1))]).map_err(show)?;
    for index in [8, 12, 14] {
        stage(&mut *storage, &meta(index, 1)?, &index.to_le_bytes())?;
    }
    storage.write(&[Write { snapshot: Some(meta(12, 1)?), ..Write::default() }]).map_err(show)?;
    let refused = storage.write(&[Write { snapshot: Some(meta(8, 1)?), ..Write::default() }]);
    if !matches!(refused, Err(WriteError::SnapshotStale { index: 8, held_index: 12 })) {
        return Err(format!("an older snapshot returned {refused:?}"));
    }
    storage.write(&[Write { snapshot: Some(meta(14, 1)?), ..Write::default() }]).map_err(show)?;
    let expected = Some((meta(14, 1)?, 14_u64.to_le_bytes().to_vec()));
    same("the snapshot", snapshot_bytes(&mut *storage)?, expected.clone())?;
    storage
        .write(&[Write {
            base: Some(LogBase { index: 18, term: 1, ..LogBase::default() }),
            ..Write::default()
        }])
        .map_err(show)?;
    stage(&mut *storage, &meta(16, 1)?, b"16")?;
    let refused = storage.write(&[Write { snapshot: Some(meta(16, 1)?), ..Write::default() }]);
    if !matches!(refused, Err(WriteError::SnapshotStale { index: 16, held_index: 18 })) {
        return Err(format!("a snapshot before the base returned {refused:?}"));
    }
    drop(storage);
    let mut storage = open();
    storage.recover().map_err(show)?;
    same("the snapshot after a restart", snapshot_bytes(&mut *storage)?, expected)
}

fn snapshot_seeks(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = storage.snapshot_writer(&meta(3, 1)?).map_err(show)?;
    for chunk in bytes.chunks(50_001) {
        writer.write_all(chunk).map_err(show)?;
    }
    writer.finish().map_err(show)?;
    storage.write(&[Write { snapshot: Some(meta(3, 1)?), ..Write::default() }]).map_err(show)?;
    same("the snapshot", snapshot_bytes(&mut *storage)?, Some((meta(3, 1)?, bytes.clone())))?;
    let mut reader = storage.snapshot_reader().map_err(show)?.ok_or("no snapshot")?;
    for (at, len) in [(799_990_u32, 10), (65_530, 20), (0, 1), (400_000, 300_000), (800_000, 0), (900_000, 0)]
    {
        reader.seek(SeekFrom::Start(u64::from(at))).map_err(show)?;
        let mut part = vec![0; len];
        reader.read_exact(&mut part).map_err(show)?;
        let from = (at as usize).min(bytes.len());
        same("a part of the snapshot", part.as_slice(), &bytes[from..from + len])?;
    }
    same("bytes behind the end", reader.read(&mut [0; 8]).map_err(show)?, 0)
}

fn reader_outlives(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    storage.write(&[append(entries(1..=9, 1))]).map_err(show)?;
    stage(&mut *storage, &meta(4, 1)?, b"four")?;
    storage.write(&[Write { snapshot: Some(meta(4, 1)?), ..Write::default() }]).map_err(show)?;
    let mut reader = storage.snapshot_reader().map_err(show)?.ok_or("no snapshot")?;
    stage(&mut *storage, &meta(6, 1)?, b"six")?;
    storage.write(&[Write { snapshot: Some(meta(6, 1)?), ..Write::default() }]).map_err(show)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(show)?;
    same("the older snapshot", bytes, b"four".to_vec())
}

fn long_run(open: &mut Open) -> Checked {
    let mut storage = open();
    storage.recover().map_err(show)?;
    let mut expected: Vec<Entry> = Vec::new();
    let mut base = LogBase::default();
    for round in 1..=120_u64 {
        let keep = expected.len() - usize::try_from(round % 3).unwrap_or(0).min(expected.len());
        expected.truncate(keep);
        let first = base.index + keep as u64 + 1;
        let new: Vec<Entry> = (first..first + 5 + round % 4).map(|index| entry(index, round, 300)).collect();
        expected.extend(new.iter().cloned());
        storage.write(&[append(new)]).map_err(show)?;
        if round % 10 == 0 {
            let head: Vec<Entry> = expected.drain(..expected.len() / 2).collect();
            let last = head.last().ok_or("nothing to drop")?;
            base = LogBase { index: last.index, term: last.term, ..LogBase::default() };
            storage.write(&[Write { base: Some(base.clone()), ..Write::default() }]).map_err(show)?;
        }
        if round % 15 == 0 {
            drop(storage);
            storage = open();
            same("the base", storage.recover().map_err(show)?.base, base.clone())?;
        }
        same("the entries", all(&mut *storage)?, expected.clone())?;
    }
    Ok(())
}
