//! [`CausalMap`] as a state that sessions synchronize.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::delta::MapDelta;
use super::gather::Gather;
use super::gradual::Gradual;
use super::{CausalMap, Frontier, HistoryError, Joined};
use crate::session::{GatherStep, JoinStep, StageBegin, StageStep, StageTaken, Transfer};
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

    /// Counts a heartbeat of this replica, expires members whose lease is over, and collects the tombstones
    /// that all others have seen.
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

    fn item_hashes(&self) -> impl Iterator<Item = (u64, Dot)> {
        self.item_hashes()
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
    ) -> Result<Vec<u8>, HistoryError> {
        Ok(self.chosen(since, sketched, hashes)?.encode(since))
    }

    fn common_count(&self, since: &Version) -> usize {
        self.common_count(since)
    }

    fn has_news(&self) -> bool {
        true
    }

    fn encode_news(&self, since: &Version, whole: bool) -> Option<Vec<u8>> {
        self.encode_news(since, whole)
    }

    fn join_news(&mut self, bytes: &[u8], base: &Version) -> Result<Option<(Version, Joined)>, SessionError> {
        self.join_news(bytes, base)
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
        !self.reports.is_empty() || self.has_layers()
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
        items_max: usize,
    ) -> Result<JoinStep<Joined, Box<Gradual>>, SessionError> {
        self.begin_gradual(bytes, base, items_max)
    }

    fn step_join(&mut self, joining: Box<Gradual>) -> Result<JoinStep<Joined, Box<Gradual>>, SessionError> {
        self.step_gradual(joining)
    }

    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<Dot>,
    ) -> Result<(Version, Joined), SessionError> {
        let delta = MapDelta::decode_named(bytes, base, self)?;
        let absent = absent(self);
        let joined = self.join_and_drop(&delta, &absent)?;
        Ok((delta.context().clone(), joined))
    }
}
