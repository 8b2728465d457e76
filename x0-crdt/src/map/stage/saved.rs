//! The saved form of a stage, and the records from which a journal rebuilds it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::super::{CausalMap, MapDelta, RestoreError};
use super::{Range, Stage};
use crate::Version;
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes};
use crate::map::JoinError;

const RECORD_FORMAT: u8 = 1;

/// The record of a range, for [`CausalMap::replay_range`].
pub(super) fn record(base: &Version, since: &Version, range: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(range.len() + 64);
    out.push(RECORD_FORMAT);
    base.encode(&mut out);
    since.encode(&mut out);
    out.extend_from_slice(range);
    out
}

impl Stage {
    pub(in crate::map) fn encode(&self, map: &CausalMap, out: &mut Vec<u8>) {
        self.base.encode(out);
        self.since.encode(out);
        self.first.clone().encode(out);
        self.upper.encode(out);
        self.complete.clone().encode(out);
        put_bytes(&self.cursor, out);
        self.copied.is_some().encode(out);
        put_bytes(self.copied.as_deref().unwrap_or_default(), out);
        let pending = self.pending.as_ref().map(|range| range.encode(&self.since));
        put_bytes(&pending.unwrap_or_default(), out);
        let mut shadow = self.shadow.complete(&Version::new());
        // The values of the shadow are of events that its own version does not have yet.
        shadow.context = map.version();
        shadow.context.join(&self.base);
        shadow.context.join(&self.upper);
        put_bytes(&shadow.encode(&Version::new()), out);
    }

    pub(in crate::map) fn decode(map: &CausalMap, input: &mut ByteReader<'_>) -> Result<Self, RestoreError> {
        const WHAT: &str = "a stage";
        let base = Version::decode(input)?;
        // Without a version at first: events that were seen would not be added.
        let mut stage = Self::new(map, Version::new());
        stage.since = Version::decode(input)?;
        stage.first = Option::decode(input)?;
        stage.upper = Version::decode(input)?;
        stage.complete = Option::decode(input)?;
        stage.cursor = input.bytes(WHAT)?.to_vec();
        let is_copying = bool::decode(input)?;
        stage.copied = Some(input.bytes(WHAT)?.to_vec()).filter(|_| is_copying);
        let pending = input.bytes(WHAT)?;
        if !pending.is_empty() {
            stage.pending = Some(Range::decode(pending, &stage.since)?);
        }
        let delta = MapDelta::decode_trusted(input.bytes(WHAT)?, &Version::new())?;
        let mut seen = map.version();
        seen.join(&base);
        seen.join(&stage.upper);
        if !delta.context.is_within(&seen) {
            return Err(DecodeError::Range { what: WHAT }.into());
        }
        stage.shadow.take_in_range(&delta, &[], None)?;
        stage.shadow.raise_version(&base);
        stage.base = base;
        map.name_staged(&mut stage);
        Ok(stage)
    }
}

impl CausalMap {
    /// Rebuilds what a session has staged, from the record of
    /// [`SessionOutput::Staged`](crate::SessionOutput::Staged) in this replica's own journal. Records are
    /// replayed in the order in which they were output, between the deltas before and after them.
    ///
    /// Values become visible by [`replay_ranges`](Self::replay_ranges). Without these records a transfer
    /// starts over after a restart. A record that a [`save`](Self::save) before it holds changes nothing.
    ///
    /// # Errors
    /// Bytes that no session has output, or a record that does not continue the one before it. The map is as
    /// it was.
    pub fn replay_range(&mut self, record: &[u8]) -> Result<(), RestoreError> {
        const WHAT: &str = "the record of a range";
        let mut input = ByteReader::new(record);
        let found = input.byte(WHAT)?;
        if found != RECORD_FORMAT {
            return Err(DecodeError::Version { found }.into());
        }
        let (base, since) = (Version::decode(&mut input)?, Version::decode(&mut input)?);
        let range = Range::decode(input.take(input.len(), WHAT)?, &since)?;
        if let Some((replica, seq)) = base.iter().find(|(replica, seq)| self.version().get(*replica) < *seq) {
            return Err(JoinError::Base { dot: crate::Dot::new(replica, seq) }.into());
        }
        self.finish_range()?;
        let begins = range.from.is_empty() && base == since;
        let is_of = |stage: &Stage| stage.base == base && stage.since == since;
        let is_seen = range.delta.context.is_within(&self.version());
        match self.stage.as_mut() {
            Some(stage) if is_of(stage) && stage.continues_with(&range) => {
                stage.take(range);
            }
            _ if begins => {
                let mut stage = Box::new(Stage::new(self, base));
                stage.take(range);
                self.stage = Some(stage);
            }
            // A snapshot before the record holds it already, in the stage or in the map.
            Some(stage) if stage.base == base && stage.has_taken(&since, &range) => {}
            _ if is_seen => {}
            _ => return Err(DecodeError::Range { what: WHAT }.into()),
        }
        self.finish_range()
    }

    /// Makes visible what [`replay_range`](Self::replay_range) has rebuilt: to be called where the journal
    /// notes that a session has output a [`Joined`](crate::Joined) with
    /// [`ranges`](crate::Joined#structfield.ranges). Returns whether there was something to make visible.
    pub fn replay_ranges(&mut self) -> bool {
        // A saved stage may have work left.
        if self.finish_range().is_err() {
            return false;
        }
        let complete = self.stage.as_mut().and_then(|stage| stage.complete.take());
        let Some((version, stage)) = complete.zip(self.stage.take()) else { return false };
        let done = self.replace_by(*stage, &version).is_ok();
        // The caller reads the whole map.
        self.reports = Vec::new();
        done
    }

    /// Completes the work on a pending range.
    fn finish_range(&mut self) -> Result<(), RestoreError> {
        let Some(mut stage) = self.stage.take() else { return Ok(()) };
        while stage.pending.is_some() {
            stage.step(self)?;
        }
        self.stage = Some(stage);
        Ok(())
    }
}
