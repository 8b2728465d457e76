//! A collection on a node: a thread that keeps its index equal to the store, and one that answers queries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use x0_kv::Store;
use x0_ml::file::DiskFolder;
use x0_ml::knowledge::kv::{KvKnowledge, KvKnowledgeError, KvKnowledgeOptions};
use x0_ml::knowledge::{
    ExactVectors, KnowledgeBase, KnowledgeBaseOptions, KnowledgeError, KnowledgeOptions, KnowledgeStore,
    Searcher, StoreError,
};
use x0_ml::retrieve::{Document, DocumentId, PassageFilter, Query};

use super::config::{CollectionConfig, StoreKind};
use super::message::{CollectionStatus, Explain, Hit, QueryAnswer, QueryRequest};
use super::model::{Model, Tokens, Vector};
use crate::causes::causes;
use crate::http::problem::Problem;
use crate::log::Log;

/// The time that a query waits for its `min_revision`.
const REVISION_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });
/// The time between attempts to open the collection, which may wait for a leader.
const OPEN_RETRY: Duration = Duration::from_millis(500);
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Documents are read for the passages of an answer until they have this many bytes together.
const READ_LEN_MAX: usize = if cfg!(test) { 8 << 10 } else { 64 << 20 };
/// Chunks that are embedded in one step; a status and the end of the node wait for the step that runs.
const BATCH_MAX: usize = 4;

type Base = KnowledgeBase<KvKnowledge, Model, DiskFolder, Tokens>;
type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// A handle of the collection's threads, which end with the last handle.
#[derive(Debug, Clone)]
pub(crate) struct Collection {
    jobs: Arc<Jobs>,
    searches: Arc<Searches>,
    /// Resolves when the thread has ended.
    ended: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    writer: Arc<Mutex<Writer>>,
}

/// The way to the thread that answers queries.
#[derive(Debug, Default)]
struct Searches {
    /// `None` before the collection is open and after its end.
    inbox: Mutex<Option<Sender<Asked>>>,
    /// The revision up to which the index holds all changes.
    applied: AtomicU64,
}

impl Searches {
    fn set(&self, inbox: Option<Sender<Asked>>) {
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = inbox;
    }

    /// Gives the query back if the index does not hold its revision yet, or is not open.
    fn send(&self, asked: Asked) -> Result<(), Box<Asked>> {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        match &*inbox {
            Some(inbox) if self.applied.load(Ordering::Acquire) >= asked.request.min_revision => {
                // Without its thread, no later attempt is answered either.
                if let Err(back) = inbox.send(asked) {
                    let _ = back.0.reply.send(Err(ended()));
                }
                Ok(())
            }
            _ => Err(Box::new(asked)),
        }
    }
}

/// The inbox of the thread. Its drop ends the thread, which holds a sender itself.
#[derive(Debug)]
struct Jobs(Sender<Job>);

impl Drop for Jobs {
    fn drop(&mut self) {
        let _ = self.0.send(Job::Stop);
    }
}

#[derive(Debug)]
enum Job {
    Query(Box<Asked>),
    Status(oneshot::Sender<CollectionStatus>),
    /// The store may have changes.
    Wake,
    Stop,
}

/// A query with its vector.
#[derive(Debug)]
struct Asked {
    request: QueryRequest,
    vector: Vector,
    embedded: Duration,
    since: Instant,
    reply: Reply<QueryAnswer>,
}

impl Collection {
    /// Starts the thread. It opens the collection as soon as the store allows it.
    pub(crate) fn start(opener: Opener, folder: &Path, model: &Model, log: &Log) -> Result<Collection> {
        let (jobs, inbox) = channel();
        let searches = Arc::new(Searches::default());
        let worker = Worker {
            opener: opener.clone(),
            folder: folder.to_owned(),
            model: model.clone(),
            waker: Arc::new(Waker { jobs: Mutex::new(jobs.clone()), is_set: AtomicBool::new(false) }),
            begun: Instant::now(),
            log: log.clone(),
            searches: Arc::clone(&searches),
            waiting: Vec::new(),
        };
        let (running, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("rag-{}", opener.config.name))
            .spawn(move || {
                worker.run(&inbox);
                // The collection may have been dropped before.
                let _ = running.send(());
            })
            .context("cannot start the thread of the collection")?;
        Ok(Collection {
            jobs: Arc::new(Jobs(jobs)),
            searches,
            ended: Arc::new(Mutex::new(Some(ended))),
            writer: Arc::new(Mutex::new(Writer { opener, store: None })),
        })
    }

    /// Asks the thread for queries, or lets the query wait for its revision. The vector is empty for a
    /// lexical query.
    pub(crate) async fn query(
        &self,
        request: QueryRequest,
        vector: Vector,
        embedded: Duration,
    ) -> Result<QueryAnswer, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked { request, vector, embedded, since: Instant::now(), reply };
        if let Err(asked) = self.searches.send(asked) {
            self.jobs.0.send(Job::Query(asked)).map_err(|_| ended())?;
        }
        answer.await.map_err(|_| ended())?
    }

    pub(crate) async fn status(&self) -> Result<CollectionStatus, Problem> {
        let (reply, answer) = oneshot::channel();
        self.jobs.0.send(Job::Status(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// Orders the thread to save its index and to end.
    pub(crate) fn stop(&self) {
        // A thread that has ended takes no orders.
        let _ = self.jobs.0.send(Job::Stop);
    }

    /// Waits until the thread has ended.
    pub(crate) async fn ended(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }

    /// Writes a document, or removes it with `None`; the revision, or `None` if there was nothing to remove.
    /// Waits for the store.
    pub(crate) fn write(&self, name: &str, content: Option<Document>) -> Result<Option<u64>, Problem> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write(&name.into(), content)
    }
}

fn ended() -> Problem {
    Problem::new(503, "the collection has stopped; the node's log has the reason: restart the node")
}

/// The means to open the collection.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) config: CollectionConfig,
    pub(crate) options: KvKnowledgeOptions,
    pub(crate) vectors: ExactVectors,
    pub(crate) store: Store,
}

impl Opener {
    fn open(&self) -> Result<KvKnowledge, String> {
        let CollectionConfig { name, store } = &self.config;
        KvKnowledge::create(&self.store, name, store.kind(), self.options)
            .map_err(|error| causes(&error.into()))
    }
}

/// The handle for writes: they wait for the store, and indexing must not wait for them.
#[derive(Debug)]
struct Writer {
    opener: Opener,
    store: Option<KvKnowledge>,
}

impl Writer {
    fn write(&mut self, name: &DocumentId, content: Option<Document>) -> Result<Option<u64>, Problem> {
        let store = opened(&mut self.store, &self.opener)?;
        let written = match content {
            Some(content) => store.put(name, content).map(Some),
            None => store.remove(name),
        };
        written.map_err(refused)
    }
}

/// A document that no store would take is the mistake of the client; the rest may be tried again.
pub(super) fn refused(error: StoreError) -> Problem {
    use KvKnowledgeError::{Description, DocumentName, TextTooLong, TooLong};
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    let at = |status, field: &str, cause: &KvKnowledgeError| Problem {
        field: Some(field.to_owned()),
        ..Problem::new(status, cause.to_string())
    };
    match cause {
        Some(cause @ DocumentName { .. }) => at(400, "id", cause),
        Some(cause @ Description { .. }) => at(413, "tags", cause),
        Some(cause @ (TextTooLong { .. } | TooLong { .. })) => at(413, "text", cause),
        _ => Problem::new(503, causes(&error.into())),
    }
}

/// Wakes the thread when the store has changes.
struct Waker {
    jobs: Mutex<Sender<Job>>,
    is_set: AtomicBool,
}

impl Wake for Waker {
    fn wake(self: Arc<Self>) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            // The thread has ended otherwise.
            let _ = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(Job::Wake);
        }
    }
}

struct Worker {
    opener: Opener,
    folder: PathBuf,
    model: Model,
    waker: Arc<Waker>,
    begun: Instant,
    log: Log,
    searches: Arc<Searches>,
    /// Queries whose revision is not in the index yet.
    waiting: Vec<Asked>,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Job>) {
        let Some(mut base) = self.open(inbox) else { return };
        let name = self.opener.config.name.clone();
        if let Some(error) = &base.opening().rebuild {
            self.log.event("rag-rebuild", format!("collection={name} why={}", chain(error)));
        }
        match self.start_searches(&base) {
            Err(error) => self.log.event("rag-failed", format!("collection={name} why={}", chain(&error))),
            Ok(()) => {
                if let Err(error) = self.serve(&mut base, inbox) {
                    self.log.event("rag-failed", format!("collection={name} why={}", chain(&error)));
                }
            }
        }
        self.searches.set(None);
        // Without it, the index is built again from the cache.
        let _ = base.save(self.begun.elapsed());
    }

    /// Starts the thread that answers queries. It ends with the sender of its inbox.
    fn start_searches(&self, base: &Base) -> std::io::Result<()> {
        let (sender, inbox) = channel();
        let (opener, searcher, waker) = (self.opener.clone(), base.searcher(), Arc::clone(&self.waker));
        std::thread::Builder::new()
            .name(format!("rag-query-{}", opener.config.name))
            .spawn(move || answer_all(&opener, &searcher, &inbox, &waker))?;
        self.searches.set(Some(sender));
        Ok(())
    }

    /// Opens the collection and its files; meanwhile every query is refused. `None`: the node has stopped.
    fn open(&mut self, inbox: &Receiver<Job>) -> Option<Base> {
        loop {
            let why = match self.try_open() {
                Ok(base) => return Some(base),
                Err(why) => why,
            };
            let until = Instant::now() + OPEN_RETRY;
            loop {
                match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(Job::Query(asked)) => {
                        let why = format!("the collection cannot be opened yet: {why}; try again later");
                        let _ = asked.reply.send(Err(Problem::new(503, why)));
                    }
                    Ok(Job::Status(reply)) => {
                        let _ =
                            reply.send(CollectionStatus { unavailable: Some(why.clone()), ..self.named() });
                    }
                    Ok(Job::Wake) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                }
            }
        }
    }

    fn try_open(&self) -> Result<Base, String> {
        let mut store = self.opener.open()?;
        store.set_waker(Arc::clone(&self.waker).into());
        let folder = DiskFolder::new(&self.folder)
            .map_err(|error| format!("cannot use the folder {}: {error}", self.folder.display()))?;
        let knowledge = KnowledgeOptions::new().batch_max(BATCH_MAX).retry(Duration::from_millis(200));
        let options = KnowledgeBaseOptions::new()
            .knowledge(knowledge)
            .chunk(self.model.chunk_options())
            .vectors(self.opener.vectors);
        let further = Box::new(folder.clone());
        let opened = Base::open_with_tokens(options, store, self.model.clone(), folder, self.model.tokens());
        let mut base = opened.map_err(|error| chain(&error))?;
        let (waker, name) = (Arc::clone(&self.waker), format!("rag-save-{}", self.opener.config.name));
        base.save_beside(further, move |job| {
            let waker = Arc::clone(&waker);
            let save = move || {
                job.run();
                waker.wake();
            };
            // Without a thread the job is dropped, and the base tries again later.
            let _ = std::thread::Builder::new().name(name.clone()).spawn(save);
        });
        Ok(base)
    }

    fn named(&self) -> CollectionStatus {
        let store = match self.opener.config.store {
            StoreKind::Linearizable => "linearizable",
            StoreKind::Crdt => "crdt",
        };
        CollectionStatus {
            name: self.opener.config.name.clone(),
            store: store.to_owned(),
            ..CollectionStatus::default()
        }
    }

    fn serve(&mut self, base: &mut Base, inbox: &Receiver<Job>) -> Result<(), KnowledgeError> {
        let mut sweep_at = SWEEP_INTERVAL;
        loop {
            let now = self.begun.elapsed();
            let is_busy = base.step(now)?;
            self.answer_waiting(base);
            if !is_busy && now >= sweep_at {
                sweep_at = now + SWEEP_INTERVAL;
                // A sweep that fails is tried again at the next interval.
                let _ = base.store_mut().sweep(now);
            }
            let mut pause = Duration::ZERO;
            if !is_busy {
                let due = base.poll_timeout().into_iter().chain([sweep_at]).min().unwrap_or(sweep_at);
                pause = due.saturating_sub(self.begun.elapsed());
                for asked in &self.waiting {
                    pause = pause.min(REVISION_LIMIT.saturating_sub(asked.since.elapsed()));
                }
            }
            // All that waits, but a query that comes while the others are answered does not delay indexing.
            for _ in 0..64 {
                let job = match inbox.recv_timeout(pause) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => Job::Stop,
                };
                pause = Duration::ZERO;
                match job {
                    Job::Stop => return Ok(()),
                    Job::Wake => self.waker.is_set.store(false, Ordering::Release),
                    Job::Status(reply) => drop(reply.send(self.status(base))),
                    Job::Query(asked) => self.waiting.push(*asked),
                }
            }
            self.answer_waiting(base);
        }
    }

    /// Passes queries on whose revision is in the index, and refuses those that waited too long.
    fn answer_waiting(&mut self, base: &Base) {
        let applied = base.engine().applied();
        self.searches.applied.store(applied, Ordering::Release);
        for asked in std::mem::take(&mut self.waiting) {
            let Err(asked) = self.searches.send(asked) else { continue };
            let wanted = asked.request.min_revision;
            if asked.since.elapsed() >= REVISION_LIMIT {
                let detail = format!(
                    "the index holds changes up to revision {applied}, and {wanted} was not reached within {REVISION_LIMIT:?}: try again, \
                     or ask another node"
                );
                let _ = asked.reply.send(Err(Problem::new(503, detail)));
            } else {
                self.waiting.push(*asked);
            }
        }
    }

    fn status(&self, base: &Base) -> CollectionStatus {
        let engine = base.engine();
        CollectionStatus {
            documents: engine.passages().documents_len(),
            chunks: engine.passages().chunks_len(),
            applied: engine.applied(),
            pending: engine.pending(),
            chunks_embedded: engine.stats().chunks_embedded,
            documents_left_out: engine.stats().documents_left_out,
            cached: base.cached(),
            rebuild: base.opening().rebuild.as_ref().map(|error| chain(error)),
            ..self.named()
        }
    }
}

/// Answers queries until the collection ends. The passages come through a handle of the store of its own.
fn answer_all(opener: &Opener, searcher: &Searcher, inbox: &Receiver<Asked>, waker: &Arc<Waker>) {
    let mut store = None;
    while let Ok(asked) = inbox.recv() {
        let answer = match opened(&mut store, opener) {
            Ok(store) => answer(searcher, store, &asked),
            Err(problem) => Err(problem),
        };
        if answer.is_err() {
            // A vector that could not be read is embedded again by the thread that indexes.
            Arc::clone(waker).wake();
        }
        // The client may be gone.
        let _ = asked.reply.send(answer);
    }
}

/// The handle of the store, which is opened at the first use.
fn opened<'a>(store: &'a mut Option<KvKnowledge>, opener: &Opener) -> Result<&'a mut KvKnowledge, Problem> {
    match store {
        Some(store) => Ok(store),
        none => Ok(none.insert(opener.open().map_err(|why| Problem::new(503, why))?)),
    }
}

fn answer(searcher: &Searcher, store: &mut KvKnowledge, asked: &Asked) -> Result<QueryAnswer, Problem> {
    let (request, begun) = (&asked.request, Instant::now());
    let mut filter = PassageFilter::new();
    filter.source = request.filter.source.as_deref();
    filter.tag = request.filter.tag.as_deref();
    let (min, max) = (request.filter.revision_min, request.filter.revision_max);
    if min.is_some() || max.is_some() {
        filter.revisions = Some(min.unwrap_or(0)..max.map_or(u64::MAX, |max| max.saturating_add(1)));
    }
    let mut query = Query::new(&request.query).k(request.k).mode(request.mode.mode()).filter(filter);
    if !asked.vector.components.is_empty() {
        query = query.vector(&asked.vector.components);
    }
    // The index may go on while passages are found and read: this revision is in what the query sees.
    let applied = searcher.engine().applied();
    let found = searcher.answer(&query).map_err(|error| Problem::new(500, chain(&error)))?;
    let (search, begun_reading) = (begun.elapsed(), Instant::now());
    // Several hits may be of one document.
    let (mut texts, mut read_len) = (BTreeMap::new(), 0);
    let hits = found.into_iter().map(|hit| {
        let text = texts.entry(hit.document.clone()).or_insert_with(|| {
            if read_len >= READ_LEN_MAX {
                return None;
            }
            // The document may be gone or changed since; the next query shows it.
            let (revision, document) = store.read(&hit.document).ok().flatten()?;
            read_len += document.text.len();
            (revision == hit.revision).then_some(document.text)
        });
        Hit {
            document: hit.document.to_string(),
            revision: hit.revision,
            span: [hit.span.start, hit.span.end],
            score: hit.score,
            rank_dense: hit.rank_dense,
            rank_lexical: hit.rank_lexical,
            text: text.as_ref().and_then(|text| text.get(hit.span).map(str::to_owned)),
            alike: hit.alike.iter().map(ToString::to_string).collect(),
        }
    });
    let hits: Vec<Hit> = hits.collect();
    let reading = begun_reading.elapsed();
    let engine = searcher.engine();
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let explain = request.explain.then(|| Explain {
        embed_us: us(asked.embedded),
        wait_us: us(begun - asked.since),
        search_us: us(search),
        read_us: us(reading),
        documents: engine.passages().documents_len(),
        chunks: engine.passages().chunks_len(),
        pending: engine.pending(),
    });
    Ok(QueryAnswer { applied, hits, truncated: asked.vector.is_truncated, explain })
}

/// The messages of an error and its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
