//! What a replica remembers for those that lag behind, and what it may forget.

use alloc::vec::Vec;

use super::delta::{Collector, Difference, MapDelta};
use super::{CausalMap, item_hash, seq_of};
use crate::{Dot, Version};

/// Why a difference cannot be made from history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The receiver has not seen an event that was forgotten here, because all members of that time had.
    #[error(
        "event {dot} was forgotten here when all members had seen it: reconcile the states, or send the whole"
    )]
    Forgotten {
        /// The first event forgotten that the receiver may lack.
        dot: Dot,
    },
}

impl CausalMap {
    /// What has changed since `since`, from history.
    ///
    /// # Errors
    /// [`HistoryError::Forgotten`] if the receiver lags behind what was forgotten; [`complete`](Self::complete) or a set
    /// reconciliation and [`chosen`](Self::chosen) help it then.
    pub fn delta(&self, since: &Version) -> Result<MapDelta, HistoryError> {
        let floor = self.floor();
        if let Some((replica, _)) = floor.iter().find(|(replica, seq)| since.get(*replica) < *seq) {
            return Err(HistoryError::Forgotten { dot: Dot::new(replica, since.get(replica) + 1) });
        }
        let mut collector = Collector::new(self, since);
        collector.add_recent();
        let mut delta = collector.finish(Difference::Since);
        delta.base = since.clone();
        Ok(delta)
    }

    /// All that is held, for a receiver that has seen `since`: whatever else the receiver holds of what was seen here, it drops.
    #[must_use]
    pub fn complete(&self, since: &Version) -> MapDelta {
        // Who has seen the same and asks all the same holds other contents: what it knows is then no help.
        let nothing = Version::new();
        let since = if *since == self.version() { &nothing } else { since };
        let mut collector = Collector::new(self, since);
        for key in self.cells.keys() {
            collector.add(key);
        }
        for key in self.removals.keys() {
            collector.add(key);
        }
        collector.finish(Difference::Complete)
    }

    /// The keys of the values with these hashes, and of all that is remembered and not in `since`.
    ///
    /// `hashes` must be sorted. `sketched` is the version at which the receiver reconciled: what changed after it is in here too.
    ///
    /// # Errors
    /// [`HistoryError::Forgotten`] if history between `sketched` and now was forgotten meanwhile: the receiver starts over.
    pub fn chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
    ) -> Result<MapDelta, HistoryError> {
        let floor = self.floor();
        if let Some((replica, _)) = floor.iter().find(|(replica, seq)| sketched.get(*replica) < *seq) {
            return Err(HistoryError::Forgotten { dot: Dot::new(replica, sketched.get(replica) + 1) });
        }
        let mut both = since.clone();
        both.meet(sketched);
        let mut collector = Collector::new(self, &both);
        collector.asked = hashes;
        collector.add_recent();
        collector.since = self.writers.by_number(since);
        for (key, cell) in &self.cells {
            for sibling in cell.siblings() {
                if hashes.binary_search(&item_hash(self.hash_key, &self.writers, key, sibling)).is_ok() {
                    collector.add(key);
                }
            }
        }
        Ok(collector.finish(Difference::Chosen))
    }

    /// Forgets the history of events that all members have seen. Values stay; what goes is the knowledge of which events are new to
    /// whom, and the records of removals.
    ///
    /// `stable` is what every member has seen, for instance from [`Members::stable`](crate::Members::stable). Nothing is lost if it
    /// claims too much: a replica that lags behind cannot be told from history any more and is brought up from state.
    pub fn forget(&mut self, stable: &Version) {
        let mut floor = stable.clone();
        floor.meet(&self.version());
        floor.join(&self.floor());
        self.floor = self.writers.by_number(&floor);
        self.drop_below_floor();
    }

    pub(super) fn drop_below_floor(&mut self) {
        let floor = &self.floor;
        let forgotten = |(writer, seq): &(u32, u64)| *seq <= seq_of(floor, *writer);
        // Ordered by writer, so that each writer's forgotten events lie together: they are cut off without a look at the rest.
        for writer in (0_u32..).take(floor.len()) {
            while let Some((event, _)) =
                self.recent.range((writer, 0)..=(writer, seq_of(floor, writer))).next()
            {
                let event = *event;
                self.recent.remove(&event);
            }
        }
        self.removals.retain(|_, events: &mut Vec<_>| {
            events.retain(|event| !forgotten(event));
            !events.is_empty()
        });
    }
}
