//! [`Versions`]: the versions that the two sides of a session may name by their hash.

use alloc::collections::VecDeque;

use crate::Version;

/// How many are kept: enough for the versions of both sides over the last few exchanges.
const KEPT: usize = 8;

/// The versions seen last.
#[derive(Debug, Default)]
pub(super) struct Versions {
    met: VecDeque<(u64, Version)>,
}

impl Versions {
    pub(super) fn insert(&mut self, hash: u64, version: Version) {
        self.met.retain(|(old, _)| *old != hash);
        self.met.push_back((hash, version));
        if self.met.len() > KEPT {
            self.met.pop_front();
        }
    }

    pub(super) fn get(&self, hash: u64) -> Option<&Version> {
        self.met.iter().find(|(met, _)| *met == hash).map(|(_, version)| version)
    }
}
