//! Signs the events of this replica, and removes chain entries that are not needed any more.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::digest::Digest;
use super::super::error::SignError;
use super::super::statement::{Head, Statement};
use super::super::{BATCH_LEN_MAX, SIGNATURE_LEN_MAX, merkle};
use super::MapChains;
use super::cover::Cover;
use super::keys::{CHAIN_PREFIX, ChainKey, is_reserved};
use crate::{CausalMap, ReplicaId, WriteError};

/// Why pending events were not signed. Earlier batches stay, the events stay pending, and the next call tries
/// again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignBatchError {
    /// There is no signer.
    #[error("this replica's events cannot be signed: the map was opened without a signer; open it with one")]
    ReadOnly,
    /// The map is written to as another replica than the one that the chains were opened for.
    #[error(
        "this replica's events cannot be signed: the chains were opened for another replica; open them for this one"
    )]
    OtherReplica,
    /// A proof exists that this replica equivocates: it lost what it had signed, or its key is used
    /// elsewhere.
    #[error(
        "this replica's events cannot be signed: it has signed two histories after event {kept}, as after a restored backup; write as a fresh incarnation"
    )]
    Equivocated {
        /// The last event that is kept of it.
        kept: u64,
    },
    /// The map holds a chain of this replica that the verifier cannot verify, so that its head is unknown.
    #[error(
        "cannot verify this replica's own chain: the verifier has no key for it; add the replica's public key to the verifier"
    )]
    UnknownSelf,
    /// The signer failed.
    #[error("the signer failed; the events stay pending and the next batch covers them")]
    Sign(#[from] SignError),
    /// The signer gave a signature of this many bytes.
    #[error(
        "a signature of {0} bytes is above the limit of {SIGNATURE_LEN_MAX}: use a scheme with shorter ones"
    )]
    Signature(usize),
    /// The map refused the batch, which its bounds exclude.
    #[error("the map refused the signed batch; the events stay pending")]
    Write(#[from] WriteError),
}

impl MapChains {
    /// Signs all live values written to the map since the last batch, and puts the batches into the map.
    /// Returns whether it wrote: the map must then be durable before the sessions are notified, as after any
    /// write.
    ///
    /// Does nothing if no value written since is live: batches, removals and overwritten values need no
    /// batch.
    ///
    /// # Errors
    /// [`SignBatchError`].
    pub fn sign_pending(&mut self, map: &mut CausalMap) -> Result<bool, SignBatchError> {
        self.sign_from(map, 1)
    }

    /// As [`sign_pending`](Self::sign_pending), but only if the pending events fill a batch.
    ///
    /// # Errors
    /// [`SignBatchError`].
    pub fn sign_full(&mut self, map: &mut CausalMap) -> Result<bool, SignBatchError> {
        self.sign_from(map, self.options.batch_len_max as u64)
    }

    fn sign_from(&mut self, map: &mut CausalMap, pending_min: u64) -> Result<bool, SignBatchError> {
        if map.replica() != self.replica {
            return Err(SignBatchError::OtherReplica);
        }
        let last = map.last_seen(self.replica);
        if last.saturating_sub(self.head.seq) < pending_min {
            return Ok(false);
        }
        let live = live(map, self.replica, self.head.seq, last);
        if live.is_empty() {
            return Ok(false);
        }
        let signer = self.signer.as_ref().ok_or(SignBatchError::ReadOnly)?;
        if let Some(kept) = self.tracker.kept(self.replica) {
            return Err(SignBatchError::Equivocated { kept });
        }
        if self.unknown.contains(&self.replica) {
            return Err(SignBatchError::UnknownSelf);
        }
        // Signs everything before it puts anything: if the signer fails, the chain's end is still the one in
        // the map.
        let mut covers: Vec<Cover> = Vec::new();
        let mut head = self.head;
        let mut rest = live.as_slice();
        while !rest.is_empty() {
            let (count, leaves) = chunk(head, &mut rest, self.options.batch_len_max);
            let root = merkle::root(&Cover::leaves(head.seq, self.replica, &leaves));
            // Cannot fail: `chunk` yields at least one event and at most what a statement may cover.
            let Ok(statement) = Statement::new(self.replica, head, count, root) else { break };
            let signature = signer.sign(&statement.message())?;
            let len = signature.len();
            let checkpoint =
                Checkpoint::new(statement, signature).map_err(|_| SignBatchError::Signature(len))?;
            head = statement.head();
            covers.push(Cover::new(checkpoint, &leaves));
        }
        let Some(checkpoint) = covers.last().map(|cover| cover.checkpoint().clone()) else {
            return Ok(false);
        };
        for cover in covers {
            let begin = cover.statement().previous().seq;
            map.put(&ChainKey::Batch(self.replica, begin).to_key(), 0, &cover.encode())?;
            // Held like the checkpoints of others. It does not matter here whether the verifier knows this
            // replica's key.
            let _ = self.tracker.observe(cover.checkpoint(), self.verifier.as_ref());
            self.covers.entry(self.replica).or_default().insert(begin, cover);
            self.stats.signed += 1;
        }
        map.put(&ChainKey::Head(self.replica).to_key(), 0, &checkpoint.encode())?;
        self.heads.insert(self.replica, checkpoint);
        self.head = head;
        Ok(true)
    }

    /// Prunes and removes batches of this node that are not needed any more. Returns how many entries it
    /// changed; if any, the sessions must be notified.
    ///
    /// Among the batches of this node, all incarnations included, it prunes those of which half or more is
    /// gone, and removes those that cover no live value and that all members have seen (so that no member
    /// sees a gap in the chain), which follows from [`CausalMap::heartbeat`] or
    /// [`CausalMap::collect_tombstones`]. Costs a pass over the map. The writes are events like any other and
    /// need no signature.
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
        let evidence = [CHAIN_PREFIX, b"t"].concat();
        let settled: Vec<Vec<u8>> = map
            .prefix(&evidence)
            .filter(|entry| {
                let by_me = matches!(ChainKey::parse(entry.key()), Some(ChainKey::Evidence(_, by)) if by == self.replica);
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

/// The digests of the live values that `writer` wrote in the events after `after` up to `until`.
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

/// Splits off `rest` what the next batch after `head` covers: the number of events, and of each the digest if
/// it is live.
fn chunk(head: Head, rest: &mut &[(u64, Digest)], live_max: usize) -> (u16, Vec<Option<Digest>>) {
    let end = head.seq.saturating_add(BATCH_LEN_MAX as u64);
    let within = rest.iter().take(live_max).take_while(|(seq, _)| *seq <= end).count();
    let (live, after) = rest.split_at_checked(within).unwrap_or((rest, &[]));
    *rest = after;
    // Up to the last live event; what follows waits for the next batch. A stretch without live events is a
    // batch of its own.
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
