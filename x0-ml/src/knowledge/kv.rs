//! Collections of documents in an x0-kv store (feature `kv`).
//!
//! ```
//! use std::time::Duration;
//! use x0_kv::Store;
//! use x0_ml::embed::HashedWords;
//! use x0_ml::file::DiskFolder;
//! use x0_ml::knowledge::kv::{CollectionKind, KvKnowledge, KvKnowledgeOptions};
//! use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeStore};
//! use x0_ml::retrieve::{Document, Mode};
//!
//! # let path = std::env::temp_dir().join(format!("x0-ml-kv-{}", std::process::id()));
//! let store = Store::open_in_memory();
//! let options = KvKnowledgeOptions::new();
//! let mut manuals = KvKnowledge::create(&store, "manuals", CollectionKind::Linearizable, options)?;
//! let revision = manuals.put(&"links".into(), Document::new("A node that loses its link asks others."))?;
//!
//! let folder = DiskFolder::new(&path)?;
//! let mut base = KnowledgeBase::open(KnowledgeBaseOptions::new(), manuals, HashedWords::new(64), folder)?;
//! base.run(Duration::ZERO)?;
//! assert_eq!(base.engine().applied(), revision);
//! assert_eq!(base.query("link", 1, Mode::Hybrid)?[0].document.as_str(), "links");
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layout
//! A collection is a keyspace, `x0-ml/NAME`, of the linearizable store or of the CRDT store. Its keys:
//!
//! | key | value |
//! |---|---|
//! | `m` | version of the layout and the [`CollectionKind`] |
//! | `d/` and the name of a document | its record: source, tags, pieces or blob; or that it was removed |
//! | `c/` and 32 bytes | a piece of a text, named by the SHA-256 of its content |
//!
//! The record is written last and is the commit point: a writer that stops before leaves the earlier revision
//! as it was. Pieces end where the text decides, so that a changed paragraph changes one or two of them, and
//! documents with equal passages share theirs.
//!
//! # Revisions
//! The revision of a document is that of its record: a [`Revision`](x0_kv::Revision) in a linearizable
//! collection, the bits of a [`Timestamp`](x0_kv::crdt::Timestamp) in a CRDT collection. In the first,
//! [`applied`](super::Knowledge::applied) means that every write up to that revision is in the index. In the
//! second, writes of other members arrive late, and it means this only for the writes that this node had
//! received.
//!
//! In a CRDT collection, concurrent writes of one document are siblings of its record. The latest of them is
//! read, and is indexed once. Every piece of a written text is written again there, so that the text stays
//! whole although another member removed the document and its pieces at the same time.
//!
//! # Long texts
//! A text of more than [`pieces_len_max`](KvKnowledgeOptions::pieces_len_max) bytes is a
//! [blob](x0_kv::blob): its writer keeps it, and every other node fetches it when it reads the record. Until
//! the text is whole, the document is [late](StoreError::late) there, and other documents are indexed. Should
//! the writer's folder be lost before another node has the text, the document must be written again.
//!
//! The store must have been opened with blobs, on every node. Without them, texts stay in pieces as long as
//! their record fits into a value: it lists a piece in 32 bytes, so that a text of at least 8 MiB fits in a
//! CRDT collection, and one of at least 128 MiB in a linearizable one. Longer texts are refused.
//!
//! # Limitations
//! A blob that was fetched in part, and whose document was removed before, stays on the node if its first
//! chunk is missing: nothing says that it belongs to the collection.
//!
//! In a CRDT collection, a member that received pieces of a text and not its record, and is cut off from its
//! writer from then on for longer than the [grace period](KvKnowledgeOptions::grace), removes these pieces.
//! After the cut the document cannot be read ([`KvKnowledgeError::PieceMissing`]) and must be written again.
//! A grace period above the longest cut prevents it.

mod cells;
mod changes;
mod long_texts;
mod pieces;
mod record;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::Bound;
use std::task::Waker;
use std::time::Duration;

use x0_kv::blob::{BlobReadError, BlobRef, BlobWriteError, FetchError};
use x0_kv::limits::LimitError;
use x0_kv::{Bytes, OperationError, Store};

use self::cells::{Cells, CrdtCells, LinearizableCells};
use self::changes::Changes;
use self::long_texts::LongTexts;
use self::record::{Body, Record, RecordError, Text};
use self::sweep::Sweep;
pub use self::sweep::Swept;
use super::store::{Change, KnowledgeStore, Page, StoreError};
use crate::retrieve::{Document, DocumentId};

const META: &[u8] = b"m";
const DOCUMENTS: &[u8] = b"d/";
const PIECES: &[u8] = b"c/";
const VERSION: u8 = 1;

/// The store that a collection is kept in. It is chosen at the creation of the collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CollectionKind {
    /// The linearizable store: a write needs a quorum, and all nodes agree on one order.
    Linearizable,
    /// The CRDT store: every node can always write, and nodes converge.
    Crdt,
}

/// Settings of a [`KvKnowledge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvKnowledgeOptions {
    /// Time for which a piece without a document, or the record of a removed document, stays before a
    /// [`sweep`](KvKnowledge::sweep) removes it; 1 hour by default. Longer than any writer takes to write a
    /// document.
    pub grace: Duration,
    /// Longest text that is kept in pieces, in bytes; 8 MiB by default. Longer ones are blobs if the store
    /// has them.
    pub pieces_len_max: usize,
    /// Longest text that is written or read, in bytes; 64 MiB by default.
    pub text_len_max: usize,
}

impl Default for KvKnowledgeOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600), pieces_len_max: 8 << 20, text_len_max: 64 << 20 }
    }
}

impl KvKnowledgeOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time for which unreferenced data stays.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the longest text that is kept in pieces.
    #[must_use]
    pub fn pieces_len_max(mut self, bytes: usize) -> Self {
        self.pieces_len_max = bytes;
        self
    }

    /// Sets the longest text that is written or read.
    #[must_use]
    pub fn text_len_max(mut self, bytes: usize) -> Self {
        self.text_len_max = bytes;
        self
    }
}

/// A collection was not created or opened, or a document was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvKnowledgeError {
    /// The name cannot be part of the name of a keyspace. Nothing was done.
    #[error("the collection cannot have this name")]
    Name(#[source] LimitError),
    /// The store failed.
    #[error("the store of the collection failed")]
    Store(#[source] OperationError),
    /// The store was opened without a CRDT store. Nothing was done.
    #[error(
        "the collection needs a CRDT store, and this store was opened without one: set `crdt` in its options"
    )]
    NoCrdt,
    /// There is no such collection.
    #[error("there is no collection {name}; create it first")]
    Missing {
        /// Name of the collection.
        name: String,
    },
    /// The collection exists in the other store. Nothing was done.
    #[error("the collection {name} exists as {found:?}; open it as such, or take another name")]
    Kind {
        /// Name of the collection.
        name: String,
        /// Where it is kept.
        found: CollectionKind,
    },
    /// The layout of the collection is of another version. Nothing was done.
    #[error("the collection {name} has a layout of version {found}, and this crate knows version {VERSION}")]
    Version {
        /// Name of the collection.
        name: String,
        /// The version.
        found: u8,
    },
    /// The name of a document does not fit into a key. Nothing was done.
    #[error("the name of a document has {len} bytes; it holds 1 to {len_max}")]
    DocumentName {
        /// The length of the name.
        len: usize,
        /// Longest name.
        len_max: usize,
    },
    /// The text is longer than the options allow. Nothing was done.
    #[error(
        "the text has {len} bytes, more than the {len_max} that `text_len_max` allows; split the document"
    )]
    TextTooLong {
        /// Length of the text in bytes.
        len: usize,
        /// The limit.
        len_max: usize,
    },
    /// Source and tags of a document do not fit into a value. Nothing was done.
    #[error("source and tags have {len} bytes, and a record holds {len_max} of them; shorten them")]
    Description {
        /// Length of both in bytes.
        len: usize,
        /// The limit.
        len_max: usize,
    },
    /// The names of the text's pieces do not fit into a value. Nothing was done.
    #[error(
        "the text has {len} bytes in {pieces} pieces, and their names do not fit into a value; open the store with blobs, or split the \
         document"
    )]
    TooLong {
        /// Length of the text in bytes.
        len: usize,
        /// Number of its pieces.
        pieces: usize,
    },
    /// The text of a document is a blob.
    #[error("the text is a blob, and this store was opened without blobs: set `blobs` in its options")]
    NoBlobs,
    /// The text of a document was not written as a blob. Nothing was done.
    #[error("the text cannot be written as a blob")]
    BlobWrite(#[source] BlobWriteError),
    /// The text of a document cannot be read from its blob.
    #[error("the blob with the text of {document} cannot be read; write the document again")]
    BlobRead {
        /// The document.
        document: DocumentId,
        /// The cause.
        #[source]
        source: BlobReadError,
    },
    /// The text of a document cannot be fetched.
    #[error("the blob with the text of {document} cannot be fetched")]
    BlobFetch {
        /// The document.
        document: DocumentId,
        /// The cause.
        #[source]
        source: FetchError,
    },
    /// The text of a document is being fetched from other nodes.
    #[error("the text of {document} is being fetched; the document is reported again when it is here")]
    BlobLate {
        /// The document.
        document: DocumentId,
    },
    /// The record of a document cannot be read.
    #[error("the record of {document} cannot be read; write the document again")]
    Record {
        /// The document.
        document: DocumentId,
        /// The cause.
        #[source]
        source: RecordError,
    },
    /// A piece of a document is not here: in a CRDT collection it may still be on its way.
    #[error("a piece of {document} is not in the store; it may be on its way, or write the document again")]
    PieceMissing {
        /// The document.
        document: DocumentId,
    },
}

/// A collection of documents in a store of x0-kv. See the [module](self) for the layout.
///
/// The methods wait for the store: call them from a thread that may block. Reads come from the applied state
/// of the node at hand; writes go through the store.
pub struct KvKnowledge {
    cells: Box<dyn Cells>,
    kind: CollectionKind,
    changes: Changes,
    sweep: Sweep,
    long_texts: LongTexts,
    options: KvKnowledgeOptions,
}

impl KvKnowledge {
    /// Creates the collection, or opens it if it exists in this kind of store.
    ///
    /// # Errors
    /// [`KvKnowledgeError`]. A collection that exists in the other kind of store is an error as far as this
    /// node can see it: a CRDT collection that another member created at the same time may not be here yet.
    pub fn create(
        store: &Store,
        name: &str,
        kind: CollectionKind,
        options: KvKnowledgeOptions,
    ) -> Result<Self, KvKnowledgeError> {
        let other = match kind {
            CollectionKind::Linearizable => CollectionKind::Crdt,
            CollectionKind::Crdt => CollectionKind::Linearizable,
        };
        if cells(store, name, other).is_ok_and(|cells| has_meta(&*cells, name).is_ok_and(|has| has)) {
            return Err(KvKnowledgeError::Kind { name: name.to_owned(), found: other });
        }
        let cells = cells(store, name, kind)?;
        if !has_meta(&*cells, name)? {
            cells.create().map_err(KvKnowledgeError::Store)?;
            let meta = vec![VERSION, u8::from(kind == CollectionKind::Crdt)];
            cells.put(META.to_vec(), meta).map_err(KvKnowledgeError::Store)?;
        }
        Self::over(cells, LongTexts::new(store, &keyspace(name)), options)
    }

    /// Opens a collection, wherever it is kept.
    ///
    /// # Errors
    /// [`KvKnowledgeError`].
    pub fn open(store: &Store, name: &str, options: KvKnowledgeOptions) -> Result<Self, KvKnowledgeError> {
        for kind in [CollectionKind::Linearizable, CollectionKind::Crdt] {
            match cells(store, name, kind) {
                Ok(cells) if has_meta(&*cells, name)? => {
                    return Self::over(cells, LongTexts::new(store, &keyspace(name)), options);
                }
                Ok(_) | Err(KvKnowledgeError::NoCrdt) => {}
                Err(error) => return Err(error),
            }
        }
        Err(KvKnowledgeError::Missing { name: name.to_owned() })
    }

    fn over(
        cells: Box<dyn Cells>,
        long_texts: LongTexts,
        options: KvKnowledgeOptions,
    ) -> Result<Self, KvKnowledgeError> {
        let watch = cells.watch(DOCUMENTS).map_err(KvKnowledgeError::Store)?;
        let kind = cells.kind();
        Ok(Self { cells, kind, changes: Changes::new(watch), sweep: Sweep::default(), long_texts, options })
    }

    /// The store that the collection is kept in.
    #[must_use]
    pub fn kind(&self) -> CollectionKind {
        self.kind
    }

    /// Sets the waker that is woken when [`poll_change`](KnowledgeStore::poll_change) may return a change
    /// after it returned `None`.
    pub fn set_waker(&mut self, waker: Waker) {
        self.changes.set_waker(waker);
    }

    /// Removes pieces that no document refers to, and records of removed documents, when they have been seen
    /// as such for the [grace period](KvKnowledgeOptions::grace). `now` is the time since any origin, the
    /// same for all calls. Reads the whole collection; every member may call it, at any time. Blobs are
    /// removed from this node only, so that every member has to call it where texts are blobs.
    ///
    /// # Errors
    /// [`StoreError`]. What was removed before stays removed.
    pub fn sweep(&mut self, now: Duration) -> Result<Swept, StoreError> {
        self.sweep.run(&*self.cells, &self.long_texts, now, self.options.grace).map_err(store_error)
    }

    fn write(&mut self, document: &DocumentId, content: &Document) -> Result<u64, KvKnowledgeError> {
        let key = self.key(document)?;
        let (len, len_max) = (content.text.len(), self.options.text_len_max);
        if len > len_max {
            return Err(KvKnowledgeError::TextTooLong { len, len_max });
        }
        let described = Record::of(content, Text::Pieces(Vec::new())).encode().len();
        let described_max = self.cells.value_len_max() - BlobRef::LEN_MAX;
        if described > described_max {
            return Err(KvKnowledgeError::Description { len: described, len_max: described_max });
        }
        if len > self.options.pieces_len_max && self.long_texts.are_possible() {
            return self.write_blob(key, content);
        }
        let pieces = pieces::cut(content.text.as_bytes());
        let names: Vec<[u8; 32]> = pieces.iter().map(|piece| pieces::name(piece)).collect();
        let record = Record::of(content, Text::Pieces(names.clone())).encode();
        if record.len() > self.cells.value_len_max() {
            if self.long_texts.are_possible() {
                return self.write_blob(key, content);
            }
            return Err(KvKnowledgeError::TooLong { len, pieces: names.len() });
        }
        // A piece that only other documents hold is written again: a sweep may be about to remove it. In a
        // CRDT collection the sweep of another member may be about to remove any piece, because this node may
        // not know yet that the document was removed there. Only a new write survives the removal of the old
        // one.
        let earlier = match self.cells.get(&key).map_err(KvKnowledgeError::Store)? {
            Some((value, _)) if self.kind == CollectionKind::Linearizable => {
                Record::decode(&value).map(|record| record.pieces()).unwrap_or_default()
            }
            _ => HashSet::new(),
        };
        let (mut new, mut done) = (Vec::new(), HashSet::new());
        for (name, piece) in names.iter().zip(&pieces).filter(|(name, _)| done.insert(**name)) {
            if !(earlier.contains(name) && self.holds(name)?) {
                new.push((piece_key(name), piece.to_vec()));
            }
        }
        self.cells.put_all(new).map_err(KvKnowledgeError::Store)?;
        self.cells.put(key, record).map_err(KvKnowledgeError::Store)
    }

    /// The blob is durable on this node before the record names it.
    fn write_blob(&mut self, key: Vec<u8>, content: &Document) -> Result<u64, KvKnowledgeError> {
        let blob = self.long_texts.add(&content.text)?;
        let record = Record::of(content, Text::Blob(blob)).encode();
        self.cells.put(key, record).map_err(KvKnowledgeError::Store)
    }

    /// Whether a piece is there and is what its name says.
    fn holds(&self, name: &[u8; 32]) -> Result<bool, KvKnowledgeError> {
        let held = self.cells.get(&piece_key(name)).map_err(KvKnowledgeError::Store)?;
        Ok(held.is_some_and(|(piece, _)| pieces::name(&piece) == *name))
    }

    fn withdraw(&mut self, document: &DocumentId) -> Result<Option<u64>, KvKnowledgeError> {
        let key = self.key(document)?;
        let held = self.cells.get_latest(&key).map_err(KvKnowledgeError::Store)?;
        if held.is_none_or(|(value, _)| is_removal(&value)) {
            return Ok(None);
        }
        self.cells.put(key, Record::removal().encode()).map(Some).map_err(KvKnowledgeError::Store)
    }

    fn fetch(&mut self, document: &DocumentId) -> Result<Option<(u64, Document)>, KvKnowledgeError> {
        let key = self.key(document)?;
        let Some((value, revision)) = self.cells.get(&key).map_err(KvKnowledgeError::Store)? else {
            self.long_texts.forget(document);
            return Ok(None);
        };
        let refuse = |source| KvKnowledgeError::Record { document: document.clone(), source };
        let Body::Document { source, tags, text } = Record::decode(&value).map_err(refuse)?.body else {
            self.long_texts.forget(document);
            return Ok(None);
        };
        let text = match text {
            Text::Pieces(pieces) => {
                self.long_texts.forget(document);
                self.read_pieces(document, pieces)?
            }
            Text::Blob(blob) => self.long_texts.read(document, &blob, self.options.text_len_max)?,
        };
        Ok(Some((revision, Document { text, source, tags })))
    }

    fn read_pieces(&self, document: &DocumentId, pieces: Vec<[u8; 32]>) -> Result<String, KvKnowledgeError> {
        let refuse = |source| KvKnowledgeError::Record { document: document.clone(), source };
        let mut text = Vec::new();
        for name in pieces {
            let piece = self.cells.get(&piece_key(&name)).map_err(KvKnowledgeError::Store)?;
            let missing = || KvKnowledgeError::PieceMissing { document: document.clone() };
            let (piece, _) = piece.ok_or_else(missing)?;
            if pieces::name(&piece) != name {
                return Err(refuse(RecordError::Piece));
            }
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).map_err(|_| refuse(RecordError::Text))
    }

    fn page(&mut self, after: Option<&DocumentId>, max: usize) -> Result<Page, KvKnowledgeError> {
        if after.is_none() {
            let newest = self.newest()?;
            self.changes.see(newest);
        }
        let mut page = Page { revision: self.changes.seen(), ..Page::default() };
        let mut from = match after {
            Some(after) => Bound::Excluded(document_key(after)),
            None => Bound::Included(DOCUMENTS.to_vec()),
        };
        loop {
            let room = max - page.documents.len();
            let (entries, next) =
                self.cells.range(DOCUMENTS, &from, room).map_err(KvKnowledgeError::Store)?;
            for (key, value, revision) in entries {
                // A record that cannot be decoded is listed, so that its reading reports the error.
                if let Some(document) = document_of(&key).filter(|_| !is_removal(&value)) {
                    page.documents.push((document, revision));
                }
            }
            match next {
                None => {
                    page.is_last = true;
                    return Ok(page);
                }
                Some(_) if page.documents.len() >= max => return Ok(page),
                Some(next) => from = Bound::Included(next),
            }
        }
    }

    /// The greatest revision of any record, those of removals included.
    fn newest(&self) -> Result<u64, KvKnowledgeError> {
        let (mut from, mut newest) = (Bound::Included(DOCUMENTS.to_vec()), 0);
        loop {
            let (entries, next) =
                self.cells.range(DOCUMENTS, &from, usize::MAX).map_err(KvKnowledgeError::Store)?;
            newest = entries.iter().map(|(.., revision)| *revision).fold(newest, u64::max);
            let Some(next) = next else { return Ok(newest) };
            from = Bound::Included(next);
        }
    }

    fn key(&self, document: &DocumentId) -> Result<Vec<u8>, KvKnowledgeError> {
        let (len, len_max) = (document.as_str().len(), self.cells.key_len_max() - DOCUMENTS.len());
        if len == 0 || len > len_max {
            return Err(KvKnowledgeError::DocumentName { len, len_max });
        }
        Ok(document_key(document))
    }
}

impl KnowledgeStore for KvKnowledge {
    fn put(&mut self, document: &DocumentId, content: Document) -> Result<u64, StoreError> {
        self.write(document, &content).map_err(StoreError::new)
    }

    fn remove(&mut self, document: &DocumentId) -> Result<Option<u64>, StoreError> {
        self.withdraw(document).map_err(StoreError::new)
    }

    fn read(&mut self, document: &DocumentId) -> Result<Option<(u64, Document)>, StoreError> {
        self.fetch(document).map_err(|error| match error {
            late @ KvKnowledgeError::BlobLate { .. } => StoreError::late(late),
            error => StoreError::new(error),
        })
    }

    fn list(&mut self, after: Option<&DocumentId>, max: usize) -> Result<Page, StoreError> {
        self.page(after, max.max(1)).map_err(StoreError::new)
    }

    fn poll_change(&mut self) -> Option<Change> {
        if let Some(change) = self.changes.poll(&*self.cells) {
            return Some(change);
        }
        let document = self.long_texts.poll(self.changes.waker())?;
        Some(Change::Changed { document, revision: self.changes.returned() })
    }
}

impl std::fmt::Debug for KvKnowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvKnowledge").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn keyspace(name: &str) -> String {
    format!("x0-ml/{name}")
}

fn cells(store: &Store, name: &str, kind: CollectionKind) -> Result<Box<dyn Cells>, KvKnowledgeError> {
    let keyspace = keyspace(name);
    Ok(match kind {
        CollectionKind::Linearizable => {
            Box::new(LinearizableCells::new(store, &keyspace).map_err(KvKnowledgeError::Name)?)
        }
        CollectionKind::Crdt => {
            let crdt = store.crdt().map_err(|_| KvKnowledgeError::NoCrdt)?;
            Box::new(CrdtCells(crdt.keyspace(&keyspace).map_err(KvKnowledgeError::Name)?))
        }
    })
}

/// Whether this node knows the collection in this store.
fn has_meta(cells: &dyn Cells, name: &str) -> Result<bool, KvKnowledgeError> {
    let meta = match cells.get(META) {
        Err(OperationError::KeyspaceMissing) => return Ok(false),
        meta => meta.map_err(KvKnowledgeError::Store)?,
    };
    match meta.as_ref().map(|(value, _)| value.first().copied().unwrap_or_default()) {
        None => Ok(false),
        Some(VERSION) => Ok(true),
        Some(found) => Err(KvKnowledgeError::Version { name: name.to_owned(), found }),
    }
}

fn document_key(document: &DocumentId) -> Vec<u8> {
    [DOCUMENTS, document.as_str().as_bytes()].concat()
}

fn piece_key(name: &[u8; 32]) -> Vec<u8> {
    [PIECES, name].concat()
}

fn document_of(key: &Bytes) -> Option<DocumentId> {
    let name = std::str::from_utf8(key.strip_prefix(DOCUMENTS)?).ok()?;
    Some(DocumentId::new(name))
}

fn is_removal(value: &[u8]) -> bool {
    Record::decode(value).is_ok_and(|record| record.body == Body::Removed)
}

fn store_error(error: OperationError) -> StoreError {
    StoreError::new(KvKnowledgeError::Store(error))
}
