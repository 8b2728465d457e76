//! [`Table`]: the heartbeats of all members in a few bits each, from which the other side finds the rows that
//! are newer here and there.
//!
//! Two sides that track the same members know each other's heartbeats to within a few counts, so the low bits
//! of a count are enough to restore it. A hash of the whole counts decides whether the restored ones are
//! right.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Members, Row};
use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::map::columns;
use crate::{HashKey, ReplicaId, Version};

/// The counts that four bits distinguish.
const WINDOW: u64 = 16;

/// The leased members and the counts of their heartbeats, ascending by member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct Table(Vec<(ReplicaId, u64)>);

impl Table {
    /// The keyed hash of the members and their counts.
    pub(in crate::session) fn hash(&self, key: HashKey) -> u32 {
        lower(key.hash(&[b"heartbeats", &self.bytes(|(member, beat)| (*member, *beat))]))
    }

    fn bytes(&self, row: impl Fn(&(ReplicaId, u64)) -> (ReplicaId, u64)) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 20);
        for (member, beat) in self.0.iter().map(row) {
            bytes.extend_from_slice(&member.node.to_le_bytes());
            bytes.extend_from_slice(&member.incarnation.to_le_bytes());
            bytes.extend_from_slice(&beat.to_le_bytes());
        }
        bytes
    }

    /// The low bits of each count, two counts to a byte.
    pub(in crate::session) fn low_bits(&self) -> Vec<u8> {
        let low = |row: &(ReplicaId, u64)| u8::try_from(row.1 % WINDOW).unwrap_or(0);
        self.0.chunks(2).map(|pair| pair.first().map_or(0, low) | pair.get(1).map_or(0, low) << 4).collect()
    }

    /// Whether a count here is ahead of that of the same member in `other`.
    pub(in crate::session) fn has_newer(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(mine, theirs)| mine.1 > theirs.1)
    }

    /// How many bytes [`low_bits`](Self::low_bits) takes.
    pub(in crate::session) const fn low_bits_len(&self) -> usize {
        self.0.len().div_ceil(2)
    }
}

impl Members {
    fn leased_rows(&self) -> impl Iterator<Item = (&ReplicaId, &Row)> {
        self.rows.iter().filter(|(_, row)| !row.expired)
    }

    pub(in crate::session) fn table(&self) -> Table {
        Table(self.leased_rows().map(|(member, row)| (*member, row.heartbeat)).collect())
    }

    /// Two short hashes: of the leased members (upper half), and of their heartbeats.
    pub(in crate::session) fn summary(&self, key: HashKey) -> u32 {
        let table = self.table();
        let members = lower(key.hash(&[b"members", &table.bytes(|(member, _)| (*member, 0))]));
        members << 16 | table.hash(key) & 0xffff
    }

    /// Whether every leased member is known to have seen `version`, so that nothing waits for its next
    /// heartbeat but its lease.
    pub(in crate::session) fn is_quiet(&self, version: &Version) -> bool {
        self.leased_rows().all(|(_, row)| row.version == *version)
    }

    /// Whether the lease of a member is nearly over: its next heartbeat is worth more than the bytes that the
    /// pauses between comparisons save.
    pub(in crate::session) fn is_late(&self, now: Duration) -> bool {
        let limit = self.lease * 2 / 3;
        self.leased_rows().any(|(_, row)| row.received_at.is_some_and(|at| now.saturating_sub(at) > limit))
    }

    /// The table of a peer, from its low bits and its hash. `None` if the two sides track other members, or
    /// know too little of each other's heartbeats: then whole rows are exchanged.
    pub(in crate::session) fn restore_table(
        &self,
        key: HashKey,
        hash: u32,
        low_bits: &[u8],
    ) -> Option<Table> {
        let mut table = self.table();
        if low_bits.len() != table.low_bits_len() {
            return None;
        }
        let low = low_bits.iter().flat_map(|pair| [pair & 0xf, pair >> 4]);
        for ((_, beat), low) in table.0.iter_mut().zip(low) {
            let ahead = u64::from(low).wrapping_sub(*beat) % WINDOW;
            // The nearest count with these low bits.
            *beat = if ahead <= WINDOW / 2 {
                beat.saturating_add(ahead)
            } else {
                beat.checked_sub(WINDOW - ahead)?
            };
        }
        (table.hash(key) == hash).then_some(table)
    }

    /// Takes the newer heartbeats of a peer's table, all of members that have seen `version`.
    pub(in crate::session) fn take_table(
        &mut self,
        now: Duration,
        me: ReplicaId,
        table: &Table,
        version: &Version,
    ) {
        for (member, beat) in &table.0 {
            self.adopt(now, me, *member, *beat, || version.clone());
        }
    }

    /// Encodes the rows that are newer than those of a peer's table, for a peer that knows `version`: as many
    /// as fit `len_max` bytes. `None` if no row is newer.
    pub(in crate::session) fn newer_rows(
        &self,
        theirs: &Table,
        version: &Version,
        len_max: usize,
    ) -> Option<Vec<u8>> {
        let ahead = |(member, beat): &(ReplicaId, u64)| {
            let row = self.rows.get(member).filter(|row| !row.expired);
            row.map_or(0, |row| row.heartbeat.saturating_sub(*beat))
        };
        let mut ahead: Vec<u64> = theirs.0.iter().map(ahead).collect();
        let newer: Vec<usize> =
            (0..ahead.len()).filter(|at| ahead.get(*at).is_some_and(|n| *n > 0)).collect();
        let mut count = newer.len();
        while let Some(last) = newer.get(..count).and_then(<[usize]>::last) {
            ahead.truncate(last + 1);
            let mut out = Vec::new();
            put_integer(ahead.len() as u64, &mut out);
            columns::put_numbers(&ahead, &mut out);
            let newer = theirs.0.iter().zip(&ahead).filter(|(_, ahead)| **ahead > 0);
            let versions = newer.filter_map(|((member, _), _)| Some(&self.rows.get(member)?.version));
            let changes: Vec<_> = versions.map(|seen| seen.changes_since(version)).collect();
            // A column of zeros, two bytes, when all members have seen the version.
            columns::put_numbers(&changes.iter().map(|of| of.len() as u64).collect::<Vec<_>>(), &mut out);
            for change in changes.iter().flatten() {
                change.encode(&mut out);
            }
            if out.len() <= len_max {
                return Some(out);
            }
            // The rows after these are sent next time: then the first ones are known.
            count /= 2;
        }
        None
    }

    /// Takes what [`newer_rows`](Self::newer_rows) wrote for `mine`.
    pub(in crate::session) fn take_rows(
        &mut self,
        now: Duration,
        me: ReplicaId,
        mine: &Table,
        version: &Version,
        input: &mut ByteReader<'_>,
    ) -> Result<(), DecodeError> {
        const WHAT: &str = "rows of members";
        // No row is newer.
        if input.is_empty() {
            return Ok(());
        }
        let count = usize::try_from(input.integer(WHAT)?).ok().filter(|count| *count <= mine.0.len());
        let ahead = columns::numbers(input, count.ok_or(DecodeError::Range { what: WHAT })?, WHAT)?;
        let newer = ahead.iter().filter(|ahead| **ahead > 0).count();
        let mut counts = columns::numbers(input, newer, WHAT)?.into_iter();
        let mut rows = Vec::with_capacity(newer);
        for ((member, beat), ahead) in mine.0.iter().zip(ahead).filter(|(_, ahead)| *ahead > 0) {
            // A change takes at least ten bytes: bounded before any is collected.
            let count = counts.next().and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|count| count.saturating_mul(10) <= input.len());
            let count = count.ok_or(DecodeError::Truncated { what: WHAT })?;
            let changes = (0..count).map(|_| <(ReplicaId, u64)>::decode(input));
            rows.push((*member, beat.saturating_add(ahead), changes.collect::<Result<Vec<_>, _>>()?));
        }
        input.finish()?;
        for (member, beat, changes) in rows {
            self.adopt(now, me, member, beat, || version.clone().changed(&changes));
        }
        Ok(())
    }
}

/// The lower half of a hash.
#[allow(clippy::cast_possible_truncation, reason = "a short hash is meant")]
pub(in crate::session) const fn lower(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey::new([3; 16]);

    fn members(beats: impl IntoIterator<Item = u64>, version: &Version) -> Members {
        let mut members = Members::new(Duration::from_secs(60));
        for (node, beat) in (1..).zip(beats) {
            members.adopt(Duration::ZERO, ReplicaId::new(0), ReplicaId::new(node), beat, || version.clone());
        }
        members
    }

    #[test]
    fn low_bits_restore_a_table_that_is_a_few_heartbeats_away() {
        let version = Version::from_iter([(ReplicaId::new(1), 7)]);
        let mine = members((0..101).map(|n| 1000 + n % 3), &version);
        let theirs = members((0..101).map(|n| 1000 + n % 9), &version);
        let table = theirs.table();
        let bits = table.low_bits();
        assert_eq!(bits.len(), 51);
        assert_eq!(mine.restore_table(KEY, table.hash(KEY), &bits), Some(table.clone()));
        assert_eq!(mine.restore_table(KEY, table.hash(KEY) ^ 1, &bits), None);
        let far = members((0..101).map(|n| 1020 + n % 3), &version);
        assert_eq!(far.restore_table(KEY, table.hash(KEY), &bits), None, "too far away");
        assert!(theirs.is_quiet(&version) && !theirs.is_quiet(&Version::new()));
    }

    #[test]
    fn newer_rows_bring_both_tables_to_the_newest_heartbeats() {
        let version = Version::from_iter([(ReplicaId::new(1), 7)]);
        let older = Version::from_iter([(ReplicaId::new(1), 5)]);
        let mut mine = members((0..60).map(|n| 500 + n % 3), &version);
        let theirs = members((0..60).map(|n| 500 + n % 5), &older);
        let table = mine.table();
        let mut tries = 0;
        let me = ReplicaId::new(0);
        while let Some(rows) = theirs.newer_rows(&mine.table(), &version, 40) {
            assert!(rows.len() <= 40, "{}", rows.len());
            let at = mine.table();
            mine.take_rows(Duration::ZERO, me, &at, &version, &mut ByteReader::new(&rows)).unwrap();
            tries += 1;
        }
        assert!(tries > 1, "they do not fit at once");
        let newest = |n: u64| 500 + (n % 3).max(n % 5);
        assert!(mine.table().0.iter().zip(0..).all(|((_, beat), n)| *beat == newest(n)));
        assert_ne!(mine.table(), table);
        assert_eq!(mine.rows[&ReplicaId::new(5)].version, version, "versions only grow");
        // Damaged rows are refused whole, or are other rows.
        let rows = members((0..60).map(|n| 510 + n), &older).newer_rows(&table, &version, 4000).unwrap();
        for len in 1..rows.len() {
            let mut other = mine.clone();
            let refused =
                other.take_rows(Duration::ZERO, me, &table, &version, &mut ByteReader::new(&rows[..len]));
            assert!(refused.is_err());
            assert_eq!(other.table(), mine.table());
        }
    }
}
