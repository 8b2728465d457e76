//! Deltas from history, deltas from state, and tombstone collection.

use alloc::vec::Vec;

use super::cell::Sibling;
use super::delta::{Collector, DeltaExtent, MapDelta};
use super::small::Key;
use super::{CausalMap, item_hash, seq_of};
use crate::session::Found;
use crate::{Dot, Version};

/// How many events a heartbeat collects at least, if so many are stable, and one step between heartbeats: a
/// few milliseconds.
const COLLECT_MIN: u64 = 8 * 1024;
/// How many events a heartbeat collects at most: about ten milliseconds.
const COLLECT_MAX: u64 = 32 * 1024;

/// Why a delta cannot be made from history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The receiver lacks an event whose history was collected here, because all members of that time had
    /// seen it.
    #[error(
        "the history of event {dot} was collected when all members had seen it: reconcile the states, or send the whole state"
    )]
    TooOld {
        /// The first collected event that the receiver may lack.
        dot: Dot,
    },
}

impl CausalMap {
    /// The delta since the version `since`, from history.
    ///
    /// # Errors
    /// [`HistoryError::TooOld`] if the receiver lags behind the collected history: send
    /// [`complete`](Self::complete) instead, or [`chosen`](Self::chosen) after a set reconciliation.
    pub fn delta(&self, since: &Version) -> Result<MapDelta, HistoryError> {
        self.check_history(since)?;
        // Only keys with an event that the receiver lacks: all others are equal on both sides, or newer
        // there.
        let mut collector = Collector::new(self, since);
        collector.add_recent();
        let mut delta = collector.finish(DeltaExtent::Since);
        delta.base = since.clone();
        Ok(delta)
    }

    /// Whether history reaches back to `since`.
    pub(super) fn check_history(&self, since: &Version) -> Result<(), HistoryError> {
        let floor = self.floor();
        match floor.iter().find(|(replica, seq)| since.get(*replica) < *seq) {
            Some((replica, _)) => {
                Err(HistoryError::TooOld { dot: Dot::new(replica, since.get(replica) + 1) })
            }
            None => Ok(()),
        }
    }

    /// All that is held, for a receiver that has seen `since`. The receiver drops every other value that this
    /// replica has seen.
    #[must_use]
    pub fn complete(&self, since: &Version) -> MapDelta {
        // A receiver with an equal version that requests everything holds other contents: nothing counts as
        // known to it.
        let nothing = Version::new();
        let since = if *since == self.version() { &nothing } else { since };
        let mut collector = Collector::new(self, since);
        for key in self.cells.keys() {
            collector.add(key);
        }
        // The receiver passes tombstones on to members that have not seen the removals.
        for key in self.removals.keys() {
            collector.add(key);
        }
        collector.finish(DeltaExtent::Complete)
    }

    /// The values with these hashes, the values of events that are not in `since`, and the history that is
    /// not in it.
    ///
    /// `hashes` must be sorted. `sketched` is the version of this replica at which the receiver reconciled:
    /// later changes are included.
    ///
    /// # Errors
    /// [`HistoryError::TooOld`] if history after `sketched` was collected meanwhile: the receiver starts
    /// over.
    pub fn chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
    ) -> Result<MapDelta, HistoryError> {
        let seen = self.writers.by_number(since);
        let is_asked = |key: &Key, sibling: &Sibling| {
            hashes.binary_search(&item_hash(self.hash_key, &self.writers, key, sibling)).is_ok()
        };
        let mut keys = Vec::new();
        for (key, cell) in &self.cells {
            // The receiver has compared only values of events that it has seen.
            let is_news = |sibling: &Sibling| sibling.seq > seq_of(&seen, sibling.writer);
            let mut siblings = cell.siblings().iter();
            if siblings.any(|sibling| is_news(sibling) || !hashes.is_empty() && is_asked(key, sibling)) {
                keys.push(key.as_slice().to_vec());
            }
        }
        self.chosen_of(since, sketched, hashes, &Found { begin: self.version(), keys })
    }

    /// The same, of the keys that a pass has found.
    pub(super) fn chosen_of(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
        found: &Found,
    ) -> Result<MapDelta, HistoryError> {
        self.check_history(sketched)?;
        // A value that came to a key after the pass was there is in history.
        self.check_history(&found.begin)?;
        // History is sent from the earlier of both versions: a value that came here after the reconciliation
        // began is listed, or the receiver would take it for absent and drop its own copy.
        let mut both = since.clone();
        both.meet(sketched);
        both.meet(&found.begin);
        let mut collector = Collector::new(self, &both);
        collector.asked = hashes;
        collector.add_recent();
        collector.since = self.writers.by_number(since);
        for key in &found.keys {
            if let Some((key, _)) = self.cells.get_key_value(key.as_slice()) {
                collector.add(key);
            }
        }
        Ok(collector.finish(DeltaExtent::Chosen))
    }

    /// Collects the tombstones and the history of events that all members have seen. Values stay.
    ///
    /// `stable` is the version that every member has seen, for instance from
    /// [`Members::stable`](crate::Members::stable). Nothing is lost if it claims too much: a replica that
    /// lags behind is then brought up from state instead of history.
    ///
    /// Collects all at once, which takes about 0.2 s for a million events. A
    /// [`heartbeat`](Self::heartbeat) collects a part.
    pub fn collect_tombstones(&mut self, stable: &Version) {
        self.floor = self.collectable(stable);
        self.drop_below_floor();
    }

    /// Collects a part of what [`collect_tombstones`](Self::collect_tombstones) does. The rest follows with
    /// the steps that sessions take, and with the next heartbeats.
    pub(super) fn collect_some(&mut self, stable: &Version) {
        let seen = self.version.iter().fold(0_u64, |sum, seq| sum.saturating_add(*seq));
        let came = seen.saturating_sub(self.collected_at.replace(seen).unwrap_or(seen));
        // Twice what came since the last call: a history that grows shrinks all the same.
        let budget = COLLECT_MIN.max(came.saturating_mul(2)).min(COLLECT_MAX);
        let is_more = self.collect_up_to(stable, budget);
        self.collecting = is_more.then(|| stable.clone());
    }

    /// Collects a part of what the last heartbeat has left. Returns whether there was something to do.
    pub(super) fn collect_more(&mut self) -> bool {
        let Some(stable) = self.collecting.take() else { return false };
        let is_more = self.collect_up_to(&stable, COLLECT_MIN);
        self.collecting = is_more.then_some(stable);
        true
    }

    /// Collects up to so many events. Returns whether there are more.
    fn collect_up_to(&mut self, stable: &Version, budget: u64) -> bool {
        let mut is_more = false;
        let mut budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let mut collected = Vec::new();
        let target = self.collectable(stable);
        for ((writer, target), floor) in (0_u32..).zip(target).zip(&mut self.floor) {
            let mut events = self.recent.range((writer, 0)..=(writer, target));
            collected.extend(events.by_ref().take(budget).map(|(event, _)| *event));
            budget -= budget.min(collected.len());
            *floor = match (events.next(), collected.last()) {
                (None, _) => target,
                // The rest of this writer follows with the next call.
                (Some(_), last) => {
                    is_more = true;
                    last.map_or(*floor, |(_, last)| *last)
                }
            };
            for event in collected.drain(..) {
                let Some(key) = self.recent.remove(&event) else { continue };
                // Not noted as changed: a join in steps leaves out what is below the floor, and would start
                // over for more notes than there may be.
                let Some(removals) = self.removals.get_mut_unnoted(&key) else { continue };
                removals.retain(|removal| *removal != event);
                if removals.is_empty() {
                    self.removals.remove_unnoted(&key);
                }
            }
        }
        is_more
    }

    /// The floor by writer after the collection of what is stable.
    fn collectable(&self, stable: &Version) -> Vec<u64> {
        let mut floor = stable.clone();
        // A floor above the own version would claim history of events that were never here.
        floor.meet(&self.version());
        // What was written since a stage began is found by its history.
        if let Some(stage) = &self.stage {
            floor.meet(stage.base());
        }
        floor.join(&self.floor());
        self.writers.by_number(&floor)
    }

    pub(super) fn drop_below_floor(&mut self) {
        let floor = &self.floor;
        let collected = |(writer, seq): &(u32, u64)| *seq <= seq_of(floor, *writer);
        // Ordered by writer, so that each writer's collected events are adjacent: they are cut off without a
        // pass over the rest.
        for writer in (0_u32..).take(floor.len()) {
            while let Some((event, _)) =
                self.recent.range((writer, 0)..=(writer, seq_of(floor, writer))).next()
            {
                let event = *event;
                self.recent.remove(&event);
            }
        }
        // Values above have no tombstones, so only removals are left to visit.
        self.removals.retain(|_, events: &mut Vec<_>| {
            events.retain(|event| !collected(event));
            !events.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::session::{StageStep, Transfer};
    use crate::{HashKey, ReplicaId};

    /// A heartbeat after a first sync collects a part, and the calls of sessions the rest.
    #[test]
    fn a_long_history_is_collected_in_parts() {
        let mut map = CausalMap::new(ReplicaId::new(1), HashKey::new([7; 16]));
        map.heartbeat(Duration::ZERO);
        let count = COLLECT_MAX + 3 * COLLECT_MIN;
        for number in 0..count {
            map.put(&number.to_be_bytes(), 0, b"").unwrap();
            if number % 3 == 0 {
                map.remove(&number.to_be_bytes());
            }
        }
        let before = map.history_len() as u64;
        map.heartbeat(Duration::from_secs(1));
        let mut left = map.history_len() as u64;
        assert_eq!(left, before - COLLECT_MAX);
        while map.has_reports() {
            assert_eq!(map.step_stage(), StageStep::Busy);
            assert!(left - map.history_len() as u64 <= COLLECT_MIN);
            left = map.history_len() as u64;
        }
        assert_eq!(left, 0);
        assert_eq!(map.step_stage(), StageStep::Idle);
        assert!(map.removals.is_empty() && map.floor() == map.version());
    }
}
