//! The verdicts on signed entries.

use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::equivocation::EquivocationProof;
use super::super::error::{ObserveError, ProofError, VerifyError};
use super::super::tracker::Observed;
use super::MapChains;
use crate::{Dot, ReplicaId};

/// The verdict on something that is signed, or claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Good,
    /// The value stays in the map and is not used: this replica cannot verify it.
    Ignored,
    /// The value can never be valid.
    Garbage,
    /// Its writer equivocates, and it comes after what is kept.
    Quarantined,
}

/// The verdicts on the siblings of one entry.
#[derive(Default)]
pub(super) struct Verdicts {
    /// The end of the chain as known before: 0 for one that is seen for the first time, which may have gaps.
    pub(super) known: u64,
    /// Events to be dropped; whether because they are garbage.
    pub(super) dropped: Vec<(Dot, bool)>,
    pub(super) equivocating: Vec<ReplicaId>,
    pub(super) suspects: Vec<(ReplicaId, u64)>,
    /// Events that a batch now covers: writer, after, until.
    pub(super) spans: Vec<(ReplicaId, u64, u64)>,
    /// The value that this replica had put there and that a peer removed.
    pub(super) lost: Option<Vec<u8>>,
}

impl Verdicts {
    /// Takes in one of several values at a key: of the good ones, the one of the highest rank is kept, the
    /// others are dropped.
    pub(super) fn keep_best<T, R: Ord>(
        &mut self,
        best: &mut Option<(T, Dot)>,
        verdict: Verdict,
        value: Option<T>,
        dot: Dot,
        rank: impl Fn(&T) -> R,
    ) {
        match (verdict, value) {
            (Verdict::Good, Some(value)) => {
                let is_worse =
                    best.as_ref().is_some_and(|(before, at)| (rank(before), *at) > (rank(&value), dot));
                let worse = if is_worse { Some((value, dot)) } else { best.replace((value, dot)) };
                self.dropped.extend(worse.map(|(_, dot)| (dot, false)));
            }
            (Verdict::Ignored, _) => {}
            (verdict, _) => self.dropped.push((dot, verdict == Verdict::Garbage)),
        }
    }
}

impl MapChains {
    pub(super) fn try_proof(&mut self, proof: &EquivocationProof, verdicts: &mut Verdicts) -> Verdict {
        let known = self.tracker.proof(proof.writer()) == Some(proof);
        let equivocating = match self.tracker.accept_proof(proof, self.verifier.as_ref()) {
            // The tracker does not verify a proof that changes nothing.
            Ok(false) if !known => {
                proof.verify(self.verifier.as_ref()).map(|()| false).map_err(ProofError::from)
            }
            other => other,
        };
        match equivocating {
            Ok(is_news) => {
                if is_news {
                    verdicts.equivocating.push(proof.writer());
                }
                Verdict::Good
            }
            Err(ProofError::Verify(VerifyError::BadSignature)) => Verdict::Garbage,
            Err(ProofError::Verify(VerifyError::UnknownWriter)) => self.ignore(Some(proof.writer())),
            Err(ProofError::WritersFull(_)) => self.ignore(None),
        }
    }

    /// Takes in a checkpoint, and adopts it as head across a gap if `follows`.
    pub(super) fn try_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        follows: bool,
        verdicts: &mut Verdicts,
    ) -> Verdict {
        let writer = checkpoint.writer();
        let verifier = self.verifier.as_ref();
        let mut observed = self.tracker.observe(checkpoint, verifier);
        if follows && matches!(observed, Ok(Observed::Waiting { .. }) | Err(ObserveError::PendingFull { .. }))
        {
            // The events between are gone. A replica that has seen them may know that they contradict what is
            // known here.
            if verdicts.known > 0 {
                verdicts.suspects.push((writer, verdicts.known));
            }
            observed = self.tracker.adopt(checkpoint, verifier);
        }
        match observed {
            Ok(Observed::Equivocation { .. }) => verdicts.equivocating.push(writer),
            Ok(_) => self.compare(checkpoint, verdicts),
            Err(ObserveError::Quarantined { .. }) => return Verdict::Quarantined,
            Err(ObserveError::Verify(VerifyError::BadSignature)) => return Verdict::Garbage,
            Err(ObserveError::Verify(VerifyError::UnknownWriter)) => return self.ignore(Some(writer)),
            Err(ObserveError::WritersFull(_) | ObserveError::PendingFull { .. }) => {
                return self.ignore(Some(writer).filter(|writer| *writer == self.replica));
            }
        }
        if self.tracker.kept(writer).is_some_and(|kept| checkpoint.seq() > kept) {
            return Verdict::Quarantined;
        }
        if writer == self.replica && checkpoint.seq() > self.head.seq {
            // This replica's own chain, when the map is opened.
            self.head = checkpoint.head();
        }
        Verdict::Good
    }

    /// Whether it is this replica's own chain and no proof exists against it, so that lost entries are put
    /// back.
    pub(super) fn is_mine(&self, writer: ReplicaId) -> bool {
        writer == self.replica && self.tracker.kept(writer).is_none()
    }

    /// Compares a checkpoint with the batches in the map, which the tracker may have dropped.
    fn compare(&mut self, checkpoint: &Checkpoint, verdicts: &mut Verdicts) {
        let statement = checkpoint.statement();
        let (begin, end) = (statement.previous().seq, statement.seq());
        let Some(covers) = self.covers.get(&checkpoint.writer()) else { return };
        let before = covers.range(..begin).next_back();
        let conflict = before
            .into_iter()
            .chain(covers.range(begin..=end))
            .map(|(_, cover)| cover.checkpoint())
            .find(|other| other.statement().conflicts_with(statement));
        let proof = conflict.and_then(|other| EquivocationProof::new(other.clone(), checkpoint.clone()).ok());
        if let Some(proof) = proof
            && self.tracker.accept_proof(&proof, self.verifier.as_ref()) == Ok(true)
        {
            verdicts.equivocating.push(checkpoint.writer());
        }
    }

    fn ignore(&mut self, unknown: Option<ReplicaId>) -> Verdict {
        self.stats.ignored += 1;
        if self.unknown.len() < self.options.limits.writers_max || unknown == Some(self.replica) {
            self.unknown.extend(unknown);
        }
        Verdict::Ignored
    }
}
