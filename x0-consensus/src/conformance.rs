//! Checks that an implementation of [`Storage`](crate::Storage) keeps its contract (feature `conformance`).
//!
//! ```
//! use x0_consensus::{MemoryStorage, conformance};
//!
//! // A new, empty storage for each case. Each call of the inner closure opens that storage again, after the previous handle was dropped.
//! conformance::check_storage(&mut || {
//!     let storage = MemoryStorage::new();
//!     Box::new(move || Box::new(storage.clone()))
//! })?;
//! # Ok::<(), conformance::Failure>(())
//! ```

mod storage;

pub use storage::check_storage;

/// Opens the same storage each time.
pub type Open = Box<dyn FnMut() -> Box<dyn crate::Storage>>;

/// An implementation violates the contract.
#[derive(Debug, thiserror::Error)]
#[error("{case}: {what}")]
#[non_exhaustive]
pub struct Failure {
    /// The case that failed.
    pub case: &'static str,
    /// The expected and the actual result.
    pub what: String,
}
