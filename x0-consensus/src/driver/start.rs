//! From what a storage holds to a replica.

use std::time::Duration;

use crate::config::Config;
use crate::replica::{Replica, StartError};
use crate::state_machine::StateMachine;
use crate::storage::{ReadError, RecoverError, Storage};

/// Why a driver did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log cannot be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// What was recovered cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The replica does not go on from there.
    #[error(transparent)]
    Replica(#[from] StartError),
    /// A thread could not be started.
    #[error("cannot start the thread {thread}: {source}; the process may have too many")]
    Thread {
        /// Which one.
        thread: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Recovers the storage and makes the replica that goes on from there.
pub(super) fn replica(
    config: Config,
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
    Ok(Replica::new(config, recovered, &unapplied, durable_index, now)?)
}

/// How many bytes are read at a time.
const READ_LEN: usize = 4 << 20;
