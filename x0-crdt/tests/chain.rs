//! The chain of a writer against everything that may happen to it: tampering, loss, restarts, and writers
//! that equivocate.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "chain/decoders.rs"]
mod decoders;
#[path = "chain/equivocation.rs"]
mod equivocation;
#[path = "chain/fuzz.rs"]
mod fuzz;
#[path = "chain/honest.rs"]
mod honest;
#[path = "chain/keys.rs"]
mod keys;
#[path = "chain/restart.rs"]
mod restart;
#[path = "chain/tamper.rs"]
mod tamper;
#[path = "chain/tracker.rs"]
mod tracker;
