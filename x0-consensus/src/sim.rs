//! A deterministic disk with planted faults (feature `sim`).

mod directory;

pub use crate::random::SplitMix64;
pub use directory::{Fault, SimDirectory, Unsynced};

impl SplitMix64 {
    /// `true` in this many of a thousand cases.
    pub fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }
}
