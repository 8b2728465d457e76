//! Replicated data that converges whatever the network does.
//!
//! **Not built yet.** This page fixes what the crate will be, so that the crates around it can leave the right gap; there
//! is nothing to call.
//!
//! # What it will be
//!
//! - Delta-state CRDTs on dot stores: registers, counters, flags, sets and maps whose values are lattices again.
//! - A `Lattice` trait (the seam): join, delta, decomposition into join-irreducibles, and canonical bytes, so that equal
//!   states are equal bytes. `no_std` with `alloc`.
//! - An anti-entropy `Session`: an engine without I/O that finds what two replicas lack in datagrams a slow, lossy link
//!   can afford, each of them idempotent.
//! - Metadata that stays bounded: removals are kept until causally stable among leased members, never "compacted at any
//!   time".
//!
//! # Where it stands in the family
//!
//! It depends on no other x0 crate. `x0-kv` will use it for its always-writable keyspaces, beside the linearizable ones it
//! has over `x0-consensus`.

#![no_std]

extern crate alloc;

pub mod chain;
pub mod codec;
mod dot;
mod hash;
mod map;
mod members;
mod session;
pub mod sketch;
mod version;

pub use codec::{Canonical, DecodeError};
pub use dot::{Dot, ReplicaId};
pub use hash::HashKey;
pub use map::{
    CausalMap, DeltaError, Difference, Entry, Frontier, Held, HistoryError, ITEM_MAX, JoinError, Joined,
    KEY_LEN_MAX, MapDelta, RestoreError, VALUE_LEN_MAX, WriteError,
};
pub use members::{MEMBERS_MAX, Members};
pub use session::{Session, SessionError, SessionInput, SessionOptions, SessionOutput, SessionStats};
pub use version::Version;
