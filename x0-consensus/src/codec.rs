//! The bytes that replicas send each other.
//!
//! The encoding is this crate's own. `raft` 0.7 brings protobuf 2, whose decoder can be driven into unbounded recursion
//! (RUSTSEC-2024-0437); it is never called on anything that comes from a network or a disk. Raft's messages are built
//! here field by field, every length is checked against what is left of the message before anything is allocated, and
//! payloads are slices of the message they came in.
//!
//! A message is a version byte, a kind byte and the fields of the kind. Integers are LEB128, at most ten bytes.

mod fields;
mod membership;
mod message;
#[cfg(test)]
mod tests;
mod transfer;

pub(crate) use self::fields::{Fields, put_bytes, put_u64};
pub(crate) use self::membership::{decode_change, decode_membership, encode_change, encode_membership};
pub(crate) use self::message::{decode_raft, encode_raft, from_raft_entry, to_raft_entry};
pub(crate) use self::transfer::{Acknowledge, Chunk, Verdict};

/// The version this crate writes and understands.
pub const MESSAGE_VERSION: u8 = 1;
/// Longest message, in bytes. A receiver refuses more before it looks inside.
pub const MESSAGE_LEN_MAX: usize = 16 << 20;
/// Longest payload of one entry, in bytes.
pub const PAYLOAD_LEN_MAX: usize = 8 << 20;
/// Longest piece of a snapshot, in bytes.
pub(crate) const CHUNK_LEN_MAX: usize = Chunk::LEN_MAX;

/// What the kind byte of a message says.
pub(crate) mod kind {
    /// A message of Raft itself.
    pub(crate) const RAFT: u8 = 1;
    /// A piece of a snapshot.
    pub(crate) const CHUNK: u8 = 2;
    /// How far a snapshot has arrived.
    pub(crate) const ACKNOWLEDGE: u8 = 3;
}

/// Why bytes are not a message, or not an entry. Nothing was changed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They end too early.
    #[error("the message ends within its {field}")]
    Truncated {
        /// What was being read.
        field: &'static str,
    },
    /// They go on after the end.
    #[error("{extra} bytes follow the end of the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The version is one that this crate does not know.
    #[error("message version {found} is not known, only {MESSAGE_VERSION}: the peer runs another version")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A field holds what it must not.
    #[error("the {field} of the message is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// A length is beyond its bound.
    #[error("the {field} of the message is {len} long, at most {max} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        len: u64,
        /// The bound.
        max: u64,
    },
}
