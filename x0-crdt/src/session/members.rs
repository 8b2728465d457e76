//! Who takes part, and what each has seen: what decides which history may be forgotten.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::hash::HashKey;
use crate::{ReplicaId, Version};

/// The lease of a group that sets no other.
const LEASE_DEFAULT: Duration = Duration::from_secs(3600);

/// The most members that are kept track of.
pub const MEMBERS_MAX: usize = 4096;

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// Counts its heartbeats; a row with a greater one is newer.
    beat: u64,
    /// What it had seen at that beat.
    version: Version,
    /// When the beat was first heard of here.
    heard: Duration,
    /// No beat was heard for a lease.
    expired: bool,
}

/// The members of a map and what each has seen, as far as word of it came here: directly or through others.
///
/// A member that was not heard of for the length of a lease is retired: history is forgotten without waiting for it. It loses nothing
/// by that. When it comes back it is told from state instead of history, and what only it had written is news to the others.
///
/// All members should have the same lease; a different one costs a reconciliation, not consistency.
#[derive(Debug, Clone)]
pub struct Members {
    lease: Duration,
    rows: BTreeMap<ReplicaId, Row>,
}

impl Default for Members {
    /// A lease of an hour.
    fn default() -> Self {
        Self::new(LEASE_DEFAULT)
    }
}

impl Members {
    /// Members that are retired after no word of them for `lease`.
    #[must_use]
    pub const fn new(lease: Duration) -> Self {
        Self { lease, rows: BTreeMap::new() }
    }

    /// After how long without word of it a member is retired.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Says that `member`, this replica, is here and has seen `version`. To be repeated several times per lease.
    pub fn beat(&mut self, now: Duration, member: ReplicaId, version: Version) {
        let beat = self.rows.get(&member).map_or(0, |row| row.beat).saturating_add(1);
        self.rows.insert(member, Row { beat, version, heard: now, expired: false });
    }

    /// Takes a member's latest version, heard from itself.
    pub fn heard(&mut self, member: ReplicaId, version: &Version) {
        if let Some(row) = self.rows.get_mut(&member) {
            row.version.join(version);
        }
    }

    /// Retires members whose lease is over; after four leases they are no longer remembered at all.
    pub fn expire(&mut self, now: Duration) {
        let lease = self.lease;
        for row in self.rows.values_mut() {
            row.expired |= now.saturating_sub(row.heard) > lease;
        }
        self.rows.retain(|_, row| now.saturating_sub(row.heard) <= lease.saturating_mul(4));
    }

    /// What every member has seen whose lease is not over: history up to here may be forgotten. None if no member is known.
    #[must_use]
    pub fn stable(&self) -> Option<Version> {
        let mut leased = self.rows.values().filter(|row| !row.expired);
        let mut stable = leased.next()?.version.clone();
        for row in leased {
            stable.meet(&row.version);
        }
        Some(stable)
    }

    /// The members whose lease is not over.
    pub fn leased(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.rows.iter().filter(|(_, row)| !row.expired).map(|(member, _)| *member)
    }

    /// How many members are known, the retired ones of late included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Equal where the same is known.
    #[must_use]
    pub fn hash(&self, key: HashKey) -> u64 {
        let mut bytes = Vec::with_capacity(self.rows.len() * 16);
        for (member, row) in self.rows.iter().filter(|(_, row)| !row.expired) {
            member.encode(&mut bytes);
            row.beat.encode(&mut bytes);
        }
        key.hash(&[b"members", &bytes])
    }

    /// What is known here, for a receiver that knows `base`, this replica's version.
    pub(crate) fn encode(&self, base: &Version, out: &mut Vec<u8>) {
        let leased: Vec<_> = self.rows.iter().filter(|(_, row)| !row.expired).collect();
        put_integer(leased.len() as u64, out);
        for (member, row) in leased {
            member.encode(out);
            row.beat.encode(out);
            let changes = row.version.changes_since(base);
            put_integer(changes.len() as u64, out);
            for change in &changes {
                change.encode(out);
            }
        }
    }

    /// Takes in what another knows.
    pub(crate) fn merge(
        &mut self,
        now: Duration,
        me: ReplicaId,
        base: &Version,
        input: &mut ByteReader<'_>,
    ) -> Result<(), DecodeError> {
        let count = input.count(11, "members")?;
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let member = ReplicaId::decode(input)?;
            let beat = u64::decode(input)?;
            let changed = input.count(10, "changes of a version")?;
            let changes =
                (0..changed).map(|_| <(ReplicaId, u64)>::decode(input)).collect::<Result<Vec<_>, _>>()?;
            rows.push((member, beat, changes));
        }
        input.finish()?;
        for (member, beat, changes) in rows {
            let newer = self.rows.get(&member).is_none_or(|row| row.beat < beat);
            let room = self.rows.len() < MEMBERS_MAX || self.rows.contains_key(&member);
            if member == me {
                // Of a life before this one: counted on from there, or the others would not hear of this one for as long.
                if let Some(row) = self.rows.get_mut(&me) {
                    row.beat = row.beat.max(beat);
                }
            } else if newer && room {
                let mut version = base.clone().changed(&changes);
                if let Some(row) = self.rows.get(&member) {
                    version.join(&row.version);
                }
                self.rows.insert(member, Row { beat, version, heard: now, expired: false });
            }
        }
        Ok(())
    }
}
