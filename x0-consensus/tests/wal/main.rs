//! The write-ahead log under all faults.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy does not recognise the helpers as tests"
)]

mod conformance;
mod crash;
mod damage;
mod format;
mod model;
mod mutation;
mod origin;
mod process;
mod support;
