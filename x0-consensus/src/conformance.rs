//! Checks that an implementation keeps the contract of its seam (feature `conformance`).
//!
//! ```
//! use x0_consensus::{MemoryStorage, conformance};
//!
//! // A fresh, empty place for each case; each call of what it answers opens that place anew, after the one before was dropped.
//! conformance::check_storage(&mut || {
//!     let storage = MemoryStorage::new();
//!     Box::new(move || Box::new(storage.clone()))
//! })?;
//! # Ok::<(), conformance::Failure>(())
//! ```

mod storage;

pub use storage::check_storage;

/// Opens one and the same place, again and again.
pub type Open = Box<dyn FnMut() -> Box<dyn crate::Storage>>;

/// What an implementation did against the contract.
#[derive(Debug, thiserror::Error)]
#[error("{case}: {what}")]
#[non_exhaustive]
pub struct Failure {
    /// The case that noticed.
    pub case: &'static str,
    /// What was expected, and what came.
    pub what: String,
}
