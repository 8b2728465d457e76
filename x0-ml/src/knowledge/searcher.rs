//! Queries beside the driver.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::base::KnowledgeError;
use super::engine::Knowledge;
use crate::index::VectorReader;
use crate::lexical::LexicalIndex;
use crate::retrieve::{Hit, Query, Retriever};
use crate::telemetry::{Stage, Telemetry};

/// The state that queries read. The base holds its lock for changes in memory only: it waits for no store,
/// model or file under it. A query holds it while it reads exact vectors, which are in a file with
/// [`ExactVectors::Cache`](super::ExactVectors::Cache).
pub(super) struct Held {
    pub(super) engine: Knowledge,
    pub(super) lexical: LexicalIndex,
}

/// Answers queries on any thread while a [`KnowledgeBase`](super::KnowledgeBase) works on another one.
///
/// A query waits for no store and no embedding of the base, only for a change in memory. With
/// [`ExactVectors::Cache`](super::ExactVectors::Cache) it reads up to `4 * k` vectors from the file of the
/// cache; the next change of the base waits for that, and later queries wait for the change.
#[derive(Clone)]
pub struct Searcher {
    held: Arc<RwLock<Held>>,
    vectors: Arc<dyn VectorReader>,
    telemetry: Arc<Telemetry>,
}

impl Searcher {
    pub(super) fn new(held: Held, vectors: Arc<dyn VectorReader>, telemetry: Arc<Telemetry>) -> Self {
        Self { held: Arc::new(RwLock::new(held)), vectors, telemetry }
    }

    /// The answer to a query whose text is embedded already.
    ///
    /// # Errors
    /// [`KnowledgeError::Query`].
    pub fn answer(&self, query: &Query<'_>) -> Result<Vec<Hit>, KnowledgeError> {
        let begun = Telemetry::begin();
        let held = self.held();
        let hits = Retriever::new(&*self.vectors, &held.lexical, held.engine.passages()).query(query);
        drop(held);
        self.telemetry.ended(Stage::Query, begun);
        hits.map_err(KnowledgeError::Query)
    }

    /// The engine as it is now: passages, applied revision, counters.
    ///
    /// # Deadlocks
    /// The base waits for its next change while the value lives, and later readers wait for the base. A
    /// thread that holds the value and asks the searcher again, by [`answer`](Self::answer), `engine` or
    /// `{:?}`, can wait for ever: copy what is needed, and drop the value first.
    #[must_use]
    pub fn engine(&self) -> EngineRef<'_> {
        EngineRef(self.held())
    }

    /// The vectors alone.
    #[must_use]
    pub fn vectors(&self) -> Arc<dyn VectorReader> {
        Arc::clone(&self.vectors)
    }

    // A panic under the lock is a bug of this crate; the state is then that between two of its steps.
    pub(super) fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = self.engine();
        f.debug_struct("Searcher")
            .field("chunks", &engine.passages().chunks_len())
            .field("applied", &engine.applied())
            .field("pending", &engine.pending())
            .finish()
    }
}

/// The engine of a [`KnowledgeBase`](super::KnowledgeBase), to look at.
pub struct EngineRef<'a>(RwLockReadGuard<'a, Held>);

impl Deref for EngineRef<'_> {
    type Target = Knowledge;

    fn deref(&self) -> &Knowledge {
        &self.0.engine
    }
}

impl std::fmt::Debug for EngineRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.engine.fmt(f)
    }
}
