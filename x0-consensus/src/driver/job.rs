//! The jobs of the three workers and their results.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;

use super::event::{Event, FatalError};
use crate::entry::{Entry, SnapshotMeta};
use crate::state_machine::StateMachineError;
use crate::storage::{SnapshotReader, SnapshotWriteError, SnapshotWriter, Write, WriteError};
use crate::trace::Traced;

/// A job for the [`LogWorker`](super::LogWorker).
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "nearly all jobs of the log are writes")]
pub enum LogJob {
    /// Makes a write durable: [`Done::Persisted`].
    Write {
        /// The number of the write, ascending.
        number: u64,
        /// The change.
        write: Write,
        /// Its entries that are traced.
        traced: Traced,
    },
    /// Reads entries: [`Done::Fetched`].
    Fetch {
        /// The indexes of the entries.
        range: Range<u64>,
        /// Most bytes of payload to read.
        len_max: usize,
    },
    /// Opens a snapshot writer of the storage: [`Done::WriterOpened`].
    OpenWriter {
        /// The transfer that the snapshot belongs to.
        transfer: u64,
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Opens the adopted snapshot: [`Done::ReaderOpened`].
    OpenReader {
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Repeats the writes for which the disk had no space: [`Done::Persisted`], or [`Done::NoSpace`] again.
    Retry,
}

/// A job for the [`ApplyWorker`](super::ApplyWorker).
#[non_exhaustive]
pub enum ApplyJob {
    /// Applies committed entries: [`Done::Applied`].
    Apply {
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The proposals of this replica among them: index and token, ascending.
        proposals: Vec<(u64, u64)>,
        /// The entries that are traced.
        traced: Traced,
    },
    /// Replaces the state by a snapshot: [`Done::Restored`].
    Restore {
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
        /// The bytes of the snapshot.
        from: Box<dyn SnapshotReader>,
    },
    /// Asks the state machine for a checkpoint: [`Done::Checkpointed`].
    Checkpoint,
    /// Takes a snapshot of the state machine: [`Done::SnapshotOpened`].
    OpenSnapshot {
        /// The transfer that the snapshot belongs to.
        transfer: u64,
    },
}

impl ApplyJob {
    /// Whether the job applies at most `entries_max` entries with at most `len_max` bytes of payload. A
    /// restore, a checkpoint and a snapshot may take any time and are never small.
    #[must_use]
    pub fn is_small(&self, entries_max: usize, len_max: usize) -> bool {
        match self {
            ApplyJob::Apply { entries, .. } => {
                entries.len() <= entries_max
                    && entries.iter().map(|entry| entry.payload.len()).sum::<usize>() <= len_max
            }
            _ => false,
        }
    }
}

impl fmt::Debug for ApplyJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyJob::Apply { entries, proposals, .. } => {
                f.debug_struct("Apply").field("entries", entries).field("proposals", proposals).finish()
            }
            ApplyJob::Restore { meta, .. } => {
                f.debug_struct("Restore").field("meta", meta).finish_non_exhaustive()
            }
            ApplyJob::Checkpoint => f.write_str("Checkpoint"),
            ApplyJob::OpenSnapshot { transfer } => {
                f.debug_struct("OpenSnapshot").field("transfer", transfer).finish()
            }
        }
    }
}

/// A job for the [`SnapshotWorker`](super::SnapshotWorker).
#[non_exhaustive]
pub enum SnapshotJob {
    /// Takes over a snapshot of the state machine: [`Done::Nothing`].
    Open {
        /// The transfer.
        transfer: u64,
        /// The bytes of the snapshot.
        from: Box<dyn Read + Send>,
    },
    /// Reads the next chunk of an open snapshot: [`Done::ChunkRead`].
    ReadChunk {
        /// The transfer.
        transfer: u64,
        /// The length of a chunk, in bytes; only the last one is shorter.
        len_max: usize,
    },
    /// Closes an open snapshot: [`Done::Nothing`].
    Close {
        /// The transfer.
        transfer: u64,
    },
    /// Copies an open snapshot to the storage and makes it durable: [`Done::Saved`].
    Save {
        /// The transfer.
        transfer: u64,
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
        /// The storage's writer, or the reason why there is none.
        to: Result<Box<dyn SnapshotWriter>, SnapshotWriteError>,
    },
    /// Begins to stage a snapshot of the leader and discards one that another transfer has staged:
    /// [`Done::Nothing`], or [`Done::Staged`] without a writer.
    Begin {
        /// The transfer.
        transfer: u64,
        /// The storage's writer, or the reason why there is none.
        to: Result<Box<dyn SnapshotWriter>, SnapshotWriteError>,
    },
    /// Appends a chunk to the staged snapshot: [`Done::Nothing`], or [`Done::Staged`] if that fails.
    Write {
        /// The transfer.
        transfer: u64,
        /// The chunk.
        bytes: Bytes,
    },
    /// Makes the staged snapshot durable: [`Done::Staged`].
    Finish {
        /// The transfer.
        transfer: u64,
    },
}

impl SnapshotJob {
    /// The kind of the job and its transfer.
    fn label(&self) -> (&'static str, u64) {
        match self {
            SnapshotJob::Open { transfer, .. } => ("Open", *transfer),
            SnapshotJob::ReadChunk { transfer, .. } => ("ReadChunk", *transfer),
            SnapshotJob::Close { transfer } => ("Close", *transfer),
            SnapshotJob::Save { transfer, .. } => ("Save", *transfer),
            SnapshotJob::Begin { transfer, .. } => ("Begin", *transfer),
            SnapshotJob::Write { transfer, .. } => ("Write", *transfer),
            SnapshotJob::Finish { transfer } => ("Finish", *transfer),
        }
    }
}

impl fmt::Debug for SnapshotJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, transfer) = self.label();
        f.debug_struct(kind).field("transfer", &transfer).finish_non_exhaustive()
    }
}

/// The result of a job, for [`Executor::complete`](super::Executor::complete).
#[non_exhaustive]
pub enum Done {
    /// The job has no result.
    Nothing,
    /// This write and all before it are durable.
    Persisted {
        /// The number of the last write.
        number: u64,
    },
    /// The disk has no space. The worker keeps this write and those that follow until [`LogJob::Retry`];
    /// nothing is lost.
    NoSpace {
        /// The error of the storage, which is unchanged.
        error: WriteError,
    },
    /// The entries that were read; none if they are no longer in the log.
    Fetched {
        /// Consecutive entries.
        entries: Vec<Entry>,
    },
    /// A snapshot writer, or the reason why there is none.
    WriterOpened {
        /// The transfer.
        transfer: u64,
        /// The writer.
        to: Result<Box<dyn SnapshotWriter>, SnapshotWriteError>,
    },
    /// The adopted snapshot.
    ReaderOpened {
        /// The bytes of the snapshot.
        from: Box<dyn SnapshotReader>,
    },
    /// Entries are applied.
    Applied {
        /// The index of the last one.
        index: u64,
        /// The results of this replica's proposals among them.
        events: Vec<Event>,
    },
    /// The state machine holds the state of a snapshot.
    Restored {
        /// The index of the snapshot.
        index: u64,
    },
    /// The state machine's durable index; 0 for a state machine in memory.
    Checkpointed {
        /// The durable index.
        index: u64,
    },
    /// A snapshot of the state machine, or the reason why there is none.
    SnapshotOpened {
        /// The transfer.
        transfer: u64,
        /// The index of the last entry in it.
        index: u64,
        /// The bytes of the snapshot.
        from: Result<Box<dyn Read + Send>, StateMachineError>,
    },
    /// A chunk of a snapshot, or the reason why the snapshot cannot be read.
    ChunkRead {
        /// The transfer.
        transfer: u64,
        /// The bytes, and whether the snapshot ends with them.
        chunk: Result<(Bytes, bool), TransferError>,
    },
    /// A snapshot of the own state is durable in the storage, or the reason why it is not.
    Saved {
        /// The transfer.
        transfer: u64,
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
        /// Whether it is durable.
        result: Result<(), TransferError>,
    },
    /// A snapshot of the leader is durable in the storage, or the reason why it is not.
    Staged {
        /// The transfer.
        transfer: u64,
        /// Whether it is durable.
        result: Result<(), TransferError>,
    },
    /// The worker cannot continue, and neither can the replica.
    Failed(FatalError),
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Done::Nothing => f.write_str("Nothing"),
            Done::Persisted { number } => f.debug_struct("Persisted").field("number", number).finish(),
            Done::NoSpace { error } => f.debug_struct("NoSpace").field("error", error).finish(),
            Done::Fetched { entries } => f.debug_struct("Fetched").field("entries", entries).finish(),
            Done::WriterOpened { transfer, to } => f
                .debug_struct("WriterOpened")
                .field("transfer", transfer)
                .field("to", &to.as_ref().map(|_| ()))
                .finish(),
            Done::ReaderOpened { from } => f.debug_struct("ReaderOpened").field("meta", from.meta()).finish(),
            Done::Applied { index, events } => {
                f.debug_struct("Applied").field("index", index).field("events", events).finish()
            }
            Done::Restored { index } => f.debug_struct("Restored").field("index", index).finish(),
            Done::Checkpointed { index } => f.debug_struct("Checkpointed").field("index", index).finish(),
            Done::SnapshotOpened { transfer, index, from } => f
                .debug_struct("SnapshotOpened")
                .field("transfer", transfer)
                .field("index", index)
                .field("from", &from.as_ref().map(|_| ()))
                .finish(),
            Done::ChunkRead { transfer, chunk } => f
                .debug_struct("ChunkRead")
                .field("transfer", transfer)
                .field("chunk", &chunk.as_ref().map(|(bytes, last)| (bytes.len(), *last)))
                .finish(),
            Done::Saved { transfer, meta, result } => f
                .debug_struct("Saved")
                .field("transfer", transfer)
                .field("meta", meta)
                .field("result", result)
                .finish(),
            Done::Staged { transfer, result } => {
                f.debug_struct("Staged").field("transfer", transfer).field("result", result).finish()
            }
            Done::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// A snapshot was not opened, read, saved or staged. The replica continues: it takes or requests the snapshot
/// again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The state machine gave no snapshot.
    #[error("cannot open a snapshot of the state machine")]
    Open(#[source] StateMachineError),
    /// The snapshot of the state machine cannot be read.
    #[error("cannot read the snapshot of the state machine")]
    Read(#[source] io::Error),
    /// The storage does not accept the snapshot.
    #[error("cannot stage the snapshot in the storage")]
    Stage(#[source] SnapshotWriteError),
    /// The storage does not accept a chunk of the snapshot.
    #[error("cannot write a chunk of the snapshot to the storage")]
    Write(#[source] io::Error),
    /// No snapshot is open for the transfer: an earlier step failed.
    #[error("no snapshot is open for the transfer")]
    NotOpen,
}
