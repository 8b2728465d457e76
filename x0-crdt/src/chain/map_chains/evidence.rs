//! Evidence: checkpoints that a replica publishes under its own name when a chain does not continue as it was
//! known.

use alloc::vec::Vec;

use super::super::VERSION;
use super::super::checkpoint::Checkpoint;
use super::keys::ChainKey;
use super::review::Work;
use super::{MapChains, Reviewed};
use crate::codec::ByteReader;
use crate::{CausalMap, Entry, ReplicaId};

/// Most checkpoints of one entry of evidence.
pub(super) const EVIDENCE_LEN_MAX: usize = 16;

/// Most writers of which evidence is published in one call.
const OPENED_MAX: usize = 64;

impl MapChains {
    /// Answers a session that met a peer with the same version and other contents, which
    /// [`SessionStats::divergences`](crate::SessionStats::divergences) counts. Some writer has given the two
    /// sides different events, and the map alone does not show which one: so this replica publishes the last
    /// checkpoint of every chain as it knows it. A replica that holds two checkpoints that contradict each
    /// other makes the proof. At most 64 chains per call; a further call goes on with others.
    ///
    /// The call also re-issues own recent batches: where a forgery took the place of one, the two sides
    /// hold different content for that event, and sessions cannot exchange it.
    ///
    /// Honest replicas with one version hold the same, except while one has dropped a value and the other has
    /// not yet. A call in vain costs about 190 bytes for each writer, until [`tidy`](Self::tidy), and each
    /// batch at most once.
    pub fn diverged(&mut self, map: &mut CausalMap) -> Reviewed {
        let mut work = Work::default();
        self.renew(map, &mut work);
        let writers: Vec<ReplicaId> = self.tracker.writers().collect();
        let mut opened = 0;
        for writer in writers {
            opened += usize::from(
                opened < OPENED_MAX && self.publish_evidence(map, writer, u64::MAX, 1, &mut work),
            );
        }
        self.finish(map, work)
    }

    /// Re-issues the chain entries of this replica that some member may not have seen and that were not
    /// re-issued before.
    fn renew(&mut self, map: &mut CausalMap, work: &mut Work) {
        if self.tracker.kept(self.replica).is_some() {
            return;
        }
        let since = self.renewed.max(map.forgotten(self.replica));
        let batches = self.covers.get(&self.replica).into_iter().flatten();
        let batches =
            batches.map(|(begin, cover)| (ChainKey::Batch(self.replica, *begin).to_key(), cover.encode()));
        let head = self.heads.get(&self.replica);
        let head = head.map(|head| (ChainKey::Head(self.replica).to_key(), head.encode()));
        let entries: Vec<_> = batches.chain(head).collect();
        for (key, value) in entries {
            let is_late = |entry: Entry<'_>| entry.siblings().any(|held| held.dot.seq > since);
            if map.get(&key).is_none_or(is_late) && map.put(&key, 0, &value).is_ok() {
                work.keys.insert(key);
            }
        }
        self.renewed = map.last_seen(self.replica);
    }

    /// Publishes the last `count` checkpoints of a chain up to event `until`, beside what this replica
    /// published before.
    pub(super) fn publish_evidence(
        &mut self,
        map: &mut CausalMap,
        writer: ReplicaId,
        until: u64,
        count: usize,
        work: &mut Work,
    ) -> bool {
        if writer == self.replica || self.tracker.kept(writer).is_some() {
            return false;
        }
        let key = ChainKey::Evidence(writer, self.replica).to_key();
        let said = map.get(&key).map(|entry| entry.latest().value.to_vec());
        let mut checkpoints = said.as_deref().and_then(read_evidence).unwrap_or_default();
        let held: Vec<_> =
            self.tracker.checkpoints(writer).filter(|checkpoint| checkpoint.seq() <= until).collect();
        for checkpoint in held.into_iter().rev().take(count) {
            if checkpoints.len() < EVIDENCE_LEN_MAX && !checkpoints.contains(checkpoint) {
                checkpoints.push(checkpoint.clone());
            }
        }
        let bytes = encode_evidence(&checkpoints);
        let is_news = said.as_ref() != Some(&bytes) && map.put(&key, 0, &bytes).is_ok();
        if is_news {
            self.stats.evidence += 1;
            work.keys.insert(key);
        }
        is_news
    }
}

/// The bytes of an entry of evidence.
fn encode_evidence(checkpoints: &[Checkpoint]) -> Vec<u8> {
    let mut bytes = alloc::vec![VERSION];
    for checkpoint in checkpoints {
        checkpoint.write(&mut bytes);
    }
    bytes
}

pub(super) fn read_evidence(bytes: &[u8]) -> Option<Vec<Checkpoint>> {
    let mut input = ByteReader::new(bytes);
    super::super::read_version(&mut input).ok()?;
    let mut checkpoints = Vec::new();
    while !input.is_empty() {
        if checkpoints.len() == EVIDENCE_LEN_MAX {
            return None;
        }
        checkpoints.push(Checkpoint::read(&mut input).ok()?);
    }
    Some(checkpoints)
}
