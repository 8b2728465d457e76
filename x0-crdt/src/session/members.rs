//! [`Members`]: the members of a group and the version that each has seen, which decides what may be
//! collected.

mod table;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

pub(super) use table::{Table, lower};

use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes, put_integer};
use crate::hash::HashKey;
use crate::{ReplicaId, Version};

/// The lease of a group that sets no other.
const LEASE_DEFAULT: Duration = Duration::from_secs(3600);

/// The most members that are tracked.
pub const MEMBERS_MAX: usize = 4096;

/// One member, as known here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// The count of its heartbeats; a row with a greater count is newer.
    heartbeat: u64,
    /// The version that it had seen at that heartbeat.
    version: Version,
    /// When the heartbeat first arrived here. `None` after a restart: the lease counts from the first call
    /// with a time.
    received_at: Option<Duration>,
    /// No heartbeat arrived for a lease.
    expired: bool,
}

/// The members of a group and the version that each has seen, as far as their heartbeats arrived here,
/// directly or through others.
///
/// A member without a heartbeat for the length of a lease is retired: tombstones are collected without
/// waiting for it. It loses nothing. When it returns, it is brought up from state instead of history, and its
/// own events are new to the others.
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
    /// No member yet; members are retired after `lease` without a heartbeat.
    #[must_use]
    pub const fn new(lease: Duration) -> Self {
        Self { lease, rows: BTreeMap::new() }
    }

    /// The time without a heartbeat after which a member is retired.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Sets the time without a heartbeat after which a member is retired. The members stay.
    pub const fn set_lease(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// Counts a heartbeat of `member`, this replica, which has seen `version`. The caller repeats it several
    /// times per lease.
    pub fn heartbeat(&mut self, now: Duration, member: ReplicaId, version: Version) {
        // Counts on from what peers reported of earlier runs, see `merge`.
        let heartbeat = self.rows.get(&member).map_or(0, |row| row.heartbeat).saturating_add(1);
        self.rows.insert(member, Row { heartbeat, version, received_at: Some(now), expired: false });
    }

    /// Adds to the version of a member what it reported itself.
    pub fn saw(&mut self, member: ReplicaId, version: &Version) {
        if let Some(row) = self.rows.get_mut(&member) {
            row.version.join(version);
        }
    }

    /// Retires members whose lease is over; after four leases they are dropped.
    pub fn expire(&mut self, now: Duration) {
        let lease = self.lease;
        for row in self.rows.values_mut() {
            // Sticky: only a newer heartbeat brings the member back, not a clock that was corrected.
            let received_at = *row.received_at.get_or_insert(now);
            row.expired |= now.saturating_sub(received_at) > lease;
        }
        // Kept for a while after retirement, so that an old heartbeat that is still passed around does not
        // revive it.
        let age = |row: &Row| row.received_at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.rows.retain(|_, row| age(row) <= lease.saturating_mul(4));
    }

    /// The version that every member has seen whose lease is not over: history up to here may be collected.
    /// `None` without such a member.
    #[must_use]
    pub fn stable(&self) -> Option<Version> {
        // Without members nothing is stable: a replica alone must not collect what peers may lack.
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

    /// How many members are tracked, recently retired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no member is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The keyed hash of the members and their heartbeats, equal on replicas that track the same.
    #[must_use]
    pub fn hash(&self, key: HashKey) -> u64 {
        let mut bytes = Vec::with_capacity(self.rows.len() * 16);
        // Versions are left out: they follow from the heartbeat, and hashing them costs more than comparing
        // them saves.
        for (member, row) in self.rows.iter().filter(|(_, row)| !row.expired) {
            member.encode(&mut bytes);
            row.heartbeat.encode(&mut bytes);
        }
        key.hash(&[b"members", &bytes])
    }

    /// Whether there is something to save: members, or a lease that is not the default one.
    pub(crate) fn is_worth_saving(&self) -> bool {
        self.lease != LEASE_DEFAULT || !self.rows.is_empty()
    }

    /// Encodes the lease, and the members whose lease is not over, for a replica that has seen `base`.
    pub(crate) fn save(&self, base: &Version, out: &mut Vec<u8>) {
        let nanos = u64::try_from(self.lease.as_nanos()).unwrap_or(u64::MAX);
        put_integer(nanos, out);
        let mut rows = Vec::new();
        self.encode(base, &mut rows);
        put_bytes(&rows, out);
    }

    /// Reads what [`save`](Self::save) wrote for the same `base`. The leases of the members begin with the
    /// first call with a time.
    pub(crate) fn restore(base: &Version, input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let mut members = Self::new(Duration::from_nanos(input.integer("a lease")?));
        let mut rows = ByteReader::new(input.bytes("members")?);
        for (member, heartbeat, changes) in decode_rows(&mut rows)? {
            let row =
                Row { heartbeat, version: base.clone().changed(&changes), received_at: None, expired: false };
            if members.rows.len() == MEMBERS_MAX || members.rows.insert(member, row).is_some() {
                return Err(DecodeError::NotCanonical { what: "members" });
            }
        }
        Ok(members)
    }

    /// Encodes the members for a receiver that knows `base`, this replica's version.
    pub(crate) fn encode(&self, base: &Version, out: &mut Vec<u8>) {
        let leased: Vec<_> = self.rows.iter().filter(|(_, row)| !row.expired).collect();
        put_integer(leased.len() as u64, out);
        for (member, row) in leased {
            member.encode(out);
            row.heartbeat.encode(out);
            let changes = row.version.changes_since(base);
            put_integer(changes.len() as u64, out);
            for change in &changes {
                change.encode(out);
            }
        }
    }

    /// Joins the members that a peer tracks.
    pub(crate) fn merge(
        &mut self,
        now: Duration,
        me: ReplicaId,
        base: &Version,
        input: &mut ByteReader<'_>,
    ) -> Result<(), DecodeError> {
        for (member, heartbeat, changes) in decode_rows(input)? {
            self.adopt(now, me, member, heartbeat, || base.clone().changed(&changes));
        }
        Ok(())
    }

    /// Takes the row of a member if its heartbeat is newer than the one known here.
    fn adopt(
        &mut self,
        now: Duration,
        me: ReplicaId,
        member: ReplicaId,
        heartbeat: u64,
        version: impl FnOnce() -> Version,
    ) {
        // Unknown members beyond the limit are dropped: a peer cannot fill the memory with invented ones.
        let newer = self.rows.get(&member).is_none_or(|row| row.heartbeat < heartbeat);
        let room = self.rows.len() < MEMBERS_MAX || self.rows.contains_key(&member);
        if member == me {
            // Heartbeats of this replica before a restart: it counts on from there, or the others would
            // ignore it until its count caught up.
            if let Some(row) = self.rows.get_mut(&me) {
                row.heartbeat = row.heartbeat.max(heartbeat);
            }
        } else if newer && room {
            let mut version = version();
            // A report through a slower path may be older in part: versions only grow.
            if let Some(row) = self.rows.get(&member) {
                version.join(&row.version);
            }
            self.rows.insert(member, Row { heartbeat, version, received_at: Some(now), expired: false });
        }
    }
}

/// A member, the count of its heartbeats, and the changes to a version that yield the one it has seen.
type CodedRow = (ReplicaId, u64, Vec<(ReplicaId, u64)>);

/// Reads what [`Members::encode`] wrote.
fn decode_rows(input: &mut ByteReader<'_>) -> Result<Vec<CodedRow>, DecodeError> {
    let count = input.count(11, "members")?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let member = ReplicaId::decode(input)?;
        let heartbeat = u64::decode(input)?;
        let changed = input.count(10, "changes of a version")?;
        let changes =
            (0..changed).map(|_| <(ReplicaId, u64)>::decode(input)).collect::<Result<Vec<_>, _>>()?;
        rows.push((member, heartbeat, changes));
    }
    input.finish()?;
    Ok(rows)
}
