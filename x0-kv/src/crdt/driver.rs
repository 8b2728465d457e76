//! The thread that drives a CRDT keyspace, and the handle to it.
//!
//! Requests and datagrams that arrive while the driver is busy are handled together, made durable by one
//! record, and only then answered.
//!
//! When the disk has no space for a record, its changes are undone: the map is read again from the journal.
//! Writes are refused and datagrams dropped until the journal can be written again, and reads go on. After
//! any other error of the journal that lasts until the next start.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use x0_consensus::Storage;
use x0_crdt::{CausalMap, HashKey, ReplicaId};
use x0_identity::NodeId;

use super::journal::{Journal, JournalError};
use super::outcome::CrdtOutcome;
use super::replica::{CrdtReplica, Input, Output};
use super::{CrdtOptions, CrdtStatus, Read, Request, Write, reading};
use crate::request::error::OperationError;
use crate::request::pending::{Answer, Completion};
use crate::request::watch::Watchers;
use crate::space::{Lack, Space};
use crate::telemetry::CrdtTelemetry;
use crate::trace::{Context, Trace, Tracing};

/// Most writes that may wait.
const WRITES_MAX: usize = 1 << 16;
/// Most datagrams that may wait: more than that are lost, as a network loses them.
const DATAGRAMS_MAX: usize = 4096;

/// The time after which the journal is tried again when it had no space.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The receiver of an answer.
pub(crate) enum ReplyTo {
    /// A caller in this process, and the trace of its write.
    Caller(Completion<CrdtOutcome>, Trace),
    /// A function that passes the answer on.
    Other(Box<dyn FnOnce(Result<CrdtOutcome, OperationError>) + Send + Sync>),
}

impl ReplyTo {
    fn answer(self, result: Result<CrdtOutcome, OperationError>) {
        match self {
            ReplyTo::Caller(completion, trace) => {
                trace.end(result.as_ref().err());
                completion.complete(result);
            }
            ReplyTo::Other(answer) => answer(result),
        }
    }
}

/// Sends a datagram to a member, with the context of the trace that it belongs to.
pub(crate) type SendMessage = Box<dyn FnMut(NodeId, Bytes, Option<Context>) + Send>;

/// The handle to a CRDT keyspace. Clones are the same one; the keyspace ends with [`close`](Crdt::close), or
/// with its last handle.
#[derive(Clone)]
pub(crate) struct Crdt(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    /// There is no thread and no journal: callers do the work.
    is_volatile: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    state: RwLock<State>,
    watchers: Watchers,
    space: Space,
    tracing: Tracing,
}

/// The state that handles read between two rounds of the driver.
struct State {
    replica: CrdtReplica<ReplyTo>,
    origin: Instant,
}

#[derive(Default)]
struct Inbox {
    inputs: Vec<Input<ReplyTo>>,
    writes: usize,
    datagrams: usize,
    is_stopping: bool,
    /// Why nothing is accepted any more.
    closed: Option<OperationError>,
    /// Why only reads are accepted: the journal cannot be written.
    failed: Option<OperationError>,
    reports: CrdtReports,
}

/// What an operator must know of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CrdtReports {
    /// The incarnation as which the keyspace goes on since another node had events of it that it lacked.
    pub(crate) renewed: Option<u32>,
    /// The members with another hash key.
    pub(crate) mismatching: BTreeSet<NodeId>,
}

impl Crdt {
    /// Opens the keyspace that `storage` holds, and begins to drive it.
    pub(crate) fn start(
        options: CrdtOptions,
        (node, seed): (NodeId, u64),
        storage: Box<dyn Storage>,
        send: SendMessage,
        space: Space,
        tracing: Tracing,
    ) -> Result<Crdt, JournalError> {
        // The upper half, for the lower one is used by the sessions.
        let (fresh, key) = ((seed >> 32) as u32, options.hash_key);
        let (journal, map) = Journal::open(storage, node, fresh, key)?;
        let shared = Shared::new(options, seed, map, space, tracing);
        let driver = Driver { shared: Arc::clone(&shared), send, node, key, retry_at: None };
        let thread = std::thread::Builder::new().name("x0-kv crdt".into()).spawn(move || {
            let shared = Arc::clone(&driver.shared);
            match driver.run(journal) {
                Ok(()) => shared.close(&OperationError::Closed),
                // Reads go on without the thread.
                Err(error) => shared.fail(&error),
            }
        });
        // Without a thread there is nothing to wait for the writes that are to come.
        let thread = thread.map_err(|error| shared.close(&OperationError::failed(error))).ok();
        Ok(Crdt(Arc::new(Running { shared, is_volatile: false, thread: Mutex::new(thread) })))
    }

    /// A keyspace in memory alone, without a thread.
    pub(crate) fn volatile(seed: u64) -> Crdt {
        let (options, node) =
            (CrdtOptions::new([0; 16]), ReplicaId::with_incarnation(1, (seed >> 32) as u32));
        let map = CausalMap::new(node, HashKey::new([0; 16]));
        let shared = Shared::new(options, seed, map, Space::default(), Tracing::default());
        Crdt(Arc::new(Running { shared, is_volatile: true, thread: Mutex::new(None) }))
    }

    /// Carries out a request of this process.
    pub(crate) fn submit(&self, request: Request) -> Answer<CrdtOutcome> {
        let trace = Trace::crdt_submitted(&self.0.shared.tracing, &request);
        match request {
            Request::Read(read) => {
                let result = self.read(&read);
                trace.end(result.as_ref().err());
                Answer::ready(result)
            }
            Request::Write(write) => {
                let (completion, answer) = Answer::waiting();
                self.write(write, trace.context(), ReplyTo::Caller(completion, trace));
                answer
            }
        }
    }

    /// Answers from what is held, what is on its way to the disk included.
    pub(crate) fn read(&self, read: &Read) -> Result<CrdtOutcome, OperationError> {
        if let Some(error) = &self.0.shared.lock().closed {
            return Err(error.clone());
        }
        let state = self.0.shared.state();
        Ok(reading::read(state.replica.map(), state.replica.time_max(wall_ms()), read))
    }

    /// Writes, and answers when it is durable. `trace` goes on with the write to other members.
    pub(crate) fn write(&self, write: Write, trace: Option<Context>, reply: ReplyTo) {
        let refusal = {
            let mut inbox = self.0.shared.lock();
            match inbox.closed.as_ref().or(inbox.failed.as_ref()) {
                Some(error) => error.clone(),
                None if self.0.shared.has_no_space() => OperationError::NoSpace { ambiguous: false },
                None if inbox.writes >= WRITES_MAX => OperationError::Overloaded,
                None => {
                    inbox.writes += 1;
                    inbox.inputs.push(Input::Write { write, wall_ms: wall_ms(), trace, reply });
                    drop(inbox);
                    self.0.shared.filled.notify_one();
                    return self.0.carry_on_without_thread();
                }
            }
        };
        reply.answer(Err(refusal));
    }

    /// Takes a datagram of another member, with the context that it came with.
    pub(crate) fn datagram(&self, from: NodeId, payload: Bytes, trace: Option<Context>) {
        let mut inbox = self.0.shared.lock();
        let is_accepting = inbox.closed.is_none() && inbox.failed.is_none();
        if inbox.datagrams < DATAGRAMS_MAX && is_accepting {
            inbox.datagrams += 1;
            inbox.inputs.push(Input::Datagram { from, payload, trace });
            drop(inbox);
            self.0.shared.filled.notify_one();
        }
    }

    /// A node can be reached (again).
    pub(crate) fn up(&self, node: NodeId) {
        self.0.shared.put(Input::Up(node));
    }

    /// The members.
    pub(crate) fn members(&self, members: BTreeSet<NodeId>) {
        self.0.shared.put(Input::Members(members));
    }

    /// The error that ended the writing of the journal, if there is one.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "a node reports it"))]
    pub(crate) fn failure(&self) -> Option<OperationError> {
        self.0.shared.lock().failed.clone()
    }

    /// What an operator must know, without a wait for work on the keyspace.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "a node reports it"))]
    pub(crate) fn reports(&self) -> CrdtReports {
        self.0.shared.lock().reports.clone()
    }

    pub(crate) fn status(&self) -> CrdtStatus {
        let state = self.0.shared.state();
        state.replica.status()
    }

    pub(crate) fn watchers(&self) -> &Watchers {
        &self.0.shared.watchers
    }

    /// Ends it, and returns when its files are released.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl Running {
    fn close(&self) {
        self.shared.lock().is_stopping = true;
        self.shared.filled.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread has closed the inbox even if it panicked.
            let _ = thread.join();
        }
        self.shared.close(&OperationError::Closed);
    }

    /// Does the thread's work in the caller's, where there is none.
    fn carry_on_without_thread(&self) {
        if !self.is_volatile {
            return;
        }
        let inputs = self.shared.lock().take();
        let mut outputs = Vec::new();
        self.shared.handle(inputs, &mut outputs);
        self.shared.carry_out(outputs, &mut |_, _, _| {});
    }
}

impl std::fmt::Debug for Crdt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crdt").finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inbox {
    fn take(&mut self) -> Vec<Input<ReplyTo>> {
        (self.writes, self.datagrams) = (0, 0);
        std::mem::take(&mut self.inputs)
    }
}

impl Shared {
    fn new(options: CrdtOptions, seed: u64, map: CausalMap, space: Space, tracing: Tracing) -> Arc<Shared> {
        let replica = CrdtReplica::new(options, seed, Duration::ZERO, map);
        Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            filled: Condvar::new(),
            state: RwLock::new(State { replica, origin: Instant::now() }),
            watchers: Watchers::default(),
            space,
            tracing,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that can panic runs under the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A poisoned lock says that the thread died while it wrote: the inbox is closed then, and nothing is read
    // any more.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, input: Input<ReplyTo>) {
        let mut inbox = self.lock();
        if inbox.closed.is_none() && inbox.failed.is_none() {
            inbox.inputs.push(input);
            drop(inbox);
            self.filled.notify_one();
        }
    }

    fn handle(&self, inputs: Vec<Input<ReplyTo>>, outputs: &mut Vec<Output<ReplyTo>>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { replica, origin } = &mut *state;
        let now = origin.elapsed();
        for input in inputs.into_iter().chain([Input::Timeout]) {
            // The replica has counted a datagram that it refuses.
            let _ = replica.handle(now, input);
        }
        while let Some(output) = replica.poll_output() {
            outputs.push(output);
        }
        let reports = replica.reports();
        drop(state);
        self.lock().reports = reports;
    }

    fn carry_out(&self, outputs: Vec<Output<ReplyTo>>, send: &mut dyn FnMut(NodeId, Bytes, Option<Context>)) {
        for output in outputs {
            match output {
                Output::Send { to, payload, trace } => send(to, payload.into(), trace),
                Output::Merged { .. } => {}
                Output::Reply { reply, result } => reply.answer(result),
                Output::Changed { keys } => self.watchers.changed(&keys),
            }
        }
    }

    /// Whether writes are refused for lack of space.
    fn has_no_space(&self) -> bool {
        self.space.has(Lack::Journal) || self.space.has(Lack::Reserve)
    }

    /// Accepts nothing any more, and answers the callers that wait.
    fn close(&self, error: &OperationError) {
        let inputs = {
            let mut inbox = self.lock();
            inbox.closed.get_or_insert_with(|| error.clone());
            inbox.take()
        };
        refuse(inputs, error);
        self.watchers.close();
    }

    /// Accepts no writes any more, and answers the callers that wait.
    fn fail(&self, error: &OperationError) {
        let inputs = {
            let mut inbox = self.lock();
            inbox.failed.get_or_insert_with(|| error.clone());
            inbox.take()
        };
        refuse(inputs, error);
        self.space.notify();
    }
}

/// Answers the callers among `inputs` with `error`.
fn refuse(inputs: Vec<Input<ReplyTo>>, error: &OperationError) {
    for input in inputs {
        if let Input::Write { reply, .. } = input {
            reply.answer(Err(error.clone()));
        }
    }
}

/// The work of the thread.
struct Driver {
    shared: Arc<Shared>,
    send: SendMessage,
    node: NodeId,
    key: HashKey,
    /// While the journal has no space: when to try it again.
    retry_at: Option<Instant>,
}

impl Driver {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// When the journal fails for another reason than a lack of space.
    fn run(mut self, mut journal: Journal) -> Result<(), OperationError> {
        let mut telemetry = CrdtTelemetry::new();
        let mut outputs = Vec::new();
        while let Some(mut inputs) = self.next() {
            if self.retry_at.is_some() {
                self.retry(&mut journal)?;
            }
            if self.retry_at.is_some() {
                // Changes of the map are refused: they could not be written.
                let refused = |input: &mut Input<ReplyTo>| {
                    matches!(input, Input::Write { .. } | Input::Datagram { .. })
                };
                let refused = inputs.extract_if(.., refused).collect();
                refuse(refused, &OperationError::NoSpace { ambiguous: false });
            }
            self.shared.handle(inputs, &mut outputs);
            let merges: Vec<Trace> = outputs.iter().filter_map(|output| self.merge(output)).collect();
            let persisted = self.persist(&mut journal);
            // Their changes are durable.
            drop(merges);
            match persisted {
                Ok(()) => self.shared.carry_out(std::mem::take(&mut outputs), &mut *self.send),
                Err(error) => journal = self.undo(journal, error, std::mem::take(&mut outputs))?,
            }
            let state = self.shared.state();
            telemetry.round(|| state.replica.status());
        }
        Ok(())
    }

    /// The span of a merge.
    fn merge(&self, output: &Output<ReplyTo>) -> Option<Trace> {
        let Output::Merged { from, keys, trace } = output else { return None };
        Some(Trace::merged(&self.shared.tracing, trace, (self.node, *from), *keys))
    }

    /// Makes durable what the last inputs have changed.
    fn persist(&self, journal: &mut Journal) -> Result<(), JournalError> {
        let staged = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            state.replica.take_staged()
        };
        for staged in staged {
            journal.write(journal.staged(staged))?;
        }
        let record = journal.record(self.shared.state().replica.map());
        record.map_or(Ok(()), |record| journal.write(record))
    }

    /// Waits for inputs or the time. `None` when the thread is to end.
    fn next(&self) -> Option<Vec<Input<ReplyTo>>> {
        let wait = {
            let state = self.shared.state();
            state.replica.poll_timeout().unwrap_or(Duration::MAX).saturating_sub(state.origin.elapsed())
        };
        let retry = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = retry.map_or(wait, |retry| retry.min(wait));
        let inbox = self.shared.lock();
        let idle = |inbox: &mut Inbox| inbox.inputs.is_empty() && !inbox.is_stopping;
        let (mut inbox, _) =
            self.shared.filled.wait_timeout_while(inbox, wait, idle).unwrap_or_else(PoisonError::into_inner);
        if inbox.is_stopping && inbox.inputs.is_empty() { None } else { Some(inbox.take()) }
    }

    /// Undoes the changes that were not written, and answers their callers.
    fn undo(
        &mut self,
        journal: Journal,
        error: JournalError,
        outputs: Vec<Output<ReplyTo>>,
    ) -> Result<Journal, OperationError> {
        let is_full = error.is_full();
        let error = match is_full {
            true => OperationError::NoSpace { ambiguous: false },
            false => OperationError::failed(error),
        };
        if is_full {
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
            self.shared.space.set(Lack::Journal, true);
        }
        let reloaded = journal.reload(self.node, self.key).map(|(journal, map)| {
            self.shared.state.write().unwrap_or_else(PoisonError::into_inner).replica.reset(map);
            journal
        });
        // After the map is as it was: a caller who reads after the answer must not see the write.
        for output in outputs {
            if let Output::Reply { reply, .. } = output {
                reply.answer(Err(error.clone()));
            }
        }
        if is_full { reloaded.map_err(OperationError::failed) } else { Err(error) }
    }

    /// Tries whether the journal can be written again, with a record of all that is held.
    fn retry(&mut self, journal: &mut Journal) -> Result<(), OperationError> {
        if self.retry_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let whole = journal.whole(self.shared.state().replica.map());
        let is_spacious = self.shared.space.is_measured() && !self.shared.space.has(Lack::Reserve);
        match journal.write(whole) {
            Err(error) if error.is_full() && !is_spacious => {
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                return Ok(());
            }
            Err(error) if !error.is_full() => return Err(OperationError::failed(error)),
            // There is space for records that are shorter than the whole.
            Ok(()) | Err(_) => {}
        }
        self.retry_at = None;
        self.shared.space.set(Lack::Journal, false);
        Ok(())
    }
}

/// The time since 1970 in ms, by this machine's clock.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
