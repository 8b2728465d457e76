//! The example `sensors`: a use of the loop that has nothing to do with the rest of the family.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../examples/sensors.rs"]
mod sensors;

use sensors::{Way, day};

/// Few packets are lost, at little more than half of the energy of full power, and at no fixed power of the
/// same energy are as few quarter hours above the goal.
#[test]
fn the_loop_keeps_the_goal_at_less_energy_than_a_fixed_power() {
    for seed in 1..=5 {
        let healed = day(seed, Way::Loop).unwrap();
        let full = day(seed, Way::Fixed(15)).unwrap();
        assert!(healed.loss < 0.1 && healed.energy < 0.7 * full.energy, "seed {seed}: {healed:?}");
        for power in 1..=15 {
            let fixed = day(seed, Way::Fixed(power)).unwrap();
            let is_better = fixed.energy <= healed.energy && fixed.above_goal <= healed.above_goal;
            assert!(!is_better, "seed {seed}, power {power}: {fixed:?} beside {healed:?}");
        }
        assert!(healed.changes.0 > 0 && full.changes == (0, 0));
    }
}
