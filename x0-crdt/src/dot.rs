//! [`ReplicaId`] and [`Dot`]: the names of writers and of their events.

use core::fmt;

use crate::codec::{ByteReader, Canonical, DecodeError};

/// A writer: one incarnation of one node.
///
/// Events are counted per writer, so no two processes may ever write under one ID. A node that may lose its
/// last events in a crash takes a fresh incarnation at each boot; a node that makes its events durable before
/// a delta leaves may keep its incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId {
    /// The node.
    pub node: u64,
    /// The incarnation of the node, from 0.
    pub incarnation: u32,
}

impl ReplicaId {
    /// The first incarnation of `node`.
    #[must_use]
    pub const fn new(node: u64) -> Self {
        Self { node, incarnation: 0 }
    }

    /// A given incarnation of `node`.
    #[must_use]
    pub const fn with_incarnation(node: u64, incarnation: u32) -> Self {
        Self { node, incarnation }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.node, self.incarnation)
    }
}

impl Canonical for ReplicaId {
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        out.extend_from_slice(&self.node.to_be_bytes());
        self.incarnation.encode(out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let node = u64::from_be_bytes(input.array("a replica")?);
        Ok(Self { node, incarnation: u32::decode(input)? })
    }
}

/// The name of one event: the `seq`-th of `replica`, counted from 1 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The writer.
    pub replica: ReplicaId,
    /// The event's number, from 1.
    pub seq: u64,
}

impl Dot {
    /// The `seq`-th event of `replica`.
    #[must_use]
    pub const fn new(replica: ReplicaId, seq: u64) -> Self {
        Self { replica, seq }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replica, self.seq)
    }
}

impl Canonical for Dot {
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        self.replica.encode(out);
        self.seq.encode(out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let replica = ReplicaId::decode(input)?;
        let seq = u64::decode(input)?;
        if seq == 0 {
            return Err(DecodeError::Range { what: "the number of an event" });
        }
        Ok(Self { replica, seq })
    }
}
