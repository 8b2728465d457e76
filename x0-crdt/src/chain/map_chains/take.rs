//! Takes in the entries at the reserved keys.

use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::equivocation::EquivocationProof;
use super::MapChains;
use super::cover::Cover;
use super::evidence::read_evidence;
use super::keys::ChainKey;
use super::review::Work;
use super::verdict::{Verdict, Verdicts};
use crate::{CausalMap, Dot, ReplicaId};

impl MapChains {
    /// Takes in the values at a reserved key, and drops those that are not valid there.
    pub(super) fn take(&mut self, map: &mut CausalMap, key: ChainKey, work: &mut Work) {
        let bytes = key.to_key();
        let siblings: Vec<(Dot, Vec<u8>)> = map
            .get(&bytes)
            .map(|entry| entry.siblings().map(|held| (held.dot, held.value.to_vec())).collect())
            .unwrap_or_default();
        let last_seen = map.last_seen(key.writer());
        let mut drop_it = |guard: &mut Self, dot: Dot, is_garbage: bool| {
            if map.evict(&bytes, dot) {
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
            ChainKey::Evidence(writer, _) => self.take_evidence(writer, &admitted, &mut verdicts),
        }
        for (dot, is_garbage) in verdicts.dropped {
            drop_it(self, dot, is_garbage);
        }
        work.equivocating.extend(verdicts.equivocating);
        work.suspects.extend(verdicts.suspects);
        work.spans.extend(verdicts.spans);
        work.lost.extend(verdicts.lost.map(|value| (bytes, value)));
    }

    /// The proof that keeps least stays: all replicas choose the same.
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

    fn take_batch(
        &mut self,
        writer: ReplicaId,
        begin: u64,
        last_seen: u64,
        siblings: &[(Dot, Vec<u8>)],
        verdicts: &mut Verdicts,
    ) {
        let mut best: Option<(Cover, Dot)> = None;
        // Values that this replica has put there itself need no verification.
        let is_mine = self.is_mine(writer);
        let mine = self.covers.get(&writer).and_then(|covers| covers.get(&begin)).filter(|_| is_mine);
        let mine = mine.map(Cover::encode);
        for (dot, bytes) in siblings {
            let cover = Cover::decode(bytes).ok().filter(|cover| {
                let statement = cover.statement();
                // A batch covers events that were written before it. A claim on later events is invalid.
                statement.writer() == writer
                    && statement.previous().seq == begin
                    && statement.seq() <= last_seen
            });
            let verdict = match &cover {
                Some(_) if mine.as_ref() == Some(bytes) => Verdict::Good,
                Some(cover) => self.try_checkpoint(cover.checkpoint(), true, verdicts),
                None => Verdict::Garbage,
            };
            // The one that proves most stays: a peer that puts a shorter one beside it removes nothing.
            verdicts.keep_best(&mut best, verdict, cover, *dot, Cover::live_len);
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
            // A key alone names a writer and proves nothing about it.
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
            verdicts.keep_best(&mut best, verdict, checkpoint, *dot, Checkpoint::seq);
        }
        let seq = best.as_ref().map_or(0, |(checkpoint, _)| checkpoint.seq());
        let before = self.heads.remove(&writer);
        if let Some(mine) = before.filter(|mine| is_mine && seq < mine.seq()) {
            verdicts.lost = Some(mine.encode());
            self.heads.insert(writer, mine);
            return;
        }
        self.heads.extend(best.map(|(checkpoint, _)| (writer, checkpoint)));
        // An honest chain does not go back, and its last checkpoint is never removed.
        if self.tracker.kept(writer).is_none() && self.tracker.head(writer).is_some_and(|head| seq < head.seq)
        {
            verdicts.suspects.push((writer, u64::MAX));
        }
    }

    fn take_evidence(&mut self, writer: ReplicaId, siblings: &[(Dot, Vec<u8>)], verdicts: &mut Verdicts) {
        for (dot, bytes) in siblings {
            let checkpoints = read_evidence(bytes)
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
}
