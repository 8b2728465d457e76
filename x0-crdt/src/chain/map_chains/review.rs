//! Verifies what a join has changed, and repairs the chain entries of the map.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::equivocation::EquivocationProof;
use super::cover::Cover;
use super::evidence::EVIDENCE_LEN_MAX;
use super::keys::{CHAIN_PREFIX, ChainKey, is_reserved};
use super::{MapChains, Reviewed, Verification};
use crate::{CausalMap, Dot, Entry, ReplicaId};

/// Up to so many batches over events without history are looked up one by one; for more, one pass over the
/// map is cheaper.
const LOOKUPS_MAX: usize = 4;

/// The findings of a review.
#[derive(Default)]
pub(super) struct Work {
    /// Keys that the review changed.
    pub(super) keys: BTreeSet<Vec<u8>>,
    /// Writers of which less is kept than before.
    pub(super) equivocating: BTreeSet<ReplicaId>,
    /// Writers whose chain jumped or went back, and up to where it was known before.
    pub(super) suspects: BTreeSet<(ReplicaId, u64)>,
    /// Events that a batch now covers: writer, after, until.
    pub(super) spans: Vec<(ReplicaId, u64, u64)>,
    /// Up to where chains were known before.
    pub(super) known: BTreeMap<ReplicaId, u64>,
    /// Entries of this replica that a peer removed, with their values.
    pub(super) lost: Vec<(Vec<u8>, Vec<u8>)>,
}

impl MapChains {
    /// Verifies what a join has changed: drops values that are forged or behind what is kept of their writer,
    /// and finds writers that equivocate. `keys` are those of [`Joined`](crate::Joined).
    ///
    /// Every replica drops the same values, so a drop is no event. Entries that are missing in the map (a
    /// proof, evidence, a chain entry of this replica that a peer removed) are written as this replica.
    pub fn review(&mut self, map: &mut CausalMap, keys: &[Vec<u8>]) -> Reviewed {
        let mut work = Work::default();
        let mut reserved = BTreeSet::new();
        let mut touched = BTreeSet::new();
        for key in keys {
            match ChainKey::parse(key) {
                Some(key) => drop(reserved.insert(key)),
                None => drop(touched.insert(key.as_slice())),
            }
        }
        for key in reserved {
            self.take(map, key, &mut work);
        }
        let is_forgotten = |(writer, begin, _): &&(ReplicaId, u64, u64)| map.forgotten(*writer) > *begin;
        let lookups = work.spans.iter().filter(is_forgotten).count();
        if lookups > LOOKUPS_MAX {
            self.judge_all(map, &mut work);
        } else {
            let mut unfit = Vec::new();
            for key in touched {
                unfit.extend(map.get(key).into_iter().flat_map(|entry| self.unfit(&entry)));
            }
            for (writer, begin, end) in core::mem::take(&mut work.spans) {
                for (_, entry) in map.written(writer, begin, end) {
                    unfit.extend(self.unfit(&entry));
                }
            }
            self.evict(map, unfit, &mut work);
        }
        self.finish(map, work)
    }

    /// As [`review`](Self::review), of all keys: when the [`Verifier`](super::super::Verifier) has learned
    /// keys.
    pub fn review_all(&mut self, map: &mut CausalMap) -> Reviewed {
        let mut work = Work::default();
        self.unknown.clear();
        let reserved: BTreeSet<ChainKey> =
            map.prefix(CHAIN_PREFIX).filter_map(|entry| ChainKey::parse(entry.key())).collect();
        // Its own chain first: it must know its own head, however many others fill the limits.
        let (mine, others): (Vec<_>, Vec<_>) =
            reserved.into_iter().partition(|key| key.writer() == self.replica);
        for key in mine.into_iter().chain(others) {
            self.take(map, key, &mut work);
        }
        self.judge_all(map, &mut work);
        self.finish(map, work)
    }

    pub(super) fn accept_proof_and_review(
        &mut self,
        map: &mut CausalMap,
        proof: &EquivocationProof,
    ) -> Reviewed {
        let mut work = Work::default();
        if self.tracker.accept_proof(proof, self.verifier.as_ref()) == Ok(true) {
            work.equivocating.insert(proof.writer());
        }
        self.finish(map, work)
    }

    /// The values of an entry that must not stand, with the key.
    fn unfit(&self, entry: &Entry<'_>) -> Vec<(Vec<u8>, Dot, Verification)> {
        let key = entry.key();
        let unfit = entry.siblings().filter_map(|held| {
            let verification = if is_reserved(key) && ChainKey::parse(key).is_none() {
                Verification::Unsigned
            } else {
                match self.verification(key, &held) {
                    verification @ (Verification::Invalid | Verification::Quarantined) => verification,
                    _ => return None,
                }
            };
            Some((key.to_vec(), held.dot, verification))
        });
        unfit.collect()
    }

    fn judge_all(&mut self, map: &mut CausalMap, work: &mut Work) {
        let unfit: Vec<_> = map.range(&[]).flat_map(|entry| self.unfit(&entry)).collect();
        self.evict(map, unfit, work);
    }

    fn evict(&mut self, map: &mut CausalMap, unfit: Vec<(Vec<u8>, Dot, Verification)>, work: &mut Work) {
        for (key, dot, verification) in unfit {
            if map.evict(&key, dot) {
                match verification {
                    Verification::Invalid => self.stats.invalid += 1,
                    Verification::Quarantined => self.stats.quarantined += 1,
                    _ => self.stats.garbage += 1,
                }
                work.keys.insert(key);
            }
        }
    }

    pub(super) fn finish(&mut self, map: &mut CausalMap, mut work: Work) -> Reviewed {
        if !work.equivocating.is_empty() {
            for writer in work.equivocating.clone() {
                self.purge(map, writer, &mut work);
            }
            self.judge_all(map, &mut work);
        }
        self.mend(map, &mut work);
        Reviewed {
            keys: work.keys.into_iter().collect(),
            equivocating: work.equivocating.into_iter().collect(),
        }
    }

    /// Drops what an equivocating writer signed after what is kept of it. Its earlier batches stay, whatever
    /// event carried them: they verify by themselves.
    fn purge(&mut self, map: &mut CausalMap, writer: ReplicaId, work: &mut Work) {
        let Some(kept) = self.tracker.kept(writer) else { return };
        if let Some(covers) = self.covers.get_mut(&writer) {
            covers.retain(|_, cover| cover.statement().seq() <= kept);
        }
        if self.heads.get(&writer).is_some_and(|head| head.seq() > kept) {
            self.heads.remove(&writer);
        }
        let mut unfit = Vec::new();
        let batches = ChainKey::Batch(writer, 0).to_key();
        let batches = batches.get(..batches.len() - 8).unwrap_or_default();
        for entry in map.prefix(batches) {
            let end = |bytes| Cover::decode(bytes).map_or(0, |cover| cover.statement().seq());
            let held = entry.siblings().filter(|held| end(held.value) > kept);
            unfit.extend(held.map(|held| (entry.key().to_vec(), held.dot, Verification::Quarantined)));
        }
        if let Some(entry) = map.get(&ChainKey::Head(writer).to_key()) {
            let end = |bytes| Checkpoint::decode(bytes).map_or(0, |checkpoint| checkpoint.seq());
            let held = entry.siblings().filter(|held| end(held.value) > kept);
            unfit.extend(held.map(|held| (entry.key().to_vec(), held.dot, Verification::Quarantined)));
        }
        self.evict(map, unfit, work);
    }

    /// Writes what is missing in the map.
    fn mend(&mut self, map: &mut CausalMap, work: &mut Work) {
        let mut put = Vec::new();
        for proof in self.tracker.proofs() {
            let (writer, kept) = (proof.writer(), proof.kept());
            if self.published.get(&writer).is_none_or(|published| *published > kept) {
                put.push((ChainKey::Proof(writer).to_key(), proof.encode()));
                self.published.insert(writer, kept);
            }
        }
        for (writer, until) in core::mem::take(&mut work.suspects) {
            self.publish_evidence(map, writer, until, EVIDENCE_LEN_MAX, work);
        }
        if self.tracker.kept(self.replica).is_some() {
            work.lost.clear();
        }
        self.stats.restored += work.lost.len() as u64;
        put.append(&mut work.lost);
        for (key, value) in put {
            // All of them are within the bounds of keys and values.
            if map.put(&key, 0, &value).is_ok() {
                work.keys.insert(key);
            }
        }
        // A proof makes the evidence against its writer superfluous.
        for writer in &work.equivocating {
            let key = ChainKey::Evidence(*writer, self.replica).to_key();
            if map.remove(&key).is_some() {
                work.keys.insert(key);
            }
        }
    }
}
