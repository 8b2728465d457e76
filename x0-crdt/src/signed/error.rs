//! The errors of a [`SignedMap`](super::SignedMap), one enum per operation.

use crate::{DecodeError, DeltaError, JoinError, RestoreError, SessionError, WriteError};

/// Why a write was refused. The map is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedWriteError {
    /// The key belongs to the chains.
    #[error("a key that begins with CHAIN_PREFIX belongs to the signed chains: choose another key")]
    ReservedKey,
    /// The map refuses the key or the value.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why an input had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedHandleError {
    /// A datagram of the peer was refused. The session goes on and requests again what it lacks.
    #[error("the session with peer {peer} refused a datagram; it goes on")]
    Session {
        /// The peer.
        peer: u64,
        /// The cause.
        #[source]
        source: SessionError,
    },
    /// No session with the peer exists.
    #[error("peer {peer} is not connected: hand over `SignedInput::Connected` first")]
    UnknownPeer {
        /// The peer.
        peer: u64,
    },
    /// The token is not the one of the last record.
    #[error("the token is not that of the last record of this map: hand it to the map that returned it")]
    Token,
}

/// Why a map was not restored from its records. Nothing was made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no record, or the first one does not hold a whole map.
    #[error("the records do not begin with a whole map: start a new map as a fresh incarnation")]
    NoSnapshot,
    /// A record is of an unknown kind or empty.
    #[error("record {index} cannot be decoded: restore the records before it, as a fresh incarnation")]
    Decode {
        /// Its place, from 0.
        index: usize,
        /// The cause.
        #[source]
        source: DecodeError,
    },
    /// A whole map is damaged.
    #[error("record {index} holds a damaged map: start a new map as a fresh incarnation")]
    Snapshot {
        /// Its place, from 0.
        index: usize,
        /// The cause.
        #[source]
        source: RestoreError,
    },
    /// A delta is malformed.
    #[error("record {index} holds a damaged delta: restore the records before it, as a fresh incarnation")]
    Delta {
        /// Its place, from 0.
        index: usize,
        /// The cause.
        #[source]
        source: DeltaError,
    },
    /// A delta does not follow the record before it.
    #[error(
        "record {index} does not follow the one before it: restore the records before it, as a fresh incarnation"
    )]
    Order {
        /// Its place, from 0.
        index: usize,
        /// The cause.
        #[source]
        source: JoinError,
    },
}
