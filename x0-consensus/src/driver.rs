//! Drivers: the code that carries out a replica's outputs.
//!
//! [`Executor`] has the replica and turns its outputs into jobs for three workers: [`LogWorker`],
//! [`ApplyWorker`] and [`SnapshotWorker`]. All drivers and simulators pump the same executor and differ only
//! in where a worker runs:
//!
//! | driver | log | applying | snapshots |
//! |---|---|---|---|
//! | [`local`] | on its one thread | on its one thread | on its one thread |
//! | [`ThreadWorkers`], [`Pump`] and `tokio` | on a thread | small batches on the caller's task, all else on a thread | on a thread |
//! | a simulator | in virtual time | in virtual time | in virtual time |
//!
//! An event loop that has other work besides the replica owns a [`Pump`] and polls it in its own task; one
//! that also runs in a simulator owns the executor, and [`ThreadWorkers`] in production. A program that wants
//! a replica with a [`Handle`] and an [`Observer`] starts [`local`] or `tokio`.

mod apply_worker;
mod completions;
mod delivery;
mod ended;
mod event;
mod executor;
mod handle;
mod job;
pub mod local;
mod log_worker;
mod outbox;
mod pipeline;
mod pump;
mod snapshot_worker;
mod start;
mod threads;
#[cfg(feature = "tokio")]
pub mod tokio;
mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::apply_worker::ApplyWorker;
pub use self::ended::Ended;
pub use self::event::{Event, FatalError, Observer};
pub use self::executor::{Effect, Executor};
pub use self::handle::Handle;
pub use self::job::{ApplyJob, Done, LogJob, SnapshotJob, TransferError};
pub use self::log_worker::LogWorker;
pub use self::outbox::{Congested, Outbox};
pub use self::pump::Pump;
pub use self::snapshot_worker::SnapshotWorker;
pub use self::start::OpenError;
pub use self::workers::ThreadWorkers;

/// Runs a job. A panic of the storage, the state machine or a snapshot ends the replica with a typed error
/// and not the thread, which may be the caller's event loop. The worker is not used after that, so that a
/// state which the panic left half changed is not seen.
fn contain(worker: &'static str, work: impl FnOnce() -> Result<Done, FatalError>) -> Done {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => Done::Failed(failure),
        Err(panic) => {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            Done::Failed(FatalError::Panicked { worker, message: message.unwrap_or_default() })
        }
    }
}
