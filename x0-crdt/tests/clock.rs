//! The hybrid logical clock against plain integers, under physical clocks that jump, and what a register
//! makes of its stamps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "clock/bounds.rs"]
mod bounds;
#[path = "clock/jumps.rs"]
mod jumps;
#[path = "clock/quarantine.rs"]
mod quarantine;
#[allow(dead_code, reason = "the laws use more of it")]
#[path = "laws/random.rs"]
mod random;
