//! Snapshots being read, written and staged.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use bytes::Bytes;

use crate::entry::SnapshotMeta;
use crate::replica::{Input, StageStep};
use crate::storage::SnapshotWriter;

/// Where snapshots are copied to the storage in pieces of this size.
const COPY_LEN: usize = 256 << 10;

/// The snapshots of one replica that are open.
#[derive(Default)]
pub(super) struct Snapshots {
    open: BTreeMap<u64, Box<dyn Read + Send>>,
    staging: Option<(u64, Box<dyn SnapshotWriter>)>,
}

/// One step of work on snapshots.
pub(super) enum Job {
    Open { transfer: u64, from: Box<dyn Read + Send> },
    ReadChunk { transfer: u64, len_max: usize },
    Close { transfer: u64 },
    Save { transfer: u64, meta: SnapshotMeta, to: Option<Box<dyn SnapshotWriter>> },
    Begin { transfer: u64, to: Option<Box<dyn SnapshotWriter>> },
    Step { transfer: u64, step: StageStep },
}

impl Snapshots {
    /// Does one step. What the replica is to be told of it, if anything. A failure is the transfer's, not the replica's.
    pub(super) fn work(&mut self, job: Job) -> Option<Input> {
        match job {
            Job::Open { transfer, from } => {
                self.open.insert(transfer, from);
                None
            }
            Job::Close { transfer } => {
                self.open.remove(&transfer);
                None
            }
            Job::ReadChunk { transfer, len_max } => {
                let read = self.open.get_mut(&transfer).map(|from| read_chunk(from, len_max));
                Some(match read {
                    Some(Ok((bytes, last))) => Input::ChunkRead { transfer, bytes, last },
                    Some(Err(_)) | None => Input::SnapshotClosed { transfer },
                })
            }
            Job::Save { transfer, meta, to } => {
                let saved = match (self.open.remove(&transfer), to) {
                    (Some(from), Some(to)) => save(from, to).is_ok(),
                    _ => false,
                };
                Some(if saved { Input::SnapshotSaved { meta } } else { Input::SnapshotClosed { transfer } })
            }
            Job::Begin { transfer, to } => {
                self.staging = to.map(|to| (transfer, to));
                self.staging.is_none().then_some(Input::Staged { transfer, ok: false })
            }
            Job::Step { transfer, step } => self.step(transfer, step),
        }
    }

    fn step(&mut self, transfer: u64, step: StageStep) -> Option<Input> {
        let (_, to) = self.staging.as_mut().filter(|(staged, _)| *staged == transfer)?;
        let done = match step {
            StageStep::Begin { .. } => return None,
            StageStep::Write { bytes } => match to.write_all(&bytes) {
                Ok(()) => return None,
                Err(_) => false,
            },
            StageStep::Finish => match self.staging.take() {
                Some((_, to)) => to.finish().is_ok(),
                None => false,
            },
        };
        self.staging = None;
        Some(Input::Staged { transfer, ok: done })
    }
}

/// Fills a piece, and tells whether it is the last one. A stream whose length is a multiple of the piece's ends with an empty one.
fn read_chunk(from: &mut Box<dyn Read + Send>, len_max: usize) -> io::Result<(Bytes, bool)> {
    let mut bytes = Vec::with_capacity(len_max);
    from.take(len_max as u64).read_to_end(&mut bytes)?;
    let last = bytes.len() < len_max;
    Ok((bytes.into(), last))
}

fn save(mut from: Box<dyn Read + Send>, mut to: Box<dyn SnapshotWriter>) -> io::Result<()> {
    let mut piece = vec![0; COPY_LEN];
    loop {
        let len = match from.read(&mut piece) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(read) = piece.get(..len).filter(|read| !read.is_empty()) else { break };
        to.write_all(read)?;
    }
    to.finish().map_err(io::Error::other)
}
