//! The keys under which chains travel in the map.

use alloc::vec::Vec;

use crate::ReplicaId;

/// The prefix of all keys that belong to signed chains. A [`SignedMap`](crate::SignedMap) drops every other
/// entry under it.
pub const CHAIN_PREFIX: &[u8] = b"\0chain/";

/// A reserved key. In the order in which a review takes them: a proof settles what follows, and batches lead
/// up to the head.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ChainKey {
    /// The proof that a writer equivocates. Any replica may write it.
    Proof(ReplicaId),
    /// A signed batch of a writer's events after a number. Its node writes it.
    Batch(ReplicaId, u64),
    /// The last checkpoint of a writer. Its node writes it. The key never changes, so that replicas that hold
    /// two chains of a writer always differ at it.
    Head(ReplicaId),
    /// Checkpoints of the first replica that the second has seen and now misses. The second writes it.
    Evidence(ReplicaId, ReplicaId),
}

impl ChainKey {
    pub(super) fn to_key(self) -> Vec<u8> {
        let mut key = CHAIN_PREFIX.to_vec();
        let mut put = |kind: u8, writer: ReplicaId| {
            key.push(kind);
            put_replica(writer, &mut key);
        };
        match self {
            Self::Proof(writer) => put(b'p', writer),
            Self::Head(writer) => put(b'h', writer),
            Self::Batch(writer, begin) => {
                put(b'b', writer);
                key.extend_from_slice(&begin.to_be_bytes());
            }
            Self::Evidence(writer, by) => {
                put(b't', writer);
                put_replica(by, &mut key);
            }
        }
        key
    }

    /// Parses a key; `None` if it is none of these.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.strip_prefix(CHAIN_PREFIX)?.split_first()?;
        let (writer, rest) = take_replica(rest)?;
        let parsed = match kind {
            b'p' if rest.is_empty() => Self::Proof(writer),
            b'h' if rest.is_empty() => Self::Head(writer),
            b'b' => Self::Batch(writer, u64::from_be_bytes(rest.try_into().ok()?)),
            b't' => {
                let (by, rest) = take_replica(rest)?;
                rest.is_empty().then_some(Self::Evidence(writer, by))?
            }
            _ => return None,
        };
        Some(parsed)
    }

    /// The writer whose chain the entry is about.
    pub(super) fn writer(self) -> ReplicaId {
        match self {
            Self::Proof(writer) | Self::Batch(writer, _) | Self::Head(writer) | Self::Evidence(writer, _) => {
                writer
            }
        }
    }

    /// Whether `author` may write there. Entries of other authors are dropped, so that no replica can fill
    /// the keys of another one.
    pub(super) fn admits(self, author: ReplicaId) -> bool {
        match self {
            Self::Proof(_) => true,
            Self::Batch(writer, _) | Self::Head(writer) => author.node == writer.node,
            Self::Evidence(_, by) => author == by,
        }
    }
}

/// Whether a key belongs to chains.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(CHAIN_PREFIX)
}

fn put_replica(replica: ReplicaId, key: &mut Vec<u8>) {
    key.extend_from_slice(&replica.node.to_be_bytes());
    key.extend_from_slice(&replica.incarnation.to_be_bytes());
}

fn take_replica(bytes: &[u8]) -> Option<(ReplicaId, &[u8])> {
    let (node, rest) = bytes.split_first_chunk()?;
    let (incarnation, rest) = rest.split_first_chunk()?;
    let replica = ReplicaId::with_incarnation(u64::from_be_bytes(*node), u32::from_be_bytes(*incarnation));
    Some((replica, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_nothing_else_does() {
        let (a, b) = (ReplicaId::with_incarnation(1, 2), ReplicaId::with_incarnation(u64::MAX, 0));
        let keys = [ChainKey::Proof(a), ChainKey::Batch(a, 300), ChainKey::Head(b), ChainKey::Evidence(a, b)];
        for key in keys {
            let bytes = key.to_key();
            assert_eq!(ChainKey::parse(&bytes), Some(key));
            assert!(is_reserved(&bytes));
            for len in 0..bytes.len() {
                // The shorter form of one kind must not be another.
                assert_eq!(ChainKey::parse(&bytes[..len]), None, "{key:?}");
            }
            assert_eq!(ChainKey::parse(&[&bytes[..], b"x"].concat()), None);
        }
    }
}
