//! A driver without threads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::cached_vectors::CachedVectors;
use super::engine::{HandleError, Knowledge};
use super::message::{Input, NewChunk, Output};
use super::options::KnowledgeOptions;
use super::saving::{Beside, Running, SaveJob, Saving};
use super::searcher::{EngineRef, Held, Searcher};
use super::snapshot::Snapshot;
use super::store::{Change, KnowledgeStore};
use crate::chunk::{ChunkError, ChunkId, ChunkOptions, Chunker, TokenSpans, WordTokens};
use crate::embed::{EmbedError, Embedder, EmbeddingCache};
use crate::file::{Damage, FileError, Folder, IndexFile};
use crate::hash::digest_of;
use crate::index::{
    HnswIndex, HnswOptions, Metric, OptionsError, Rerank, RestoreError, VectorId, VectorIndex, VectorReader,
};
use crate::lexical::{LexicalIndex, LexicalOptions};
use crate::retrieve::{DocumentId, Hit, Mode, Query, QueryError, RerankError, Reranker};
use crate::telemetry::{Stage, Telemetry};

const CACHE: &str = "embeddings.cache";
const INDEX: &str = "knowledge.index";

/// Settings of a [`KnowledgeBase`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KnowledgeBaseOptions {
    /// Settings of the engine.
    pub knowledge: KnowledgeOptions,
    /// Settings of the chunker.
    pub chunk: ChunkOptions,
    /// Settings of the lexical index.
    pub lexical: LexicalOptions,
    /// Settings of the vector index; `None`: the defaults with the cosine. Dimensions are those of the
    /// embedder.
    pub index: Option<HnswOptions>,
    /// Where the exact vectors are; in memory by default.
    pub vectors: ExactVectors,
    /// Time after which a save takes vectors of withdrawn text out of the cache, whose file is then written
    /// again; 10 minutes by default. Sooner, if they are an eighth of the file, and with each
    /// [`save`](KnowledgeBase::save) of the caller. A folder that cannot be written is tried again after each
    /// [interval of saves](KnowledgeOptions::save_interval). A document that is left out keeps the vectors
    /// that it has until it is changed or removed, or the file is written again for another reason.
    pub withdrawn_max: Option<Duration>,
}

const WITHDRAWN_MAX: Duration = Duration::from_secs(600);

/// Where the exact vectors are by which the best candidates of a search are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ExactVectors {
    /// In the index: 4 bytes a dimension, 1.5 KiB for a chunk of MiniLM.
    #[default]
    Memory,
    /// In the file of the embedding cache, which a search reads up to `4 * k` times. The answers are the
    /// same. A search that meets a damaged record is an error, and the base embeds the chunk again with its
    /// next step; so is a search of [`reader`](KnowledgeBase::reader) or [`Searcher::vectors`] during which a
    /// chunk leaves the index. Needs [`Folder::open`].
    Cache,
}

impl KnowledgeBaseOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the settings of the engine.
    #[must_use]
    pub fn knowledge(mut self, options: KnowledgeOptions) -> Self {
        self.knowledge = options;
        self
    }

    /// Sets the settings of the chunker.
    #[must_use]
    pub fn chunk(mut self, options: ChunkOptions) -> Self {
        self.chunk = options;
        self
    }

    /// Sets the settings of the lexical index.
    #[must_use]
    pub fn lexical(mut self, options: LexicalOptions) -> Self {
        self.lexical = options;
        self
    }

    /// Sets the settings of the vector index.
    #[must_use]
    pub fn index(mut self, options: HnswOptions) -> Self {
        self.index = Some(options);
        self
    }

    /// Sets the time for which vectors of withdrawn text may stay in the cache.
    #[must_use]
    pub fn withdrawn_max(mut self, time: Duration) -> Self {
        self.withdrawn_max = Some(time);
        self
    }

    /// Sets where the exact vectors are.
    #[must_use]
    pub fn vectors(mut self, vectors: ExactVectors) -> Self {
        self.vectors = vectors;
        self
    }
}

/// The report of [`KnowledgeBase::open`] about its folder.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Opening {
    /// Why the indexes are built again; `None` if they were restored, or if there was no file.
    pub rebuild: Option<KnowledgeError>,
    /// Why the cache began empty; `None` if it was read, or if there was no file.
    pub cache_lost: Option<FileError>,
    /// Chunks that the restored indexes hold.
    pub chunks: usize,
}

/// A knowledge base failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnowledgeError {
    /// The options do not fit together.
    #[error("the vector index cannot be made")]
    Index(#[source] OptionsError),
    /// The chunk options do not fit together.
    #[error("the chunker cannot be made")]
    Chunk(#[source] ChunkError),
    /// A file cannot be read or written.
    #[error("the folder of the knowledge base failed")]
    File(#[source] FileError),
    /// A saved index cannot be used.
    #[error("the saved index cannot be used; it is built again from the cache and the store")]
    Restore(#[source] RestoreError),
    /// The saved file cannot be used.
    #[error("the saved file {name} cannot be used; it is built again from the cache and the store")]
    Snapshot {
        /// Name of the file.
        name: &'static str,
        /// The place and the kind.
        #[source]
        source: Damage,
    },
    /// The saved file was made with another model or chunker.
    #[error(
        "the saved file {name} was made with other settings; it is built again from the cache and the store"
    )]
    Settings {
        /// Name of the file.
        name: &'static str,
    },
    /// The cache lacks vectors of the saved index, which are read from it.
    #[error(
        "the cache {name} lacks {chunks} of the vectors that the saved index ranks by; it is built again from the cache and the store"
    )]
    VectorsLost {
        /// Name of the cache's file.
        name: &'static str,
        /// Chunks whose vectors are missing.
        chunks: usize,
    },
    /// The store or driver gave an input that does not fit.
    #[error("the engine refused an input")]
    Handle(#[source] HandleError),
    /// The query's text cannot be embedded.
    #[error("the query cannot be embedded")]
    Embed(#[source] EmbedError),
    /// The query failed.
    #[error("the query failed")]
    Query(#[source] QueryError),
    /// The hits were not ranked again.
    #[error("the hits keep their order")]
    Rerank(#[source] RerankError),
}

/// One collection: a store, an embedder, a folder and the indexes over them, driven by calls of
/// [`step`](Self::step).
///
/// The folder holds `embeddings.cache` and `knowledge.index`. Damage of either is reported by
/// [`opening`](Self::opening), and what is lost is built again.
pub struct KnowledgeBase<S, E, F, T = WordTokens> {
    /// The engine and the lexical index.
    searcher: Searcher,
    store: S,
    embedder: E,
    chunker: Chunker<T>,
    folder: F,
    cache: EmbeddingCache,
    index: Box<dyn VectorIndex>,
    /// The source of exact vectors, if the index has none.
    source: Option<Arc<CachedVectors>>,
    /// Chunks that left the index, and that its published version may still hold.
    leaving: Vec<VectorId>,
    fingerprint: [u8; 32],
    /// Chunks whose text was withdrawn and whose vectors may still be in the cache.
    withdrawn: HashSet<ChunkId>,
    /// The time of the first of them.
    withdrawn_since: Option<Duration>,
    withdrawn_max: Duration,
    /// The next save takes them out of the cache: the caller asked for it, or the last attempt failed.
    must_forget: bool,
    /// The cache may hold vectors that no document needs, of text that was withdrawn before the start for
    /// instance.
    is_unchecked: bool,
    /// Documents of which the cache may hold vectors although they were not embedded whole, each with its
    /// last revision that failed.
    partial: HashMap<DocumentId, u64>,
    beside: Option<Beside>,
    running: Option<Running>,
    /// Whether the last save succeeded.
    is_saved: bool,
    opening: Opening,
    telemetry: Arc<Telemetry>,
}

/// Makes an empty vector index of so many dimensions.
pub type MakeIndex<'a> = &'a dyn Fn(usize) -> Result<Box<dyn VectorIndex>, OptionsError>;

impl<S: KnowledgeStore, E: Embedder, F: Folder> KnowledgeBase<S, E, F> {
    /// Opens the folder, with words as tokens.
    ///
    /// # Errors
    /// [`KnowledgeError`] if options do not fit together or the folder fails. Damaged files are no error.
    pub fn open(
        options: KnowledgeBaseOptions,
        store: S,
        embedder: E,
        folder: F,
    ) -> Result<Self, KnowledgeError> {
        Self::open_with_tokens(options, store, embedder, folder, WordTokens)
    }
}

impl<S: KnowledgeStore, E: Embedder, F: Folder, T: TokenSpans> KnowledgeBase<S, E, F, T> {
    /// Opens the folder, with the tokens of a model.
    ///
    /// # Errors
    /// [`KnowledgeError`] if options do not fit together or the folder fails. Damaged files are no error.
    pub fn open_with_tokens(
        options: KnowledgeBaseOptions,
        store: S,
        embedder: E,
        folder: F,
        tokens: T,
    ) -> Result<Self, KnowledgeError> {
        let index = options.index;
        let options = KnowledgeBaseOptions { index: None, ..options };
        let source = match options.vectors {
            ExactVectors::Memory => None,
            ExactVectors::Cache => Some(Arc::new(CachedVectors::new(CACHE))),
        };
        let make = |dimensions| -> Result<Box<dyn VectorIndex>, OptionsError> {
            let mut index = index.clone().unwrap_or_else(|| HnswOptions::new(dimensions, Metric::Cosine));
            index.dimensions = dimensions;
            if let Some(source) = &source {
                index.rerank = Rerank::Source(Arc::<CachedVectors>::clone(source));
            }
            Ok(Box::new(HnswIndex::new(index)?))
        };
        Self::open_over(&options, store, embedder, folder, tokens, &make, source.clone())
    }

    /// Opens the folder, with the tokens of a model and another vector index than a
    /// [`HnswIndex`](crate::index::HnswIndex): `make` makes an empty one, and
    /// [`index`](KnowledgeBaseOptions::index) and [`vectors`](KnowledgeBaseOptions::vectors) of the options
    /// are not used.
    ///
    /// # Errors
    /// [`KnowledgeError`] if options do not fit together or the folder fails. Damaged files are no error.
    pub fn open_with_index(
        options: &KnowledgeBaseOptions,
        store: S,
        embedder: E,
        folder: F,
        tokens: T,
        make: MakeIndex<'_>,
    ) -> Result<Self, KnowledgeError> {
        Self::open_over(options, store, embedder, folder, tokens, make, None)
    }

    fn open_over(
        options: &KnowledgeBaseOptions,
        store: S,
        embedder: E,
        mut folder: F,
        tokens: T,
        make: MakeIndex<'_>,
        source: Option<Arc<CachedVectors>>,
    ) -> Result<Self, KnowledgeError> {
        let mut index = make(embedder.dimensions()).map_err(KnowledgeError::Index)?;
        let fingerprint = fingerprint(&embedder, options.chunk, &tokens);
        let chunker = Chunker::new(options.chunk, tokens).map_err(KnowledgeError::Chunk)?;
        let (mut opening, telemetry) = (Opening::default(), Arc::new(Telemetry::new()));
        let cache = open_cache(&mut folder, &embedder, &mut opening)?;
        if let Some(source) = &source {
            let open = |source| FileError::Io { action: "open", name: CACHE.to_owned(), source };
            source.follow(&cache, &mut folder).map_err(open).map_err(KnowledgeError::File)?;
        }
        let file = IndexFile::new(INDEX).read(&mut folder).map_err(KnowledgeError::File)?;
        let mut held =
            Held { engine: Knowledge::new(options.knowledge), lexical: LexicalIndex::new(options.lexical) };
        if let Some(file) = file {
            let saved = make(embedder.dimensions()).map_err(KnowledgeError::Index)?;
            let restored = restore(&file, fingerprint, options, saved).and_then(|restored| {
                let passages = restored.0.engine.passages();
                let lost = source.as_ref().map_or(0, |source| source.note(&cache, passages.chunks()));
                match lost {
                    0 => Ok(restored),
                    chunks => Err(KnowledgeError::VectorsLost { name: CACHE, chunks }),
                }
            });
            match restored {
                Ok(restored) => (held, index) = restored,
                Err(error) => {
                    // The chunks of the rejected catalogue.
                    if let Some(source) = &source {
                        source.clear();
                    }
                    telemetry.rebuilt(&error);
                    opening.rebuild = Some(error);
                }
            }
        }
        opening.chunks = index.len();
        let mut base = Self {
            searcher: Searcher::new(held, index.reader(), Arc::clone(&telemetry)),
            store,
            embedder,
            chunker,
            folder,
            cache,
            index,
            source,
            leaving: Vec::new(),
            fingerprint,
            withdrawn: HashSet::new(),
            withdrawn_since: None,
            withdrawn_max: options.withdrawn_max.unwrap_or(WITHDRAWN_MAX),
            must_forget: false,
            is_unchecked: true,
            partial: HashMap::new(),
            beside: None,
            running: None,
            is_saved: false,
            opening,
            telemetry,
        };
        // Chunks of documents that were not complete leave before the first query.
        while let Some(output) = base.next_output() {
            base.carry_out(Duration::ZERO, output)?;
        }
        base.handle(Duration::ZERO, Input::Rescan)?;
        Ok(base)
    }

    /// The report about the folder.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, to change documents. The base sees the changes by their reports.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The engine: passages, applied revision, counters.
    #[must_use]
    pub fn engine(&self) -> EngineRef<'_> {
        self.searcher.engine()
    }

    /// A handle to answer queries on other threads.
    #[must_use]
    pub fn searcher(&self) -> Searcher {
        self.searcher.clone()
    }

    /// Vectors in the cache.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Does one step: carries one output out, or takes one change of the store. `false`: nothing is to be
    /// done before [`poll_timeout`](Self::poll_timeout).
    ///
    /// # Errors
    /// [`KnowledgeError`] if the store breaks its contract. Failures of the store, the model and the folder
    /// are tried again.
    pub fn step(&mut self, now: Duration) -> Result<bool, KnowledgeError> {
        if let Some(running) = &mut self.running
            && let Some(written) = running.poll()
        {
            self.end_save(now, written)?;
            return Ok(true);
        }
        if let Some(lost) = self.source.as_ref().and_then(|source| source.take_lost()) {
            self.embed_again(lost);
            return Ok(true);
        }
        if let Some(output) = self.next_output() {
            self.carry_out(now, output)?;
            return Ok(true);
        }
        if let Some(change) = self.store.poll_change() {
            let input = match change {
                Change::Changed { document, revision } => Input::Changed { document, revision },
                Change::Removed { document, revision } => Input::Removed { document, revision },
                Change::Cut => Input::Rescan,
            };
            self.handle(now, input)?;
            return Ok(true);
        }
        if self.forget_at().is_some_and(|at| at <= now) {
            self.searcher.change().engine.save();
            return Ok(true);
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.handle(now, Input::Timeout)?;
            return Ok(true);
        }
        self.check_cache(now);
        Ok(false)
    }

    /// Looks for vectors of text that stands in no document, once the indexes are those of the store: a
    /// process that ended before its cache was written again knew of some, and a document that was embedded
    /// in part and then removed leaves others.
    ///
    /// A document that is left out keeps its vectors: it is tried again.
    fn check_cache(&mut self, now: Duration) {
        let has_none = !self.is_unchecked && self.partial.is_empty();
        if has_none || self.withdrawn_since.is_some() {
            return;
        }
        let engine = self.searcher.engine();
        if !engine.is_idle() {
            return;
        }
        self.partial.retain(|document, revision| engine.passages().revision(document) != Some(*revision));
        // Each other document was removed, or has another text now.
        self.is_unchecked |= !self.partial.keys().all(|document| engine.is_left_out(document));
        if !self.is_unchecked {
            return;
        }
        if self.cache.holds_only(&|chunk| engine.passages().number(chunk).is_some()) {
            self.is_unchecked = false;
            self.partial.clear();
        } else {
            self.withdrawn_since = Some(now);
        }
    }

    /// Steps until nothing is to be done at `now`.
    ///
    /// # Errors
    /// See [`step`](Self::step).
    pub fn run(&mut self, now: Duration) -> Result<(), KnowledgeError> {
        while self.step(now)? {}
        Ok(())
    }

    /// When [`step`](Self::step) is due although the store reports no change.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.engine().poll_timeout().into_iter().chain(self.forget_at()).min()
    }

    /// When a save takes vectors of withdrawn text out of the cache; `None` while a save runs.
    fn forget_at(&self) -> Option<Duration> {
        // After a failure the engine saves again when its interval is over, and that save takes them out.
        let waits = self.running.is_none() && !self.must_forget;
        // A time that is too long for the clock ends never.
        self.withdrawn_since.filter(|_| waits)?.checked_add(self.withdrawn_max)
    }

    /// Lets other threads make and write the files of saves, so that documents are indexed meanwhile.
    /// `start` receives each save and has it run once; it calls [`step`](Self::step) again some time after
    /// that. `folder` is a further handle of the base's folder. [`save`](Self::save) still saves by itself.
    pub fn save_beside(&mut self, folder: Box<dyn Folder>, start: impl FnMut(SaveJob) + Send + 'static) {
        self.beside = Some(Beside::new(folder, Box::new(start)));
    }

    /// Saves now; before a planned end of the process for instance. Documents that wait are not indexed
    /// before; only a step that was begun is. `false`: the folder failed, and a later step tries it again.
    ///
    /// # Errors
    /// See [`step`](Self::step).
    pub fn save(&mut self, now: Duration) -> Result<bool, KnowledgeError> {
        if let Some(running) = &mut self.running {
            let written = running.wait();
            self.end_save(now, written)?;
        }
        self.must_forget = true;
        // The caller waits for this save.
        let beside = self.beside.take();
        let saved = self.save_here(now);
        self.beside = beside;
        saved
    }

    fn save_here(&mut self, now: Duration) -> Result<bool, KnowledgeError> {
        self.searcher.change().engine.save();
        while let Some(output) = self.next_output() {
            let is_save = matches!(output, Output::Save { .. });
            self.carry_out(now, output)?;
            if is_save {
                break;
            }
        }
        Ok(self.is_saved)
    }

    /// The best passages for a text. A text that the embedder truncates counts in
    /// `x0_ml_embeddings_truncated_total`; to report it, embed the text and call [`answer`](Self::answer).
    ///
    /// # Errors
    /// [`KnowledgeError::Embed`] or [`KnowledgeError::Query`].
    pub fn query(&self, text: &str, k: usize, mode: Mode) -> Result<Vec<Hit>, KnowledgeError> {
        let mut vector = Vec::new();
        if mode != Mode::Lexical {
            vector = vec![0.0; self.embedder.dimensions()];
            let embedded = self.embedder.embed(&[text], &mut vector).map_err(KnowledgeError::Embed)?;
            self.telemetry.truncated(embedded);
        }
        self.answer(&Query::new(text).vector(&vector).k(k).mode(mode))
    }

    /// The answer to a query whose text is embedded already.
    ///
    /// # Errors
    /// [`KnowledgeError::Query`].
    pub fn answer(&self, query: &Query<'_>) -> Result<Vec<Hit>, KnowledgeError> {
        self.searcher.answer(query)
    }

    /// Orders hits by a model that reads the query and each passage. The passages are read from the store;
    /// one that is gone counts as an empty text.
    ///
    /// # Errors
    /// [`KnowledgeError::Rerank`]; the order stays.
    pub fn rerank(
        &mut self,
        text: &str,
        hits: &mut [Hit],
        reranker: &dyn Reranker,
    ) -> Result<(), KnowledgeError> {
        let mut documents = HashMap::new();
        for hit in hits.iter() {
            documents.entry(hit.document.clone()).or_insert_with(|| {
                let read = self.store.read(&hit.document).ok().flatten();
                read.map(|(_, document)| document.text).unwrap_or_default()
            });
        }
        let passage = |hit: &Hit| documents.get(&hit.document)?.get(hit.span.clone());
        let passages: Vec<&str> = hits.iter().map(|hit| passage(hit).unwrap_or_default()).collect();
        let scores = reranker.rerank(text, &passages).map_err(KnowledgeError::Rerank)?;
        let mut ranked: Vec<(f32, Hit)> = scores.into_iter().zip(hits.iter().cloned()).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (place, (_, hit)) in hits.iter_mut().zip(ranked) {
            *place = hit;
        }
        Ok(())
    }

    /// A handle to search vectors from another thread.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn VectorReader> {
        self.searcher.vectors()
    }

    fn handle(&mut self, now: Duration, input: Input) -> Result<(), KnowledgeError> {
        let mut held = self.searcher.change();
        let handled = held.engine.handle(now, input).map_err(KnowledgeError::Handle);
        self.telemetry.state(&held.engine);
        handled
    }

    /// The next output; a publication is carried out.
    fn next_output(&mut self) -> Option<Output> {
        let begun = Telemetry::begin();
        // A query holds this lock while it reads the vectors, also those in the file of the cache, and the
        // passages: both change together, and so does the revision that the engine reports as applied.
        let mut held = self.searcher.change();
        let output = held.engine.poll_output();
        if output == Some(Output::Publish) {
            self.index.publish();
            if let Some(source) = &self.source {
                source.forget(&std::mem::take(&mut self.leaving));
            }
            self.telemetry.ended(Stage::Publish, begun);
            self.telemetry.state(&held.engine);
        }
        output
    }

    fn carry_out(&mut self, now: Duration, output: Output) -> Result<(), KnowledgeError> {
        if output == Output::Publish {
            return Ok(());
        }
        let (stage, begun) = (Stage::of(&output), Telemetry::begin());
        let answer = self.perform(now, output);
        self.telemetry.ended(stage, begun);
        match answer {
            Some(input) => self.handle(now, input),
            None => {
                // Once the outputs of a change are carried out, it is applied.
                self.telemetry.state(&self.engine());
                Ok(())
            }
        }
    }

    /// The input that answers an output, for those that have one.
    fn perform(&mut self, now: Duration, output: Output) -> Option<Input> {
        Some(match output {
            Output::List { after, max } => {
                self.store.list(after.as_ref(), max).map_or(Input::Failed, |page| Input::Listed {
                    page: page.documents,
                    is_last: page.is_last,
                    revision: page.revision,
                })
            }
            Output::Read { document } => match self.store.read(&document) {
                Ok(found) => Input::Read { document, found },
                Err(error) if error.is_late() => Input::Late,
                Err(_) => Input::Failed,
            },
            Output::Chunk { document, text } => match self.chunker.chunks(&text) {
                Ok(chunks) => Input::Chunked { document, chunks },
                Err(_) => Input::Failed,
            },
            Output::Embed { job, chunks } => match self.embed(&chunks) {
                Ok(vectors) => Input::Embedded { job, vectors },
                Err(()) => {
                    self.note_partial();
                    Input::Failed
                }
            },
            Output::Insert { chunks, vectors } => {
                let dimensions = self.index.dimensions();
                if let Some(source) = &self.source {
                    // `embed` has seen that the cache holds all of them.
                    source.note(&self.cache, chunks.iter().map(|chunk| (chunk.id, chunk.chunk)));
                }
                for (chunk, vector) in chunks.iter().zip(vectors.chunks_exact(dimensions)) {
                    // `embed` has checked that the index takes each of these vectors.
                    let is_in = self.index.insert(chunk.id, vector).is_ok();
                    debug_assert!(is_in, "a checked vector is inserted");
                    let (content, order) = (chunk.content(), chunk.chunk.prefix());
                    self.searcher.change().lexical.insert_ordered(chunk.id, content, order);
                }
                return None;
            }
            Output::Remove { ids, withdrawn } => {
                for id in ids {
                    self.index.remove(id);
                    self.searcher.change().lexical.remove(id);
                    if self.source.is_some() {
                        self.leaving.push(id);
                    }
                }
                if !withdrawn.is_empty() {
                    self.withdrawn_since.get_or_insert(now);
                }
                self.withdrawn.extend(withdrawn);
                return None;
            }
            Output::Save { catalogue } => {
                let (vectors, lexical) = (self.index.freeze(), self.searcher.held().lexical.clone());
                let saving =
                    Saving { name: INDEX, fingerprint: self.fingerprint, catalogue, vectors, lexical };
                if let Some(beside) = &mut self.beside {
                    self.running = Some(beside.begin(saving, self.withdrawn.clone()));
                    return None;
                }
                let (written, withdrawn) = (saving.write(&mut self.folder), self.withdrawn.clone());
                self.saved(now, written, &withdrawn)
            }
            // `next_output` has carried a publication out.
            Output::LeftOut { .. } | Output::Publish => return None,
        })
    }

    /// A batch of the document that is embedded has failed. The cache may have vectors of those before it,
    /// which may never be indexed.
    fn note_partial(&mut self) {
        let engine = self.searcher.engine();
        let Some((document, revision)) = engine.embedding() else { return };
        let before = self.partial.insert(document.clone(), revision);
        // Vectors of another revision may be of another text.
        self.is_unchecked |= before.is_some_and(|before| before != revision);
    }

    /// A save on another thread has ended.
    fn end_save(&mut self, now: Duration, written: Option<usize>) -> Result<(), KnowledgeError> {
        let Some(Running { withdrawn, .. }) = self.running.take() else { return Ok(()) };
        let input = self.saved(now, written, &withdrawn);
        self.handle(now, input)
    }

    /// The file of the index was written, or not; `withdrawn`: what it holds no more.
    fn saved(&mut self, now: Duration, written: Option<usize>, withdrawn: &HashSet<ChunkId>) -> Input {
        self.is_saved = match written {
            Some(len) => {
                self.telemetry.saved(len);
                self.forget_withdrawn(now, withdrawn)
            }
            None => {
                // The earlier file still needs the vectors. The next save that succeeds takes them out.
                if self.forget_at().is_some_and(|at| at <= now) {
                    (self.must_forget, self.withdrawn_since) = (true, Some(now));
                }
                false
            }
        };
        Input::Saved { is_durable: self.is_saved }
    }

    /// Takes vectors of withdrawn text out of the cache if that is due; `false` if its file cannot be
    /// written.
    ///
    /// While documents wait, the cache holds vectors that they will need, after a rebuild for instance, and
    /// only what was seen to leave goes. Otherwise everything goes that stands in no document. What was
    /// withdrawn after the index was saved stays: that file still needs it.
    fn forget_withdrawn(&mut self, now: Duration, saved: &HashSet<ChunkId>) -> bool {
        let (live, is_settled): (HashSet<ChunkId>, bool) = {
            let engine = self.searcher.engine();
            (engine.passages().chunks().map(|(_, chunk)| chunk).collect(), engine.is_idle())
        };
        let withdrawn = &self.withdrawn;
        let keep = |chunk: &ChunkId| {
            let goes = if withdrawn.contains(chunk) { saved.contains(chunk) } else { is_settled };
            live.contains(chunk) || !goes
        };
        let is_old =
            self.withdrawn_since.is_some_and(|since| now.saturating_sub(since) >= self.withdrawn_max);
        if !(self.must_forget || is_old || self.cache.has_waste(&keep)) {
            return true;
        }
        let compacted = self.cache.compact(&mut self.folder, &keep);
        self.follow_cache();
        self.telemetry.cache_written(compacted.as_ref().is_ok_and(|compacted| compacted.damaged == 0));
        if compacted.is_ok() {
            self.withdrawn.retain(|chunk| !saved.contains(chunk));
            if is_settled {
                self.is_unchecked = false;
                self.partial.clear();
            }
        }
        self.must_forget = compacted.is_err();
        self.withdrawn_since = (!self.withdrawn.is_empty()).then_some(now);
        compacted.is_ok()
    }

    /// The source reads the file that the cache has now. A file that cannot be opened is opened again later;
    /// until then, the one before is read.
    fn follow_cache(&mut self) -> bool {
        let Some(source) = &self.source else { return true };
        source.follow(&self.cache, &mut self.folder).is_ok()
    }

    /// Embeds a chunk whose record cannot be read. Without success the next query that meets it reports it
    /// again.
    fn embed_again(&mut self, id: VectorId) {
        let place = {
            let engine = self.searcher.engine();
            let place = engine
                .passages()
                .chunk(id)
                .and_then(|(chunk, places)| Some((chunk, places.first()?.clone())));
            place
                .and_then(|(chunk, place)| Some((chunk, engine.passages().revision(&place.document)?, place)))
        };
        // A chunk that stands nowhere any more is leaving.
        let Some((chunk, revision, place)) = place else { return };
        self.telemetry.cache_written(false);
        let Ok(Some((found, document))) = self.store.read(&place.document) else { return };
        if found != revision {
            return;
        }
        let text: Arc<str> = document.text.into();
        let new = NewChunk { id, chunk, text, span: place.span };
        if self.embed(&[new]).is_ok()
            && let Some(source) = &self.source
        {
            source.note(&self.cache, [(id, chunk)]);
        }
    }

    /// The vectors of chunks, from the cache or the model. New ones go to the cache first, so that they are
    /// never computed again.
    fn embed(&mut self, chunks: &[NewChunk]) -> Result<Vec<f32>, ()> {
        let dimensions = self.embedder.dimensions();
        let mut vectors = vec![0.0; chunks.len() * dimensions];
        let mut missing = Vec::new();
        for (place, (chunk, vector)) in chunks.iter().zip(vectors.chunks_mut(dimensions)).enumerate() {
            self.withdrawn.remove(&chunk.chunk);
            // A damaged record counts as missing; the new one takes its place.
            if !self.cache.get(&mut self.folder, &chunk.chunk, vector).unwrap_or(false) {
                missing.push(place);
            }
        }
        self.telemetry.cached(chunks.len() - missing.len());
        if missing.is_empty() {
            // The file may be another one than the source reads.
            return if self.follow_cache() { Ok(vectors) } else { Err(()) };
        }
        let texts: Vec<&str> = missing.iter().map(|place| chunks[*place].content()).collect();
        let mut new = vec![0.0; texts.len() * dimensions];
        let embedded = self.embedder.embed(&texts, &mut new).map_err(|_| ())?;
        self.telemetry.embedded(missing.len(), embedded);
        let is_usable =
            |vector: &[f32]| vector.iter().all(|x| x.is_finite()) && vector.iter().any(|x| *x != 0.0);
        if !new.chunks(dimensions).all(is_usable) {
            return Err(());
        }
        let records: Vec<_> = missing
            .iter()
            .zip(new.chunks(dimensions))
            .map(|(place, vector)| (chunks[*place].chunk, vector))
            .collect();
        // Without the cache the vectors are right all the same; they would be computed again after a restart.
        // An index that ranks by the cache has no other place for them.
        let is_cached = self.cache.put(&mut self.folder, &records).is_ok();
        self.telemetry.cache_written(is_cached);
        if !(is_cached && self.follow_cache()) && self.source.is_some() {
            return Err(());
        }
        for (place, vector) in missing.iter().zip(new.chunks(dimensions)) {
            vectors[place * dimensions..][..dimensions].copy_from_slice(vector);
        }
        Ok(vectors)
    }
}

/// The saved state, with its vectors in `index`, which is empty.
fn restore(
    file: &[u8],
    fingerprint: [u8; 32],
    options: &KnowledgeBaseOptions,
    mut index: Box<dyn VectorIndex>,
) -> Result<(Held, Box<dyn VectorIndex>), KnowledgeError> {
    let damaged = |source| KnowledgeError::Snapshot { name: INDEX, source };
    let snapshot = Snapshot::decode(file).map_err(damaged)?;
    if snapshot.fingerprint != fingerprint {
        return Err(KnowledgeError::Settings { name: INDEX });
    }
    let engine = Knowledge::restore(options.knowledge, snapshot.catalogue).map_err(damaged)?;
    index.restore(snapshot.vectors).map_err(KnowledgeError::Restore)?;
    let mut lexical =
        LexicalIndex::restore(snapshot.lexical, options.lexical).map_err(KnowledgeError::Restore)?;
    for (id, chunk) in engine.passages().chunks() {
        lexical.set_order(id, chunk.prefix());
    }
    let is_whole = engine.passages().numbers().all(|id| index.contains(id) && lexical.contains(id));
    if !is_whole || index.len() != lexical.len() {
        return Err(damaged(Damage { offset: 0, reason: "catalogue and indexes hold different chunks" }));
    }
    Ok((Held { engine, lexical }, index))
}

/// Opens the cache; a damaged one is replaced.
fn open_cache<E: Embedder, F: Folder>(
    folder: &mut F,
    embedder: &E,
    opening: &mut Opening,
) -> Result<EmbeddingCache, KnowledgeError> {
    let (model, dimensions) = (*embedder.model(), embedder.dimensions());
    match EmbeddingCache::open(folder, CACHE, model, dimensions) {
        Ok((cache, _)) => Ok(cache),
        Err(error @ FileError::Damaged { .. }) => {
            opening.cache_lost = Some(error);
            let removed = folder.remove(CACHE);
            removed.map_err(|source| {
                KnowledgeError::File(FileError::Io { action: "remove", name: CACHE.to_owned(), source })
            })?;
            EmbeddingCache::open(folder, CACHE, model, dimensions)
                .map(|(cache, _)| cache)
                .map_err(KnowledgeError::File)
        }
        Err(error) => Err(KnowledgeError::File(error)),
    }
}

/// Hash of all settings that decide what is in the indexes.
fn fingerprint<E: Embedder>(embedder: &E, chunk: ChunkOptions, tokens: &impl TokenSpans) -> [u8; 32] {
    let numbers = [chunk.tokens_max, chunk.special_tokens, chunk.overlap_percent];
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| (*number as u64).to_le_bytes()).collect();
    digest_of("x0-ml knowledge", &[embedder.model().as_bytes(), tokens.id().as_bytes(), &numbers]).0
}

impl<S, E, F, T> std::fmt::Debug for KnowledgeBase<S, E, F, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnowledgeBase").field("searcher", &self.searcher).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::time::Duration;

    use super::{CACHE, ExactVectors, KnowledgeBase, KnowledgeBaseOptions, KnowledgeError, KnowledgeStore};
    use crate::embed::HashedWords;
    use crate::file::DiskFolder;
    use crate::knowledge::MemoryStore;
    use crate::retrieve::Document;

    /// The index is built again because the cache lacks one of two vectors.
    #[test]
    fn a_rejected_catalogue_leaves_no_vectors_noted() {
        let path = tempfile::tempdir().unwrap();
        let mut store = MemoryStore::new();
        for (name, text) in [("a", "one"), ("b", "two")] {
            store.put(&name.into(), Document::new(text)).unwrap();
        }
        let open = || {
            let options = KnowledgeBaseOptions::new().vectors(ExactVectors::Cache);
            let folder = DiskFolder::new(path.path()).unwrap();
            KnowledgeBase::open(options, store.clone(), HashedWords::new(8), folder).unwrap()
        };
        let noted = |base: &KnowledgeBase<_, _, _>| base.source.as_ref().unwrap().len();
        let mut base = open();
        base.run(Duration::ZERO).unwrap();
        assert!(base.save(Duration::ZERO).unwrap());
        drop(base);
        assert_eq!(noted(&open()), 2);
        let file = std::fs::read(path.path().join(CACHE)).unwrap();
        std::fs::write(path.path().join(CACHE), &file[..file.len() - 1]).unwrap();
        let base = open();
        assert!(matches!(base.opening().rebuild, Some(KnowledgeError::VectorsLost { chunks: 1, .. })));
        assert_eq!(noted(&base), 0);
    }
}
