//! [`MapChains`]: the signed chains of all writers of a map, kept in the map.

mod cover;
mod evidence;
mod keys;
mod review;
mod sign;
mod take;
mod verdict;
mod verification;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use cover::Cover;
pub use keys::CHAIN_PREFIX;
pub use sign::SignBatchError;
pub use verification::Verification;

use super::checkpoint::Checkpoint;
use super::equivocation::EquivocationProof;
use super::seam::{Signer, Verifier};
use super::statement::Head;
use super::tracker::{ChainLimits, ChainTracker};
use crate::{CausalMap, ReplicaId};

/// Most events of a batch that travels in a map and that wrote values: its digests must fit a value.
pub const MAP_BATCH_LEN_MAX: usize = 1024;

/// Settings of the signed chains beside a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ChainOptions {
    /// Events after which a batch is signed; 1 to [`MAP_BATCH_LEN_MAX`], others are moved into that range.
    pub batch_len_max: usize,
    /// Batches of one writer whose digests are held. Values of further batches stay
    /// [`Verification::Unsigned`].
    pub batches_max: usize,
    /// Checkpoints and writers that are held. Contradictions are found with those; a checkpoint takes about
    /// 250 bytes.
    pub limits: ChainLimits,
}

impl ChainOptions {
    /// Sets [`batch_len_max`](Self#structfield.batch_len_max).
    #[must_use]
    pub const fn batch_len_max(mut self, events: usize) -> Self {
        self.batch_len_max = events;
        self
    }

    /// Sets [`batches_max`](Self#structfield.batches_max).
    #[must_use]
    pub const fn batches_max(mut self, batches: usize) -> Self {
        self.batches_max = batches;
        self
    }

    /// Sets [`limits`](Self#structfield.limits).
    #[must_use]
    pub const fn limits(mut self, limits: ChainLimits) -> Self {
        self.limits = limits;
        self
    }
}

impl Default for ChainOptions {
    /// Batches of 64 events, 4,096 of them for each writer; 1,024 writers with 256 checkpoints each, and 16
    /// that wait.
    fn default() -> Self {
        let limits = ChainLimits::default().checkpoints_max(256);
        Self { batch_len_max: 64, batches_max: 4096, limits }
    }
}

/// Counts of the signed chains beside a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ChainStats {
    /// Batches signed here.
    pub signed: u64,
    /// Values dropped because a batch of their writer contradicts them: a peer carried a forgery.
    pub invalid: u64,
    /// Values dropped because their writer equivocates.
    pub quarantined: u64,
    /// Entries under [`CHAIN_PREFIX`] dropped because they are not valid there.
    pub garbage: u64,
    /// Checkpoints not held because their writer has no key here, or there are too many.
    pub ignored: u64,
    /// Chain entries of this node that a peer removed or replaced, and that were put back.
    pub restored: u64,
    /// Times that a writer's chain jumped or went back, and its known checkpoints were published as evidence.
    pub evidence: u64,
}

/// The result of a review.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "sessions and watchers must be notified of the keys that changed"]
pub struct Reviewed {
    /// The keys that the review changed, ascending. Empty when nothing changed.
    pub keys: Vec<Vec<u8>>,
    /// Writers of which less is kept than before, ascending. [`MapChains::proof`] returns the reason.
    pub equivocating: Vec<ReplicaId>,
}

/// The chains beside a [`CausalMap`]: signs what this replica writes, verifies what others have signed, drops
/// what is invalid, and makes of two contradictory signatures a proof that every replica holds. See the
/// module documentation for the method.
///
/// [`SignedMap`](crate::SignedMap) keeps this contract:
///
/// 1. [`open`](Self::open) before anything is written to the map.
/// 2. After writes, [`sign_full`](Self::sign_full), and [`sign_pending`](Self::sign_pending) before a pause.
///    As after every write, the map is durable before a session sends. A batch and the events that it covers
///    are in one record, so either no peer has seen the batch or it is not signed again.
/// 3. After each join, [`review`](Self::review) its keys, and make the map durable only after that. A join
///    that is durable without its review is reviewed by the next `open`, but what this replica alone knew of
///    a chain that the join replaced is then lost.
/// 4. When [`SessionStats::divergences`](crate::SessionStats::divergences) has risen,
///    [`diverged`](Self::diverged).
/// 5. Several times per lease, [`tidy`](Self::tidy).
pub struct MapChains {
    replica: ReplicaId,
    options: ChainOptions,
    verifier: Box<dyn Verifier + Send>,
    signer: Option<Box<dyn Signer + Send>>,
    tracker: ChainTracker,
    /// The end of the chain of this replica.
    head: Head,
    /// The last event of this replica when it last re-issued its chain entries.
    renewed: u64,
    /// The last checkpoints of all writers, as they are in the map.
    heads: BTreeMap<ReplicaId, Checkpoint>,
    /// The batches in the map, by writer and first event.
    covers: BTreeMap<ReplicaId, BTreeMap<u64, Cover>>,
    /// The events that the proofs in the map keep.
    published: BTreeMap<ReplicaId, u64>,
    /// Writers of checkpoints in the map that the verifier does not know.
    unknown: BTreeSet<ReplicaId>,
    stats: ChainStats,
}

impl MapChains {
    /// Opens the chains of `map`, which is reviewed as a whole: verdicts follow from the map and need no
    /// storage of their own. Without a signer it verifies and signs nothing. With one, the verifier must know
    /// this replica's public key too.
    ///
    /// The chain goes on from its head in the map. The map must be the one that was made durable last, or
    /// that of a fresh incarnation.
    #[must_use]
    pub fn open(
        map: &mut CausalMap,
        options: &ChainOptions,
        verifier: Box<dyn Verifier + Send>,
        signer: Option<Box<dyn Signer + Send>>,
    ) -> Self {
        let batch_len_max = options.batch_len_max.clamp(1, MAP_BATCH_LEN_MAX);
        let mut chains = Self {
            replica: map.replica(),
            options: ChainOptions { batch_len_max, ..*options },
            verifier,
            signer,
            tracker: ChainTracker::new(options.limits),
            head: Head::GENESIS,
            renewed: 0,
            heads: BTreeMap::new(),
            covers: BTreeMap::new(),
            published: BTreeMap::new(),
            unknown: BTreeSet::new(),
            stats: ChainStats::default(),
        };
        // No session has begun, so there is no peer to notify of what it dropped or wrote.
        drop(chains.review_all(map));
        chains
    }

    /// Counts so far.
    #[must_use]
    pub const fn stats(&self) -> ChainStats {
        self.stats
    }

    /// The end of a writer's chain, as far as it is known here. For this replica, the end of what it has
    /// signed.
    #[must_use]
    pub fn head(&self, writer: ReplicaId) -> Option<Head> {
        if writer == self.replica { Some(self.head) } else { self.tracker.head(writer) }
    }

    /// The last event that is kept of an equivocating writer; `None` for all others.
    #[must_use]
    pub fn kept(&self, writer: ReplicaId) -> Option<u64> {
        self.tracker.kept(writer)
    }

    /// The proof that a writer equivocates. Anyone can verify it.
    #[must_use]
    pub fn proof(&self, writer: ReplicaId) -> Option<&EquivocationProof> {
        self.tracker.proof(writer)
    }

    /// All proofs, by writer.
    pub fn proofs(&self) -> impl Iterator<Item = &EquivocationProof> {
        self.tracker.proofs()
    }

    /// Accepts a proof that arrived in another way than in the map; then as [`review`](Self::review).
    pub fn accept_proof(&mut self, map: &mut CausalMap, proof: &EquivocationProof) -> Reviewed {
        self.accept_proof_and_review(map, proof)
    }
}

impl core::fmt::Debug for MapChains {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MapChains")
            .field("replica", &self.replica)
            .field("head", &self.head)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
