//! The thread between the exchange, the files and the transport. It decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use x0_identity::NodeId;

use super::fetch::{FetchError, Waiting};
use super::handle::BlobStatus;
use super::{BlobExchange, BlobId, BlobStore, BlobWriteError, ExchangeInput, ExchangeOutput, FetchFailure};
use crate::telemetry::BlobTelemetry;

/// Most bytes of messages that may wait; more than that are lost.
const MESSAGES_LEN_MAX: usize = 32 << 20;
/// The bytes that a message counts for beyond its length.
const MESSAGE_OVERHEAD_LEN: usize = 128;
/// How long the thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Sends a message to a member.
pub(crate) type SendMessage = Box<dyn FnMut(NodeId, Bytes) + Send>;

/// An event for the driver.
pub(crate) enum Event {
    /// To the exchange.
    Engine(ExchangeInput),
    /// A caller waits for a blob.
    Fetch { id: BlobId, len: u64, waiting: Arc<Waiting> },
    /// And waits no more.
    Dropped { id: BlobId, waiting: Weak<Waiting> },
    /// A chunk was found damaged.
    Damaged { id: BlobId },
    /// The blob came another way.
    Added { id: BlobId },
    /// The blob is removed.
    Removed { id: BlobId },
}

/// The state that the thread and the handles share.
pub(crate) struct Shared {
    /// `None` when it is closed.
    store: Mutex<Option<BlobStore>>,
    pub(super) is_alone: bool,
    inbox: Mutex<Inbox>,
    filled: Condvar,
    status: Mutex<BlobStatus>,
}

#[derive(Default)]
struct Inbox {
    events: Vec<Event>,
    messages_len: usize,
    is_stopping: bool,
    is_closed: bool,
}

impl Shared {
    pub(super) fn new(store: &BlobStore, is_alone: bool) -> Arc<Shared> {
        let shared = Arc::new(Shared {
            store: Mutex::new(Some(store.clone())),
            is_alone,
            inbox: Mutex::default(),
            filled: Condvar::new(),
            status: Mutex::default(),
        });
        let notified = Arc::downgrade(&shared);
        store.on_damage(Box::new(move |id| {
            if let Some(shared) = notified.upgrade() {
                shared.put(Event::Damaged { id });
            }
        }));
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that can panic runs under the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store(&self) -> Option<BlobStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn put(&self, event: Event) {
        let mut inbox = self.lock();
        if inbox.is_closed {
            drop(inbox);
            return refuse(event);
        }
        inbox.events.push(event);
        drop(inbox);
        self.filled.notify_one();
    }

    pub(super) fn message(&self, from: NodeId, payload: Bytes) {
        let mut inbox = self.lock();
        let len = inbox.messages_len + payload.len() + MESSAGE_OVERHEAD_LEN;
        if len <= MESSAGES_LEN_MAX && !inbox.is_closed {
            inbox.messages_len = len;
            inbox.events.push(Event::Engine(ExchangeInput::Message { from, payload }));
            drop(inbox);
            self.filled.notify_one();
        }
    }

    pub(super) fn status(&self) -> BlobStatus {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(store) = self.store() else { return status };
        let list = store.list();
        let whole = list.iter().filter(|blob| blob.is_whole).count();
        BlobStatus { whole, partial: list.len() - whole, used_bytes: store.used_bytes(), ..status }
    }

    pub(super) fn stop(&self) {
        self.lock().is_stopping = true;
        self.filled.notify_one();
    }

    /// Takes nothing any more and releases the files; answers the callers that wait.
    pub(super) fn close(&self) {
        let events = {
            let mut inbox = self.lock();
            inbox.is_closed = true;
            std::mem::take(&mut inbox.events)
        };
        events.into_iter().for_each(refuse);
        drop(self.store.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits for events; `None` when the thread is to end.
    fn wait(&self, limit: Duration) -> Option<Vec<Event>> {
        let idle = |inbox: &mut Inbox| inbox.events.is_empty() && !inbox.is_stopping;
        let (mut inbox, _) =
            self.filled.wait_timeout_while(self.lock(), limit, idle).unwrap_or_else(PoisonError::into_inner);
        inbox.messages_len = 0;
        (!inbox.is_stopping).then(|| std::mem::take(&mut inbox.events))
    }
}

/// Answers a caller that waits that the store is closed.
fn refuse(event: Event) {
    if let Event::Fetch { waiting, .. } = event {
        waiting.end(Err(FetchError::Closed));
    }
}

/// A message that notifies the driver when it is not held any more.
struct Tracked {
    payload: Vec<u8>,
    ticket: u64,
    shared: Weak<Shared>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.put(Event::Engine(ExchangeInput::Left { ticket: self.ticket }));
        }
    }
}

/// A blob that is being fetched, and the callers that wait for it.
#[derive(Default)]
struct Job {
    len: u64,
    waiting: Vec<Arc<Waiting>>,
    /// The blob is fetched without a caller: a chunk of it was damaged.
    is_repair: bool,
    /// Why it cannot be kept.
    error: Option<Arc<BlobWriteError>>,
}

struct Driver<'a> {
    shared: &'a Arc<Shared>,
    store: BlobStore,
    exchange: BlobExchange,
    send: SendMessage,
    jobs: BTreeMap<BlobId, Job>,
    /// Chunks written and not committed.
    kept: BTreeMap<BlobId, Vec<u32>>,
    misbehaving: BTreeMap<NodeId, u64>,
    now: Duration,
}

/// Runs until it is stopped.
pub(super) fn drive(shared: &Arc<Shared>, exchange: BlobExchange, send: SendMessage) {
    let Some(store) = shared.store() else { return };
    let mut driver = Driver {
        shared,
        store,
        exchange,
        send,
        jobs: BTreeMap::new(),
        kept: BTreeMap::new(),
        misbehaving: BTreeMap::new(),
        now: Duration::ZERO,
    };
    let mut telemetry = BlobTelemetry::new();
    let origin = Instant::now();
    loop {
        let wait = driver.exchange.poll_timeout().map_or(IDLE, |due| due.saturating_sub(origin.elapsed()));
        let Some(events) = shared.wait(wait) else { break };
        driver.now = origin.elapsed();
        for event in events {
            driver.event(event);
        }
        driver.input(ExchangeInput::Timeout);
        driver.carry_out();
        driver.publish_status();
        telemetry.round(|| shared.status());
    }
    for job in driver.jobs.values() {
        job.waiting.iter().for_each(|waiting| waiting.end(Err(FetchError::Closed)));
    }
}

impl Driver<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Engine(input) => self.input(input),
            Event::Fetch { id, len, waiting } => {
                self.jobs.entry(id).or_default().waiting.push(waiting);
                self.fetch(id, len);
            }
            Event::Dropped { id, waiting } => {
                let Some(job) = self.jobs.get_mut(&id) else { return };
                job.waiting.retain(|held| !std::ptr::eq(Arc::as_ptr(held), waiting.as_ptr()));
                if job.waiting.is_empty() && !job.is_repair {
                    self.jobs.remove(&id);
                    self.input(ExchangeInput::Cancel { id });
                }
            }
            Event::Damaged { id } => {
                let holding = self.store.holding(&id).filter(|_| !self.shared.is_alone);
                if let Some(holding) = holding {
                    self.jobs.entry(id).or_default().is_repair = true;
                    // The fetch begins again, because the exchange takes the chunk for held.
                    self.input(ExchangeInput::Cancel { id });
                    self.fetch(id, holding.len);
                }
            }
            Event::Added { id } => {
                if self.jobs.contains_key(&id) && self.store.is_whole(&id) {
                    self.input(ExchangeInput::Cancel { id });
                    self.end(id, &Ok(()));
                }
            }
            Event::Removed { id } => {
                self.input(ExchangeInput::Cancel { id });
                self.end(id, &Err(FetchError::Removed));
            }
        }
    }

    fn fetch(&mut self, id: BlobId, len: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.len = len;
        }
        let holding = self.store.holding(&id);
        self.input(ExchangeInput::Fetch { id, len, holding });
    }

    fn input(&mut self, input: ExchangeInput) {
        // The exchange counts messages that cannot be decoded.
        let _ = self.exchange.handle(self.now, input);
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.exchange.poll_output() {
                self.output(output);
            }
            // Chunks that came together are made durable together.
            let kept = std::mem::take(&mut self.kept);
            if kept.is_empty() {
                return;
            }
            for (id, indexes) in kept {
                let committed = self.store.commit(&id);
                let is_kept = committed.is_ok();
                self.failed(id, committed.err());
                for index in indexes {
                    self.input(ExchangeInput::Kept { id, index, is_kept });
                }
                self.progress(id);
            }
        }
    }

    fn output(&mut self, output: ExchangeOutput) {
        match output {
            ExchangeOutput::Send { to, payload, ticket: None } => (self.send)(to, payload.into()),
            ExchangeOutput::Send { to, payload, ticket: Some(ticket) } => {
                let tracked = Tracked { payload, ticket, shared: Arc::downgrade(self.shared) };
                (self.send)(to, Bytes::from_owner(tracked));
            }
            ExchangeOutput::Look { to, id } => {
                let holding = self.store.holding(&id);
                self.input(ExchangeInput::Looked { to, id, holding });
            }
            ExchangeOutput::Read { ticket, id, index } => {
                // A damaged chunk was reported by the read.
                let piece = self.store.read_piece(&id, index).ok();
                self.input(ExchangeInput::Read { ticket, piece });
            }
            ExchangeOutput::Begin { id, len, root } => {
                let begun = self.store.begin(&id, len, &root);
                let chunks = begun.map_err(|error| self.failed(id, Some(error))).ok();
                self.input(ExchangeInput::Begun { id, chunks });
                self.progress(id);
            }
            ExchangeOutput::Keep { id, index, piece } => match self.store.keep(&id, index, &piece) {
                Ok(()) => self.kept.entry(id).or_default().push(index),
                Err(error) => {
                    self.failed(id, Some(error));
                    self.input(ExchangeInput::Kept { id, index, is_kept: false });
                }
            },
            ExchangeOutput::Complete { id } => self.end(id, &Ok(())),
            ExchangeOutput::Failed { id, failure } => {
                let job = self.jobs.get(&id);
                let error = match failure {
                    FetchFailure::Length { actual } => {
                        FetchError::Length { stated: job.map_or(0, |job| job.len), actual }
                    }
                    FetchFailure::TooMany => FetchError::TooMany,
                    FetchFailure::Storage => {
                        let error = job.and_then(|job| job.error.clone());
                        error.map_or(FetchError::Removed, FetchError::Storage)
                    }
                };
                self.end(id, &Err(error));
            }
            ExchangeOutput::Misbehaved { peer, .. } => *self.misbehaving.entry(peer).or_default() += 1,
        }
    }

    fn failed(&mut self, id: BlobId, error: Option<BlobWriteError>) {
        if let (Some(job), Some(error)) = (self.jobs.get_mut(&id), error) {
            job.error = Some(Arc::new(error));
        }
    }

    fn progress(&self, id: BlobId) {
        let (Some(job), Some(holding)) = (self.jobs.get(&id), self.store.holding(&id)) else { return };
        let held = holding.chunks.held_bytes(holding.len);
        job.waiting.iter().for_each(|waiting| waiting.progress(held));
    }

    fn end(&mut self, id: BlobId, result: &Result<(), FetchError>) {
        let Some(job) = self.jobs.remove(&id) else { return };
        // A caller that reads the totals after its fetch finds the fetch in them.
        self.publish_status();
        job.waiting.iter().for_each(|waiting| waiting.end(result.clone()));
    }

    fn publish_status(&self) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.fetching = self.exchange.fetching().count();
        status.pending_bytes = self.exchange.pending_bytes();
        status.totals = self.exchange.totals();
        if status.misbehaving != self.misbehaving {
            status.misbehaving.clone_from(&self.misbehaving);
        }
    }
}
