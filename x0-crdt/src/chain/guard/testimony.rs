//! Laying open what is known of a chain, so that contradictions meet where no event of their writer can stand in the way.

use alloc::vec::Vec;

use super::super::VERSION;
use super::super::checkpoint::Checkpoint;
use super::keys::ChainKey;
use super::review::Work;
use super::{Guard, Reviewed};
use crate::codec::ByteReader;
use crate::{CausalMap, Entry, ReplicaId};

/// Most checkpoints of a testimony.
pub(super) const TESTIMONY_LEN_MAX: usize = 16;

/// So many writers' chains are laid open at once.
const OPENED_MAX: usize = 64;

impl Guard {
    /// To be called when a session meets a peer that has seen the same and does not hold the same, which
    /// [`SessionStats::divergences`](crate::SessionStats::divergences) counts. Some writer has told the two sides different things, and the
    /// map alone does not say who: so the last checkpoint of every chain is laid open, as this replica knows it, and of two that
    /// contradict each other whoever comes to hold both makes a proof. Of 64 chains at most; a further call goes on with others.
    ///
    /// It also writes its own batches of late once more: where a forgery took the place of one, the two sides differ in what they take
    /// for that event, and sessions cannot tell either of the other.
    ///
    /// Honest replicas that have seen the same hold the same, but for moments while one has dropped something and the other has not yet:
    /// to call it in vain costs about 190 bytes for each writer, until [`tidy`](Self::tidy), and each batch at most once.
    pub fn diverged(&mut self, map: &mut CausalMap) -> Reviewed {
        let mut work = Work::default();
        self.renew(map, &mut work);
        let writers: Vec<ReplicaId> = self.tracker.writers().collect();
        let mut opened = 0;
        for writer in writers {
            opened += usize::from(opened < OPENED_MAX && self.testify(map, writer, u64::MAX, 1, &mut work));
        }
        self.finish(map, work)
    }

    /// Writes the chain entries of this replica anew that not all have seen yet and that were not written anew before.
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

    /// Says what this replica knows of a chain: the last `count` checkpoints of it up to event `until`, beside what it said before.
    pub(super) fn testify(
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
        let key = ChainKey::Testimony(writer, self.replica).to_key();
        let said = map.get(&key).map(|entry| entry.latest().value.to_vec());
        let mut checkpoints = said.as_deref().and_then(read_testimony).unwrap_or_default();
        let held: Vec<_> =
            self.tracker.checkpoints(writer).filter(|checkpoint| checkpoint.seq() <= until).collect();
        for checkpoint in held.into_iter().rev().take(count) {
            if checkpoints.len() < TESTIMONY_LEN_MAX && !checkpoints.contains(checkpoint) {
                checkpoints.push(checkpoint.clone());
            }
        }
        let bytes = testimony(&checkpoints);
        let is_news = said.as_ref() != Some(&bytes) && map.put(&key, 0, &bytes).is_ok();
        if is_news {
            self.stats.testimonies += 1;
            work.keys.insert(key);
        }
        is_news
    }
}

/// Checkpoints as a testimony.
fn testimony(checkpoints: &[Checkpoint]) -> Vec<u8> {
    let mut bytes = alloc::vec![VERSION];
    for checkpoint in checkpoints {
        checkpoint.write(&mut bytes);
    }
    bytes
}

pub(super) fn read_testimony(bytes: &[u8]) -> Option<Vec<Checkpoint>> {
    let mut input = ByteReader::new(bytes);
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
