//! The trace of a run: a hash that differs between two runs that differ.

use super::random::mix;

/// A hash of everything that happened, in its order.
#[derive(Debug, Default)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn note(&mut self, what: u64, number: u64) {
        self.0 =
            mix(self.0.rotate_left(17) ^ mix(what).wrapping_add(number).wrapping_add(0x9e37_79b9_7f4a_7c15));
    }

    pub(super) fn note_bytes(&mut self, what: u64, bytes: &[u8]) {
        self.note(what, u64::from(crc32c::crc32c(bytes)) << 32 | bytes.len() as u64);
    }

    pub(super) fn hash(&self) -> u64 {
        self.0
    }
}
