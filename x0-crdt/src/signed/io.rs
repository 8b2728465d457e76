//! Inputs and outputs of a [`SignedMap`](super::SignedMap).

use alloc::vec::Vec;

use crate::ReplicaId;
use crate::chain::SignBatchError;

/// The confirmation that a record is durable. Only [`SignedOutput::Persist`] yields one; it cannot be copied
/// or made up.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "datagrams wait until the token comes back in `SignedInput::Persisted`"]
pub struct PersistToken {
    pub(super) number: u64,
}

/// An input of a [`SignedMap`](super::SignedMap). Peers are named by numbers of the driver's choice, such as
/// their node.
#[derive(Debug, PartialEq, Eq)]
pub enum SignedInput<'a> {
    /// A peer can be reached (again): a session with it begins.
    Connected {
        /// The peer.
        peer: u64,
    },
    /// The session with a peer ends.
    Disconnected {
        /// The peer.
        peer: u64,
    },
    /// A datagram, whole. The transport has authenticated the peer.
    Datagram {
        /// The peer that sent it.
        peer: u64,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// The record of this token is durable.
    Persisted(PersistToken),
    /// The time of [`poll_timeout`](super::SignedMap::poll_timeout) has come.
    Timeout,
}

/// An output of a [`SignedMap`](super::SignedMap).
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignedOutput {
    /// Make `record` durable, then hand `token` back.
    Persist {
        /// The bytes, which [`restore`](super::SignedMap::restore) reads.
        record: Vec<u8>,
        /// Whether it replaces all records before it. Otherwise it is appended to them.
        replaces: bool,
        /// To be handed back in [`SignedInput::Persisted`].
        token: PersistToken,
    },
    /// Send this to a peer, as one datagram. It may be lost. Everything that it depends on is durable.
    Send {
        /// The peer.
        peer: u64,
        /// The bytes.
        datagram: Vec<u8>,
    },
    /// Values at these keys have changed by a join, or were dropped because they are invalid.
    Changed {
        /// The keys, ascending.
        keys: Vec<Vec<u8>>,
    },
    /// A writer equivocates: the values after [`EquivocationProof::kept`](crate::EquivocationProof::kept)
    /// were dropped.
    Equivocation {
        /// The writer. [`proof`](super::SignedMap::proof) returns the proof.
        writer: ReplicaId,
    },
    /// A batch was not signed; the next timeout tries again. The values stay and are
    /// [`Unsigned`](crate::Verification::Unsigned).
    SigningFailed {
        /// The cause.
        error: SignBatchError,
    },
}
