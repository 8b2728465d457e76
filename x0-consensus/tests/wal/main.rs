//! The write-ahead log under everything that can happen to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; the helpers among them are not told from other code"
)]

mod conformance;
mod crash;
mod damage;
mod format;
mod model;
mod mutation;
mod process;
mod support;
