//! An entry of an answer.

use std::ops::Range;

use super::passage::DocumentId;
use crate::chunk::ChunkId;

/// A passage that answers a query, with what is needed to cite it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The document.
    pub document: DocumentId,
    /// The passage's bytes in the document; overlapping chunks of one document are one passage.
    pub span: Range<usize>,
    /// Revision of the document.
    pub revision: u64,
    /// The best chunk of the passage.
    pub chunk: ChunkId,
    /// The score of the fused ranking; greater is better.
    pub score: f32,
    /// Rank of the chunk in the dense list, from 1.
    pub rank_dense: Option<usize>,
    /// Rank of the chunk in the lexical list, from 1.
    pub rank_lexical: Option<usize>,
    /// Other documents with nearly the same passage that rank above the last hit of the answer, the best
    /// first. The answer does not cite them itself.
    pub alike: Vec<DocumentId>,
}
