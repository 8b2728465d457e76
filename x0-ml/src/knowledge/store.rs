//! The seam to the documents.

use std::collections::{BTreeMap, VecDeque};

use crate::retrieve::{Document, DocumentId};

/// Documents with revisions.
///
/// # Contract
/// - Each change has a higher revision than all before. A document's revision is that of its last change.
/// - `list` returns documents in the order of their names, at most `max`, each after `after`.
/// - `poll_change` returns changes in the order of their revisions, those after the last [`Change::Cut`]
///   without gap; several changes of one document may be reported as the last of them. A store that cannot
///   report all of them says `Cut`; the documents are then compared one by one.
/// - A document that `read` refused as [late](StoreError::late) is reported as changed when it is complete,
///   with a revision that is not below that of the last change.
pub trait KnowledgeStore: Send {
    /// Writes a document and returns its revision.
    ///
    /// # Errors
    /// [`StoreError`]; the document is unchanged, or is changed and the answer was lost.
    fn put(&mut self, document: &DocumentId, content: Document) -> Result<u64, StoreError>;

    /// Removes a document and returns the revision of the removal; `None` if there was none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&mut self, document: &DocumentId) -> Result<Option<u64>, StoreError>;

    /// Revision and content of a document; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&mut self, document: &DocumentId) -> Result<Option<(u64, Document)>, StoreError>;

    /// A page of the documents.
    ///
    /// # Errors
    /// [`StoreError`].
    fn list(&mut self, after: Option<&DocumentId>, max: usize) -> Result<Page, StoreError>;

    /// The next change since the store was opened, or `None` for now.
    fn poll_change(&mut self) -> Option<Change>;
}

/// A page of documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Documents and their revisions.
    pub documents: Vec<(DocumentId, u64)>,
    /// No document follows.
    pub is_last: bool,
    /// The store's revision when the page was read.
    pub revision: u64,
}

/// A change of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A document is new or changed.
    Changed {
        /// The document.
        document: DocumentId,
        /// The revision of the change.
        revision: u64,
    },
    /// A document was removed.
    Removed {
        /// The document.
        document: DocumentId,
        /// The revision of the removal.
        revision: u64,
    },
    /// Changes are missing here.
    Cut,
}

/// A store failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", message(.is_late))]
pub struct StoreError {
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
    is_late: bool,
}

fn message(is_late: &bool) -> &'static str {
    if *is_late { "the document is not complete on this node yet" } else { "the document store failed" }
}

impl StoreError {
    /// An error with the store's own as its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), is_late: false }
    }

    /// An error of [`read`](KnowledgeStore::read): parts of the document are on their way to this node, and
    /// the store reports it again when they are here.
    pub fn late(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into(), is_late: true }
    }

    /// Whether the document is only late.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.is_late
    }
}

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    documents: BTreeMap<DocumentId, (u64, Document)>,
    revision: u64,
    changes: VecDeque<Change>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Forgets the changes that were not polled, and reports a cut in their place.
    pub fn cut(&mut self) {
        self.changes = VecDeque::from([Change::Cut]);
    }
}

impl KnowledgeStore for MemoryStore {
    fn put(&mut self, document: &DocumentId, content: Document) -> Result<u64, StoreError> {
        self.revision += 1;
        self.documents.insert(document.clone(), (self.revision, content));
        self.changes.push_back(Change::Changed { document: document.clone(), revision: self.revision });
        Ok(self.revision)
    }

    fn remove(&mut self, document: &DocumentId) -> Result<Option<u64>, StoreError> {
        if self.documents.remove(document).is_none() {
            return Ok(None);
        }
        self.revision += 1;
        self.changes.push_back(Change::Removed { document: document.clone(), revision: self.revision });
        Ok(Some(self.revision))
    }

    fn read(&mut self, document: &DocumentId) -> Result<Option<(u64, Document)>, StoreError> {
        Ok(self.documents.get(document).cloned())
    }

    fn list(&mut self, after: Option<&DocumentId>, max: usize) -> Result<Page, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut rest = self.documents.range::<DocumentId, _>((after.map_or(Unbounded, Excluded), Unbounded));
        let documents: Vec<_> =
            rest.by_ref().take(max).map(|(document, (revision, _))| (document.clone(), *revision)).collect();
        Ok(Page { documents, is_last: rest.next().is_none(), revision: self.revision })
    }

    fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }
}
