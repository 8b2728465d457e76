//! A node's disk, and what is done on it: one job after the other, writes together.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_consensus::{Entry, Input, SnapshotMeta, SnapshotWriter, StageStep, Storage, Wal, WalConfig, Write};

use crate::network::Random;

#[derive(Debug)]
pub(crate) enum Job {
    Write { number: u64, write: Write },
    Fetch { range: Range<u64>, len_max: usize },
    ReadChunk { transfer: u64, len_max: usize },
    Close { transfer: u64 },
    Save { transfer: u64, meta: SnapshotMeta },
    Stage { transfer: u64, step: StageStep },
}

/// What lives as long as the process.
pub(crate) struct Disk {
    pub(crate) log: Wal,
    pub(crate) jobs: VecDeque<Job>,
    /// Snapshots of the state machine that are open.
    pub(crate) open: BTreeMap<u64, Bytes>,
    staging: Option<(u64, Box<dyn SnapshotWriter>)>,
}

pub(crate) fn open(directory: &SimDirectory) -> Wal {
    let mut config = WalConfig::default();
    config.segment_len = 32 * 1024;
    config.spare_in_background = false;
    Wal::open(Arc::new(directory.clone()), config).unwrap()
}

impl Disk {
    pub(crate) fn new(log: Wal) -> Disk {
        Disk { log, jobs: VecDeque::new(), open: BTreeMap::new(), staging: None }
    }

    /// Does the next job, or the writes that wait together. What the replica is told, and the entries that became durable.
    pub(crate) fn work(&mut self) -> (Vec<Input>, Vec<Entry>) {
        let mut writes = Vec::new();
        let mut last = 0;
        while let Some(Job::Write { .. }) = self.jobs.front() {
            let Some(Job::Write { number, write }) = self.jobs.pop_front() else { break };
            last = number;
            writes.push(write);
        }
        if !writes.is_empty() {
            self.log.write(&writes).unwrap();
            let entries = writes.into_iter().flat_map(|write| write.entries).collect();
            return (vec![Input::Persisted { number: last }], entries);
        }
        let Some(job) = self.jobs.pop_front() else { return Default::default() };
        (self.single(job).into_iter().collect(), Vec::new())
    }

    fn single(&mut self, job: Job) -> Option<Input> {
        match job {
            Job::Write { .. } => None,
            Job::Fetch { range, len_max } => {
                Some(Input::Fetched { entries: self.log.read(range, len_max).unwrap_or_default() })
            }
            Job::ReadChunk { transfer, len_max } => {
                let Some(from) = self.open.get_mut(&transfer) else {
                    return Some(Input::SnapshotClosed { transfer });
                };
                let bytes = from.copy_to_bytes(len_max.min(from.len()));
                Some(Input::ChunkRead { transfer, last: bytes.len() < len_max, bytes })
            }
            Job::Close { transfer } => {
                self.open.remove(&transfer);
                None
            }
            Job::Save { transfer, meta } => {
                let bytes = self.open.remove(&transfer).unwrap();
                assert_eq!(
                    bytes[..8],
                    meta.index.to_le_bytes(),
                    "the snapshot is of the index it is saved for"
                );
                let mut to = self.log.snapshot_writer(&meta).unwrap();
                to.write_all(&bytes).unwrap();
                to.finish().unwrap();
                Some(Input::SnapshotSaved { meta })
            }
            Job::Stage { transfer, step: StageStep::Begin { meta } } => {
                self.staging = Some((transfer, self.log.snapshot_writer(&meta).unwrap()));
                None
            }
            Job::Stage { transfer, step: StageStep::Write { bytes } } => {
                let (staged, to) = self.staging.as_mut().unwrap();
                assert_eq!(*staged, transfer);
                to.write_all(&bytes).unwrap();
                None
            }
            Job::Stage { transfer, step: StageStep::Finish } => {
                let (staged, to) = self.staging.take().unwrap();
                assert_eq!(staged, transfer);
                to.finish().unwrap();
                Some(Input::Staged { transfer, ok: true })
            }
        }
    }

    /// The snapshot that was adopted last.
    pub(crate) fn snapshot(&mut self) -> (SnapshotMeta, Vec<u8>) {
        let mut reader = self.log.snapshot_reader().unwrap().unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        (reader.meta().clone(), bytes)
    }

    /// The power goes, perhaps in the midst of the write that is due.
    pub(crate) fn crash(mut self, directory: &SimDirectory, random: &mut Random) {
        if random.chance(500) && matches!(self.jobs.front(), Some(Job::Write { .. })) {
            directory.plant(directory.operations() + random.below(3), Fault::PowerLoss);
            let mut writes = Vec::new();
            while let Some(Job::Write { write, .. }) = self.jobs.pop_front() {
                writes.push(write);
            }
            // It may have come through: nobody is told.
            let _ = self.log.write(&writes);
        }
        drop(self);
        directory.crash(match random.below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            2 => Unsynced::Sectors(random.next()),
            _ => Unsynced::Cut(random.next()),
        });
    }
}
