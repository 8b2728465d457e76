//! The protocol engine.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::catalogue::{self, Catalogue};
use super::message::{Input, NewChunk, Output};
use super::options::KnowledgeOptions;
use super::waiting::{Aside, Change, Waiting};
use crate::chunk::{Chunk, ChunkId};
use crate::file::Damage;
use crate::index::VectorId;
use crate::retrieve::{Document, DocumentId, Known, Passages};

/// Failures in a row, of several documents then, after which all of them wait.
const FAILURES_IN_A_ROW: u32 = 3;

/// Keeps indexes equal to a store: the protocol engine. It owns no store, model, index, file or clock.
///
/// # Drain contract
/// After each [`handle`](Self::handle), call [`poll_output`](Self::poll_output) until it returns `None` and
/// carry the outputs out in their order; only then give the next input. At
/// [`poll_timeout`](Self::poll_timeout), give [`Input::Timeout`]. `Insert`, `Remove` and `Publish` need no
/// answer. One `List`, `Read`, `Chunk` or `Embed` waits for its answer or [`Input::Failed`] at a time, and a
/// `Read` for [`Input::Late`] as well; a `Save` may wait beside it. An error of `handle` changes nothing.
///
/// The call that returns a `Publish` puts a complete document in the place of its earlier revision. A driver
/// whose queries run on other threads therefore takes a `Publish` and publishes under one lock: a query then
/// sees the earlier revision or the new one, and [`applied`](Self::applied) never names what readers do not
/// find.
///
/// One document is worked on at a time, in steps of at most [`batch_max`](KnowledgeOptions::batch_max)
/// chunks. Until it is complete, queries cite its earlier revision. A document of which a step fails waits
/// aside while the others are indexed, and is then tried again.
///
/// ```
/// use std::time::Duration;
/// use x0_ml::chunk::{ChunkOptions, Chunker, WordTokens};
/// use x0_ml::knowledge::{Input, Knowledge, KnowledgeOptions, Output};
/// use x0_ml::retrieve::Document;
///
/// let mut engine = Knowledge::new(KnowledgeOptions::new());
/// let chunker = Chunker::new(ChunkOptions::new(), WordTokens)?;
/// let (now, page) = (Duration::ZERO, Document::new("A node reads a page."));
/// engine.handle(now, Input::Changed { document: "page".into(), revision: 7 })?;
/// while let Some(output) = engine.poll_output() {
///     match output {
///         Output::Read { document } => engine.handle(now, Input::Read { document, found: Some((7, page.clone())) })?,
///         Output::Chunk { document, text } => {
///             let chunks = chunker.chunks(&text)?;
///             engine.handle(now, Input::Chunked { document, chunks })?;
///         }
///         Output::Embed { job, chunks } => {
///             engine.handle(now, Input::Embedded { job, vectors: vec![0.5; chunks.len() * 4] })?;
///         }
///         Output::Insert { .. } | Output::Publish => {}  // change the indexes
///         other => panic!("{other:?}"),
///     }
/// }
/// assert_eq!((engine.applied(), engine.passages().chunks_len()), (7, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Knowledge {
    options: KnowledgeOptions,
    passages: Passages,
    applied: u64,
    /// The highest revision that any input named.
    seen: u64,
    /// `applied` as it was before the documents were complete that wait for their `Publish`.
    published: u64,
    waiting: Waiting,
    work: Option<Work>,
    scan: Option<Scan>,
    /// A scan is to begin when the present one ends.
    is_scan_due: bool,
    /// More changed than `waiting` holds: the scan begins when none of them is ready, so that each scan makes
    /// progress.
    has_overflown: bool,
    /// Chunks in the indexes, or on their way, that no complete document holds.
    unfinished: BTreeSet<VectorId>,
    jobs: u64,
    /// Changes since the last save began, and the time of the first of them.
    unsaved: u64,
    unsaved_since: Option<Duration>,
    is_saving: bool,
    failures: u32,
    retry_at: Option<Duration>,
    /// Documents of the store that are left out, each with the revision up to which its changes count as
    /// applied nevertheless.
    left_out: BTreeMap<DocumentId, u64>,
    /// The time at which the first document was left out since the last scan.
    left_out_since: Option<Duration>,
    outputs: VecDeque<Queued>,
    stats: KnowledgeStats,
}

/// An output, or what becomes one when it is taken.
#[derive(Debug)]
enum Queued {
    Output(Output),
    /// A complete document, which is cited from its `Publish` on.
    Complete(Box<Complete>),
    /// A removed document, which is cited until its chunks leave.
    Removed(DocumentId),
    /// The catalogue is that of the moment at which this is taken.
    Save,
}

#[derive(Debug)]
struct Complete {
    document: DocumentId,
    known: Known,
    names: Vec<ChunkId>,
}

/// Counts of an engine: of events since it was made, and of documents that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KnowledgeStats {
    /// Documents indexed.
    pub documents_indexed: u64,
    /// Documents removed.
    pub documents_removed: u64,
    /// Chunks that were embedded or taken from a cache.
    pub chunks_embedded: u64,
    /// Chunks of indexed documents that the indexes held already.
    pub chunks_known: u64,
    /// Scans begun.
    pub scans: u64,
    /// Steps that failed.
    pub failures: u64,
    /// Documents of the store that are left out now, after too many failures or because they were late for
    /// too long.
    pub documents_left_out: u64,
}

/// The document that is worked on.
#[derive(Debug)]
struct Work {
    document: DocumentId,
    change: Change,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Reading,
    Chunking(Read),
    Embedding(Read, Embedding),
}

/// A document that was read.
#[derive(Debug)]
struct Read {
    revision: u64,
    text: Arc<str>,
    source: String,
    tags: BTreeSet<String>,
}

#[derive(Debug)]
struct Embedding {
    chunks: Vec<(VectorId, ChunkId, Range<usize>)>,
    /// Chunks that are not in the indexes yet.
    missing: VecDeque<NewChunk>,
    job: u64,
    batch: Vec<NewChunk>,
}

#[derive(Debug)]
struct Scan {
    after: Option<DocumentId>,
    /// The store's revision at the first page: changes up to it are seen by this scan.
    revision: Option<u64>,
}

/// An input does not fit the engine's state. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// An answer to an output that does not wait for one.
    #[error("{input} answers no output that waits; give each answer once, in the order of the outputs")]
    NotAsked {
        /// Kind of the input.
        input: &'static str,
    },
    /// The vectors of a batch do not divide into its chunks.
    #[error("{components} components are not the vectors of {chunks} chunks; give one vector for each chunk")]
    Vectors {
        /// Components given.
        components: usize,
        /// Chunks of the batch.
        chunks: usize,
    },
    /// A page of the store is not in order, or repeats the one before.
    #[error("a page of the store is out of order after {document}; fix the store")]
    Page {
        /// The document before the wrong place.
        document: DocumentId,
    },
}

impl Knowledge {
    /// An engine for empty indexes. Give [`Input::Rescan`] first if the store may hold documents.
    #[must_use]
    pub fn new(options: KnowledgeOptions) -> Self {
        Self::over(options, Catalogue::default())
    }

    /// An engine for indexes that were saved together with `catalogue`. Its first output may remove chunks of
    /// documents that were not complete. Give [`Input::Rescan`] first.
    ///
    /// # Errors
    /// [`Damage`]; begin with empty indexes then.
    pub fn restore(options: KnowledgeOptions, catalogue: &[u8]) -> Result<Self, Damage> {
        let mut catalogue = catalogue::decode(catalogue)?;
        let unfinished = std::mem::take(&mut catalogue.unfinished);
        let mut engine = Self::over(options, catalogue);
        if !unfinished.is_empty() {
            let ids = unfinished.into_iter().collect();
            engine.output(Output::Remove { ids, withdrawn: Vec::new() });
            engine.output(Output::Publish);
        }
        Ok(engine)
    }

    fn over(options: KnowledgeOptions, catalogue: Catalogue) -> Self {
        Self {
            options,
            passages: catalogue.passages,
            applied: catalogue.applied,
            seen: catalogue.applied,
            published: catalogue.applied,
            waiting: Waiting::default(),
            work: None,
            scan: None,
            is_scan_due: false,
            has_overflown: false,
            unfinished: BTreeSet::new(),
            jobs: 0,
            unsaved: 0,
            unsaved_since: None,
            is_saving: false,
            failures: 0,
            retry_at: None,
            left_out: BTreeMap::new(),
            left_out_since: None,
            outputs: VecDeque::new(),
            stats: KnowledgeStats::default(),
        }
    }

    /// Documents and chunks that the indexes hold.
    #[must_use]
    pub fn passages(&self) -> &Passages {
        &self.passages
    }

    /// Every change of the store up to this revision is in the indexes, once the outputs that were taken so
    /// far are carried out.
    #[must_use]
    pub fn applied(&self) -> u64 {
        // A reader that asks for the revision must find what it brought.
        if self.is_change_queued() { self.published } else { self.applied }
    }

    /// Whether a document waits for its `Publish`.
    fn is_change_queued(&self) -> bool {
        let is_change = |queued: &Queued| matches!(queued, Queued::Complete(_) | Queued::Removed(_));
        self.outputs.iter().any(is_change)
    }

    /// The newest revision that the store reported. [`applied`](Self::applied) lags by the difference.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Changed documents that wait, those that are late, those that failed and the one that is worked on
    /// included.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.waiting.len() + usize::from(self.work.is_some())
    }

    /// Whether nothing is to be done: no change waits and no scan runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending() == 0 && self.scan.is_none() && !self.is_scan_due && self.outputs.is_empty()
    }

    /// Whether a document is left out until it changes or the next scan.
    pub(super) fn is_left_out(&self, document: &DocumentId) -> bool {
        self.left_out.contains_key(document)
    }

    /// The document that is embedded, and its revision.
    pub(super) fn embedding(&self) -> Option<(&DocumentId, u64)> {
        let work = self.work.as_ref()?;
        let Step::Embedding(read, _) = &work.step else { return None };
        Some((&work.document, read.revision))
    }

    /// Counts of events since the engine was made, and of documents that are left out.
    #[must_use]
    pub fn stats(&self) -> KnowledgeStats {
        KnowledgeStats { documents_left_out: self.left_out.len() as u64, ..self.stats }
    }

    /// The next output; `None`: the next input can be given.
    pub fn poll_output(&mut self) -> Option<Output> {
        match self.outputs.pop_front()? {
            Queued::Output(output) => Some(output),
            Queued::Complete(complete) => {
                self.cite(*complete);
                Some(Output::Publish)
            }
            Queued::Removed(document) => {
                let gone = self.passages.remove(&document);
                self.stats.documents_removed += 1;
                self.outputs.push_front(Queued::Output(Output::Publish));
                self.withdraw(gone);
                self.poll_output()
            }
            Queued::Save => {
                let catalogue = catalogue::encode(&self.passages, self.applied(), &self.unfinished);
                Some(Output::Save { catalogue })
            }
        }
    }

    /// Puts a complete document in the place of its earlier revision, whose chunks leave next.
    fn cite(&mut self, Complete { document, known, names }: Complete) {
        for (id, _) in &known.chunks {
            self.unfinished.remove(id);
        }
        let gone = self.passages.replace(&document, known, &names);
        self.stats.documents_indexed += 1;
        if !gone.is_empty() {
            self.outputs.push_front(Queued::Output(Output::Publish));
            self.withdraw(gone);
        }
    }

    /// Takes chunks that stand nowhere any more out of the indexes, before all that waits.
    fn withdraw(&mut self, gone: Vec<(VectorId, ChunkId)>) {
        if !gone.is_empty() {
            let (ids, withdrawn) = gone.into_iter().unzip();
            self.outputs.push_front(Queued::Output(Output::Remove { ids, withdrawn }));
        }
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(Queued::Output(output));
    }

    /// When [`Input::Timeout`] is due; `None`: never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let save = self.save_at().filter(|_| !self.is_saving);
        let times = [save, self.retry_at, self.rescan_at(), self.waiting.next_due()];
        // A time that is too long for the clock ends never.
        times.into_iter().flatten().min().filter(|at| *at < Duration::MAX)
    }

    /// When the first unsaved change has waited for its interval.
    fn save_at(&self) -> Option<Duration> {
        self.unsaved_since.map(|since| since.saturating_add(self.options.save_interval))
    }

    /// When documents that were left out are looked for again.
    fn rescan_at(&self) -> Option<Duration> {
        self.left_out_since.map(|since| since.saturating_add(self.options.rescan))
    }

    /// Takes an input. Follow it by [`poll_output`](Self::poll_output) until `None`.
    ///
    /// # Errors
    /// [`HandleError`]; nothing changed.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        match input {
            Input::Changed { document, revision } | Input::Removed { document, revision } => {
                self.note(document, revision);
            }
            Input::Rescan => self.is_scan_due = true,
            Input::Listed { page, is_last, revision } => self.listed(page, is_last, revision)?,
            Input::Read { document, found } => self.read(now, document, found)?,
            Input::Chunked { document, chunks } => self.chunked(now, &document, &chunks)?,
            Input::Embedded { job, vectors } => self.embedded(now, job, vectors)?,
            Input::Failed => self.failed(now)?,
            Input::Late => self.late(now)?,
            Input::Saved { is_durable } => self.saved(now, is_durable)?,
            Input::Timeout => {}
        }
        self.advance(now);
        Ok(())
    }

    /// Remembers a change; the newest of a document counts.
    fn note(&mut self, document: DocumentId, revision: u64) {
        self.seen = self.seen.max(revision);
        // A document that was left out must not hold back the applied revision again, for a change that was
        // passed over already.
        let is_applied = self.left_out.get(&document).is_some_and(|applied| revision <= *applied);
        if !self.waiting.note(document, revision, is_applied, self.options.pending_max) {
            // Too many to remember: the scan finds them all.
            (self.is_scan_due, self.has_overflown) = (true, true);
        }
    }

    fn listed(
        &mut self,
        page: Vec<(DocumentId, u64)>,
        is_last: bool,
        revision: u64,
    ) -> Result<(), HandleError> {
        let scan = self.scan.as_mut().filter(|_| self.work.is_none());
        let scan = scan.ok_or(HandleError::NotAsked { input: "Listed" })?;
        let mut before = scan.after.as_ref();
        for (document, _) in &page {
            if let Some(before) = before.filter(|before| *before >= document) {
                return Err(HandleError::Page { document: before.clone() });
            }
            before = Some(document);
        }
        let from = scan.after.take();
        scan.revision.get_or_insert(revision);
        let until = page.last().map(|(document, _)| document.clone()).filter(|_| !is_last);
        self.note_missing(from.as_ref(), until.as_ref(), &page, revision);
        for (document, revision) in page {
            if self.passages.revision(&document) == Some(revision) {
                self.left_out.remove(&document);
            } else {
                self.note(document, revision);
            }
        }
        self.failures = 0;
        match until {
            Some(until) => {
                self.scan =
                    Some(Scan { after: Some(until), revision: self.scan.as_ref().and_then(|s| s.revision) });
                self.list();
            }
            None => {
                if let Some(Scan { revision: Some(revision), .. }) = self.scan.take() {
                    self.seen = self.seen.max(revision);
                }
            }
        }
        Ok(())
    }

    /// Notes documents that the indexes hold and a page of the store does not. Documents that are not in the
    /// store are not left out any more.
    fn note_missing(
        &mut self,
        from: Option<&DocumentId>,
        until: Option<&DocumentId>,
        page: &[(DocumentId, u64)],
        revision: u64,
    ) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let range = (from.map_or(Unbounded, Excluded), until.map_or(Unbounded, Included));
        let is_listed =
            |document: &DocumentId| page.binary_search_by(|(listed, _)| listed.cmp(document)).is_ok();
        let missing = |document: &&DocumentId| !is_listed(document);
        let left_out = self.left_out.range::<DocumentId, _>(range).map(|(document, _)| document);
        let left_out: Vec<DocumentId> = left_out.filter(missing).cloned().collect();
        for document in left_out {
            self.left_out.remove(&document);
        }
        let held = self.passages.documents.range::<DocumentId, _>(range).map(|(document, _)| document);
        let gone: Vec<DocumentId> = held.filter(missing).cloned().collect();
        for document in gone {
            self.note(document, revision);
        }
    }

    fn list(&mut self) {
        if let Some(scan) = &self.scan {
            let (after, max) = (scan.after.clone(), self.options.page_max);
            self.output(Output::List { after, max });
        }
    }

    fn read(
        &mut self,
        now: Duration,
        document: DocumentId,
        found: Option<(u64, Document)>,
    ) -> Result<(), HandleError> {
        let work = self.work.as_mut().filter(|work| matches!(work.step, Step::Reading));
        let work =
            work.filter(|work| work.document == document).ok_or(HandleError::NotAsked { input: "Read" })?;
        let Some((revision, Document { text, source, tags })) = found else {
            self.end_work();
            if self.passages.revision(&document).is_some() {
                self.changed(now, Queued::Removed(document));
            }
            return Ok(());
        };
        if self.passages.revision(&document) == Some(revision) {
            self.end_work();
            return Ok(());
        }
        let text: Arc<str> = text.into();
        work.step = Step::Chunking(Read { revision, text: Arc::clone(&text), source, tags });
        self.output(Output::Chunk { document, text });
        Ok(())
    }

    fn chunked(&mut self, now: Duration, document: &DocumentId, chunks: &[Chunk]) -> Result<(), HandleError> {
        let not_asked = HandleError::NotAsked { input: "Chunked" };
        let is_asked = |work: &Work| work.document == *document && matches!(work.step, Step::Chunking(_));
        if !self.work.as_ref().is_some_and(is_asked) {
            return Err(not_asked);
        }
        let Some(Work { document, change, step: Step::Chunking(read) }) = self.work.take() else {
            return Err(not_asked);
        };
        let mut numbers: HashMap<ChunkId, VectorId> = HashMap::new();
        let mut embedding =
            Embedding { chunks: Vec::new(), missing: VecDeque::new(), job: 0, batch: Vec::new() };
        for Chunk { id: chunk, span, .. } in chunks {
            let known = self.passages.number(chunk).or_else(|| numbers.get(chunk).copied());
            let id = known.unwrap_or_else(|| {
                let id = VectorId(self.passages.next);
                self.passages.next += 1;
                numbers.insert(*chunk, id);
                let new = NewChunk { id, chunk: *chunk, text: Arc::clone(&read.text), span: span.clone() };
                embedding.missing.push_back(new);
                id
            });
            self.stats.chunks_known += u64::from(known.is_some());
            embedding.chunks.push((id, *chunk, span.clone()));
        }
        self.work = Some(Work { document, change, step: Step::Embedding(read, embedding) });
        self.embed_or_complete(now);
        Ok(())
    }

    /// Asks for the next batch of vectors, or completes the document if none is missing.
    fn embed_or_complete(&mut self, now: Duration) {
        let Some(Work { step: Step::Embedding(_, embedding), .. }) = &mut self.work else { return };
        if !embedding.missing.is_empty() {
            let batch = self.options.batch_max.min(embedding.missing.len());
            embedding.batch = embedding.missing.drain(..batch).collect();
            self.jobs += 1;
            embedding.job = self.jobs;
            let chunks = embedding.batch.clone();
            self.output(Output::Embed { job: self.jobs, chunks });
            return;
        }
        let Some(Work { document, change, step: Step::Embedding(read, embedding) }) = self.work.take() else {
            return;
        };
        self.waiting.done(change);
        self.left_out.remove(&document);
        let names: Vec<ChunkId> = embedding.chunks.iter().map(|(_, chunk, _)| *chunk).collect();
        let chunks: Vec<_> = embedding.chunks.into_iter().map(|(id, _, span)| (id, span)).collect();
        let known = Known { revision: read.revision, source: read.source, tags: read.tags, chunks };
        self.seen = self.seen.max(read.revision);
        self.changed(now, Queued::Complete(Box::new(Complete { document, known, names })));
    }

    fn embedded(&mut self, now: Duration, job: u64, vectors: Vec<f32>) -> Result<(), HandleError> {
        let Some(Work { step: Step::Embedding(_, embedding), .. }) = &mut self.work else {
            return Err(HandleError::NotAsked { input: "Embedded" });
        };
        if embedding.batch.is_empty() || embedding.job != job {
            return Err(HandleError::NotAsked { input: "Embedded" });
        }
        let chunks = embedding.batch.len();
        if vectors.is_empty() || !vectors.len().is_multiple_of(chunks) {
            return Err(HandleError::Vectors { components: vectors.len(), chunks });
        }
        let chunks = std::mem::take(&mut embedding.batch);
        self.failures = 0;
        self.stats.chunks_embedded += chunks.len() as u64;
        self.unfinished.extend(chunks.iter().map(|chunk| chunk.id));
        self.output(Output::Insert { chunks, vectors });
        self.embed_or_complete(now);
        Ok(())
    }

    /// A document is complete or removed, and a save is due some time.
    fn changed(&mut self, now: Duration, change: Queued) {
        if !self.is_change_queued() {
            self.published = self.applied;
        }
        self.outputs.push_back(change);
        self.failures = 0;
        self.unsaved += 1;
        self.unsaved_since.get_or_insert(now);
    }

    fn failed(&mut self, now: Duration) -> Result<(), HandleError> {
        let not_asked = HandleError::NotAsked { input: "Failed" };
        if self.work.is_none() && self.scan.is_none() {
            return Err(not_asked);
        }
        self.stats.failures += 1;
        self.failures = self.failures.saturating_add(1);
        if let Some(Work { document, change, step }) = self.work.take() {
            self.abandon(step);
            let change = Change { attempts: change.attempts + 1, ..change };
            if change.attempts >= self.options.attempts_max
                || self.waiting.aside_len() >= self.options.pending_max
            {
                self.waiting.done(change);
                self.leave_out(now, document, change.newest);
            } else {
                let until = now.saturating_add(self.delay(change.attempts));
                self.waiting.put_aside(document, change, until, Aside::Failed);
            }
            if self.failures >= FAILURES_IN_A_ROW {
                self.retry_at = Some(now.saturating_add(self.options.retry));
            }
        } else {
            // The scan begins again: its position may be lost with the store.
            self.scan = None;
            self.is_scan_due = true;
            self.retry_at = Some(now.saturating_add(self.delay(self.failures)));
        }
        Ok(())
    }

    /// The wait after so many failures.
    fn delay(&self, failures: u32) -> Duration {
        self.options.retry.saturating_mul(1 << failures.saturating_sub(1).min(6))
    }

    /// The document that is worked on has nothing more to do.
    fn end_work(&mut self) {
        if let Some(work) = self.work.take() {
            self.failures = 0;
            self.left_out.remove(&work.document);
            self.waiting.done(work.change);
        }
    }

    /// The document that was to be read is not complete on this node. It waits aside for its next change, so
    /// that the other documents need not.
    fn late(&mut self, now: Duration) -> Result<(), HandleError> {
        let work = self.work.take_if(|work| matches!(work.step, Step::Reading));
        let Work { document, change, .. } = work.ok_or(HandleError::NotAsked { input: "Late" })?;
        let until = now.saturating_add(self.options.late_max);
        self.waiting.put_aside(document, change, until, Aside::Late);
        Ok(())
    }

    /// Leaves out documents that were late for too long, and makes failed ones ready whose time has come.
    fn take_due(&mut self, now: Duration) {
        for (document, newest) in self.waiting.take_due(now) {
            self.leave_out(now, document, newest);
        }
    }

    /// Leaves a document out. Its changes up to `newest` count as applied from now on.
    fn leave_out(&mut self, now: Duration, document: DocumentId, newest: u64) {
        let applied = self.left_out.entry(document.clone()).or_default();
        *applied = newest.max(*applied);
        self.left_out_since.get_or_insert(now);
        self.output(Output::LeftOut { document });
    }

    /// Takes the chunks of a document that will not be complete out of the indexes again.
    fn abandon(&mut self, step: Step) {
        let Step::Embedding(_, embedding) = step else { return };
        let inserted: Vec<VectorId> =
            embedding.chunks.iter().map(|(id, ..)| *id).filter(|id| self.unfinished.remove(id)).collect();
        if !inserted.is_empty() {
            self.output(Output::Remove { ids: inserted, withdrawn: Vec::new() });
        }
    }

    fn saved(&mut self, now: Duration, is_durable: bool) -> Result<(), HandleError> {
        if !self.is_saving {
            return Err(HandleError::NotAsked { input: "Saved" });
        }
        self.is_saving = false;
        if !is_durable {
            self.stats.failures += 1;
            self.unsaved = self.unsaved.max(1);
            // The next attempt comes after a whole interval.
            self.unsaved_since = Some(now);
        }
        Ok(())
    }

    /// Begins what can begin now.
    fn advance(&mut self, now: Duration) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        self.take_due(now);
        if self.rescan_at().is_some_and(|at| at <= now) {
            self.left_out_since = None;
            self.is_scan_due = true;
        }
        // Steps that fail one after the other hold back the next one, so that a store that is away is not
        // asked without pause.
        if self.work.is_none() && self.scan.is_none() && self.retry_at.is_none() {
            if self.is_scan_due && (!self.waiting.is_any_ready() || !self.has_overflown) {
                (self.is_scan_due, self.has_overflown) = (false, false);
                self.stats.scans += 1;
                self.scan = Some(Scan { after: None, revision: None });
                self.list();
            } else if let Some((document, change)) = self.waiting.take() {
                self.output(Output::Read { document: document.clone() });
                self.work = Some(Work { document, change, step: Step::Reading });
            }
        }
        self.update_applied();
        let is_due = self.save_at().is_some_and(|at| at <= now);
        if !self.is_saving && self.unsaved > 0 && (is_due || self.unsaved >= self.options.save_changes) {
            self.save();
        }
    }

    /// Saves now, whatever the interval is; before a planned end of the process for instance.
    pub fn save(&mut self) {
        if !self.is_saving {
            (self.is_saving, self.unsaved, self.unsaved_since) = (true, 0, None);
            self.outputs.push_back(Queued::Save);
        }
    }

    fn update_applied(&mut self) {
        if self.scan.is_some() || self.is_scan_due {
            return;
        }
        let applied = self.waiting.oldest().map_or(self.seen, |revision| revision.saturating_sub(1));
        self.applied = self.applied.max(applied.min(self.seen));
    }
}
