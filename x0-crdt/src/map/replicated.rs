//! [`CausalMap`] as a state that sessions synchronize.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Bound;
use core::time::Duration;

use super::delta::MapDelta;
use super::gather::Gather;
use super::gradual::Gradual;
use super::small::Key;
use super::{CausalMap, Frontier, HistoryError, Joined, item_hash};
use crate::session::{Found, GatherStep, JoinSource, JoinStep, StageBegin, StageStep, StageTaken, Transfer};
use crate::{Dot, HashKey, Members, ReplicaId, Replicated, SessionError, Version};

impl CausalMap {
    /// The members of the group and the version that each has seen.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The members, to be changed.
    pub const fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    /// Counts a heartbeat of this replica, expires members whose lease is over, and collects tombstones that
    /// all others have seen: at most 32,768 events, so that no heartbeat takes long. Of a longer history the
    /// sessions of this replica collect the rest in steps, and so do the next heartbeats.
    ///
    /// The caller repeats it several times per lease.
    pub fn heartbeat(&mut self, now: Duration) {
        Replicated::heartbeat(self, now);
    }
}

impl Replicated for CausalMap {
    fn replica(&self) -> ReplicaId {
        self.replica()
    }

    fn renew(&mut self, incarnation: u32) {
        self.renew(incarnation);
    }

    fn hash_key(&self) -> HashKey {
        self.hash_key()
    }

    fn version(&self) -> Version {
        self.version()
    }

    fn frontier(&self) -> Frontier {
        self.frontier()
    }

    fn members(&self) -> &Members {
        self.members()
    }

    fn members_mut(&mut self) -> &mut Members {
        self.members_mut()
    }

    fn collect_tombstones(&mut self, stable: &Version) {
        self.collect_tombstones(stable);
    }

    fn collect_part(&mut self, stable: &Version) {
        self.collect_some(stable);
    }
}

impl Transfer for CausalMap {
    type Joined = Joined;
    type Joining = Box<Gradual>;
    type Gathering = Box<Gather>;

    fn changed_keys(joined: &Joined) -> &[Vec<u8>] {
        &joined.keys
    }

    fn written_keys(&self, since: &Version) -> Vec<Vec<u8>> {
        self.recent_since(since).map(|key| key.as_slice().to_vec()).collect()
    }

    fn value_count(&self) -> usize {
        self.sibling_count()
    }

    fn resolutions(&self) -> u64 {
        self.resolutions
    }

    fn visit(
        &self,
        at: &mut Option<Vec<u8>>,
        count: usize,
        mut visit: impl FnMut(&[u8], Dot, &dyn Fn() -> u64),
    ) -> bool {
        let from = at.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut left, mut last) = (count.max(1), None);
        for (key, cell) in self.cells.range::<[u8], _>((from, Bound::Unbounded)) {
            if left == 0 {
                *at = last.map(|key: &Key| key.as_slice().to_vec());
                return true;
            }
            last = Some(key);
            for sibling in cell.siblings() {
                left = left.saturating_sub(1);
                let dot = Dot::new(self.writers.id(sibling.writer), sibling.seq);
                visit(key.as_slice(), dot, &|| item_hash(self.hash_key, &self.writers, key, sibling));
            }
        }
        false
    }

    fn written_since(&self, since: &Version) -> Option<Vec<(Vec<u8>, Dot)>> {
        if !self.floor().is_within(since) {
            return None;
        }
        let cells = self.recent_since(since).filter_map(|key| Some((key, self.cells.get(key)?)));
        let values = cells.flat_map(|(key, cell)| cell.siblings().iter().map(move |value| (key, value)));
        let dots = values.map(|(key, value)| (key, Dot::new(self.writers.id(value.writer), value.seq)));
        let news = dots.filter(|(_, dot)| !since.contains(*dot));
        Some(news.map(|(key, dot)| (key.as_slice().to_vec(), dot)).collect())
    }

    fn encode_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        Ok(self.delta(since)?.encode(since))
    }

    fn encode_named_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        Ok(self.delta(since)?.encode_named(since, self.hash_key))
    }

    fn encode_complete(&self, since: &Version) -> Vec<u8> {
        self.complete(since).encode(since)
    }

    fn encode_chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
        whole: bool,
        found: &Found,
    ) -> Result<Vec<u8>, HistoryError> {
        let delta = self.chosen_of(since, sketched, hashes, found)?;
        Ok(if whole { delta.encode(since) } else { delta.encode_named(since, self.hash_key) })
    }

    fn forget_replaced(&self, hashes: &mut Vec<u64>) {
        let mut replaced: Vec<u64> =
            self.trail.hashes().filter(|hash| hashes.binary_search(hash).is_ok()).collect();
        replaced.sort_unstable();
        hashes.retain(|hash| replaced.binary_search(hash).is_err());
    }

    fn has_news(&self) -> bool {
        true
    }

    fn encode_news(
        &self,
        since: &Version,
        whole: bool,
        found: &Found,
    ) -> Option<Result<Vec<u8>, HistoryError>> {
        Some(self.encode_news(since, whole, found))
    }

    fn has_ranges(&self) -> bool {
        true
    }

    fn is_long(&self, since: &Version, complete: bool) -> bool {
        self.is_long(since, complete)
    }

    fn encode_range(&self, since: &Version, from: &[u8], len_max: usize) -> Option<Vec<u8>> {
        Some(self.encode_range_from(since, from, len_max))
    }

    fn begin_stage(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> StageBegin {
        self.begin_stage(now, claim, patience, renew)
    }

    fn stage_needs(&self) -> Option<(Version, Vec<u8>)> {
        self.stage_needs()
    }

    fn take_range(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        self.take_range(now, claim, bytes)
    }

    fn has_reports(&self) -> bool {
        !self.reports.is_empty() || self.has_layers() || self.collecting.is_some() && self.stage.is_none()
    }

    fn step_stage(&mut self) -> StageStep<Joined> {
        self.step_stage()
    }

    fn expire_stage(&mut self, now: Duration) {
        self.expire_stage(now);
    }

    fn begin_gather(
        &mut self,
        since: &Version,
        whole: bool,
        items_max: usize,
    ) -> Result<GatherStep<Box<Gather>>, HistoryError> {
        self.begin_gather(since, whole, items_max)
    }

    fn step_gather(&mut self, gathering: Box<Gather>) -> Result<GatherStep<Box<Gather>>, HistoryError> {
        self.step_gather(gathering)
    }

    fn begin_join(
        &mut self,
        bytes: &[u8],
        base: &Version,
        source: JoinSource,
        items_max: usize,
    ) -> Result<JoinStep<Joined, Box<Gradual>>, SessionError> {
        self.begin_gradual(bytes, base, source, items_max)
    }

    fn step_join(&mut self, joining: Box<Gradual>) -> Result<JoinStep<Joined, Box<Gradual>>, SessionError> {
        self.step_gradual(joining)
    }

    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<(Vec<u8>, Dot)>,
    ) -> Result<(Version, Joined), SessionError> {
        let delta = MapDelta::decode_named(bytes, base, self)?;
        let absent = absent(self);
        self.check(&delta)?;
        let (keys, dots): (Vec<Key>, Vec<Dot>) =
            absent.into_iter().map(|(key, dot)| (Key::new(&key), dot)).unzip();
        let joined = self.take_in(&delta, &dots, Some(keys))?;
        Ok((delta.context().clone(), joined))
    }
}
