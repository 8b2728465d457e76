//! A store on one node, in this process: a log on disk, a replica that is its own majority, and the state.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use x0_consensus::{Event, Handle, NodeId, Observer, Storage, Wal, WalOptions, local};

use crate::blob::{self, BlobOptions, Blobs};
use crate::crdt::{self, Crdt, CrdtOptions, CrdtOutcome, Request};
use crate::request::applied::decode_applied;
use crate::request::command::Command;
use crate::request::error::{FailureCause, OperationError};
use crate::request::operation::Operation;
use crate::request::outcome::Outcome;
use crate::request::pending::{Answer, Completion};
use crate::request::watch::Watchers;
use crate::state::State;
use crate::state::engine::Engine;
use crate::state::storage::{EngineError, Reader};
use crate::store::Store;
use crate::store::backend::{Dispatch, no_crdt};

// Evaluated when this is compiled.
const ID: NodeId = NodeId::new(1).unwrap();
/// Most writes that wait for the disk.
const CALLS_MAX: usize = 65536;
/// The token of the read at the start. Tokens of writes are smaller.
const OPENED: u64 = u64::MAX;

/// The settings of an embedded store.
///
/// ```
/// use x0_kv::{Engine, StoreOptions};
///
/// let options = StoreOptions::new().engine(Engine::Memory);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// The storage engine.
    pub engine: Engine,
    /// The settings of the log.
    pub log: WalOptions,
    /// The CRDT store, if there is to be one: [`StoreOptions::crdt`].
    pub(crate) crdt: Option<CrdtOptions>,
    /// The blobs, if there are to be any: [`StoreOptions::blobs`].
    pub(crate) blobs: Option<BlobOptions>,
}

impl StoreOptions {
    /// The default settings: data in memory with a log on disk, no CRDT store, no blobs.
    #[must_use]
    pub fn new() -> StoreOptions {
        StoreOptions::default()
    }

    /// Selects the storage engine.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> StoreOptions {
        self.engine = engine;
        self
    }

    /// Sets the settings of the log.
    #[must_use]
    pub fn log(mut self, log: WalOptions) -> StoreOptions {
        self.log = log;
        self
    }

    /// Opens a CRDT store beside the linearizable one, in the folder `crdt` beside the log.
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn crdt(mut self, crdt: CrdtOptions) -> StoreOptions {
        self.crdt = Some(crdt);
        self
    }

    /// Opens blobs beside the store, in the folder `blobs` beside the log.
    #[cfg(feature = "blob")]
    #[must_use]
    pub fn blobs(mut self, blobs: BlobOptions) -> StoreOptions {
        self.blobs = Some(blobs);
        self
    }
}

/// A store was not opened. Nothing on disk has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be created.
    #[error("cannot create the folder {}: create it, or choose another", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The log cannot be opened or recovered.
    #[error(transparent)]
    Log(#[from] x0_consensus::OpenError),
    /// The file of the storage engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The journal of the CRDT store cannot be opened.
    #[cfg(feature = "crdt")]
    #[error(transparent)]
    Journal(#[from] crdt::JournalError),
    /// The folder of the blobs cannot be opened.
    #[cfg(feature = "blob")]
    #[error(transparent)]
    Blobs(#[from] blob::BlobOpenError),
    /// The log was opened, but its entries cannot be applied.
    #[error("the store failed while it applied its log")]
    Failed {
        /// The cause.
        source: FailureCause,
    },
}

pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Store, OpenError> {
    std::fs::create_dir_all(path).map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
    // A copy of a store without other members has acknowledged nothing that any other node relies on.
    let log = options.log.accepts_copy(true);
    let storage = Wal::open_path(path.join("log"), log).map_err(x0_consensus::OpenError::from)?;
    let state = options.engine.state(path, None)?;
    let part = Part {
        crdt: crdt::open_embedded(path, options.crdt.as_ref(), ID)?,
        blobs: blob::open_embedded(path, options.blobs.as_ref())?,
    };
    open_on(storage, state, part)
}

/// The parts of a store beside its replica.
struct Part {
    crdt: Option<Crdt>,
    blobs: Option<Blobs>,
}

/// As [`open`], on this storage and state.
fn open_on(storage: impl Storage + 'static, state: State, part: Part) -> Result<Store, OpenError> {
    // The group has no other member, so that any id will do.
    let mut config = x0_consensus::Options::new(ID).bootstrap([ID]);
    // A group of one has no elections and no heartbeats: ticks only wake a device that could sleep.
    config.tick = Duration::from_secs(1);
    let (reader, watchers) = (state.reader(), state.watchers());
    let calls = Arc::new(Calls::default());
    let handle = local::start(config, storage, state, (), CallObserver(Arc::clone(&calls)))?;
    // The first read must see every write that was acknowledged before the restart.
    handle.read_index(OPENED);
    match calls.wait_opened() {
        Ok(()) => Ok(Store::from_dispatch(Arc::new(Embedded { handle, reader, calls, watchers, part }))),
        Err(source) => {
            handle.wait_ended();
            Err(OpenError::Failed { source })
        }
    }
}

/// The replica and the other parts that an embedded [`Store`] dispatches to.
struct Embedded {
    handle: Handle,
    reader: Reader,
    calls: Arc<Calls>,
    watchers: Watchers,
    part: Part,
}

impl Dispatch for Embedded {
    fn submit(&self, operation: Operation) -> Answer {
        match operation {
            // A write is applied before it is acknowledged and there is no other replica, so that the applied
            // state is the one that a linearizable read must return.
            Operation::Read { keyspace, query, .. } => Answer::ready(match self.calls.closed() {
                None => self.reader.query(&keyspace, &query),
                Some(error) => Err(error),
            }),
            Operation::Write { keyspace, mutation } => match self.calls.open() {
                Ok((token, answer)) => {
                    self.handle.propose(token, Command::encode_write(None, &keyspace, &mutation));
                    answer
                }
                Err(error) => Answer::ready(Err(error)),
            },
        }
    }

    fn has_crdt(&self) -> bool {
        self.part.crdt.is_some()
    }

    fn submit_crdt(&self, request: Request) -> Answer<CrdtOutcome> {
        match &self.part.crdt {
            Some(crdt) => crdt.submit(request),
            None => no_crdt(),
        }
    }

    fn watchers(&self) -> Option<&Watchers> {
        Some(&self.watchers)
    }

    fn crdt_watchers(&self) -> Option<&Watchers> {
        self.part.crdt.as_ref().map(Crdt::watchers)
    }

    fn blobs(&self) -> Option<&Blobs> {
        self.part.blobs.as_ref()
    }

    fn close(&self) {
        if let Some(blobs) = &self.part.blobs {
            blobs.close();
        }
        if let Some(crdt) = &self.part.crdt {
            crdt.close();
        }
        self.handle.stop();
        self.handle.wait_ended();
        self.calls.close(OperationError::Closed);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes that wait for the log, by token.
#[derive(Default)]
struct Calls {
    inner: Mutex<Inner>,
    opened: std::sync::Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Option<Completion>>,
    free: Vec<usize>,
    opened: bool,
    closed: Option<OperationError>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> Option<OperationError> {
        self.lock().closed.clone()
    }

    fn open(&self) -> Result<(u64, Answer), OperationError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.closed {
            return Err(error.clone());
        }
        let place = match inner.free.pop() {
            Some(place) => place,
            None if inner.waiting.len() >= CALLS_MAX => return Err(OperationError::Overloaded),
            None => {
                inner.waiting.push(None);
                inner.waiting.len() - 1
            }
        };
        let (completion, answer) = Answer::waiting();
        inner.waiting[place] = Some(completion);
        Ok((place as u64, answer))
    }

    fn complete(&self, token: u64, result: Result<Outcome, OperationError>) {
        let Ok(place) = usize::try_from(token) else { return };
        let mut inner = self.lock();
        if let Some(completion) = inner.waiting.get_mut(place).and_then(Option::take) {
            inner.free.push(place);
            drop(inner);
            completion.complete(result);
        }
    }

    fn close(&self, error: OperationError) {
        let mut inner = self.lock();
        let error = inner.closed.get_or_insert(error).clone();
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        self.opened.notify_all();
        for completion in waiting.into_iter().flatten() {
            completion.complete(Err(error.clone()));
        }
    }

    fn wait_opened(&self) -> Result<(), FailureCause> {
        let mut inner = self.lock();
        loop {
            match &inner.closed {
                Some(OperationError::Failed { source }) => return Err(source.clone()),
                Some(other) => return Err(FailureCause::new(other.clone())),
                None if inner.opened => return Ok(()),
                None => inner = self.opened.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Completes the calls when the replica reports their outcomes.
struct CallObserver(Arc<Calls>);

impl Observer for CallObserver {
    fn event(&mut self, event: Event) {
        match event {
            Event::Outcome { token, outcome, .. } => {
                let applied = decode_applied(&outcome).map_err(|_| OperationError::NotUnderstood);
                self.0.complete(token, applied.and_then(|applied| applied.map_err(OperationError::from)));
            }
            Event::ReadReady { token: OPENED, .. } => {
                self.0.lock().opened = true;
                self.0.opened.notify_all();
            }
            Event::Dropped { token, .. } => self.0.complete(token, Err(OperationError::Overloaded)),
            Event::Failed(cause) => {
                self.0.close(OperationError::failed(cause));
            }
            _ => {}
        }
    }
}

impl Drop for CallObserver {
    /// Runs when the thread of the replica has ended, for any reason.
    fn drop(&mut self) {
        self.0.close(OperationError::Closed);
    }
}
