//! The encoding of the chunks of a snapshot and their acknowledgements.

use bytes::Bytes;

use super::{
    DecodeError, Fields, MESSAGE_VERSION, decode_membership, encode_membership, kind, put_bytes, put_u64,
};
use crate::entry::SnapshotMeta;

/// A chunk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The term of the leader that sends it.
    pub(crate) term: u64,
    /// The number of the transfer, which distinguishes it from others of the same leader.
    pub(crate) transfer: u64,
    /// The number of the chunk, from 0.
    pub(crate) number: u64,
    /// Whether it is the last chunk.
    pub(crate) last: bool,
    /// The state that the snapshot holds.
    pub(crate) position: SnapshotMeta,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// The acknowledgement of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledge {
    pub(crate) term: u64,
    pub(crate) transfer: u64,
    /// The number of the next chunk: all before it have arrived.
    pub(crate) next: u64,
    /// The state of the transfer at the receiver.
    pub(crate) verdict: Verdict,
}

/// The state of a transfer at its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The receiver needs further chunks.
    Wanted,
    /// The snapshot is durable at the receiver, or no longer needed.
    Done,
    /// The receiver cannot store it.
    Failed,
}

impl Chunk {
    /// The longest chunk that is accepted, in bytes.
    pub(crate) const LEN_MAX: usize = 1 << 20;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(128 + self.bytes.len());
        to.extend([MESSAGE_VERSION, kind::CHUNK]);
        for field in [self.term, self.transfer, self.number, self.position.index, self.position.term] {
            put_u64(&mut to, field);
        }
        to.push(u8::from(self.last));
        encode_membership(&mut to, &self.position.membership);
        put_bytes(&mut to, &self.bytes);
        to
    }

    pub(crate) fn decode(from: &mut Fields) -> Result<Chunk, DecodeError> {
        let (term, transfer, number) = (from.u64("term")?, from.u64("transfer")?, from.u64("chunk number")?);
        let (index, position_term) = (from.u64("snapshot index")?, from.u64("snapshot term")?);
        let last = from.bool("end flag")?;
        let membership = decode_membership(from)?;
        if index == 0 || position_term == 0 || position_term > term || !membership.is_consistent() {
            return Err(DecodeError::Invalid { field: "snapshot position" });
        }
        let position = SnapshotMeta { index, term: position_term, membership };
        Ok(Chunk { term, transfer, number, last, position, bytes: from.bytes("chunk", Chunk::LEN_MAX)? })
    }
}

impl Acknowledge {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = vec![MESSAGE_VERSION, kind::ACKNOWLEDGE];
        for field in [self.term, self.transfer, self.next] {
            put_u64(&mut to, field);
        }
        to.push(match self.verdict {
            Verdict::Wanted => 0,
            Verdict::Done => 1,
            Verdict::Failed => 2,
        });
        to
    }

    pub(crate) fn decode(from: &mut Fields) -> Result<Acknowledge, DecodeError> {
        Ok(Acknowledge {
            term: from.u64("term")?,
            transfer: from.u64("transfer")?,
            next: from.u64("chunk number")?,
            verdict: match from.u8("verdict")? {
                0 => Verdict::Wanted,
                1 => Verdict::Done,
                2 => Verdict::Failed,
                _ => return Err(DecodeError::Invalid { field: "verdict" }),
            },
        })
    }
}
