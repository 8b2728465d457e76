//! SHA-256 with a tag per use, so that no hash can stand for one of another kind.

use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::ReplicaId;

const EVENT: &[u8] = b"x0-crdt chain event v1\0";
const NODE: &[u8] = b"x0-crdt chain node v1\0";
const LINK: &[u8] = b"x0-crdt chain link v1\0";
const STATE: &[u8] = b"x0-crdt chain state v1\0";

/// A SHA-256 hash (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Bytes of a digest.
    pub const LEN: usize = 32;

    /// The head of a chain on which nothing stands yet.
    pub const GENESIS: Self = Self([0; 32]);

    /// The digest of one event. ReplicaId and sequence number are hashed with the bytes, so an event cannot
    /// be moved to another dot. The length of `event` is not bounded here; see
    /// [`EVENT_LEN_MAX`](super::EVENT_LEN_MAX).
    #[must_use]
    pub fn of_event(writer: ReplicaId, seq: u64, event: &[u8]) -> Self {
        hash(&[
            EVENT,
            &writer.node.to_be_bytes(),
            &writer.incarnation.to_be_bytes(),
            &seq.to_be_bytes(),
            event,
        ])
    }

    /// The digest of a value of the map: of the event whose bytes are a 1, the time, the length of the key in
    /// four bytes, the key and the value.
    pub(super) fn of_value(writer: ReplicaId, seq: u64, key: &[u8], time: u64, value: &[u8]) -> Self {
        // Keys have at most `KEY_LEN_MAX` bytes.
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        hash(&[
            EVENT,
            &writer.node.to_be_bytes(),
            &writer.incarnation.to_be_bytes(),
            &seq.to_be_bytes(),
            &[1],
            &time.to_be_bytes(),
            &len.to_be_bytes(),
            key,
            value,
        ])
    }

    pub(super) fn of_node(left: Self, right: Self) -> Self {
        hash(&[NODE, &left.0, &right.0])
    }

    /// The chain's head after a statement: it covers the head before, the span and the root, so two equal
    /// heads have one history.
    pub(super) fn of_link(statement: &[u8]) -> Self {
        hash(&[LINK, statement])
    }

    pub(super) fn of_state(state: &[u8]) -> Self {
        hash(&[STATE, state])
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits distinguish two digests in a log line.
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    Digest(sha.finalize().into())
}
