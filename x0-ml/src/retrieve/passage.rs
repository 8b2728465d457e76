//! The place of a chunk in its document.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::ChunkId;
use crate::index::VectorId;

/// The caller's name of a document. Copies share its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<str>);

impl DocumentId {
    /// A name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for DocumentId {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A document as a store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// The text of the document.
    pub text: String,
    /// The source of the document; may be empty.
    pub source: String,
    /// Words to filter by.
    pub tags: BTreeSet<String>,
}

impl Document {
    /// A document without source and tags.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A chunk in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The document.
    pub document: DocumentId,
    /// The chunk's bytes in it.
    pub span: Range<usize>,
}

/// The description of a document without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) revision: u64,
    pub(crate) source: String,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) chunks: Vec<(VectorId, Range<usize>)>,
}

/// A chunk that stands in at least one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) chunk: ChunkId,
    /// Documents that hold it, once for each place.
    pub(crate) places: Vec<Place>,
}

/// The documents and chunks that the indexes hold. A chunk that stands in several documents has one number
/// and several places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passages {
    pub(crate) documents: BTreeMap<DocumentId, Known>,
    pub(crate) chunks: HashMap<VectorId, Held>,
    pub(crate) number_of: HashMap<ChunkId, VectorId>,
    pub(crate) next: u64,
}

impl Passages {
    /// Documents held.
    #[must_use]
    pub fn documents_len(&self) -> usize {
        self.documents.len()
    }

    /// Different chunks held.
    #[must_use]
    pub fn chunks_len(&self) -> usize {
        self.chunks.len()
    }

    /// The revision of a document; `None` if it is not held.
    #[must_use]
    pub fn revision(&self, document: &DocumentId) -> Option<u64> {
        self.documents.get(document).map(|known| known.revision)
    }

    /// The documents in the order of their names, each with its revision.
    pub fn documents(&self) -> impl Iterator<Item = (&DocumentId, u64)> {
        self.documents.iter().map(|(document, known)| (document, known.revision))
    }

    /// Name and places of a chunk.
    #[must_use]
    pub fn chunk(&self, id: VectorId) -> Option<(ChunkId, &[Place])> {
        self.chunks.get(&id).map(|held| (held.chunk, held.places.as_slice()))
    }

    /// The number of a chunk.
    #[must_use]
    pub fn number(&self, chunk: &ChunkId) -> Option<VectorId> {
        self.number_of.get(chunk).copied()
    }

    /// Every chunk's number and name.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (VectorId, ChunkId)> + '_ {
        self.chunks.iter().map(|(id, held)| (*id, held.chunk))
    }

    /// Every chunk's number.
    pub fn numbers(&self) -> impl Iterator<Item = VectorId> + '_ {
        self.chunks.keys().copied()
    }

    /// Puts a document in the place of its earlier revision. Returns the chunks that stand nowhere any more.
    pub(crate) fn replace(
        &mut self,
        document: &DocumentId,
        known: Known,
        names: &[ChunkId],
    ) -> Vec<(VectorId, ChunkId)> {
        for ((id, span), chunk) in known.chunks.iter().zip(names) {
            self.number_of.insert(*chunk, *id);
            let held = self.chunks.entry(*id).or_insert_with(|| Held { chunk: *chunk, places: Vec::new() });
            held.places.push(Place { document: document.clone(), span: span.clone() });
        }
        let before = self.documents.insert(document.clone(), known);
        before.map_or_else(Vec::new, |before| self.withdraw(document, &before.chunks))
    }

    /// Removes a document. Returns the chunks that stand nowhere any more.
    pub(crate) fn remove(&mut self, document: &DocumentId) -> Vec<(VectorId, ChunkId)> {
        let before = self.documents.remove(document);
        before.map_or_else(Vec::new, |before| self.withdraw(document, &before.chunks))
    }

    /// Takes one place of the document off each chunk.
    fn withdraw(
        &mut self,
        document: &DocumentId,
        chunks: &[(VectorId, Range<usize>)],
    ) -> Vec<(VectorId, ChunkId)> {
        let mut gone = Vec::new();
        for (id, span) in chunks {
            let Some(held) = self.chunks.get_mut(id) else { continue };
            let old = |place: &Place| place.document == *document && place.span == *span;
            if let Some(at) = held.places.iter().position(old) {
                held.places.remove(at);
            }
            if held.places.is_empty() {
                let chunk = held.chunk;
                self.number_of.remove(&chunk);
                self.chunks.remove(id);
                gone.push((*id, chunk));
            }
        }
        gone
    }
}

/// A predicate of documents.
pub type DocumentPredicate<'a> = &'a (dyn Fn(&DocumentId) -> bool + Sync);

/// Restricts a query to passages of some documents. All conditions that are set must hold.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct PassageFilter<'a> {
    /// The document's source.
    pub source: Option<&'a str>,
    /// A tag of the document.
    pub tag: Option<&'a str>,
    /// The document's revision lies in this range.
    pub revisions: Option<Range<u64>>,
    /// The caller's own condition.
    pub predicate: Option<DocumentPredicate<'a>>,
}

impl fmt::Debug for PassageFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassageFilter")
            .field("source", &self.source)
            .field("tag", &self.tag)
            .field("revisions", &self.revisions)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}

impl<'a> PassageFilter<'a> {
    /// No condition.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Passages of documents from this source.
    #[must_use]
    pub fn source(mut self, source: &'a str) -> Self {
        self.source = Some(source);
        self
    }

    /// Passages of documents with this tag.
    #[must_use]
    pub fn tag(mut self, tag: &'a str) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Passages of documents with a revision in this range.
    #[must_use]
    pub fn revisions(mut self, revisions: Range<u64>) -> Self {
        self.revisions = Some(revisions);
        self
    }

    /// Passages of documents that pass.
    #[must_use]
    pub fn predicate(mut self, predicate: DocumentPredicate<'a>) -> Self {
        self.predicate = Some(predicate);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.source.is_none() && self.tag.is_none() && self.revisions.is_none() && self.predicate.is_none()
    }

    /// Whether a document that is held passes.
    pub(super) fn passes(&self, passages: &Passages, document: &DocumentId) -> bool {
        passages.documents.get(document).is_some_and(|known| self.takes(document, known))
    }

    pub(super) fn takes(&self, document: &DocumentId, known: &Known) -> bool {
        self.source.is_none_or(|source| known.source == source)
            && self.tag.is_none_or(|tag| known.tags.contains(tag))
            && self.revisions.as_ref().is_none_or(|revisions| revisions.contains(&known.revision))
            && self.predicate.is_none_or(|predicate| predicate(document))
    }
}
