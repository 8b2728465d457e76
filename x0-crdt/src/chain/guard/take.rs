//! Taking in what stands at the reserved keys.

use alloc::vec::Vec;

use super::super::VERSION;
use super::super::checkpoint::Checkpoint;
use super::super::equivocation::EquivocationProof;
use super::super::error::{ObserveError, ProofError, VerifyError};
use super::super::tracker::Observed;
use super::Guard;
use super::cover::Cover;
use super::keys::ChainKey;
use super::review::Work;
use crate::codec::Input;
use crate::{CausalMap, Dot, ReplicaId};

/// Most checkpoints of a testimony.
pub(super) const TESTIMONY_LEN_MAX: usize = 16;

/// What is made of something that was signed, or claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Good,
    /// It stays in the map and is not used: nobody here can say.
    Ignored,
    /// It can never be anything.
    Garbage,
    /// It is of a writer that contradicts itself, and behind what is kept.
    Quarantined,
}

impl Guard {
    /// Takes in what stands at a reserved key, and drops from there what must not stand.
    pub(super) fn take(&mut self, map: &mut CausalMap, key: ChainKey, work: &mut Work) {
        let bytes = key.to_key();
        let siblings: Vec<(Dot, Vec<u8>)> = map
            .get(&bytes)
            .map(|entry| entry.siblings().map(|held| (held.dot, held.value.to_vec())).collect())
            .unwrap_or_default();
        let last_seen = map.last_seen(key.writer());
        let mut drop_it = |guard: &mut Self, dot: Dot, is_garbage: bool| {
            if map.expel(&bytes, dot) {
                guard.stats.garbage += u64::from(is_garbage);
                work.keys.insert(bytes.clone());
            }
        };
        let mut admitted = Vec::new();
        for (dot, value) in siblings {
            if key.admits(dot.replica) { admitted.push((dot, value)) } else { drop_it(self, dot, true) }
        }
        let writer = key.writer();
        let known =
            *work.known.entry(writer).or_insert_with(|| self.tracker.head(writer).map_or(0, |head| head.seq));
        let mut verdicts = Verdicts { known, ..Verdicts::default() };
        match key {
            ChainKey::Proof(writer) => self.take_proof(writer, &admitted, &mut verdicts),
            ChainKey::Batch(writer, begin) => {
                self.take_batch(writer, begin, last_seen, &admitted, &mut verdicts);
            }
            ChainKey::Head(writer) => self.take_head(writer, last_seen, &admitted, &mut verdicts),
            ChainKey::Testimony(writer, _) => self.take_testimony(writer, &admitted, &mut verdicts),
        }
        for (dot, is_garbage) in verdicts.dropped {
            drop_it(self, dot, is_garbage);
        }
        work.convicted.extend(verdicts.convicted);
        work.suspects.extend(verdicts.suspects);
        work.spans.extend(verdicts.spans);
        work.lost.extend(verdicts.lost.map(|value| (bytes, value)));
    }

    /// Of several proofs the one stays that keeps least: all replicas choose the same.
    fn take_proof(&mut self, writer: ReplicaId, siblings: &[(Dot, Vec<u8>)], verdicts: &mut Verdicts) {
        let mut best: Option<(u64, &[u8], Dot)> = None;
        for (dot, bytes) in siblings {
            let proof = EquivocationProof::decode(bytes).ok().filter(|proof| proof.writer() == writer);
            let verdict = proof.as_ref().map_or(Verdict::Garbage, |proof| self.try_proof(proof, verdicts));
            match (verdict, proof) {
                (Verdict::Good, Some(proof)) => {
                    let this = (proof.kept(), bytes.as_slice(), *dot);
                    let worse = match best {
                        Some(before) if before < this => this,
                        before => {
                            best = Some(this);
                            let Some(before) = before else { continue };
                            before
                        }
                    };
                    verdicts.dropped.push((worse.2, false));
                }
                (Verdict::Ignored, _) => {}
                _ => verdicts.dropped.push((*dot, true)),
            }
        }
        match best {
            Some((kept, ..)) => self.published.insert(writer, kept),
            None => self.published.remove(&writer),
        };
    }

    fn try_proof(&mut self, proof: &EquivocationProof, verdicts: &mut Verdicts) -> Verdict {
        let known = self.tracker.proof(proof.writer()) == Some(proof);
        let convicted = match self.tracker.convict(proof, self.verifier.as_ref()) {
            // One that changes nothing is not examined there.
            Ok(false) if !known => {
                proof.verify(self.verifier.as_ref()).map(|()| false).map_err(ProofError::from)
            }
            other => other,
        };
        match convicted {
            Ok(is_news) => {
                if is_news {
                    verdicts.convicted.push(proof.writer());
                }
                Verdict::Good
            }
            Err(ProofError::Verify(VerifyError::BadSignature)) => Verdict::Garbage,
            Err(ProofError::Verify(VerifyError::UnknownWriter)) => self.ignore(Some(proof.writer())),
            Err(ProofError::WritersFull(_)) => self.ignore(None),
        }
    }

    fn take_batch(
        &mut self,
        writer: ReplicaId,
        begin: u64,
        last_seen: u64,
        siblings: &[(Dot, Vec<u8>)],
        verdicts: &mut Verdicts,
    ) {
        let mut best: Option<(Cover, Dot)> = None;
        // What this replica has put there itself needs nobody's word.
        let is_mine = self.is_mine(writer);
        let mine = self.covers.get(&writer).and_then(|covers| covers.get(&begin)).filter(|_| is_mine);
        let mine = mine.map(Cover::encode);
        for (dot, bytes) in siblings {
            let cover = Cover::decode(bytes).ok().filter(|cover| {
                let statement = cover.statement();
                // What a batch covers was seen before the batch: claims on what is to come are nobody's.
                statement.writer() == writer
                    && statement.previous().seq == begin
                    && statement.seq() <= last_seen
            });
            let verdict = match &cover {
                Some(_) if mine.as_ref() == Some(bytes) => Verdict::Good,
                Some(cover) => self.try_checkpoint(cover.checkpoint(), true, verdicts),
                None => Verdict::Garbage,
            };
            match (verdict, cover) {
                (Verdict::Good, Some(cover)) => {
                    // The one that proves most: a shorter one put beside it takes nothing away.
                    let rank = |(cover, dot): &(Cover, Dot)| (cover.live_len(), *dot);
                    let this = (cover, *dot);
                    let worse = match &best {
                        Some(before) if rank(before) > rank(&this) => Some(this),
                        _ => best.replace(this),
                    };
                    verdicts.dropped.extend(worse.map(|(_, dot)| (dot, false)));
                }
                (Verdict::Ignored, _) => {}
                (verdict, _) => verdicts.dropped.push((*dot, verdict == Verdict::Garbage)),
            }
        }
        let covers = self.covers.entry(writer).or_default();
        let before = covers.remove(&begin);
        if let Some(mine) = before.filter(|_| is_mine)
            && best.as_ref().is_none_or(|(cover, _)| cover.live_len() < mine.live_len())
        {
            verdicts.lost = Some(mine.encode());
            covers.insert(begin, mine);
        } else if let Some((cover, _)) = best {
            if covers.len() < self.options.batches_max {
                verdicts.spans.push((writer, begin, cover.statement().seq()));
                covers.insert(begin, cover);
            } else {
                self.stats.ignored += 1;
            }
        }
        if covers.is_empty() {
            // A key alone names a writer and proves nothing of it.
            self.covers.remove(&writer);
        }
    }

    fn take_head(
        &mut self,
        writer: ReplicaId,
        last_seen: u64,
        siblings: &[(Dot, Vec<u8>)],
        verdicts: &mut Verdicts,
    ) {
        let mut best: Option<(Checkpoint, Dot)> = None;
        let is_mine = self.is_mine(writer);
        let mine = self.heads.get(&writer).filter(|_| is_mine).cloned();
        for (dot, bytes) in siblings {
            let checkpoint = Checkpoint::decode(bytes)
                .ok()
                .filter(|checkpoint| checkpoint.writer() == writer && checkpoint.seq() <= last_seen);
            let verdict = match &checkpoint {
                Some(_) if mine == checkpoint => Verdict::Good,
                Some(checkpoint) => self.try_checkpoint(checkpoint, true, verdicts),
                None => Verdict::Garbage,
            };
            match (verdict, checkpoint) {
                (Verdict::Good, Some(checkpoint)) => {
                    let rank = |(checkpoint, dot): &(Checkpoint, Dot)| (checkpoint.seq(), *dot);
                    let this = (checkpoint, *dot);
                    let worse = match &best {
                        Some(before) if rank(before) > rank(&this) => Some(this),
                        _ => best.replace(this),
                    };
                    verdicts.dropped.extend(worse.map(|(_, dot)| (dot, false)));
                }
                (Verdict::Ignored, _) => {}
                (verdict, _) => verdicts.dropped.push((*dot, verdict == Verdict::Garbage)),
            }
        }
        let seq = best.as_ref().map_or(0, |(checkpoint, _)| checkpoint.seq());
        let before = self.heads.remove(&writer);
        if let Some(mine) = before.filter(|mine| is_mine && seq < mine.seq()) {
            verdicts.lost = Some(mine.encode());
            self.heads.insert(writer, mine);
            return;
        }
        self.heads.extend(best.map(|(checkpoint, _)| (writer, checkpoint)));
        // An honest chain does not go back, and its last checkpoint does not go away.
        if self.tracker.kept(writer).is_none() && self.tracker.head(writer).is_some_and(|head| seq < head.seq)
        {
            verdicts.suspects.push((writer, u64::MAX));
        }
    }

    fn take_testimony(&mut self, writer: ReplicaId, siblings: &[(Dot, Vec<u8>)], verdicts: &mut Verdicts) {
        for (dot, bytes) in siblings {
            let checkpoints = read_testimony(bytes)
                .filter(|checkpoints| checkpoints.iter().all(|checkpoint| checkpoint.writer() == writer));
            let is_garbage = checkpoints.is_none_or(|checkpoints| {
                checkpoints
                    .iter()
                    .any(|checkpoint| self.try_checkpoint(checkpoint, false, verdicts) == Verdict::Garbage)
            });
            if is_garbage {
                verdicts.dropped.push((*dot, true));
            }
        }
    }

    /// Looks at a checkpoint, and follows the chain to it if `follows`.
    fn try_checkpoint(&mut self, checkpoint: &Checkpoint, follows: bool, verdicts: &mut Verdicts) -> Verdict {
        let writer = checkpoint.writer();
        let verifier = self.verifier.as_ref();
        let mut observed = self.tracker.observe(checkpoint, verifier);
        if follows && matches!(observed, Ok(Observed::Waiting { .. }) | Err(ObserveError::PendingFull { .. }))
        {
            // What lies between is gone. Whoever has seen it may know that it contradicts what is known here.
            if verdicts.known > 0 {
                verdicts.suspects.push((writer, verdicts.known));
            }
            observed = self.tracker.adopt(checkpoint, verifier);
        }
        match observed {
            Ok(Observed::Equivocation { .. }) => verdicts.convicted.push(writer),
            Ok(_) => self.compare(checkpoint, verdicts),
            Err(ObserveError::Quarantined { .. }) => return Verdict::Quarantined,
            Err(ObserveError::Verify(VerifyError::BadSignature)) => return Verdict::Garbage,
            Err(ObserveError::Verify(VerifyError::UnknownWriter)) => return self.ignore(Some(writer)),
            Err(ObserveError::WritersFull(_) | ObserveError::PendingFull { .. }) => return self.ignore(None),
        }
        if self.tracker.kept(writer).is_some_and(|kept| checkpoint.seq() > kept) {
            return Verdict::Quarantined;
        }
        if writer == self.replica && checkpoint.seq() > self.head.seq {
            // Its own chain, when the guard is opened.
            self.head = checkpoint.head();
        }
        Verdict::Good
    }

    /// Whether it is this replica's chain, and worth being put back.
    fn is_mine(&self, writer: ReplicaId) -> bool {
        writer == self.replica && self.tracker.kept(writer).is_none()
    }

    /// Compares a checkpoint with the batches that are alive, which the tracker may have forgotten.
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
            && self.tracker.convict(&proof, self.verifier.as_ref()) == Ok(true)
        {
            verdicts.convicted.push(checkpoint.writer());
        }
    }

    fn ignore(&mut self, unknown: Option<ReplicaId>) -> Verdict {
        self.stats.ignored += 1;
        if self.unknown.len() < self.options.limits.writers_max {
            self.unknown.extend(unknown);
        }
        Verdict::Ignored
    }
}

/// Checkpoints as a testimony.
pub(super) fn testimony(checkpoints: &[Checkpoint]) -> Vec<u8> {
    let mut bytes = alloc::vec![VERSION];
    for checkpoint in checkpoints {
        checkpoint.write(&mut bytes);
    }
    bytes
}

/// What became of the siblings of one entry.
#[derive(Default)]
struct Verdicts {
    /// Up to where the chain was known before: 0 for one that is met for the first time, which may have gaps.
    known: u64,
    /// To be dropped; whether because they are garbage.
    dropped: Vec<(Dot, bool)>,
    convicted: Vec<ReplicaId>,
    suspects: Vec<(ReplicaId, u64)>,
    /// Events that a batch now says something of.
    spans: Vec<(ReplicaId, u64, u64)>,
    /// The value that this replica had put there and that somebody took away.
    lost: Option<Vec<u8>>,
}

pub(super) fn read_testimony(bytes: &[u8]) -> Option<Vec<Checkpoint>> {
    let mut input = Input::new(bytes);
    super::super::read_version(&mut input).ok()?;
    let mut checkpoints = Vec::new();
    while !input.is_empty() {
        if checkpoints.len() == TESTIMONY_LEN_MAX {
            return None;
        }
        checkpoints.push(Checkpoint::read(&mut input).ok()?);
    }
    Some(checkpoints)
}
