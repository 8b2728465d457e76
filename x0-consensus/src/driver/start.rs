//! Recovery: from a storage to a replica.

use std::time::Duration;

use crate::options::Options;
use crate::replica::{Replica, StartError};
use crate::state_machine::StateMachine;
use crate::storage::{ReadError, RecoverError, Storage};

/// A driver did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The entries of the log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The storage and the state machine do not fit together, or the options are out of bounds.
    #[error(transparent)]
    Replica(#[from] StartError),
    /// A thread could not be started.
    #[error("cannot start the thread {thread}: the process may have too many")]
    Thread {
        /// The name of the thread.
        thread: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Recovers the storage and makes the replica that continues from there.
pub(super) fn replica(
    options: Options,
    storage: &mut dyn Storage,
    machine: &dyn StateMachine,
    now: Duration,
) -> Result<Replica, OpenError> {
    let recovered = storage.recover()?;
    let durable_index = machine.durable_index();
    let wanted = recovered.unapplied(durable_index);
    let mut unapplied = Vec::new();
    let mut next = wanted.start;
    while next < wanted.end {
        let read = storage.read(next..wanted.end, READ_LEN)?;
        let Some(last) = read.last() else { break };
        next = last.index + 1;
        unapplied.extend(read);
    }
    Ok(Replica::new(options, recovered, &unapplied, durable_index, now)?)
}

/// The bytes that are read at a time.
const READ_LEN: usize = 4 << 20;
