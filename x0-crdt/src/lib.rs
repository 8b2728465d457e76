//! Replicated data that converges whatever the network does, at a price that a slow, lossy link can pay.
//!
//! ```
//! use x0_crdt::{CausalMap, HashKey, ReplicaId};
//!
//! let key = HashKey::new([7; 16]);
//! let mut here = CausalMap::new(ReplicaId::new(1), key);
//! let mut there = CausalMap::new(ReplicaId::new(2), key);
//! here.put(b"door", 10, b"open")?;          // always possible, whoever else can be reached
//! there.add(b"visits", 11, 3)?;
//!
//! there.join(&here.delta(&there.version())?)?;
//! here.join(&there.delta(&here.version())?)?;
//! assert_eq!(here.frontier(), there.frontier());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//! - [`CausalMap`]: a replica's whole state, keys to values that all may write at any time, with what is needed to bring replicas
//!   together and to forget what all have seen. It is what `x0-kv` keeps its always-writable keyspaces in.
//! - [`Session`]: the engine of anti-entropy between two replicas: 52 bytes when there is nothing to say, a difference in numbered
//!   parts when history tells what is missing, a set reconciliation when it does not. It owns no socket and no clock.
//! - [`Members`]: who takes part and what each has seen, with leases: what decides when a removal may be forgotten.
//! - [`chain`]: signed batches of events per writer. One who tells two stories leaves a proof of it.
//! - [`Causal`]: composable lattices for states of one's own: registers, flags, counters, sets, maps of them to any
//!   depth, and structs of them ([`dot_store_struct!`], [`lattice_struct!`]). [`Lattice`] is the seam: [`Lattice::delta`] is the
//!   smallest difference of two states, [`Lattice::decompose`] takes one apart into its irreducible pieces.
//! - [`Clock`]: a hybrid logical clock, for registers in which the last write wins; it reads no clock, and trusts none that runs
//!   too far ahead.
//! - [`Canonical`]: canonical bytes; equal states are equal bytes.
//!
//! The feature `serde` puts these bytes of [`Causal`], [`Delta`] and [`Context`] into serde's formats. The feature `compat-crdts` adds
//! the module `compat`: import from and export to the sets, registers and counters of the crate `crdts`; it needs std.
//!
//! # What is promised
//! - Replicas that have seen the same events hold the same, byte for byte, whatever was lost, doubled or reordered on the way.
//! - A write replaces what its writer had seen and nothing else: neither a clock that runs ahead nor one that is slow loses data.
//! - What was removed does not come back, and what was added is not lost, also when a replica returns after its lease with old state:
//!   history is forgotten only when all members of now have seen it, and who lags behind that is reconciled by state.
//! - Metadata beyond the values is 24 bytes for each writer ever, and nothing else once all members have seen everything.
//! - No bytes from a peer make it panic, hold more than [`SessionOptions::transfer_len_max`] unverified, or change half of a state.
//!
//! # What is not
//! No text or lists. No reads across replicas: what is read is what has arrived here. A writer that gives one event two contents is
//! brought to one of them everywhere, and only [`chain`] can tell who lied. The map's differences are taken in whole, so a map
//! should be small enough to be sent: large values belong beside it, with their hashes in it.
//!
//! # Where it stands in the family
//! It depends on no other x0 crate, is `no_std` with `alloc`, and has no feature that is needed.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

mod chain;
mod codec;
mod dot;
mod hash;
mod map;
mod random;
mod session;
mod signed;
mod types;
mod version;

pub use chain::{
    CHAIN_PREFIX, ChainDecodeError, ChainLimits, ChainOptions, ChainStats, Checkpoint, Digest,
    EquivocationProof, Head, MAP_BATCH_LEN_MAX, Nobody, SIGNATURE_LEN_MAX, SignBatchError, SignError, Signer,
    Statement, Verification, Verifier, VerifyError,
};
pub use codec::{ByteReader, Canonical, DecodeError, from_bytes, to_bytes};
pub use dot::{Dot, ReplicaId};
pub use hash::HashKey;
pub use map::{
    CausalMap, DeltaError, Difference, Entry, Frontier, Held, HistoryError, ITEM_MAX, JoinError, Joined,
    KEY_LEN_MAX, MapDelta, RestoreError, VALUE_LEN_MAX, WriteError,
};
pub use session::{
    MEMBERS_MAX, Members, Replicated, Session, SessionError, SessionInput, SessionOptions, SessionOutput,
    SessionStats,
};
pub use signed::{
    ChainKeys, OpenError, PersistToken, SignedEntry, SignedHandleError, SignedInput, SignedMap,
    SignedMapOptions, SignedOutput, SignedWriteError,
};
#[cfg(feature = "compat-crdts")]
pub use types::compat;
pub use types::{
    AdoptError, ApplyError, Causal, CausalReplica, Change, ChangeError, Clock, ClockError, Context, Delta,
    DotStore, Dots, Flag, GCounter, JoinScope, Lattice, LwwRegister, Max, Min, MvRegister, Observed, OrMap,
    OrSet, Plain, PnCounter, RANGES_MAX, Stamp, StateJoined, StoreForm,
};
pub use version::Version;

/// Parts of the protocol that the tests, the fuzzers and the benchmarks reach into. No stable interface: anything in it may change in
/// any release.
#[doc(hidden)]
pub mod internal {
    pub use crate::random::SplitMix64;
    use crate::{CausalMap, SignedMap};

    /// The signed chains below [`SignedMap`](crate::SignedMap).
    pub mod chain {
        pub use crate::chain::*;
    }

    /// The parts of a [`SignedMap`], for tests of writers that do not keep its contract.
    pub const fn parts_mut(signed: &mut SignedMap) -> (&mut CausalMap, &mut chain::MapChains) {
        (&mut signed.map, &mut signed.chains)
    }

    pub use crate::session::Transfer;
    pub use crate::session::sketch::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX, SketchDecoder, SketchError};
}

/// What the macros of this crate need where they are used.
#[doc(hidden)]
pub mod __private {
    pub use alloc::vec::Vec;
}
