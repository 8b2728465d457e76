//! Chains beside a map: what is signed, what is believed, and what is dropped.

mod belief;
mod cover;
mod keys;
mod review;
mod seal;
mod take;
mod testimony;
mod verdict;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub use belief::Belief;
use cover::Cover;
pub use keys::CHAIN_PREFIX;
pub use seal::GuardSealError;

use super::checkpoint::Checkpoint;
use super::equivocation::EquivocationProof;
use super::seam::{Signer, Verifier};
use super::statement::Head;
use super::tracker::{ChainTracker, Limits};
use crate::{CausalMap, ReplicaId};

/// Most events of a batch that travels in a map and that wrote values: its digests must fit a value.
pub const GUARD_BATCH_LEN_MAX: usize = 1024;

/// What a [`Guard`] does and holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardOptions {
    /// Events after which [`Guard::seal_due`] signs a batch; 1 to [`GUARD_BATCH_LEN_MAX`], others are moved into that range.
    pub batch_len_max: usize,
    /// Batches of one writer whose digests are held. What others cover stays [`Belief::Uncovered`].
    pub batches_max: usize,
    /// Checkpoints and writers that are held. Contradictions are found with those; a checkpoint takes about 250 bytes.
    pub limits: Limits,
}

impl Default for GuardOptions {
    /// Batches of 64 events, 4,096 of them for each writer; 1,024 writers with 256 checkpoints each, and 16 that wait.
    fn default() -> Self {
        let limits = Limits { checkpoints_max: 256, ..Limits::default() };
        Self { batch_len_max: 64, batches_max: 4096, limits }
    }
}

/// What a [`Guard`] has met so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GuardStats {
    /// Batches signed here.
    pub sealed: u64,
    /// Values dropped because a batch of their writer says otherwise: somebody carried a forgery.
    pub refuted: u64,
    /// Values dropped because their writer contradicts itself.
    pub quarantined: u64,
    /// Entries under [`CHAIN_PREFIX`] dropped because they are not what may stand there.
    pub garbage: u64,
    /// Checkpoints not taken because their writer has no key here, or there are too many.
    pub ignored: u64,
    /// Chain entries of this node that somebody took away, and that were put back.
    pub restored: u64,
    /// Times that a writer's chain was seen to jump or to go back, and what is known of it was laid open.
    pub testimonies: u64,
}

/// What a review did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "sessions and watchers must hear of the keys that changed"]
pub struct Reviewed {
    /// The keys that the guard changed, ascending: tell those who watch them, and the sessions by
    /// [`SessionInput::Changed`](crate::SessionInput::Changed). Empty when nothing changed.
    pub keys: Vec<Vec<u8>>,
    /// Writers of which less is kept than before, ascending. [`Guard::proof`] says why.
    pub convicted: Vec<ReplicaId>,
}

/// Guards a [`CausalMap`]: signs what this replica writes, believes what others have signed, drops what is forged, and makes
/// of two contradictory signatures a proof that every replica holds. See the [module](super) for the method.
///
/// The chains are entries of the map, under [`CHAIN_PREFIX`]: sessions, journals and removal know nothing of them. It is an engine:
/// no I/O, no clock.
///
/// # Drain contract
///
/// 1. [`open`](Self::open) it on the map, before anything is written.
/// 2. Write to the map as ever. After writes call [`seal_due`](Self::seal_due), and [`seal`](Self::seal) before a pause, or when
///    something must be believed soon. Then, as after every write, make the map durable (its [`save`](CausalMap::save), or the
///    [`delta`](CausalMap::delta) since the last record) before a session sends. That is all that keeps a crash from making two batches
///    of one: a batch and the events that it covers are in one record, so either nobody has seen it or it is not signed anew.
/// 3. After each [`Joined`](crate::Joined), of a session or of one's own, give its keys to [`review`](Self::review), and make the map
///    durable only after that. A join that is durable without its review is reviewed by the next `open`, but what this replica alone
///    knew of a chain that the join replaced is then forgotten. What a review drops is no event, so a journal of differences does not
///    hold it: the next `open` drops it again.
/// 4. When [`SessionStats::divergences`](crate::SessionStats::divergences) of a session has risen, call [`diverged`](Self::diverged).
/// 5. Now and then call [`tidy`](Self::tidy), which takes away what covers nothing that is alive.
/// 6. Read by [`believed`](Self::believed), [`latest`](Self::latest) or [`belief`](Self::belief). Let nobody else read or write keys
///    that begin with [`CHAIN_PREFIX`].
pub struct Guard {
    replica: ReplicaId,
    options: GuardOptions,
    verifier: Box<dyn Verifier + Send>,
    signer: Option<Box<dyn Signer + Send>>,
    tracker: ChainTracker,
    /// Where the chain of this replica stands.
    head: Head,
    /// The last event of this replica when it last wrote its chain entries anew.
    renewed: u64,
    /// The last checkpoints of all writers, as they stand in the map.
    heads: BTreeMap<ReplicaId, Checkpoint>,
    /// The batches in the map, by writer and by where they begin.
    covers: BTreeMap<ReplicaId, BTreeMap<u64, Cover>>,
    /// Of the proofs in the map, what they keep.
    published: BTreeMap<ReplicaId, u64>,
    /// Writers of checkpoints in the map that the verifier does not know.
    unknown: BTreeSet<ReplicaId>,
    stats: GuardStats,
}

impl Guard {
    /// A guard of `map`, which is reviewed as a whole: verdicts need no storage of their own, they follow from the map. Without a signer
    /// it believes and convicts as any other, and signs nothing. With one, the verifier must know this replica's own key too.
    ///
    /// The chain goes on where the map says that it stands. Open only a map that its replica may go on with: what was made durable
    /// last, or a fresh incarnation.
    #[must_use]
    pub fn open(
        map: &mut CausalMap,
        options: &GuardOptions,
        verifier: Box<dyn Verifier + Send>,
        signer: Option<Box<dyn Signer + Send>>,
    ) -> Self {
        let batch_len_max = options.batch_len_max.clamp(1, GUARD_BATCH_LEN_MAX);
        let mut guard = Self {
            replica: map.replica(),
            options: GuardOptions { batch_len_max, ..*options },
            verifier,
            signer,
            tracker: ChainTracker::new(options.limits),
            head: Head::GENESIS,
            renewed: 0,
            heads: BTreeMap::new(),
            covers: BTreeMap::new(),
            published: BTreeMap::new(),
            unknown: BTreeSet::new(),
            stats: GuardStats::default(),
        };
        // What it dropped or wrote is news to nobody yet: no session has begun.
        drop(guard.review_all(map));
        guard
    }

    /// What was met so far.
    #[must_use]
    pub const fn stats(&self) -> GuardStats {
        self.stats
    }

    /// Where a writer's chain stands, as far as it is known here. For this replica, up to where its events are signed.
    #[must_use]
    pub fn head(&self, writer: ReplicaId) -> Option<Head> {
        if writer == self.replica { Some(self.head) } else { self.tracker.head(writer) }
    }

    /// The last event that is kept of a writer that has contradicted itself; `None` of all others.
    #[must_use]
    pub fn kept(&self, writer: ReplicaId) -> Option<u64> {
        self.tracker.kept(writer)
    }

    /// The proof that a writer has contradicted itself. It can be shown to anyone.
    #[must_use]
    pub fn proof(&self, writer: ReplicaId) -> Option<&EquivocationProof> {
        self.tracker.proof(writer)
    }

    /// All proofs, by writer.
    pub fn proofs(&self) -> impl Iterator<Item = &EquivocationProof> {
        self.tracker.proofs()
    }

    /// Takes a proof that came another way than in the map; then as [`review`](Self::review).
    pub fn convict(&mut self, map: &mut CausalMap, proof: &EquivocationProof) -> Reviewed {
        self.convict_and_review(map, proof)
    }
}

impl core::fmt::Debug for Guard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard")
            .field("replica", &self.replica)
            .field("head", &self.head)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
