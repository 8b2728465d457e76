//! Beside the crate `crdts`: what goes there and comes back, the same histories on both, and the history on
//! which its map diverges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "compat/map.rs"]
mod map;
#[path = "compat/oracle.rs"]
mod oracle;
#[allow(dead_code, reason = "the laws use more of it")]
#[path = "laws/random.rs"]
mod random;
#[path = "compat/round_trip.rs"]
mod round_trip;
