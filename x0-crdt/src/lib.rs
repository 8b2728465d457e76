//! Delta CRDTs and anti-entropy: replicated data that every replica may write at any time, for links that are
//! slow and lossy.
//!
//! ```
//! use x0_crdt::{CausalMap, HashKey, ReplicaId};
//!
//! let key = HashKey::new([7; 16]);
//! let mut here = CausalMap::new(ReplicaId::new(1), key);
//! let mut there = CausalMap::new(ReplicaId::new(2), key);
//! here.put(b"door", 10, b"open")?;          // needs no other replica
//! there.add(b"visits", 11, 3)?;
//!
//! there.join(&here.delta(&there.version())?)?;
//! here.join(&there.delta(&here.version())?)?;
//! assert_eq!(here.frontier(), there.frontier());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Glossary
//! | term | meaning |
//! |---|---|
//! | replica | one copy of the replicated state, and the writer that changes it |
//! | writer, [`ReplicaId`] | one incarnation of one node; events are counted per writer |
//! | event, [`Dot`] | one change of one writer, named by the writer and a number from 1 |
//! | version, [`Version`] | of each writer, the last event seen, without gaps |
//! | context, [`Context`] | the events seen, gaps included |
//! | sibling | one of several concurrent values at one key |
//! | delta, [`MapDelta`], [`Delta`] | what one replica sends so that another one has seen what it has seen |
//! | join | the merge of a state or delta into a state: commutative, associative, idempotent |
//! | frontier, [`Frontier`] | the hashes of version and content: equal frontiers are equal states |
//! | history | the record of which events are new to a peer that lags behind |
//! | tombstone | the record of a removal in the history |
//! | tombstone collection | dropping the history that all members have seen |
//! | member, lease | a replica whose heartbeats arrive; after a lease without one it is not waited for |
//! | range | what a replica holds between two keys, and what it has seen |
//! | stage | a long state that arrives range by range, beside the map |
//! | name | the dot of a value that the receiver has seen, which stands for its key in a delta |
//! | trail | which value each of the latest events has replaced |
//! | reconciliation | finding the values in which two states differ, where history does not reach back |
//! | batch | events of one writer under one signature |
//! | checkpoint | the signed end of a batch, which names the end of the batch before it |
//! | chain | the batches of one writer, linked by their hashes |
//! | equivocating writer | a writer that has signed two histories |
//! | evidence | checkpoints that a replica publishes when a chain does not continue as it was known |
//! | proof, [`EquivocationProof`] | two checkpoints that contradict each other |
//! | evict | drop a value that is invalid; all replicas drop the same values, so it is no event |
//!
//! # Parts
//! - [`CausalMap`]: a map from byte strings to values, as one replica's whole state. `x0-kv` keeps its
//!   always-writable keyspaces in it.
//! - [`Document`]: nested maps, sets, counters, flags and registers by path, in a map; JSON with the feature
//!   `json`.
//! - [`Causal`]: composable types for other states: registers, flags, counters, sets, maps of them to any
//!   depth, and structs of them ([`dot_store_struct!`], [`lattice_struct!`]). [`Lattice`] is the seam:
//!   [`Lattice::delta`] is the smallest delta of two states, [`Lattice::decompose`] splits a state into its
//!   irreducible pieces.
//! - [`CausalReplica`]: a [`Causal`] as one replica of a group, with history and members.
//! - [`Session`]: the protocol engine of anti-entropy between two replicas of a map or of any composed type:
//!   28 bytes when both are equal, a delta in numbered parts when history reaches back, a set reconciliation
//!   when it does not. It owns no socket and no clock.
//! - [`Peers`]: one replica and its sessions with all peers: fan-out of changes, heartbeats, timers.
//! - [`Renewals`]: when a replica whose events a peer claims goes on as a fresh incarnation.
//! - [`Subscriptions`]: which keys below which prefixes have changed.
//! - [`Members`]: the members of a group and their leases, which decide when tombstones are collected.
//! - [`SignedMap`]: a map of writers that are not trusted, see [below](#signed-maps).
//! - [`Clock`]: a hybrid logical clock, for registers in which the last write wins. It reads no clock, and
//!   trusts none that runs too far ahead.
//! - [`Canonical`]: the codec. Equal states have equal bytes.
//!
//! The feature `std` adds [`Journal`], a map on this machine's disk: snapshot, changes, truncation.
//! The feature `serde` puts the canonical bytes of [`Causal`], [`Delta`] and [`Context`] into serde's
//! formats. The feature `compat-crdts` adds the module `compat`: import from and export to the sets,
//! registers and counters of the crate `crdts`; it needs std.
//!
//! # Guarantees
//! - Replicas that have seen the same events hold the same bytes, whatever was lost, doubled or reordered.
//! - A write replaces the values that its writer had seen and nothing else: neither a clock that runs ahead
//!   nor a slow one loses data.
//! - A removed value does not return and an added value is not lost, also when a replica returns after its
//!   lease with old state: history is collected only when all members have seen it, and a replica that lags
//!   behind is reconciled by state.
//! - Metadata beyond the values is 24 bytes for each writer ever, and nothing else once all members have seen
//!   everything.
//! - No bytes from a peer cause a panic, hold more than [`SessionOptions::transfer_len_max`] unverified
//!   bytes of a transfer (8 MiB by default; a delta of more than 4 MiB is sent by key ranges of a map, or by
//!   slices of a composed type), or change half of a state.
//!
//! # Limitations
//! No text or lists. No reads across replicas: a read returns what has arrived here. A writer that gives one
//! event two contents is resolved to one of them on all replicas, and only [`SignedMap`] can prove which
//! writer it was. Deltas are joined whole. A long [`CausalMap`] is sent by key ranges and joined beside the
//! map, which needs the memory of both; a long [`CausalReplica`] is sent by slices of events, which are kept
//! beside the state until the last one. Large values belong beside the state, with their hashes in it.
//!
//! # Signed maps
//! Versions identify events by dot, so they assume that a writer has one event per dot. [`SignedMap`]
//! enforces it: each writer signs its events in batches that are chained by their hashes, and the batches
//! travel in the map itself, under [`CHAIN_PREFIX`], so that sessions and journals carry them unchanged.
//! [`Signer`] and [`Verifier`] are the caller's.
//!
//! - A value counts as [`Verification::Valid`] when its writer's batch holds its digest. A value that
//!   contradicts the batch is evicted by every replica; its writer is not blamed, because a carrier may have
//!   forged it.
//! - Two batches that contradict each other are a proof that their writer equivocates. Proofs spread like
//!   values, and every replica keeps the same events of that writer: those before the contradiction.
//! - With batches of 64 events and Ed25519, a live value costs 38 bytes, and a writer without live values 172
//!   bytes.
//!
//! Signatures do not prevent a member from *removing* values: a forged event can take the place of a genuine
//! one, and both are then gone. They do not prevent a member from claiming events of another writer that this
//! writer has not written: that writer must take a fresh incarnation ([`JoinError::Impostor`]). A proof
//! reaches as deep as checkpoints are held: those of live batches always, others 256 back and until a
//! restart. An equivocation is found only if a path exists between two replicas that hold the two sides. A
//! restored backup needs a fresh incarnation, or an honest writer signs two histories.
//!
//! # Place in the family
//! The crate depends on no other x0 crate, is `no_std` with `alloc`, and requires no feature.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod chain;
mod codec;
mod document;
mod dot;
mod hash;
#[cfg(feature = "std")]
mod journal;
mod map;
mod peers;
mod random;
mod renewals;
mod session;
mod signed;
mod subscription;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod telemetry;
mod types;
mod version;

pub use chain::{
    CHAIN_PREFIX, ChainDecodeError, ChainLimits, ChainOptions, ChainStats, Checkpoint, Digest,
    EquivocationProof, Head, MAP_BATCH_LEN_MAX, RejectAll, SIGNATURE_LEN_MAX, SignBatchError, SignError,
    Signer, Statement, Verification, Verifier, VerifyError,
};
pub use codec::{ByteReader, Canonical, DecodeError, from_bytes, to_bytes};
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub use document::JsonError;
pub use document::{DEPTH_MAX, Document, DocumentError, Scalar};
pub use dot::{Dot, ReplicaId};
pub use hash::HashKey;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use journal::{Journal, JournalError};
pub use map::{
    CausalMap, DeltaError, DeltaExtent, Entry, Frontier, Held, HistoryError, ITEM_MAX, JoinError, Joined,
    KEY_LEN_MAX, MapDelta, RestoreError, VALUE_LEN_MAX, WriteError,
};
pub use peers::{Peers, PeersError, PeersInput, PeersOutput};
pub use renewals::Renewals;
pub use session::{
    MEMBERS_MAX, Members, Replicated, Session, SessionError, SessionInput, SessionOptions, SessionOutput,
    SessionStats,
};
pub use signed::{
    ChainKeys, OpenError, PersistToken, SignedEntry, SignedHandleError, SignedInput, SignedMap,
    SignedMapOptions, SignedOutput, SignedWriteError,
};
pub use subscription::{SubscriptionId, Subscriptions};
#[cfg(feature = "compat-crdts")]
#[cfg_attr(docsrs, doc(cfg(feature = "compat-crdts")))]
pub use types::compat;
pub use types::{
    AdoptError, ApplyError, Causal, CausalReplica, Change, ChangeError, Clock, ClockError, Context, Delta,
    DotStore, Dots, Flag, GCounter, JoinScope, Lattice, LwwRegister, Max, Min, MvRegister, Observed, OrMap,
    OrSet, Plain, PnCounter, RANGES_MAX, Stamp, StateJoined, StoreForm, Transaction,
};
pub use version::Version;

/// Parts of the protocol that the tests, the fuzzers and the benchmarks reach into. No stable interface:
/// anything in it may change in any release.
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

    /// The bytes of a [`Journal`](crate::Journal) of these frames, with right checksums.
    #[cfg(feature = "std")]
    pub fn journal_of<'a>(
        frames: impl IntoIterator<Item = (u8, &'a [u8])>,
        key: crate::HashKey,
    ) -> alloc::vec::Vec<u8> {
        crate::journal::framed(frames, key)
    }

    /// The map that the bytes of a [`Journal`](crate::Journal) yield, if they are not damaged.
    #[cfg(feature = "std")]
    pub fn replay_journal(bytes: &[u8], replica: crate::ReplicaId, key: crate::HashKey) -> Option<CausalMap> {
        crate::journal::Replayed::of(bytes, replica, key).ok().map(|replayed| replayed.map)
    }

    pub use crate::session::sketch::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX, SketchDecoder, SketchError};
    pub use crate::session::{
        Found, GatherStep, JoinSource, JoinStep, StageBegin, StageStep, StageTaken, Transfer,
    };
}

/// Items that the macros of this crate need where they are used.
#[doc(hidden)]
pub mod __private {
    pub use alloc::vec::Vec;
}

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeDoctests;
