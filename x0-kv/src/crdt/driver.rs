//! The thread that drives a CRDT keyspace, and the handle to it.
//!
//! It decides nothing. What has come while it was busy is handled together, made durable by one record, and
//! only then reported.

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
use crate::telemetry::CrdtTelemetry;

/// Most writes that may wait.
const WRITES_MAX: usize = 1 << 16;
/// Most datagrams that may wait: more than that are lost, as a network loses them.
const DATAGRAMS_MAX: usize = 4096;

/// The receiver of an answer.
pub(crate) enum ReplyTo {
    /// A caller in this process.
    Caller(Completion<CrdtOutcome>),
    /// A function that passes the answer on.
    Other(Box<dyn FnOnce(Result<CrdtOutcome, OperationError>) + Send + Sync>),
}

impl ReplyTo {
    fn answer(self, result: Result<CrdtOutcome, OperationError>) {
        match self {
            ReplyTo::Caller(completion) => completion.complete(result),
            ReplyTo::Other(answer) => answer(result),
        }
    }
}

/// Where datagrams go.
pub(crate) type Post = Box<dyn FnMut(NodeId, Bytes) + Send>;

/// The handle to a CRDT keyspace. Clones are the same one; it ends with [`close`](Crdt::close), or when
/// nobody holds it.
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
}

/// What is read while it is not written.
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
    closed: Option<OperationError>,
}

impl Crdt {
    /// Opens the keyspace that `storage` holds, and begins to drive it.
    pub(crate) fn start(
        options: CrdtOptions,
        node: NodeId,
        seed: u64,
        storage: Box<dyn Storage>,
        post: Post,
    ) -> Result<Crdt, JournalError> {
        // The upper half, for the lower one is used by the sessions.
        let fresh = (seed >> 32) as u32;
        let (journal, map) = Journal::open(storage, node, fresh, options.hash_key)?;
        let shared = Shared::new(options, seed, map);
        let driven = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("x0-kv crdt".into()).spawn(move || {
            let end = drive(&driven, journal, post);
            driven.close(&end);
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
        let shared = Shared::new(options, seed, map);
        Crdt(Arc::new(Running { shared, is_volatile: true, thread: Mutex::new(None) }))
    }

    /// Carries out a request of this process.
    pub(crate) fn submit(&self, request: Request) -> Answer<CrdtOutcome> {
        match request {
            Request::Read(read) => Answer::ready(self.read(&read)),
            Request::Write(write) => {
                let (completion, answer) = Answer::waiting();
                self.write(write, ReplyTo::Caller(completion));
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

    /// Writes, and answers when it is durable.
    pub(crate) fn write(&self, write: Write, reply: ReplyTo) {
        let refusal = {
            let mut inbox = self.0.shared.lock();
            match &inbox.closed {
                Some(error) => error.clone(),
                None if inbox.writes >= WRITES_MAX => OperationError::Overloaded,
                None => {
                    inbox.writes += 1;
                    inbox.inputs.push(Input::Write { write, wall_ms: wall_ms(), reply });
                    drop(inbox);
                    self.0.shared.filled.notify_one();
                    return self.0.carry_on_without_thread();
                }
            }
        };
        reply.answer(Err(refusal));
    }

    /// Takes a datagram of another member.
    pub(crate) fn datagram(&self, from: NodeId, payload: Bytes) {
        let mut inbox = self.0.shared.lock();
        if inbox.datagrams < DATAGRAMS_MAX && inbox.closed.is_none() {
            inbox.datagrams += 1;
            inbox.inputs.push(Input::Datagram { from, payload });
            drop(inbox);
            self.0.shared.filled.notify_one();
        }
    }

    /// A node can be reached (again).
    pub(crate) fn up(&self, node: NodeId) {
        self.0.shared.put(Input::Up(node));
    }

    /// Who takes part.
    pub(crate) fn members(&self, members: BTreeSet<NodeId>) {
        self.0.shared.put(Input::Members(members));
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
            // It has closed the inbox even if it panicked.
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
        self.shared.carry_out(outputs, &mut |_, _| {});
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
    fn new(options: CrdtOptions, seed: u64, map: CausalMap) -> Arc<Shared> {
        let replica = CrdtReplica::new(options, seed, Duration::ZERO, map);
        Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            filled: Condvar::new(),
            state: RwLock::new(State { replica, origin: Instant::now() }),
            watchers: Watchers::default(),
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
        if inbox.closed.is_none() {
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
    }

    fn carry_out(&self, outputs: Vec<Output<ReplyTo>>, post: &mut dyn FnMut(NodeId, Bytes)) {
        for output in outputs {
            match output {
                Output::Send { to, payload } => post(to, payload.into()),
                Output::Reply { reply, result } => reply.answer(result),
                Output::Changed { keys } => self.watchers.changed(&keys),
            }
        }
    }

    /// Accepts nothing any more, and answers the callers that wait.
    fn close(&self, error: &OperationError) {
        let inputs = {
            let mut inbox = self.lock();
            inbox.closed.get_or_insert_with(|| error.clone());
            inbox.take()
        };
        for input in inputs {
            if let Input::Write { reply, .. } = input {
                reply.answer(Err(error.clone()));
            }
        }
        self.watchers.close();
    }
}

/// Runs until it is stopped or the journal fails, and says which.
fn drive(shared: &Shared, mut journal: Journal, mut post: Post) -> OperationError {
    let mut telemetry = CrdtTelemetry::new();
    let mut outputs = Vec::new();
    loop {
        let wait = {
            let state = shared.state();
            state.replica.poll_timeout().unwrap_or(Duration::MAX).saturating_sub(state.origin.elapsed())
        };
        let inputs = {
            let inbox = shared.lock();
            let idle = |inbox: &mut Inbox| inbox.inputs.is_empty() && !inbox.is_stopping;
            let (mut inbox, _) =
                shared.filled.wait_timeout_while(inbox, wait, idle).unwrap_or_else(PoisonError::into_inner);
            if inbox.is_stopping && inbox.inputs.is_empty() {
                return OperationError::Closed;
            }
            inbox.take()
        };
        shared.handle(inputs, &mut outputs);
        let record = journal.record(shared.state().replica.map());
        if let Some(record) = record
            && let Err(error) = journal.write(record)
        {
            let error = OperationError::failed(error);
            for output in outputs {
                if let Output::Reply { reply, .. } = output {
                    reply.answer(Err(error.clone()));
                }
            }
            return error;
        }
        shared.carry_out(std::mem::take(&mut outputs), &mut *post);
        let state = shared.state();
        telemetry.round(|| state.replica.status());
    }
}

/// The time since 1970 in ms, by this machine's clock.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
