//! Names of vectors, and how they are compared.

use std::fmt;

/// The longest vector that an index takes.
pub const DIMENSIONS_MAX: usize = 8192;

/// The caller's number of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorId(pub u64);

impl fmt::Display for VectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How vectors are compared. A score is the greater the nearer two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// The score is the inner product.
    InnerProduct,
    /// The score is the cosine of the angle. Vectors of length zero have no angle and are refused.
    Cosine,
    /// The score is the negative square of the Euclidean distance.
    L2,
}

impl Metric {
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::InnerProduct => 0,
            Self::Cosine => 1,
            Self::L2 => 2,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        [Self::InnerProduct, Self::Cosine, Self::L2].into_iter().find(|metric| metric.code() == code)
    }
}

/// A vector that a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Number of the vector.
    pub id: VectorId,
    /// Nearness to the query; see [`Metric`].
    pub score: f32,
}
