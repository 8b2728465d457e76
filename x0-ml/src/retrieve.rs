//! Lists of neighbours, made into an answer.
//!
//! ```
//! use x0_ml::index::{Neighbour, VectorId};
//! use x0_ml::retrieve::{Fusion, fuse};
//!
//! let near = |ids: &[u64]| ids.iter().map(|id| Neighbour { id: VectorId(*id), score: 1.0 }).collect::<Vec<_>>();
//! let (dense, lexical) = (near(&[1, 2, 3]), near(&[3, 1]));
//! let fused = fuse(&dense, &lexical, Fusion::default());
//! assert_eq!(fused[0].id, VectorId(1));
//! assert_eq!((fused[0].rank_dense, fused[0].rank_lexical), (Some(1), Some(2)));
//! ```

mod diversity;
mod fusion;
mod hit;
mod passage;
mod passing;
mod retriever;

pub use diversity::{RerankError, Reranker, maximal_marginal_relevance};
pub use fusion::{Fused, Fusion, fuse};
pub use hit::Hit;
pub use passage::{Document, DocumentId, DocumentPredicate, PassageFilter, Passages, Place};
pub(crate) use passage::{Held, Known};
pub use retriever::{Mode, Query, QueryError, Retriever};
