//! Groups of replicas in virtual time, under all faults, with invariants that are checked at each step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy does not recognise the helpers as tests"
)]

mod catch_up;
mod cluster;
mod disk;
mod election;
mod incarnations;
mod invariants;
mod machine;
mod membership;
mod network;
mod planted;
mod proposals;
mod random;
mod reads;
mod recovery;
mod snapshots;
