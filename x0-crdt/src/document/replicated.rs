//! [`Document`] as a state that sessions synchronize: as its map.

use alloc::vec::Vec;
use core::time::Duration;

use super::Document;
use crate::map::{Frontier, HistoryError, Joined};
use crate::session::{Found, GatherStep, JoinSource, JoinStep, StageBegin, StageStep, StageTaken, Transfer};
use crate::{CausalMap, Dot, HashKey, Members, ReplicaId, Replicated, SessionError, Version};

impl Replicated for Document {
    fn replica(&self) -> ReplicaId {
        self.map.replica()
    }

    fn renew(&mut self, incarnation: u32) {
        self.map.renew(incarnation);
    }

    fn hash_key(&self) -> HashKey {
        self.map.hash_key()
    }

    fn version(&self) -> Version {
        self.map.version()
    }

    fn frontier(&self) -> Frontier {
        self.map.frontier()
    }

    fn members(&self) -> &Members {
        self.map.members()
    }

    fn members_mut(&mut self) -> &mut Members {
        self.map.members_mut()
    }

    fn collect_tombstones(&mut self, stable: &Version) {
        self.map.collect_tombstones(stable);
    }

    fn collect_part(&mut self, stable: &Version) {
        self.map.collect_part(stable);
    }
}

impl Transfer for Document {
    type Joined = Joined;
    type Joining = <CausalMap as Transfer>::Joining;
    type Gathering = <CausalMap as Transfer>::Gathering;

    fn changed_keys(joined: &Joined) -> &[Vec<u8>] {
        CausalMap::changed_keys(joined)
    }

    fn written_keys(&self, since: &Version) -> Vec<Vec<u8>> {
        self.map.written_keys(since)
    }

    fn value_count(&self) -> usize {
        self.map.value_count()
    }

    fn resolutions(&self) -> u64 {
        Transfer::resolutions(&self.map)
    }

    fn visit(
        &self,
        at: &mut Option<Vec<u8>>,
        count: usize,
        visit: impl FnMut(&[u8], Dot, &dyn Fn() -> u64),
    ) -> bool {
        self.map.visit(at, count, visit)
    }

    fn written_since(&self, since: &Version) -> Option<Vec<(Vec<u8>, Dot)>> {
        self.map.written_since(since)
    }

    fn encode_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        self.map.encode_since(since)
    }

    fn encode_named_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        self.map.encode_named_since(since)
    }

    fn encode_complete(&self, since: &Version) -> Vec<u8> {
        self.map.encode_complete(since)
    }

    fn encode_chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
        whole: bool,
        found: &Found,
    ) -> Result<Vec<u8>, HistoryError> {
        self.map.encode_chosen(since, sketched, hashes, whole, found)
    }

    fn forget_replaced(&self, hashes: &mut Vec<u64>) {
        self.map.forget_replaced(hashes);
    }

    fn has_news(&self) -> bool {
        self.map.has_news()
    }

    fn encode_news(
        &self,
        since: &Version,
        whole: bool,
        found: &Found,
    ) -> Option<Result<Vec<u8>, HistoryError>> {
        Transfer::encode_news(&self.map, since, whole, found)
    }

    fn has_ranges(&self) -> bool {
        self.map.has_ranges()
    }

    fn is_long(&self, since: &Version, complete: bool) -> bool {
        Transfer::is_long(&self.map, since, complete)
    }

    fn encode_range(&self, since: &Version, from: &[u8], len_max: usize) -> Option<Vec<u8>> {
        self.map.encode_range(since, from, len_max)
    }

    fn begin_stage(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> StageBegin {
        Transfer::begin_stage(&mut self.map, now, claim, patience, renew)
    }

    fn stage_needs(&self) -> Option<(Version, Vec<u8>)> {
        Transfer::stage_needs(&self.map)
    }

    fn take_range(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        Transfer::take_range(&mut self.map, now, claim, bytes)
    }

    fn has_reports(&self) -> bool {
        self.map.has_reports()
    }

    fn step_stage(&mut self) -> StageStep<Joined> {
        Transfer::step_stage(&mut self.map)
    }

    fn expire_stage(&mut self, now: Duration) {
        Transfer::expire_stage(&mut self.map, now);
    }

    fn begin_gather(
        &mut self,
        since: &Version,
        whole: bool,
        items_max: usize,
    ) -> Result<GatherStep<Self::Gathering>, HistoryError> {
        Transfer::begin_gather(&mut self.map, since, whole, items_max)
    }

    fn step_gather(
        &mut self,
        gathering: Self::Gathering,
    ) -> Result<GatherStep<Self::Gathering>, HistoryError> {
        Transfer::step_gather(&mut self.map, gathering)
    }

    fn begin_join(
        &mut self,
        bytes: &[u8],
        base: &Version,
        source: JoinSource,
        items_max: usize,
    ) -> Result<JoinStep<Joined, Self::Joining>, SessionError> {
        self.map.begin_join(bytes, base, source, items_max)
    }

    fn step_join(&mut self, joining: Self::Joining) -> Result<JoinStep<Joined, Self::Joining>, SessionError> {
        self.map.step_join(joining)
    }

    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<(Vec<u8>, Dot)>,
    ) -> Result<(Version, Joined), SessionError> {
        let absent = absent(self);
        self.map.join_encoded(bytes, base, |_| absent)
    }
}
