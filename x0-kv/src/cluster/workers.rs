//! Workers of the replica's jobs: log, state machine and snapshots.

use std::task::{Context, Poll};

use x0_consensus::Storage;
use x0_consensus::driver::{Done, Executor, OpenError, ThreadWorkers};

use crate::state::State;

/// Decides where the jobs of an executor run: on threads, or in the virtual time of the simulator.
pub(crate) trait Workers: Send {
    /// Takes the jobs that can begin. A small job may be done when this returns.
    fn take_jobs(&mut self, executor: &mut Executor);

    /// The next result. The task is woken when a thread has one.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done>;
}

/// The workers of a node on threads. Dropped, they wait until the threads have ended, so that the files of a
/// node are released when its event loop is.
pub(crate) struct NodeWorkers(Option<ThreadWorkers>);

impl NodeWorkers {
    /// Starts the workers, on a storage that the executor was opened with.
    pub(crate) fn start(storage: Box<dyn Storage>, state: State) -> Result<NodeWorkers, OpenError> {
        ThreadWorkers::start(storage, Box::new(state)).map(|workers| NodeWorkers(Some(workers)))
    }
}

impl Workers for NodeWorkers {
    fn take_jobs(&mut self, executor: &mut Executor) {
        if let Some(workers) = &mut self.0 {
            workers.take_jobs(executor);
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        self.0.as_mut().map_or(Poll::Pending, |workers| workers.poll_done(cx))
    }
}

impl Drop for NodeWorkers {
    fn drop(&mut self) {
        if let Some(workers) = self.0.take() {
            let ended = workers.ended();
            drop(workers);
            ended.wait();
        }
    }
}
