//! Groups of replicas in virtual time, with everything that can happen to them, under invariants that are checked at each step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; the helpers among them are not told from other code"
)]

mod cluster;
mod disk;
mod election;
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
