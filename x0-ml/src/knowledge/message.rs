//! Inputs and outputs of the protocol engine.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{Chunk, ChunkId};
use crate::index::VectorId;
use crate::retrieve::{Document, DocumentId};

/// An input of [`Knowledge::handle`](super::Knowledge::handle).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// The store reports a new or changed document. Revisions of these inputs ascend.
    Changed {
        /// The document.
        document: DocumentId,
        /// The revision of the change.
        revision: u64,
    },
    /// The store reports that a document was removed.
    Removed {
        /// The document.
        document: DocumentId,
        /// The revision of the removal.
        revision: u64,
    },
    /// Changes may have been missed: the whole store is compared by revisions.
    Rescan,
    /// Answer to [`Output::List`]: documents after the asked one, in the order of their names.
    Listed {
        /// Documents and their revisions.
        page: Vec<(DocumentId, u64)>,
        /// No document follows.
        is_last: bool,
        /// The store's revision when the page was read.
        revision: u64,
    },
    /// Answer to [`Output::Read`].
    Read {
        /// The document.
        document: DocumentId,
        /// Revision and content of the document; `None` if the store does not hold it.
        found: Option<(u64, Document)>,
    },
    /// Answer to [`Output::Chunk`].
    Chunked {
        /// The document.
        document: DocumentId,
        /// The chunks of its text.
        chunks: Vec<Chunk>,
    },
    /// Answer to [`Output::Embed`]: the vectors, one after the other.
    Embedded {
        /// The job of the output.
        job: u64,
        /// The components of all vectors.
        vectors: Vec<f32>,
    },
    /// The step that the last `Read`, `Chunk`, `Embed` or `List` asked for failed.
    Failed,
    /// The document of the last `Read` is not complete on this node yet. The store reports it again as
    /// [`Changed`](Self::Changed) when it is.
    Late,
    /// Answer to [`Output::Save`].
    Saved {
        /// Whether the state is durable.
        is_durable: bool,
    },
    /// The time of [`Knowledge::poll_timeout`](super::Knowledge::poll_timeout) came.
    Timeout,
}

/// A chunk that is not in the indexes yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    /// Number of the chunk in the indexes.
    pub id: VectorId,
    /// Name of the chunk, by which a cache holds its vector.
    pub chunk: ChunkId,
    /// The text of the document.
    pub text: Arc<str>,
    /// The chunk's bytes in it.
    pub span: Range<usize>,
}

impl NewChunk {
    /// The text of the chunk.
    #[must_use]
    pub fn content(&self) -> &str {
        self.text.get(self.span.clone()).unwrap_or("")
    }
}

/// An output of [`Knowledge::poll_output`](super::Knowledge::poll_output).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Read a page of the store's documents; answer with [`Input::Listed`].
    List {
        /// The page begins after this document.
        after: Option<DocumentId>,
        /// Documents of the page.
        max: usize,
    },
    /// Read a document; answer with [`Input::Read`].
    Read {
        /// The document.
        document: DocumentId,
    },
    /// Cut a text; answer with [`Input::Chunked`].
    Chunk {
        /// The document.
        document: DocumentId,
        /// The text of the document.
        text: Arc<str>,
    },
    /// Embed chunks, or take their vectors from a cache; answer with [`Input::Embedded`].
    Embed {
        /// Number of the job, for the answer.
        job: u64,
        /// The chunks.
        chunks: Vec<NewChunk>,
    },
    /// Insert chunks into the vector index and the lexical index. They are not cited before their document is
    /// complete.
    Insert {
        /// The chunks.
        chunks: Vec<NewChunk>,
        /// Vectors of the chunks, one after the other.
        vectors: Vec<f32>,
    },
    /// Remove chunks from both indexes.
    Remove {
        /// Numbers of the chunks.
        ids: Vec<VectorId>,
        /// Names of those whose text stands in no document any more. A cache forgets their vectors before the
        /// next [`Save`](Self::Save), unless the text comes back. Chunks of a document that is tried again
        /// are not among them.
        withdrawn: Vec<ChunkId>,
    },
    /// Publish the index to its readers: a document is complete, or removed.
    Publish,
    /// Save the indexes as they are now together with `catalogue`, durably; answer with [`Input::Saved`].
    Save {
        /// The engine's state, for [`Knowledge::restore`](super::Knowledge::restore).
        catalogue: Vec<u8>,
    },
    /// A document is left out after too many failures, or was late for too long. The document is tried again
    /// when the store reports it or at the next scan, which comes after
    /// [`rescan`](super::KnowledgeOptions::rescan).
    LeftOut {
        /// The document.
        document: DocumentId,
    },
}
