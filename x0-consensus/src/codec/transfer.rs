//! The pieces of a snapshot on its way, and their acknowledgements.

use bytes::Bytes;

use super::{
    DecodeError, Fields, MESSAGE_VERSION, decode_membership, encode_membership, kind, put_bytes, put_u64,
};
use crate::entry::SnapshotMeta;

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The term of the leader that sends it.
    pub(crate) term: u64,
    /// Tells this attempt from others, by the same leader or an earlier one.
    pub(crate) transfer: u64,
    /// Which piece, from 0.
    pub(crate) number: u64,
    /// Whether it is the last.
    pub(crate) last: bool,
    /// Where in the log the snapshot was taken.
    pub(crate) position: SnapshotMeta,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// How far a snapshot has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledge {
    pub(crate) term: u64,
    pub(crate) transfer: u64,
    /// The number of the piece that is wanted next: all before it have arrived.
    pub(crate) next: u64,
    /// How the receiver stands to the transfer.
    pub(crate) verdict: Verdict,
}

/// How a receiver stands to a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Wanted,
    /// The snapshot is durable at the receiver, or not needed any more.
    Done,
    /// The receiver cannot take it.
    Failed,
}

impl Chunk {
    /// Longest chunk of bytes that is accepted.
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
