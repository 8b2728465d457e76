//! The engine and its driver: changes, restarts, crashes at every operation, damage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

#[path = "knowledge/crash.rs"]
mod crash;
#[path = "knowledge/engine.rs"]
mod engine;
#[path = "knowledge/folder.rs"]
mod folder;
#[path = "knowledge/life.rs"]
mod life;
#[path = "index/random.rs"]
mod random;
#[path = "knowledge/saving.rs"]
mod saving;
#[path = "knowledge/searcher.rs"]
mod searcher;
#[path = "index/sections.rs"]
mod sections;
#[path = "knowledge/support.rs"]
mod support;
#[path = "knowledge/vectors.rs"]
mod vectors;
#[path = "knowledge/withdrawn.rs"]
mod withdrawn;
