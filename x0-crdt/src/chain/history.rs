//! The chain of one writer, as a tracker knows it.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use super::checkpoint::Checkpoint;
use super::equivocation::EquivocationProof;
use super::error::ObserveError;
use super::statement::{Head, Statement};
use super::tracker::{ChainLimits, Observed, Standing};

/// Checkpoints of one writer whose signatures hold. No two of them conflict, so their spans are disjoint.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// By where they begin. Those that begin at `head_seq` or later wait for what lies between; there is none
    /// exactly there.
    checkpoints: BTreeMap<u64, Checkpoint>,
    /// The end of the run without gaps.
    head_seq: u64,
    proof: Option<EquivocationProof>,
}

impl History {
    pub(super) fn proof(&self) -> Option<&EquivocationProof> {
        self.proof.as_ref()
    }

    pub(super) fn kept(&self) -> Option<u64> {
        self.proof.as_ref().map(EquivocationProof::kept)
    }

    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.checkpoints.values()
    }

    /// The head of the run without gaps; `None` after a proof that cut the chain where no checkpoint is held.
    pub(super) fn head(&self) -> Option<Head> {
        if self.head_seq == 0 {
            return Some(Head::GENESIS);
        }
        let (_, last) = self.checkpoints.range(..self.head_seq).next_back()?;
        (last.seq() == self.head_seq).then(|| last.head())
    }

    pub(super) fn holds(&self, checkpoint: &Checkpoint) -> bool {
        self.checkpoints.get(&checkpoint.previous().seq) == Some(checkpoint)
    }

    /// Whether `checkpoint` begins so late that it can neither be taken nor contradict anything that is kept.
    pub(super) fn is_after_kept(&self, checkpoint: &Checkpoint) -> bool {
        self.kept().is_some_and(|kept| checkpoint.previous().seq > kept)
    }

    pub(super) fn standing(&self, checkpoint: &Checkpoint) -> Standing {
        match self.checkpoints.get(&checkpoint.previous().seq) {
            Some(held) if held.seq() <= self.head_seq => Standing::Linked,
            Some(_) => Standing::Waiting,
            None => Standing::Unlinked,
        }
    }

    /// Takes a checkpoint whose signature holds.
    pub(super) fn place(
        &mut self,
        checkpoint: Checkpoint,
        limits: &ChainLimits,
        adopt: bool,
    ) -> Result<Observed, ObserveError> {
        if let Some(proof) = self.earliest_conflict(&checkpoint)
            && self.accept_proof(proof)
        {
            return Ok(Observed::Equivocation { kept: self.kept().unwrap_or(0) });
        }
        if let Some(kept) = self.kept()
            && checkpoint.seq() > kept
        {
            return Err(ObserveError::Quarantined { kept });
        }
        let (begin, seq, before) = (checkpoint.previous().seq, checkpoint.seq(), self.head_seq);
        let adopt = adopt && seq > self.head_seq;
        if self.checkpoints.contains_key(&begin) && !adopt {
            return Ok(Observed::Duplicate);
        }
        if adopt {
            self.head_seq = seq;
        }
        self.checkpoints.insert(begin, checkpoint);
        self.advance();
        self.trim(limits);
        let after = self.head_seq;
        if after > before {
            Ok(Observed::Extended { head: after })
        } else if begin < after {
            Ok(Observed::Past)
        } else if self.checkpoints.contains_key(&begin) {
            Ok(Observed::Waiting { after })
        } else {
            Err(ObserveError::PendingFull { after })
        }
    }

    /// Takes a proof whose signatures hold. Says whether it changed anything, which is only if it reaches
    /// lower than the one that is known: so any two replicas that know the same proofs keep the same.
    pub(super) fn accept_proof(&mut self, proof: EquivocationProof) -> bool {
        let kept = proof.kept();
        if self.kept().is_some_and(|known| known <= kept) {
            return false;
        }
        let statements = proof.checkpoints().map(Clone::clone);
        self.proof = Some(proof);
        // A held checkpoint may contradict one of the two at an earlier event.
        for statement in statements {
            if let Some(earlier) = self.earliest_conflict(&statement) {
                self.accept_proof(earlier);
            }
        }
        let kept = self.kept().unwrap_or(kept);
        self.checkpoints.retain(|_, checkpoint| checkpoint.seq() <= kept);
        self.head_seq = self.head_seq.min(kept);
        true
    }

    /// The proof that reaches lowest, of those that `checkpoint` makes with what is known.
    fn earliest_conflict(&self, checkpoint: &Checkpoint) -> Option<EquivocationProof> {
        let statement = checkpoint.statement();
        let (begin, end) = (statement.previous().seq, statement.seq());
        let conflicts = |other: &&Checkpoint| other.statement().conflicts_with(statement);
        // Spans are disjoint: only the last one before can reach into this one or end where it begins. Of the
        // others, the first will do, for the proof reaches down to `begin` with any of them.
        let before = self.checkpoints.range(..begin).next_back().map(|(_, other)| other).filter(conflicts);
        let other = before.or_else(|| {
            let within = self.checkpoints.range((Bound::Included(begin), Bound::Included(end)));
            within.map(|(_, other)| other).find(conflicts)
        });
        let equivocating = self.proof.iter().flat_map(EquivocationProof::checkpoints).filter(conflicts);
        let earliest =
            other.into_iter().chain(equivocating).min_by_key(|other| begin_of(other.statement()))?;
        EquivocationProof::new(earliest.clone(), checkpoint.clone()).ok()
    }

    /// Closes gaps that are none any more.
    fn advance(&mut self) {
        while let Some(next) = self.checkpoints.get(&self.head_seq) {
            // The two do not conflict, so the next one follows from the head.
            self.head_seq = next.seq();
        }
    }

    /// Forgets the oldest of those behind the head, never the head itself, and the farthest of those that
    /// wait.
    fn trim(&mut self, limits: &ChainLimits) {
        let behind = self.checkpoints.range(..self.head_seq).count();
        for _ in limits.checkpoints_max.max(1)..behind {
            self.checkpoints.pop_first();
        }
        let waiting = self.checkpoints.range(self.head_seq..).count();
        for _ in limits.waiting_max..waiting {
            self.checkpoints.pop_last();
        }
    }
}

fn begin_of(statement: &Statement) -> u64 {
    statement.previous().seq
}
