//! The worker that reads, saves and stages snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write as _};

use bytes::Bytes;

use super::contain;
use super::job::{Done, SnapshotJob, TransferError};
use crate::storage::SnapshotWriter;
use crate::telemetry::SnapshotTelemetry;

/// A snapshot is copied to the storage in pieces of this many bytes.
const COPY_LEN: usize = 256 << 10;
const WORKER: &str = "snapshot";

/// Carries out the [`SnapshotJob`]s of an [`Executor`](super::Executor) in their order, one at a time.
///
/// The worker holds the snapshots of the state machine that are open for a follower or for the storage, and
/// the snapshot of the leader that is being staged. A failure ends the transfer concerned and not the
/// replica.
#[derive(Default)]
pub struct SnapshotWorker {
    open: BTreeMap<u64, Box<dyn Read + Send>>,
    staging: Option<(u64, Box<dyn SnapshotWriter>)>,
    telemetry: SnapshotTelemetry,
}

impl fmt::Debug for SnapshotWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWorker")
            .field("open", &self.open.keys())
            .field("staging", &self.staging.as_ref().map(|(transfer, _)| transfer))
            .finish()
    }
}

impl SnapshotWorker {
    /// A worker without snapshots.
    #[must_use]
    pub fn new() -> SnapshotWorker {
        SnapshotWorker::default()
    }

    /// Carries out a job. [`Done::Failed`] only if a reader or writer panics.
    pub fn work(&mut self, job: SnapshotJob) -> Done {
        self.telemetry.job(&job);
        let done = contain(WORKER, || Ok(self.step(job)));
        self.telemetry.done(&done);
        done
    }

    fn step(&mut self, job: SnapshotJob) -> Done {
        match job {
            SnapshotJob::Open { transfer, from } => {
                self.open.insert(transfer, from);
                Done::Nothing
            }
            SnapshotJob::Close { transfer } => {
                self.open.remove(&transfer);
                Done::Nothing
            }
            SnapshotJob::ReadChunk { transfer, len_max } => {
                let read = self.open.get_mut(&transfer).map(|from| read_chunk(from, len_max));
                let chunk =
                    read.ok_or(TransferError::NotOpen).and_then(|read| read.map_err(TransferError::Read));
                Done::ChunkRead { transfer, chunk }
            }
            SnapshotJob::Save { transfer, meta, to } => {
                let from = self.open.remove(&transfer).ok_or(TransferError::NotOpen);
                let result = from.and_then(|from| save(from, to.map_err(TransferError::Stage)?));
                Done::Saved { transfer, meta, result }
            }
            SnapshotJob::Begin { transfer, to } => {
                self.staging = None;
                match to {
                    Ok(to) => self.staging = Some((transfer, to)),
                    Err(error) => return Done::Staged { transfer, result: Err(TransferError::Stage(error)) },
                }
                Done::Nothing
            }
            SnapshotJob::Write { transfer, bytes } => {
                let Some((_, to)) = self.staging.as_mut().filter(|(staged, _)| *staged == transfer) else {
                    // An earlier step failed, which the executor knows.
                    return Done::Nothing;
                };
                match to.write_all(&bytes) {
                    Ok(()) => Done::Nothing,
                    Err(error) => {
                        self.staging = None;
                        Done::Staged { transfer, result: Err(TransferError::Write(error)) }
                    }
                }
            }
            SnapshotJob::Finish { transfer } => match self.staging.take_if(|(staged, _)| *staged == transfer)
            {
                Some((_, to)) => Done::Staged { transfer, result: to.finish().map_err(TransferError::Stage) },
                None => Done::Nothing,
            },
        }
    }
}

/// Reads a whole chunk, and whether it is the last one. A stream whose length is a multiple of the chunk's
/// ends with an empty one.
fn read_chunk(from: &mut Box<dyn Read + Send>, len_max: usize) -> io::Result<(Bytes, bool)> {
    let mut bytes = Vec::with_capacity(len_max);
    from.take(len_max as u64).read_to_end(&mut bytes)?;
    let last = bytes.len() < len_max;
    Ok((bytes.into(), last))
}

fn save(mut from: Box<dyn Read + Send>, mut to: Box<dyn SnapshotWriter>) -> Result<(), TransferError> {
    let mut piece = vec![0; COPY_LEN];
    loop {
        let len = match from.read(&mut piece) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(TransferError::Read(error)),
        };
        let Some(read) = piece.get(..len).filter(|read| !read.is_empty()) else { break };
        to.write_all(read).map_err(TransferError::Write)?;
    }
    to.finish().map_err(TransferError::Stage)
}
