//! [`ChainTracker`]: the chains of all writers as a receiver knows them, from checkpoints and events in any
//! order.

use alloc::collections::BTreeMap;

use super::EVENT_LEN_MAX;
use super::batch::{Attestation, Batch};
use super::checkpoint::Checkpoint;
use super::equivocation::EquivocationProof;
use super::error::{EventError, ObserveError, ProofError};
use super::history::History;
use super::seam::Verifier;
use super::statement::Head;
use crate::ReplicaId;

/// How many writers and checkpoints are held. One checkpoint takes about 250 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ChainLimits {
    /// Writers. Only one with a valid signature takes a place.
    pub writers_max: usize,
    /// Checkpoints behind the head of each writer, the head's own among them; at least 1. The oldest are
    /// dropped first.
    pub checkpoints_max: usize,
    /// Checkpoints of each writer that wait for a gap before them to close. The farthest are dropped first.
    pub waiting_max: usize,
}

impl ChainLimits {
    /// Sets [`writers_max`](Self#structfield.writers_max).
    #[must_use]
    pub const fn writers_max(mut self, writers: usize) -> Self {
        self.writers_max = writers;
        self
    }

    /// Sets [`checkpoints_max`](Self#structfield.checkpoints_max).
    #[must_use]
    pub const fn checkpoints_max(mut self, checkpoints: usize) -> Self {
        self.checkpoints_max = checkpoints;
        self
    }

    /// Sets [`waiting_max`](Self#structfield.waiting_max).
    #[must_use]
    pub const fn waiting_max(mut self, checkpoints: usize) -> Self {
        self.waiting_max = checkpoints;
        self
    }
}

impl Default for ChainLimits {
    /// 1,024 writers, 16 checkpoints behind the head, 16 that wait.
    fn default() -> Self {
        Self { writers_max: 1024, checkpoints_max: 16, waiting_max: 16 }
    }
}

/// The result of observing a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Observed {
    /// The checkpoint is held already.
    Duplicate,
    /// The run without gaps now ends at event `head`.
    Extended {
        /// The last event of the run.
        head: u64,
    },
    /// The checkpoint waits for the events after event `after`.
    Waiting {
        /// The last event without a gap before it.
        after: u64,
    },
    /// The checkpoint lies before the head. It contradicts nothing that is still held.
    Past,
    /// The checkpoint contradicts one that is known. Send [`ChainTracker::proof`] to all replicas, and drop
    /// the writer's live events after `kept`.
    Equivocation {
        /// The last event that is kept.
        kept: u64,
    },
}

/// The place of an accepted event relative to the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// Its checkpoint is part of the run that ends in the head.
    Linked,
    /// Its checkpoint waits for a gap to close.
    Waiting,
    /// Its checkpoint lies behind what is held: it is signed, and whether the head follows from it is not
    /// known.
    Unlinked,
}

/// The chains of all writers as one replica knows them. Takes checkpoints, attested events and proofs in any
/// order, any number of times.
///
/// # Contract
///
/// - No call needs to be followed by another, except: when [`observe`](Self::observe) yields
///   [`Observed::Equivocation`], when [`accept_proof`](Self::accept_proof) yields `true`, or when
///   [`kept`](Self::kept) has fallen after an event was refused, remove from the state what is alive of the
///   writer's events after `kept`, and pass [`proof`](Self::proof) on.
/// - Nothing is stored of what is refused, and nothing whose signature does not hold.
/// - The tracker keeps nothing on disk. Before a restart, store the items of
///   [`checkpoints`](Self::checkpoints) and [`proofs`](Self::proofs); afterwards give each writer's first
///   checkpoint to [`adopt`](Self::adopt), the others to `observe`, the proofs to `accept_proof`.
#[derive(Clone, Debug, Default)]
pub struct ChainTracker {
    limits: ChainLimits,
    histories: BTreeMap<ReplicaId, History>,
}

impl ChainTracker {
    /// A tracker that knows no writer.
    #[must_use]
    pub fn new(limits: ChainLimits) -> Self {
        Self { limits, histories: BTreeMap::new() }
    }

    /// Takes a checkpoint. The signature is checked unless the same bytes are held already.
    ///
    /// # Errors
    ///
    /// [`ObserveError`].
    pub fn observe(
        &mut self,
        checkpoint: &Checkpoint,
        verifier: &dyn Verifier,
    ) -> Result<Observed, ObserveError> {
        self.take(checkpoint, verifier, false)
    }

    /// Takes a checkpoint as the writer's head although the events before it are not known: for a replica
    /// that joins late and takes the head with the state, or for a gap that no replica can fill any more. One
    /// that does not lead past the head is only observed.
    ///
    /// A contradiction inside the gap is then found only where two replicas compare its live events; see the
    /// module's section on convergence.
    ///
    /// # Errors
    ///
    /// [`ObserveError`].
    pub fn adopt(
        &mut self,
        checkpoint: &Checkpoint,
        verifier: &dyn Verifier,
    ) -> Result<Observed, ObserveError> {
        self.take(checkpoint, verifier, true)
    }

    fn take(
        &mut self,
        checkpoint: &Checkpoint,
        verifier: &dyn Verifier,
        adopt: bool,
    ) -> Result<Observed, ObserveError> {
        let writer = checkpoint.writer();
        match self.histories.get(&writer) {
            Some(history) if history.holds(checkpoint) && !adopt => return Ok(Observed::Duplicate),
            Some(history) if history.is_after_kept(checkpoint) => {
                return Err(ObserveError::Quarantined { kept: history.kept().unwrap_or(0) });
            }
            None if self.histories.len() >= self.limits.writers_max => {
                return Err(ObserveError::WritersFull(self.limits.writers_max));
            }
            _ => checkpoint.verify(verifier)?,
        }
        self.histories.entry(writer).or_default().place(checkpoint.clone(), &self.limits, adopt)
    }

    /// Accepts an event by its attestation, and observes its checkpoint. If that reveals an equivocation, the
    /// event is refused, and [`kept`](Self::kept) is what is left.
    ///
    /// # Errors
    ///
    /// [`EventError`].
    pub fn event(
        &mut self,
        attestation: &Attestation,
        event: &[u8],
        verifier: &dyn Verifier,
    ) -> Result<Standing, EventError> {
        if event.len() > EVENT_LEN_MAX {
            return Err(EventError::TooLong(event.len()));
        }
        if !attestation.covers(event) {
            return Err(EventError::Mismatch(attestation.seq()));
        }
        self.admit(attestation.checkpoint(), attestation.seq(), verifier)
    }

    /// Accepts event `seq` of a batch whose digests are at hand; otherwise as [`event`](Self::event).
    ///
    /// # Errors
    ///
    /// [`EventError`].
    pub fn event_of(
        &mut self,
        batch: &Batch,
        seq: u64,
        event: &[u8],
        verifier: &dyn Verifier,
    ) -> Result<Standing, EventError> {
        if event.len() > EVENT_LEN_MAX {
            return Err(EventError::TooLong(event.len()));
        }
        if !batch.covers(seq, event) {
            return Err(EventError::Mismatch(seq));
        }
        self.admit(batch.checkpoint(), seq, verifier)
    }

    fn admit(
        &mut self,
        checkpoint: &Checkpoint,
        seq: u64,
        verifier: &dyn Verifier,
    ) -> Result<Standing, EventError> {
        self.observe(checkpoint, verifier)?;
        let history = self.histories.get(&checkpoint.writer());
        match history.and_then(History::kept) {
            Some(kept) if seq > kept => Err(ObserveError::Quarantined { kept }.into()),
            _ => Ok(history.map_or(Standing::Unlinked, |history| history.standing(checkpoint))),
        }
    }

    /// Takes a proof from elsewhere. `true` if less is kept of the writer than before; a proof that would
    /// change nothing is not examined.
    ///
    /// # Errors
    ///
    /// [`ProofError`].
    pub fn accept_proof(
        &mut self,
        proof: &EquivocationProof,
        verifier: &dyn Verifier,
    ) -> Result<bool, ProofError> {
        let writer = proof.writer();
        match self.histories.get(&writer) {
            Some(history) if history.kept().is_some_and(|kept| kept <= proof.kept()) => return Ok(false),
            None if self.histories.len() >= self.limits.writers_max => {
                return Err(ProofError::WritersFull(self.limits.writers_max));
            }
            _ => proof.verify(verifier)?,
        }
        Ok(self.histories.entry(writer).or_default().accept_proof(proof.clone()))
    }

    /// The end of the writer's run without gaps. `None` if the writer is not known, or if a proof cut its
    /// chain at a place of which no checkpoint is held.
    #[must_use]
    pub fn head(&self, writer: ReplicaId) -> Option<Head> {
        self.histories.get(&writer)?.head()
    }

    /// The last event that is kept of an equivocating writer; `None` for all others.
    #[must_use]
    pub fn kept(&self, writer: ReplicaId) -> Option<u64> {
        self.histories.get(&writer)?.kept()
    }

    /// The proof that a writer equivocates.
    #[must_use]
    pub fn proof(&self, writer: ReplicaId) -> Option<&EquivocationProof> {
        self.histories.get(&writer)?.proof()
    }

    /// All proofs, by writer.
    pub fn proofs(&self) -> impl Iterator<Item = &EquivocationProof> {
        self.histories.values().filter_map(History::proof)
    }

    /// The checkpoints that are held of a writer, the earliest first.
    pub fn checkpoints(&self, writer: ReplicaId) -> impl Iterator<Item = &Checkpoint> {
        self.histories.get(&writer).into_iter().flat_map(History::checkpoints)
    }

    /// The writers that are known, in order.
    pub fn writers(&self) -> impl Iterator<Item = ReplicaId> {
        self.histories.keys().copied()
    }

    /// Forgets a writer, its proof included: only for one whose incarnation the members have retired for
    /// good.
    pub fn forget(&mut self, writer: ReplicaId) {
        self.histories.remove(&writer);
    }
}
