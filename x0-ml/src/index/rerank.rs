//! The source of the exact vectors for the last ranking.

use std::fmt;
use std::sync::Arc;

use super::vector::VectorId;

/// Source of the `f32` vectors by which the best `4 * k` of a walk are ranked.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Rerank {
    /// The index keeps them: 4 bytes a dimension.
    #[default]
    Memory,
    /// The driver reads them, from a file for instance.
    Source(Arc<dyn VectorSource>),
    /// The ranking of the walk stays, with scores from 8-bit codes.
    None,
}

impl fmt::Debug for Rerank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "Memory",
            Self::Source(_) => "Source",
            Self::None => "None",
        })
    }
}

/// Reads vectors for [`Rerank::Source`].
pub trait VectorSource: Send + Sync {
    /// Writes the vector that was inserted under `id` to `vector`, which has the index's dimensions.
    ///
    /// # Errors
    /// [`SourceError`]; the search then fails with it.
    fn read(&self, id: VectorId, vector: &mut [f32]) -> Result<(), SourceError>;
}

/// A vector could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the vector {id} cannot be read for the exact ranking")]
pub struct SourceError {
    /// The vector.
    pub id: VectorId,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}
