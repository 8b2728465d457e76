//! Signing what was written here, and taking away what is not needed any more.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::digest::Digest;
use super::super::error::SignError;
use super::super::statement::{Head, Statement};
use super::super::{BATCH_LEN_MAX, merkle};
use super::Guard;
use super::cover::Cover;
use super::keys::{CHAIN_PREFIX, ChainKey, is_reserved};
use crate::{CausalMap, ReplicaId, WriteError};

/// Why events were not signed. What was signed before stays; nothing else has changed, and the next call tries again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardSealError {
    /// There is no signer.
    #[error("the guard has no signer: open it with one")]
    ReadOnly,
    /// The map is written to as another replica than the one that the guard was opened for.
    #[error("the map is of another replica than the guard: open a guard for it")]
    OtherReplica,
    /// This replica stands convicted: it lost what it had signed, or somebody else signs with its key.
    #[error(
        "this replica has contradicted itself after event {kept}, as after a restored backup: write as a fresh incarnation"
    )]
    Convicted {
        /// The last event that is kept of it.
        kept: u64,
    },
    /// There is a chain of this replica in the map that the verifier cannot check, so that it is not known where it stands.
    #[error(
        "this replica's own chain is not to be verified: give the verifier its key and call `review_all`"
    )]
    UnknownSelf,
    /// The signer failed.
    #[error("the batch is not signed: {0}")]
    Sign(#[from] SignError),
    /// The signer gave a signature of this many bytes.
    #[error("a signature of {0} bytes is too long: use a scheme with shorter ones")]
    Signature(usize),
    /// The map refused the batch, which its bounds exclude.
    #[error("the batch does not fit the map: {0}")]
    Write(#[from] WriteError),
}

impl Guard {
    /// Signs all that was written to the map since the last batch and stands, and puts the batches into the map. Says whether it
    /// wrote: if so the sessions are to hear of it, and the map is to be made durable first, as after any write.
    ///
    /// Does nothing if nothing that was written since stands: batches, removals and overwritten values ask for no batch.
    ///
    /// # Errors
    /// [`GuardSealError`].
    pub fn seal(&mut self, map: &mut CausalMap) -> Result<bool, GuardSealError> {
        self.seal_from(map, 1)
    }

    /// As [`seal`](Self::seal), but only if there are as many events as make a batch.
    ///
    /// # Errors
    /// [`GuardSealError`].
    pub fn seal_due(&mut self, map: &mut CausalMap) -> Result<bool, GuardSealError> {
        self.seal_from(map, self.options.batch_len_max as u64)
    }

    fn seal_from(&mut self, map: &mut CausalMap, pending_min: u64) -> Result<bool, GuardSealError> {
        if map.replica() != self.replica {
            return Err(GuardSealError::OtherReplica);
        }
        let last = map.last_seen(self.replica);
        if last.saturating_sub(self.head.seq) < pending_min {
            return Ok(false);
        }
        let live = live(map, self.replica, self.head.seq, last);
        if live.is_empty() {
            return Ok(false);
        }
        let signer = self.signer.as_ref().ok_or(GuardSealError::ReadOnly)?;
        if let Some(kept) = self.tracker.kept(self.replica) {
            return Err(GuardSealError::Convicted { kept });
        }
        if self.unknown.contains(&self.replica) {
            return Err(GuardSealError::UnknownSelf);
        }
        // First all is signed, then all is put: a signer that fails leaves no chain with an end that is not in the map.
        let mut covers: Vec<Cover> = Vec::new();
        let mut head = self.head;
        let mut rest = live.as_slice();
        while !rest.is_empty() {
            let (count, leaves) = chunk(head, &mut rest, self.options.batch_len_max);
            let root = merkle::root(&Cover::leaves(head.seq, self.replica, &leaves));
            // At least one event and at most what a statement may cover: see `chunk`.
            let Ok(statement) = Statement::new(self.replica, head, count, root) else { break };
            let signature = signer.sign(&statement.message())?;
            let len = signature.len();
            let checkpoint =
                Checkpoint::new(statement, signature).map_err(|_| GuardSealError::Signature(len))?;
            head = statement.head();
            covers.push(Cover::new(checkpoint, &leaves));
        }
        let Some(checkpoint) = covers.last().map(|cover| cover.checkpoint().clone()) else {
            return Ok(false);
        };
        for cover in covers {
            let begin = cover.statement().previous().seq;
            map.put(&ChainKey::Batch(self.replica, begin).to_key(), 0, &cover.encode())?;
            // One's own checkpoints are held like all others. Whether one's own verifier knows one's own key does not matter here.
            let _ = self.tracker.observe(cover.checkpoint(), self.verifier.as_ref());
            self.covers.entry(self.replica).or_default().insert(begin, cover);
            self.stats.sealed += 1;
        }
        map.put(&ChainKey::Head(self.replica).to_key(), 0, &checkpoint.encode())?;
        self.heads.insert(self.replica, checkpoint);
        self.head = head;
        Ok(true)
    }

    /// Takes away what is not needed any more, and says how many entries it changed; if any, the sessions are to hear of it.
    ///
    /// Of the batches of this node, all lives included, those are pruned of which half or more is gone, and those are removed that cover
    /// nothing alive and that all members have seen (so that a chain has no gaps for any of them): both need what
    /// [`CausalMap::beat`] or [`CausalMap::forget`] knows. Costs a pass over the map. The writes are events like any other; nothing has
    /// to be signed for them.
    pub fn tidy(&mut self, map: &mut CausalMap) -> usize {
        let mine = |replica: ReplicaId| replica.node == map.replica().node;
        let alive: BTreeSet<(ReplicaId, u64)> = map
            .range(&[])
            .filter(|entry| !is_reserved(entry.key()))
            .flat_map(|entry| {
                entry.siblings().map(|held| (held.dot.replica, held.dot.seq)).collect::<Vec<_>>()
            })
            .filter(|(replica, _)| mine(*replica))
            .collect();
        let mut changed = 0;
        let lives: Vec<ReplicaId> = self.covers.keys().copied().filter(|writer| mine(*writer)).collect();
        for writer in lives {
            for cover in self
                .covers
                .get(&writer)
                .into_iter()
                .flat_map(|covers| covers.values().cloned())
                .collect::<Vec<_>>()
            {
                changed += usize::from(self.tidy_batch(map, writer, &cover, &alive));
            }
        }
        let testimonies = [CHAIN_PREFIX, b"t"].concat();
        let settled: Vec<Vec<u8>> = map
            .prefix(&testimonies)
            .filter(|entry| {
                let by_me = matches!(ChainKey::parse(entry.key()), Some(ChainKey::Testimony(_, by)) if by == self.replica);
                by_me && entry.siblings().all(|held| held.dot.seq <= map.forgotten(held.dot.replica))
            })
            .map(|entry| entry.key().to_vec())
            .collect();
        for key in settled {
            changed += usize::from(map.remove(&key).is_some());
        }
        changed
    }

    fn tidy_batch(
        &mut self,
        map: &mut CausalMap,
        writer: ReplicaId,
        cover: &Cover,
        alive: &BTreeSet<(ReplicaId, u64)>,
    ) -> bool {
        let begin = cover.statement().previous().seq;
        let key = ChainKey::Batch(writer, begin).to_key();
        let pruned = cover.retain(|seq| alive.contains(&(writer, seq)));
        let Some(covers) = self.covers.get_mut(&writer) else { return false };
        if pruned.live_len() == 0 {
            let is_stable = map.get(&key).is_some_and(|entry| {
                entry.siblings().all(|held| held.dot.seq <= map.forgotten(held.dot.replica))
            });
            if is_stable {
                covers.remove(&begin);
            }
            return is_stable && map.remove(&key).is_some();
        }
        if pruned.encoded_len() * 2 > cover.encoded_len() {
            return false;
        }
        let is_put = map.put(&key, 0, &pruned.encode()).is_ok();
        if is_put {
            covers.insert(begin, pruned);
        }
        is_put
    }
}

/// The digests of what `writer` wrote in the events after `after` up to `until`, as far as it stands.
fn live(map: &CausalMap, writer: ReplicaId, after: u64, until: u64) -> Vec<(u64, Digest)> {
    let mut live = Vec::new();
    for (seq, entry) in map.written(writer, after, until) {
        let held = entry.siblings().find(|held| held.dot.replica == writer && held.dot.seq == seq);
        if let Some(held) = held.filter(|_| !is_reserved(entry.key())) {
            live.push((seq, Digest::of_value(writer, seq, entry.key(), held.time, held.value)));
        }
    }
    live
}

/// Takes from `rest` what the next batch after `head` covers: how many events that is, and of each the digest if it is alive.
fn chunk(head: Head, rest: &mut &[(u64, Digest)], live_max: usize) -> (u16, Vec<Option<Digest>>) {
    let end = head.seq.saturating_add(BATCH_LEN_MAX as u64);
    let within = rest.iter().take(live_max).take_while(|(seq, _)| *seq <= end).count();
    let (live, after) = rest.split_at_checked(within).unwrap_or((rest, &[]));
    *rest = after;
    // Up to the last that is alive; what follows waits for the next batch. A stretch in which nothing is alive is a batch of its own.
    let end = live.last().map_or(end, |(seq, _)| *seq);
    let count = u16::try_from(end.saturating_sub(head.seq)).unwrap_or(u16::MAX);
    let mut leaves = alloc::vec![None; usize::from(count)];
    for (seq, digest) in live {
        let place = usize::try_from(seq.saturating_sub(head.seq).saturating_sub(1)).ok();
        if let Some(leaf) = place.and_then(|place| leaves.get_mut(place)) {
            *leaf = Some(*digest);
        }
    }
    (count, leaves)
}
