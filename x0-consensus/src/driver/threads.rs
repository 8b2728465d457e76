//! The threads of a [`Pump`](super::Pump): each runs one worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use super::completions::{Applier, Completions};
use super::ended::EndGuard;
use super::event::FatalError;
use super::job::{ApplyJob, Done, LogJob, SnapshotJob};
use super::log_worker::LogWorker;
use super::snapshot_worker::SnapshotWorker;
use crate::storage::Storage;

pub(super) const LOG_THREAD: &str = "x0-log";
const APPLY_THREAD: &str = "x0-apply";
const SNAPSHOT_THREAD: &str = "x0-snapshot";

/// What every thread of a pump holds.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) completions: Arc<Completions>,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) guard: EndGuard,
}

/// Runs `run` on a thread for every message, until the sender is dropped or `run` returns `false`.
fn spawn<T: Send + 'static>(
    name: &'static str,
    way: Way,
    mut run: impl FnMut(T, &Receiver<T>, &Completions) -> bool + Send + 'static,
) -> io::Result<Sender<T>> {
    let (to, jobs) = mpsc::channel();
    let body = move || {
        while let Ok(job) = jobs.recv() {
            if !run(job, &jobs, &way.completions) {
                break;
            }
        }
        // The worker first: the driver has ended only once the storage is closed.
        drop(run);
        drop(way);
    };
    thread::Builder::new().name(name.into()).spawn(body)?;
    Ok(to)
}

/// Starts the thread that owns the storage.
pub(super) fn log(storage: Box<dyn Storage>, way: Way) -> io::Result<Sender<LogJob>> {
    let mut worker = LogWorker::new(storage);
    let mut queue = VecDeque::new();
    spawn(LOG_THREAD, way, move |job, jobs, completions| {
        queue.push_back(job);
        loop {
            // Writes that came while the last one was being synchronised share the next synchronisation.
            queue.extend(jobs.try_iter());
            let Some(done) = worker.work(&mut queue) else { return true };
            let failed = matches!(done, Done::Failed(_));
            completions.put(done);
            if failed {
                return false;
            }
        }
    })
}

/// A thread that is started with its first job.
#[derive(Debug)]
pub(super) struct Lazy<T> {
    to: Option<Sender<T>>,
    name: &'static str,
    way: Way,
    start: fn(&'static str, Way) -> io::Result<Sender<T>>,
}

impl<T> Lazy<T> {
    /// Sends a job. A thread that ended has reported why.
    pub(super) fn send(&mut self, job: T) {
        if self.to.is_none() {
            match (self.start)(self.name, self.way.clone()) {
                Ok(to) => self.to = Some(to),
                Err(source) => {
                    let failure = FatalError::Thread { thread: self.name, source };
                    return self.way.completions.put(Done::Failed(failure));
                }
            }
        }
        if let Some(to) = &self.to {
            // The receiver is gone only after it reported a failure.
            let _ = to.send(job);
        }
    }
}

/// The thread for snapshots.
pub(super) fn snapshots(way: Way) -> Lazy<SnapshotJob> {
    Lazy { to: None, name: SNAPSHOT_THREAD, way, start: start_snapshots }
}

fn start_snapshots(name: &'static str, way: Way) -> io::Result<Sender<SnapshotJob>> {
    let mut worker = SnapshotWorker::new();
    spawn(name, way, move |job, _, completions| {
        let done = worker.work(job);
        let failed = matches!(done, Done::Failed(_));
        if !matches!(done, Done::Nothing) {
            completions.put(done);
        }
        !failed
    })
}

/// The apply worker on its way to its thread, with the jobs that it has there.
pub(super) type Errand = (Applier, VecDeque<ApplyJob>);

/// The thread for what the state machine may take long for. The worker is moved there and back.
pub(super) fn apply(way: Way) -> Lazy<Errand> {
    Lazy { to: None, name: APPLY_THREAD, way, start: start_apply }
}

fn start_apply(name: &'static str, way: Way) -> io::Result<Sender<Errand>> {
    spawn(name, way, |(mut worker, jobs): Errand, _, completions| {
        for job in jobs {
            let done = worker.work(job);
            let failed = matches!(done, Done::Failed(_));
            completions.put(done);
            if failed {
                return false;
            }
        }
        completions.give_back(worker);
        true
    })
}
