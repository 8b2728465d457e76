//! Numbers that differ from one start to the next.

/// Another number at each call, from the system's randomness.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
