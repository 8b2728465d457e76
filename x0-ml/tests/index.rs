//! Indexes against the exact one: recall, changes, determinism, files, searches beside the writer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

#[path = "index/changes.rs"]
mod changes;
#[path = "index/concurrent.rs"]
mod concurrent;
#[path = "index/damage.rs"]
mod damage;
#[path = "index/filters.rs"]
mod filters;
#[cfg(feature = "hnsw_rs")]
#[path = "index/hnsw_rs.rs"]
mod hnsw_rs;
#[path = "index/random.rs"]
mod random;
#[path = "index/samples.rs"]
mod samples;
#[path = "index/sections.rs"]
mod sections;
#[path = "index/support.rs"]
mod support;
