//! The encoding of the messages between replicas.
//!
//! The encoding is this crate's own. `raft` 0.7 brings protobuf 2, whose decoder can be driven into unbounded
//! recursion (RUSTSEC-2024-0437); it is never called on bytes from a network or a disk. Messages of Raft are
//! decoded here field by field, every length is checked against the rest of the message before anything is
//! allocated, and payloads are slices of the message.
//!
//! A message is a version byte, a kind byte and the fields of the kind. Integers are LEB128, at most ten
//! bytes. A message of version 2 ends with an envelope, which a replica with an incarnation adds. A message
//! of version 3 ends with the trace contexts of its entries, and with the version that it has without them.

mod contexts;
mod envelope;
mod fields;
mod hello;
mod membership;
mod message;
#[cfg(test)]
mod tests;
mod transfer;

pub(crate) use self::contexts::{CONTEXTS_MAX, seal_contexts, split_contexts};
pub(crate) use self::envelope::{ENVELOPE_VERSION, Envelope};
pub(crate) use self::fields::{Fields, put_bytes, put_u64};
pub(crate) use self::hello::Hello;
pub(crate) use self::membership::{decode_change, decode_membership, encode_change, encode_membership};
pub(crate) use self::message::{decode_raft, encode_raft, from_raft_entry, to_raft_entry};
pub(crate) use self::transfer::{Acknowledge, Chunk, Verdict};

/// The version of messages that this crate writes and reads. A replica with an incarnation writes version 2,
/// which differs by the envelope at the end. Version 3 has the trace contexts of entries at the end: a
/// replica sends it only to peers that read it, see [`Input::Negotiated`](crate::Input::Negotiated).
pub const MESSAGE_VERSION: u8 = 1;
/// The longest message, in bytes. A receiver refuses a longer one before it decodes it.
pub const MESSAGE_LEN_MAX: usize = 16 << 20;
/// The longest payload of one entry, in bytes.
pub const PAYLOAD_LEN_MAX: usize = 8 << 20;
/// The longest chunk of a snapshot, in bytes.
pub(crate) const CHUNK_LEN_MAX: usize = Chunk::LEN_MAX;

/// The kind byte of a message.
pub(crate) mod kind {
    /// A message of Raft.
    pub(crate) const RAFT: u8 = 1;
    /// A chunk of a snapshot.
    pub(crate) const CHUNK: u8 = 2;
    /// The acknowledgement of a chunk.
    pub(crate) const ACKNOWLEDGE: u8 = 3;
    /// A founder looks for the others, or is answered.
    pub(crate) const HELLO: u8 = 4;
}

/// Bytes cannot be decoded as a message. They changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends too early.
    #[error("the message ends within its {field}")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
    },
    /// Bytes follow the end of the message.
    #[error("{extra} bytes follow the end of the message")]
    Trailing {
        /// The number of these bytes.
        extra: usize,
    },
    /// The version is unknown.
    #[error(
        "the message has version {found}, and this release reads version {MESSAGE_VERSION}: run the same release on all members"
    )]
    Version {
        /// The version of the message.
        found: u8,
    },
    /// A field has an invalid value.
    #[error("the {field} of the message is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// A length is beyond its bound.
    #[error("the {field} of the message has the length {len}, and the bound is {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        len: u64,
        /// The bound.
        max: u64,
    },
}
