//! [`Statement`]: the signed link of a chain, from one head over some events to the next head.

use alloc::vec::Vec;

use super::digest::Digest;
use super::error::ChainDecodeError;
use super::{BATCH_LEN_MAX, CONTEXT};
use crate::ReplicaId;
use crate::codec::ByteReader;

/// The end of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head {
    /// The last sequence number it covers; 0 before the first event.
    pub seq: u64,
    /// The hash of everything up to there. Equal heads have equal histories.
    pub digest: Digest,
}

impl Head {
    /// The head of a chain without events.
    pub const GENESIS: Self = Self { seq: 0, digest: Digest::GENESIS };
}

/// The signed part of a [`Checkpoint`](super::Checkpoint): "after `previous`, my next `count` events have
/// this root".
///
/// An honest writer's statements tile its sequence numbers: they neither overlap nor contradict each other's
/// heads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Statement {
    writer: ReplicaId,
    previous: Head,
    count: u16,
    root: Digest,
}

impl Statement {
    /// Bytes of a statement.
    pub const LEN: usize = 8 + 4 + 8 + Digest::LEN + 2 + Digest::LEN;

    /// Checks what must hold for any statement of any writer.
    pub(super) fn new(
        writer: ReplicaId,
        previous: Head,
        count: u16,
        root: Digest,
    ) -> Result<Self, ChainDecodeError> {
        if count == 0 || usize::from(count) > BATCH_LEN_MAX {
            return Err(ChainDecodeError::Count(count));
        }
        if previous.seq.checked_add(u64::from(count)).is_none() {
            return Err(ChainDecodeError::Sequence);
        }
        // One spelling of the beginning: otherwise two first statements could differ in a field that means
        // nothing.
        if previous.seq == 0 && previous.digest != Digest::GENESIS {
            return Err(ChainDecodeError::Genesis);
        }
        Ok(Self { writer, previous, count, root })
    }

    /// The writer that signs it.
    #[must_use]
    pub fn writer(&self) -> ReplicaId {
        self.writer
    }

    /// The end of the chain before it.
    #[must_use]
    pub fn previous(&self) -> Head {
        self.previous
    }

    /// How many events it covers.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The last sequence number it covers. The first one is `previous().seq + 1`.
    #[must_use]
    pub fn seq(&self) -> u64 {
        // `new` has checked that this does not overflow.
        self.previous.seq.wrapping_add(u64::from(self.count))
    }

    /// The Merkle root over the digests of its events.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The end of the chain after it. Costs one hash.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq(), digest: Digest::of_link(&self.to_array()) }
    }

    /// The place of `seq` among its events, from 0; `None` if it does not cover `seq`.
    #[must_use]
    pub fn index_of(&self, seq: u64) -> Option<usize> {
        let offset = seq.checked_sub(self.previous.seq)?.checked_sub(1)?;
        (offset < u64::from(self.count)).then(|| usize::try_from(offset).ok()).flatten()
    }

    /// Whether no honest writer signs both: they are of one writer, differ, and cover a common event, or one
    /// follows the other but not from its head.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        if self.writer != other.writer || self == other {
            return false;
        }
        let overlap = self.previous.seq < other.seq() && other.previous.seq < self.seq();
        let broken =
            |first: &Self, next: &Self| first.seq() == next.previous.seq && first.head() != next.previous;
        overlap || broken(self, other) || broken(other, self)
    }

    /// The bytes that are signed: the context `x0-crdt chain checkpoint v1\0` and the statement.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        [CONTEXT, &self.to_array()].concat()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_array(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields: [&[u8]; 6] = [
            &self.writer.node.to_be_bytes(),
            &self.writer.incarnation.to_be_bytes(),
            &self.previous.seq.to_be_bytes(),
            &self.previous.digest.0,
            &self.count.to_be_bytes(),
            &self.root.0,
        ];
        for (place, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    pub(super) fn read(input: &mut ByteReader<'_>) -> Result<Self, ChainDecodeError> {
        const WHAT: &str = "a statement";
        let node = u64::from_be_bytes(input.array(WHAT)?);
        let writer = ReplicaId::with_incarnation(node, u32::from_be_bytes(input.array(WHAT)?));
        let seq = u64::from_be_bytes(input.array(WHAT)?);
        let previous = Head { seq, digest: Digest(input.array(WHAT)?) };
        let count = u16::from_be_bytes(input.array(WHAT)?);
        Self::new(writer, previous, count, Digest(input.array(WHAT)?))
    }
}
