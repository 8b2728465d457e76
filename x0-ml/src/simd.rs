//! Dot products by vector instructions, with the same bits on every processor; with the feature `minilm` also
//! GELU, softmax and layer norm.
//!
//! Sums of `i8` products are integers, so their order does not matter. Sums of `f32` products run in 32
//! lanes: lane `l` adds the products at `l`, `l + 32`, `l + 64`, ... in this order, and the lanes are added
//! in halves (16 pairs, 8 pairs, ...). No path fuses a multiplication with an addition. An index that is
//! built on one processor is therefore byte for byte the one that another processor builds.
//!
//! ```
//! use x0_ml::simd::Path;
//!
//! let (a, b) = ([0.1_f32; 40], [0.7_f32; 40]);
//! let sums: Vec<u32> = Path::available().iter().map(|path| path.dot_f32(&a, &b).to_bits()).collect();
//! assert!(sums.iter().all(|sum| *sum == sums[0]));
//! ```

#[cfg(feature = "minilm")]
mod activation;
#[cfg(feature = "minilm")]
mod activation_paths;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

/// Codes of a vector for [`Path::dot_i8`] come in multiples of this length.
pub const CODES_MULTIPLE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// A set of vector instructions that this processor has.
///
/// A value exists only for instructions that were found at run time, so that every method is safe to call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Kind);

impl Path {
    /// The fastest path of this processor.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self(Kind::Scalar))
    }

    /// Every path of this processor, the fastest last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut paths = vec![Self(Kind::Scalar)];
        #[cfg(target_arch = "aarch64")]
        paths.push(Self(Kind::Neon));
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                paths.push(Self(Kind::Avx2));
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                paths.push(Self(Kind::Avx512Vnni));
            }
        }
        paths
    }

    /// The instructions' name: `scalar`, `neon`, `avx2` or `avx512-vnni`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The sum of the products of two vectors, as far as both reach.
    #[must_use]
    pub fn dot_f32(self, a: &[f32], b: &[f32]) -> f32 {
        match self.0 {
            Kind::Scalar => portable::dot_f32(a, b),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => portable::dot_f32(a, b),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::avx2_dot_f32(a, b),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => x86::avx512_dot_f32(a, b),
        }
    }

    /// The dot products of one vector of codes with each of `rows`, written to the same places of `sums`.
    ///
    /// # Panics
    /// If a length is not a multiple of [`CODES_MULTIPLE`], lengths differ, or `sums` is shorter than `rows`.
    pub fn dot_i8(self, query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
        assert!(query.len().is_multiple_of(CODES_MULTIPLE), "codes come in multiples of {CODES_MULTIPLE}");
        assert!(rows.len() <= sums.len(), "a sum for each row");
        assert!(rows.iter().all(|row| row.len() == query.len()), "rows are as long as the query");
        match self.0 {
            Kind::Scalar => portable::dot_i8(query, rows, sums),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::dot_i8(query, rows, sums),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::avx2_dot_i8(query, rows, sums),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => x86::avx512_dot_i8(query, rows, sums),
        }
    }
}

/// Asks the processor to load the values into its cache; changes nothing else.
#[inline]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(values);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({})", self.name())
    }
}
