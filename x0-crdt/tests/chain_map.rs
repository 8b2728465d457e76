//! Chains beside maps: reviews, sessions and a network that loses, in virtual time, with writers that lie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

#[path = "chain_map/claims.rs"]
mod claims;
#[path = "chain_map/costs.rs"]
mod costs;
#[path = "chain_map/equivocation.rs"]
mod equivocation;
#[path = "chain_map/fuzz.rs"]
mod fuzz;
#[path = "chain_map/garbage.rs"]
mod garbage;
#[path = "chain_map/honest.rs"]
mod honest;
#[path = "chain/keys.rs"]
#[allow(dead_code, reason = "shared with the tests of chains alone")]
mod keys;
#[path = "chain_map/net.rs"]
mod net;

/// Seeds to try: as many as `X0_CRDT_SEEDS` says; `X0_CRDT_SEED` is the only one.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    number("X0_CRDT_SEED").map_or(0..number("X0_CRDT_SEEDS").unwrap_or(default), |seed| seed..seed + 1)
}
