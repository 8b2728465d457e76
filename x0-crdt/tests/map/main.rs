//! [`CausalMap`](x0_crdt::CausalMap) against a model that knows every event: what is held, how it is told, and that nothing comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod format;
mod model;
mod random;

use model::World;
use random::Random;

/// Seeds to try: many more with `X0_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn replicas_hold_what_the_model_says_after_any_history() {
    for seed in 0..seeds(3_000) {
        let mut random = Random::new(seed);
        let mut world = World::new(2 + random.below(3), random.below(2) == 0);
        for _ in 0..4 + random.below(40) {
            world.step(&mut random);
        }
        world.check(seed);
        world.converge(&mut random);
        world.check(seed);
        world.check_converged(seed);
    }
}
