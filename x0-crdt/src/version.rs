//! [`Version`]: the events that a replica has seen, as a version vector.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::dot::{Dot, ReplicaId};

/// A version vector: of each writer, all events up to a number.
///
/// [`CausalMap`](crate::CausalMap) and [`CausalReplica`](crate::CausalReplica) join whole deltas or nothing,
/// so that their versions have no gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    seqs: BTreeMap<ReplicaId, u64>,
}

impl Version {
    /// No event.
    #[must_use]
    pub const fn new() -> Self {
        Self { seqs: BTreeMap::new() }
    }

    /// The last event seen of `replica`, 0 for none.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.seqs.get(&replica).copied().unwrap_or(0)
    }

    /// Sets the last event seen of `replica`; 0 removes the replica.
    pub fn set(&mut self, replica: ReplicaId, seq: u64) {
        if seq == 0 {
            self.seqs.remove(&replica);
        } else {
            self.seqs.insert(replica, seq);
        }
    }

    /// Whether `dot` was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.seq <= self.get(dot.replica)
    }

    /// Whether `other` has seen all events of `self`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.seqs.iter().all(|(replica, seq)| *seq <= other.get(*replica))
    }

    /// Adds the events of `other`.
    pub fn join(&mut self, other: &Self) {
        for (replica, seq) in &other.seqs {
            let mine = self.seqs.entry(*replica).or_default();
            *mine = (*mine).max(*seq);
        }
    }

    /// Keeps only the events that `other` has seen too.
    pub fn meet(&mut self, other: &Self) {
        self.seqs.retain(|replica, seq| {
            *seq = (*seq).min(other.get(*replica));
            *seq > 0
        });
    }

    /// The replicas seen, ascending, with the last event of each.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, u64)> + '_ {
        self.seqs.iter().map(|(replica, seq)| (*replica, *seq))
    }

    /// How many replicas it has events of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seqs.len()
    }

    /// Whether it has no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// The changes that turn `base` into `self`: the entries that differ, with their number here (0 for
    /// none).
    #[must_use]
    pub fn changes_since(&self, base: &Self) -> Vec<(ReplicaId, u64)> {
        let mut changes: Vec<_> = self.iter().filter(|(replica, seq)| base.get(*replica) != *seq).collect();
        changes.extend(
            base.iter().filter(|(replica, _)| self.get(*replica) == 0).map(|(replica, _)| (replica, 0)),
        );
        changes.sort_unstable();
        changes
    }

    /// `self` with `changes` applied.
    #[must_use]
    pub fn changed(mut self, changes: &[(ReplicaId, u64)]) -> Self {
        for (replica, seq) in changes {
            self.set(*replica, *seq);
        }
        self
    }

    /// The keyed hash of the version. Equal versions have equal hashes.
    #[must_use]
    pub fn hash(&self, key: crate::hash::HashKey) -> u64 {
        let mut bytes = Vec::with_capacity(self.len() * 12);
        self.encode(&mut bytes);
        key.hash(&[b"version", &bytes])
    }
}

impl FromIterator<(ReplicaId, u64)> for Version {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, u64)>>(items: I) -> Self {
        let mut version = Self::new();
        for (replica, seq) in items {
            version.set(replica, seq);
        }
        version
    }
}

impl Canonical for Version {
    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.len() as u64, out);
        for (replica, seq) in &self.seqs {
            replica.encode(out);
            seq.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let seqs = BTreeMap::<ReplicaId, u64>::decode(input)?;
        if seqs.values().any(|seq| *seq == 0) {
            return Err(DecodeError::NotCanonical { what: "a version" });
        }
        Ok(Self { seqs })
    }
}

/// Appends the changes from one version to another.
pub(crate) fn put_changes(changes: &[(ReplicaId, u64)], out: &mut Vec<u8>) {
    put_integer(changes.len() as u64, out);
    for (replica, seq) in changes {
        replica.encode(out);
        seq.encode(out);
    }
}

/// Appends the changes from `base` to another version, for a reader that knows `base`: a writer in it by its
/// place there, and how far it has come.
pub(crate) fn put_changes_of(base: &Version, changes: &[(ReplicaId, u64)], out: &mut Vec<u8>) {
    put_integer(changes.len() as u64, out);
    let mut known = base.iter().enumerate().peekable();
    for (replica, seq) in changes {
        // Both ascend.
        while known.next_if(|(_, (other, _))| other < replica).is_some() {}
        match known.peek() {
            Some((place, (other, before))) if other == replica => {
                put_integer((*place as u64 + 1) << 1 | u64::from(seq < before), out);
                put_integer(seq.abs_diff(*before), out);
            }
            _ => {
                put_integer(0, out);
                replica.encode(out);
                seq.encode(out);
            }
        }
    }
}

/// Reads what [`put_changes_of`] wrote for the same `base`.
pub(crate) fn changes_of(
    base: &Version,
    input: &mut ByteReader<'_>,
) -> Result<Vec<(ReplicaId, u64)>, DecodeError> {
    const WHAT: &str = "changes of a version";
    let count = input.count(2, WHAT)?;
    let known: Vec<(ReplicaId, u64)> = base.iter().collect();
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = input.integer(WHAT)?;
        changes.push(if tag == 0 {
            <(ReplicaId, u64)>::decode(input)?
        } else {
            let place = usize::try_from(tag >> 1).ok().and_then(|place| place.checked_sub(1));
            let (replica, before) =
                *place.and_then(|place| known.get(place)).ok_or(DecodeError::Range { what: WHAT })?;
            let by = input.integer(WHAT)?;
            let seq = if tag & 1 == 0 { before.checked_add(by) } else { before.checked_sub(by) };
            (replica, seq.ok_or(DecodeError::Range { what: WHAT })?)
        });
    }
    if !changes.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(DecodeError::NotCanonical { what: WHAT });
    }
    Ok(changes)
}

/// Reads what [`put_changes`] wrote.
pub(crate) fn changes(input: &mut ByteReader<'_>) -> Result<Vec<(ReplicaId, u64)>, DecodeError> {
    let count = input.count(10, "changes of a version")?;
    let changes = (0..count).map(|_| <(ReplicaId, u64)>::decode(input)).collect::<Result<Vec<_>, _>>()?;
    if !changes.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(DecodeError::NotCanonical { what: "changes of a version" });
    }
    Ok(changes)
}
