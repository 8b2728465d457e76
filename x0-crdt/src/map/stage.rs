//! The stage: a state that arrives key range by key range, beside the map, until it can replace the map.
//!
//! A delta of a map is joined whole, because a version must not have gaps. A state that is too long for one
//! transfer is therefore built beside the map: its ranges are copied from the map as they come, and joined
//! with what the peer holds there. The peer changes meanwhile, so further passes bring what has changed since
//! the pass before, until one pass is of a single moment. Then the stage is exactly the join of the map with
//! the peer's state at that moment. It joins what was written here meanwhile, and takes the map's place.
//!
//! No reader, no write and no other session sees anything of the stage before that.

mod range;
mod saved;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Bound;
use core::time::Duration;

pub(super) use range::{ITEM_LEN, Range, WHOLE_EVENTS_MAX};

use super::cell::{Cell, Sibling};
use super::layered::Layered;
use super::small::Key;
use super::{CausalMap, JoinError, Joined, seq_of};
use crate::session::{Claim, Owner, StageBegin, StageStep, StageTaken};
use crate::{SessionError, Version};

/// The most values, and the most tombstones, that one step copies or drops.
const STEP_MAX: usize = 4096;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Stage {
    owner: Owner,
    /// What the map had seen when the stage began.
    base: Version,
    /// The version since which the current pass brings changes.
    since: Version,
    /// The peer's version at the first range of the current pass.
    first: Option<Version>,
    /// All that the peer had seen at any range.
    upper: Version,
    /// All keys below were brought by the current pass.
    cursor: Vec<u8>,
    /// The first pass copies the map; in it, all keys below were copied.
    copied: Option<Vec<u8>>,
    /// The range that is being copied and joined.
    pending: Option<Range>,
    /// The passes are complete: the stage has seen this version of the peer.
    complete: Option<Version>,
    shadow: Box<CausalMap>,
    joined: Joined,
    /// The map's count of resolutions when the stage began.
    resolutions: u64,
}

/// What is left of a map that a stage has replaced. Large maps are dropped in steps.
#[derive(Debug, Clone)]
pub(super) struct Remains {
    cells: Layered<Key, Cell>,
    recent: Layered<(u32, u64), Key>,
    removals: Layered<Key, Vec<(u32, u64)>>,
}

impl Stage {
    fn new(map: &CausalMap, base: Version) -> Self {
        let mut shadow = Box::new(CausalMap::new(map.replica, map.hash_key));
        shadow.raise_version(&base);
        Self {
            owner: Owner::default(),
            since: base.clone(),
            upper: Version::new(),
            base,
            first: None,
            cursor: Vec::new(),
            copied: Some(Vec::new()),
            pending: None,
            complete: None,
            shadow,
            joined: Joined::default(),
            resolutions: map.resolutions,
        }
    }

    /// The version that the map must not forget while the stage needs it.
    pub(super) const fn base(&self) -> &Version {
        &self.base
    }

    /// The map goes on as another incarnation.
    pub(super) fn renew(&mut self, incarnation: u32) {
        self.shadow.renew(incarnation);
    }

    /// Whether there is nothing to do before the next range.
    const fn is_waiting(&self) -> bool {
        self.pending.is_none() && self.complete.is_none()
    }

    /// Whether a range continues the current pass, and is of a peer that has seen all that the stage holds.
    fn continues_with(&self, range: &Range) -> bool {
        range.from == self.cursor && self.upper.is_within(&range.delta.context) && self.is_waiting()
    }

    /// Whether a range of the stage's base, of a pass since `since`, was taken before.
    fn has_taken(&self, since: &Version, range: &Range) -> bool {
        let is_passed = if *since == self.since {
            self.complete.is_some() || range.from < self.cursor
        } else {
            since.is_within(&self.since)
        };
        is_passed && range.delta.context.is_within(&self.upper)
    }

    /// Takes a range that continues the current pass.
    fn take(&mut self, range: Range) -> bool {
        if !self.continues_with(&range) {
            return false;
        }
        self.upper.join(&range.delta.context);
        self.first.get_or_insert_with(|| range.delta.context.clone());
        self.pending = Some(range);
        true
    }

    /// Copies a part of `map` that the pending range covers, or joins the range. Returns whether there is
    /// more to do before the next range.
    fn step(&mut self, map: &CausalMap) -> Result<bool, JoinError> {
        let Some(range) = &self.pending else { return Ok(false) };
        if let Some(copied) = &self.copied {
            let reached = self.shadow.copy(map, copied, range.end.as_deref())?;
            let is_whole = reached.is_none();
            // The end of the range, or of the part.
            self.copied = reached.or_else(|| range.end.clone()).or_else(|| Some(Vec::new()));
            if !is_whole {
                return Ok(true);
            }
        }
        let Some(Range { from, end, delta }) = self.pending.take() else { return Ok(false) };
        let joined = self.shadow.take_in_range(&delta, &from, end.as_deref())?;
        self.joined.add(joined);
        if let Some(end) = end {
            self.cursor = end;
            return Ok(false);
        }
        self.cursor.clear();
        self.copied = None;
        match self.first.take() {
            // The peer has not changed during this pass.
            Some(first) if first == delta.context => self.complete = Some(first),
            Some(first) => self.since = first,
            None => {}
        }
        Ok(self.complete.is_some())
    }
}

impl Joined {
    /// Adds what a later join did.
    pub(super) fn add(&mut self, later: Self) {
        self.keys.extend(later.keys);
        self.conflicts += later.conflicts;
        self.contested_removals += later.contested_removals;
        self.news += later.news;
        self.redundant += later.redundant;
        self.equivocating.extend(later.equivocating);
    }
}

impl CausalMap {
    /// Lets a session fetch ranges: see [`Owner::claim`].
    pub(super) fn begin_stage(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> StageBegin {
        // A journal replays a stage that was pruned when the records were written.
        if self.stage.as_ref().is_some_and(|stage| stage.owner.is_restored()) {
            self.prune_stage();
        }
        let owner = self.stage.as_mut().map(|stage| &mut stage.owner);
        match Owner::claim(owner, now, claim, patience, renew) {
            Err(begin) => return begin,
            Ok(Claim::Restarted) => self.drop_stage(),
            Ok(Claim::Next) => {}
        }
        let stage = self.stage.take();
        let mut stage = stage.unwrap_or_else(|| Box::new(Stage::new(self, self.version())));
        self.claims += 1;
        stage.owner = Owner::new(self.claims, now);
        self.stage = Some(stage);
        StageBegin::Ready(self.claims)
    }

    /// The version and the key from which the stage needs the next range, if a session may fetch it.
    pub(super) fn stage_needs(&self) -> Option<(Version, Vec<u8>)> {
        let stage = self.stage.as_ref().filter(|stage| stage.is_waiting())?;
        Some((stage.since.clone(), stage.cursor.clone()))
    }

    /// Takes an encoded range of a peer. Returns the record for a journal.
    pub(super) fn take_range(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        let stage = self.stage.as_mut().filter(|stage| stage.owner.is(claim));
        let Some(stage) = stage else { return Ok(StageTaken::Foreign) };
        let range = Range::decode(bytes, &stage.since)?;
        let record = saved::record(&stage.base, &stage.since, bytes);
        // As for any delta: events of this replica that it has not written show an impostor.
        let (written, claimed) = (seq_of(&self.version, self.me), range.delta.context.get(self.replica));
        if claimed > written {
            let dot = crate::Dot::new(self.replica, claimed);
            return Err(JoinError::Impostor { dot, written }.into());
        }
        if !stage.take(range) {
            stage.owner.free(now);
            return Ok(StageTaken::Foreign);
        }
        stage.owner.brought(now);
        Ok(StageTaken::Taken(record))
    }

    /// Does a bounded part of the work on the stage.
    pub(super) fn step_stage(&mut self) -> StageStep<Joined> {
        // Of a delta that was joined in steps.
        if self.merge_layers(STEP_MAX / 4) {
            return StageStep::Busy;
        }
        // Also while a stage waits for its next range: that may take long, or for ever.
        let is_waiting = self.stage.as_ref().is_none_or(|stage| stage.is_waiting());
        if is_waiting && let Some(keys) = self.next_report() {
            return StageStep::Report(Joined { keys, ..Joined::default() });
        }
        let Some(mut stage) = self.stage.take() else {
            return if self.drop_remains() || self.collect_more() {
                StageStep::Busy
            } else {
                StageStep::Idle
            };
        };
        if let Some(version) = stage.complete.take() {
            return match self.replace_by(*stage, &version) {
                Ok(joined) => StageStep::Done(version, joined),
                Err(_) => StageStep::Idle,
            };
        }
        // Without a number for a writer the stage cannot be built: it is dropped, and the map is as it was.
        let Ok(more) = stage.step(self) else { return StageStep::Idle };
        self.stage = Some(stage);
        if more { StageStep::Busy } else { StageStep::Idle }
    }

    /// Drops a stage that has become of no use: the map has seen all that it holds.
    pub(super) fn prune_stage(&mut self) {
        let is_seen = |stage: &Stage| stage.upper.is_within(&self.version());
        if self.stage.as_deref().is_some_and(|stage| !stage.upper.is_empty() && is_seen(stage)) {
            self.drop_stage();
        }
    }

    /// Drops a stage whose peer has brought nothing for the length of a lease.
    pub(super) fn expire_stage(&mut self, now: Duration) {
        let lease = self.members.lease();
        if self.stage.as_mut().is_some_and(|stage| stage.owner.is_expired(now, lease)) {
            self.drop_stage();
        }
    }

    fn drop_stage(&mut self) {
        if let Some(stage) = self.stage.take() {
            self.leave_remains(*stage.shadow);
        }
    }

    /// Joins what was written here since the stage began into the stage, and lets it take the map's place.
    fn replace_by(&mut self, stage: Stage, version: &Version) -> Result<Joined, JoinError> {
        let Stage { base, mut shadow, mut joined, resolutions, .. } = stage;
        // The peer's events count as seen first: what the peer has removed does not come back from here.
        shadow.raise_version(version);
        let delta = match self.delta(&base) {
            Ok(delta) if resolutions == self.resolutions => delta,
            // Contents have changed without an event, or history was collected: slow, and rare.
            _ => self.complete(&Version::new()),
        };
        let later = shadow.take_in(&delta, &[], None)?;
        joined.equivocating.extend(later.equivocating);
        let floor = self.floor();
        for (mine, theirs) in shadow.floor.iter_mut().zip(shadow.writers.by_number(&floor)) {
            *mine = (*mine).max(theirs);
        }
        shadow.drop_below_floor();
        shadow.resolutions += self.resolutions;
        shadow.members = core::mem::take(&mut self.members);
        shadow.claims = self.claims;
        (shadow.collected_at, shadow.collecting) = (self.collected_at, self.collecting.take());
        shadow.watch = self.watch;
        shadow.reports = core::mem::take(&mut self.reports);
        shadow.remains = core::mem::take(&mut self.remains);
        let old = core::mem::replace(self, *shadow);
        self.leave_remains(old);
        // The keys are not sorted: they may be a million. Not even a caller drops so many at once.
        if self.reports.is_empty() {
            self.reports = core::mem::take(&mut joined.keys);
        } else {
            self.reports.append(&mut joined.keys);
        }
        joined.keys = self.next_report().unwrap_or_default();
        joined.equivocating.sort_unstable();
        joined.equivocating.dedup();
        joined.ranges = Some(version.clone());
        Ok(joined)
    }

    /// Some of the keys that were not reported yet.
    fn next_report(&mut self) -> Option<Vec<Vec<u8>>> {
        let keys = self.reports.split_off(self.reports.len().saturating_sub(STEP_MAX));
        (!keys.is_empty()).then_some(keys)
    }

    fn leave_remains(&mut self, map: Self) {
        if map.cells.len() + map.recent.len() + map.removals.len() > STEP_MAX {
            let Self { cells, recent, removals, .. } = map;
            self.remains.push(Remains { cells, recent, removals });
        }
    }

    /// Drops a part of the remains. Returns whether there are more.
    fn drop_remains(&mut self) -> bool {
        let Some(remains) = self.remains.last_mut() else { return false };
        for _ in 0..STEP_MAX {
            let dropped = remains.cells.drop_one() | remains.recent.drop_one();
            if !(dropped | remains.removals.drop_one()) {
                self.remains.pop();
                break;
            }
        }
        !self.remains.is_empty()
    }

    /// Adds to the version seen.
    fn raise_version(&mut self, version: &Version) {
        for (replica, seq) in version.iter() {
            let Some(number) = self.writers.intern(replica) else { continue };
            self.version.resize(self.writers.len(), 0);
            self.floor.resize(self.writers.len(), 0);
            if let Some(place) = self.version.get_mut(number as usize) {
                *place = (*place).max(seq);
            }
        }
    }

    /// Copies the keys of `map` from `first` on, below `end`, of which nothing is here yet: as many as one
    /// step may. Returns the key to go on from, if there are more.
    fn copy(&mut self, map: &Self, first: &[u8], end: Option<&[u8]>) -> Result<Option<Vec<u8>>, JoinError> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(first)));
        let span = |end| (Bound::Included(first), end);
        // Where to stop: as many values, and as many tombstones.
        let next = map.cells.range::<[u8], _>(span(end)).nth(STEP_MAX).map(|(key, _)| key.as_slice());
        let end = next.map_or(end, Bound::Excluded);
        let removal = map.removals.range::<[u8], _>(span(end)).nth(STEP_MAX).map(|(key, _)| key.as_slice());
        let end = removal.map_or(end, Bound::Excluded);
        let reached = removal.or(next);
        let mut numbers = Vec::with_capacity(map.writers.len());
        for number in (0_u32..).take(map.writers.len()) {
            numbers.push(self.writers.intern(map.writers.id(number)).ok_or(JoinError::Writers)?);
        }
        self.version.resize(self.writers.len(), 0);
        self.floor.resize(self.writers.len(), 0);
        let number = |writer: u32| numbers.get(writer as usize).copied().unwrap_or(u32::MAX);
        for (key, cell) in map.cells.range::<[u8], _>(span(end)) {
            let mut siblings = Vec::with_capacity(cell.siblings().len());
            for sibling in cell.siblings() {
                let copy = Sibling { writer: number(sibling.writer), ..sibling.clone() };
                self.gain(key, &copy);
                if sibling.seq > seq_of(&map.floor, sibling.writer) {
                    self.recent.insert((copy.writer, copy.seq), key.clone());
                }
                siblings.push(copy);
            }
            if let Some(cell) = Cell::new(siblings) {
                self.cells.insert(key.clone(), cell);
            }
        }
        for (key, events) in map.removals.range::<[u8], _>(span(end)) {
            let mut events: Vec<_> = events.iter().map(|(writer, seq)| (number(*writer), *seq)).collect();
            events.sort_unstable();
            self.recent.extend(events.iter().map(|event| (*event, key.clone())));
            self.removals.insert(key.clone(), events);
        }
        Ok(reached.map(<[u8]>::to_vec))
    }

    /// Evicts a value from the stage as well.
    pub(super) fn evict_staged(&mut self, key: &[u8], dot: crate::Dot) {
        if let Some(stage) = &mut self.stage {
            stage.shadow.evict(key, dot);
            // Counted by the map too, and no reason to compare all values.
            stage.resolutions += 1;
        }
    }

    /// Computes what a restored stage has changed.
    fn name_staged(&self, stage: &mut Stage) {
        let dots = |map: &Self, key: &Key| {
            let cell = map.cells.get(key).map(Cell::siblings).unwrap_or_default();
            let mut dots: Vec<_> =
                cell.iter().map(|sibling| (map.writers.id(sibling.writer), sibling.seq)).collect();
            dots.sort_unstable();
            dots
        };
        let differs = |key: &&Key| dots(self, key) != dots(&stage.shadow, key);
        let staged = stage.shadow.cells.keys().filter(differs);
        let is_below = |key: &&Key| {
            stage.copied.as_ref().is_none_or(|copied| key.as_slice() < copied.as_slice())
                && !stage.shadow.cells.contains_key(*key)
        };
        let gone = self.cells.keys().filter(is_below);
        stage.joined.keys = staged.chain(gone).map(|key| key.as_slice().to_vec()).collect();
    }
}
