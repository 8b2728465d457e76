//! Workloads, and the expected contents of a storage after each of their writes.

use std::io::{Read, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use x0_consensus::sim::SimDirectory;
use x0_consensus::{
    Entry, EntryKind, HardState, LogBase, Membership, MemoryStorage, RecoverError, Recovered, SnapshotMeta,
    Storage, Wal, WalOptions, Write,
};
use x0_identity::NodeId;

pub(crate) type Batch = Vec<Write>;

/// Small segments, so that every case has several; no thread, so that a run is repeatable.
pub(crate) fn options(segment_len: u64) -> WalOptions {
    let mut options = WalOptions::default();
    options.segment_len = segment_len;
    options.spare_in_background = false;
    options
}

pub(crate) fn open(directory: &SimDirectory, options: WalOptions) -> Result<Wal, RecoverError> {
    Wal::open(Arc::new(directory.clone()), options)
}

/// The whole contents of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) recovered: Recovered,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

pub(crate) fn image(storage: &mut dyn Storage) -> Image {
    let recovered = storage.recover().unwrap();
    let entries = storage.read(recovered.base.index + 1..recovered.last_index + 1, usize::MAX).unwrap();
    let snapshot = storage.snapshot_reader().unwrap().map(|mut reader| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        (reader.meta().clone(), bytes)
    });
    Image { recovered, entries, snapshot }
}

pub(crate) fn snapshot_bytes(meta: &SnapshotMeta) -> Vec<u8> {
    let len = usize::try_from(meta.index * 37 % 3000).unwrap();
    (0..len).map(|at| u8::try_from(at % 250).unwrap() ^ u8::try_from(meta.term % 200).unwrap()).collect()
}

/// Stages the snapshots that the batch adopts.
pub(crate) fn stage(storage: &mut dyn Storage, batch: &[Write]) -> Result<(), Box<dyn std::error::Error>> {
    for meta in batch.iter().filter_map(|write| write.snapshot.as_ref()) {
        let mut writer = storage.snapshot_writer(meta)?;
        writer.write_all(&snapshot_bytes(meta))?;
        writer.finish()?;
    }
    Ok(())
}

/// The contents of a storage after the first 0, 1, 2, ... writes of a workload.
pub(crate) fn images(workload: &[Batch]) -> Vec<Image> {
    let mut model = MemoryStorage::new();
    let mut images = vec![image(&mut model)];
    for write in workload.iter().flatten() {
        stage(&mut model, std::slice::from_ref(write)).unwrap();
        model.write(std::slice::from_ref(write)).unwrap();
        images.push(image(&mut model));
    }
    images
}

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(crate) fn entry(index: u64, term: u64, len: usize) -> Entry {
    let filler = u8::try_from(index.wrapping_mul(31).wrapping_add(term) % 251).unwrap();
    let kind = if index % 9 == 4 { EntryKind::Membership } else { EntryKind::Normal };
    Entry { term, index, kind, payload: Bytes::from(vec![filler; len]) }
}

pub(crate) fn append(indexes: std::ops::RangeInclusive<u64>, term: u64, len: usize) -> Write {
    Write { entries: indexes.map(|index| entry(index, term, len)).collect(), ..Write::default() }
}

pub(crate) fn hard_state(term: u64, commit: u64) -> Write {
    let hard_state = Some(HardState { term, vote: Some(node(term + 1)), commit });
    Write { hard_state, ..Write::default() }
}

pub(crate) fn commit_only(term: u64, commit: u64) -> Write {
    Write { must_sync: false, ..hard_state(term, commit) }
}

pub(crate) fn base(index: u64, term: u64) -> Write {
    let base = LogBase { index, term, membership: Membership::of_voters([node(1), node(index + 1)]) };
    Write { base: Some(base), ..Write::default() }
}

pub(crate) fn adopt(index: u64, term: u64) -> Write {
    let snapshot = SnapshotMeta { index, term, membership: Membership::of_voters([node(9)]) };
    Write { snapshot: Some(snapshot), ..Write::default() }
}

/// All features of a log in few steps: batches of several writes, replaced entries, several segments and
/// their reuse, a batch longer than a segment, snapshots that match and that conflict with the log, writes
/// that need not be durable.
pub(crate) fn workload() -> Vec<Batch> {
    vec![
        vec![base(0, 0)],
        vec![hard_state(1, 0), append(1..=3, 1, 40)],
        vec![append(4..=6, 1, 200), append(7..=7, 1, 0), commit_only(1, 3)],
        vec![commit_only(1, 5)],
        vec![commit_only(1, 6)],
        vec![hard_state(2, 6), append(6..=9, 2, 600)],
        vec![append(10..=12, 2, 700)],
        vec![append(13..=14, 2, 300), append(14..=15, 3, 100), append(15..=18, 4, 10)],
        vec![Write { base: base(10, 2).base, ..adopt(12, 2) }],
        vec![append(19..=21, 4, 800), commit_only(4, 15)],
        vec![append(22..=24, 4, 900)],
        vec![base(20, 4)],
        vec![append(25..=26, 4, 3000)],
        vec![append(27..=28, 4, 20), hard_state(5, 25)],
        vec![Write { entries: append(41..=42, 6, 50).entries, ..adopt(40, 6) }],
        vec![append(43..=46, 6, 500)],
        vec![commit_only(6, 44)],
        vec![base(44, 6), append(47..=47, 7, 1)],
        vec![append(46..=47, 8, 900), append(48..=49, 8, 400)],
        vec![append(50..=50, 8, 64)],
    ]
}
