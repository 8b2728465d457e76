//! Faulty worlds, deterministic and under control (feature `sim`).

mod directory;

pub use directory::{Fault, SimDirectory, Unsynced};
