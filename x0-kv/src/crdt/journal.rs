//! The journal of a CRDT keyspace: makes its writes durable before they leave the node.
//!
//! The journal is a log of x0-consensus with one member, so that torn tails, damage, full disks and group
//! commit are handled by the same code. Its first entry holds a complete map, each further one the delta
//! since the entry before. A state that arrives by key ranges is there range by range, until an entry says
//! that the ranges count. When the deltas outweigh the map, a new complete map is written and the entries
//! before it are dropped. The log bounds the length of an entry: a longer complete map is its snapshot.
//!
//! `x0_crdt::Journal` keeps a map in the same way, in files of its own. A keyspace needs three things of the
//! log beneath that it does not have: one fsync for the records of all that write to the disk at that moment,
//! the seam [`Storage`] through which the simulator injects faults of the disk, and the fingerprint by which
//! [`Wal`] finds that a folder is a copy, so that the copy takes a fresh incarnation.

use std::io;

use bytes::Bytes;
use x0_consensus::{
    Entry, EntryKind, HardState, LogBase, Membership, NodeId, ReadError, RecoverError, Recovered,
    SnapshotMeta, SnapshotReadError, SnapshotWriteError, Storage, Wal, Write as LogWrite, WriteError,
};
use x0_crdt::{
    CausalMap, DeltaError, Frontier, HashKey, JoinError, MapDelta, ReplicaId, RestoreError, Version,
};

use super::replica::Staged;

/// The first byte of an entry is its kind.
const WHOLE: u8 = 0;
const DELTA: u8 = 1;
const RANGE: u8 = 2;
const JOINED: u8 = 3;
/// The head of a complete map: kind, node, incarnation, and a digest of a constant under the hash key.
const HEAD_LEN: usize = 1 + 8 + 4 + 8;
/// The term of all entries; a log of one has no elections.
const TERM: u64 = 1;
/// Below this length of deltas no complete map is written.
const DELTAS_LEN_MIN: u64 = 1 << 20;
/// The longest entry: a quarter of what the log writes at once by default.
const ENTRY_LEN_MAX: usize = if cfg!(test) { 128 << 10 } else { 64 << 20 };
/// The bytes that are read at once when the journal is opened.
const READ_LEN: usize = 8 << 20;

/// Why the journal of a CRDT keyspace could not be opened or written. What was acknowledged before is on the
/// disk as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The log beneath cannot be opened.
    #[error("the journal of the CRDT keyspace cannot be opened: {0}")]
    Recover(#[from] RecoverError),
    /// The log beneath cannot be read.
    #[error("the journal of the CRDT keyspace cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The log beneath cannot be written.
    #[error("the journal of the CRDT keyspace cannot be written: {0}")]
    Write(#[from] WriteError),
    /// The log beneath cannot take a long complete map.
    #[error("a complete map of the CRDT keyspace cannot be written: check the disk of the data folder")]
    Snapshot(#[from] SnapshotWriteError),
    /// The bytes of a long complete map cannot be written.
    #[error(
        "the bytes of a complete map of the CRDT keyspace cannot be written: check the disk of the data folder"
    )]
    SnapshotWrite(#[source] io::Error),
    /// A long complete map cannot be read.
    #[error("the complete map of the CRDT keyspace cannot be read")]
    SnapshotRead(#[from] SnapshotReadError),
    /// The bytes of a long complete map are damaged, or cannot be read.
    #[error(
        "the complete map of the CRDT keyspace cannot be read; if it is damaged, move the folder away, and the other members bring back all that they have seen"
    )]
    SnapshotBytes(#[source] io::Error),
    /// An entry is damaged.
    #[error(
        "entry {index} of the journal of the CRDT keyspace is damaged: {reason}; move the folder away, and the other members bring back all that they have seen"
    )]
    Damaged {
        /// The index of the entry.
        index: u64,
        /// The kind of damage.
        reason: Damage,
    },
    /// The journal belongs to another node.
    #[error(
        "the journal of the CRDT keyspace is of node {found:016x}, this is node {node}: use the folder of one node"
    )]
    Node {
        /// The node that wrote the journal.
        found: u64,
        /// The node that opens it.
        node: NodeId,
    },
    /// The journal was written with another hash key.
    #[error("the CRDT keyspace was made with another hash key: use that one, on all members")]
    HashKey,
}

impl JournalError {
    /// Whether the disk had no space. What was written before is there, and a later attempt may succeed.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Write(WriteError::Full { .. }) | Self::Snapshot(SnapshotWriteError::Full { .. }) => true,
            Self::SnapshotWrite(error) => error.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// The kind of damage of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The entry is of no known kind, or too short.
    #[error("the entry is of no known kind")]
    Kind,
    /// The first entry is not a complete map.
    #[error("the first entry is not a complete map")]
    Begin,
    /// A complete map is malformed.
    #[error(transparent)]
    Whole(#[from] RestoreError),
    /// A delta is malformed.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// A delta does not follow the entry before it.
    #[error(transparent)]
    Order(#[from] JoinError),
}

/// See the [module](self).
pub(super) struct Journal<S: Storage + ?Sized = dyn Storage> {
    storage: Box<S>,
    /// The last entry.
    index: u64,
    /// The replica that the last complete map is of.
    replica: ReplicaId,
    /// The version of the map that the entries give.
    version: Version,
    frontier: Frontier,
    /// The bytes of deltas since the last complete map, and of that map.
    deltas_len: u64,
    whole_len: u64,
}

/// The next entry.
pub(super) struct Record {
    payload: Vec<u8>,
    replica: ReplicaId,
    version: Version,
    frontier: Frontier,
}

impl Journal<Wal> {
    /// Gives the keyspace in a copied folder a fresh incarnation, durably. The copy lacks events that the
    /// folder has written since: under their numbers it must write no others.
    ///
    /// # Errors
    /// The folder counts as a copy as before, and nothing was written under the old incarnation.
    pub(super) fn renew(storage: Wal, node: NodeId, fresh: u32, key: HashKey) -> Result<Wal, JournalError> {
        if storage.is_copy().is_none() {
            return Ok(storage);
        }
        let (mut journal, map) = Journal::open(Box::new(storage), node, fresh, key)?;
        let replica = ReplicaId::with_incarnation(node.get(), fresh);
        let damaged =
            |error: RestoreError| JournalError::Damaged { index: journal.index, reason: error.into() };
        let map = CausalMap::restore(&map.save(), replica, key).map_err(damaged)?;
        // First the incarnation, then the fingerprints: a crash between the two leaves a copy.
        let record = journal.whole(&map);
        journal.write(record)?;
        journal.storage.adopt(u64::from(fresh).max(1))?;
        Ok(*journal.storage)
    }
}

impl<S: Storage + ?Sized> Journal<S> {
    /// Opens what is held, or begins it. `fresh` is the incarnation of a node that begins: another one each
    /// time, so that a node that lost its folder does not give old names to new events.
    pub(super) fn open(
        storage: Box<S>,
        node: NodeId,
        fresh: u32,
        key: HashKey,
    ) -> Result<(Journal<S>, CausalMap), JournalError> {
        let (mut journal, map) = Journal::read(storage, node, key)?;
        let is_new = map.is_none();
        let map = map.unwrap_or_else(|| CausalMap::new(ReplicaId::with_incarnation(node.get(), fresh), key));
        (journal.replica, journal.version, journal.frontier) = (map.replica(), map.version(), map.frontier());
        if is_new {
            let record = journal.whole(&map);
            journal.write(record)?;
        }
        Ok((journal, map))
    }

    /// The map as the journal holds it, without what could not be written.
    pub(super) fn reload(self, node: NodeId, key: HashKey) -> Result<(Journal<S>, CausalMap), JournalError> {
        let (mut journal, map) = Journal::read(self.storage, node, key)?;
        let map = map.ok_or(JournalError::Damaged { index: journal.index, reason: Damage::Begin })?;
        (journal.replica, journal.version, journal.frontier) = (map.replica(), map.version(), map.frontier());
        Ok((journal, map))
    }

    fn read(
        mut storage: Box<S>,
        node: NodeId,
        key: HashKey,
    ) -> Result<(Journal<S>, Option<CausalMap>), JournalError> {
        let recovered = storage.recover()?;
        let mut next = recovered.base.index + 1;
        let (mut deltas_len, mut whole_len) = (0, 0);
        let mut map: Option<CausalMap> = None;
        // A complete map in the log replaces the snapshot before it, which may be damaged.
        let first =
            if next > recovered.last_index { Vec::new() } else { storage.read(next..next + 1, READ_LEN)? };
        let is_replaced = first.first().is_some_and(|entry| entry.payload.first() == Some(&WHOLE));
        if !is_replaced && let Some(whole) = read_snapshot(&mut *storage, &recovered)? {
            map = Some(read_whole(&whole, recovered.base.index, node, key)?);
            whole_len = whole.len() as u64;
        }
        while next <= recovered.last_index {
            for entry in storage.read(next..recovered.last_index + 1, READ_LEN)? {
                let len = entry.payload.len() as u64;
                if entry.payload.first() == Some(&WHOLE) {
                    map = Some(read_whole(&entry.payload, entry.index, node, key)?);
                    (deltas_len, whole_len) = (0, len);
                } else {
                    read_change(&entry, map.as_mut())?;
                    deltas_len += len;
                }
                next = entry.index + 1;
            }
        }
        // The caller sets them to those of the map.
        let (version, frontier) = (Version::default(), Frontier { version: 0, content: 0 });
        let replica = ReplicaId::new(node.get());
        Ok((Journal { storage, index: next - 1, replica, version, frontier, deltas_len, whole_len }, map))
    }

    /// The entry that makes the map durable; `None` if it is durable already.
    pub(super) fn record(&self, map: &CausalMap) -> Option<Record> {
        let frontier = map.frontier();
        // The incarnation is in the head of a complete map.
        if map.replica() != self.replica {
            return Some(self.whole(map));
        }
        if frontier == self.frontier {
            return None;
        }
        let delta = match map.delta(&self.version) {
            // Two contents of one event name change the values but not the version: no delta contains them.
            Ok(delta) if frontier.version != self.frontier.version => delta,
            _ => return Some(self.whole(map)),
        };
        if self.deltas_len > DELTAS_LEN_MIN.max(self.whole_len * 2) {
            return Some(self.whole(map));
        }
        let mut payload = vec![DELTA];
        payload.extend_from_slice(&delta.encode(&self.version));
        if payload.len() > ENTRY_LEN_MAX {
            return Some(self.whole(map));
        }
        Some(Record { payload, replica: self.replica, version: map.version(), frontier })
    }

    /// The entry of a step of a state that arrives by key ranges. Such entries come before
    /// [`record`](Self::record).
    pub(super) fn staged(&self, staged: Staged) -> Record {
        match staged {
            Staged::Range(record) => {
                let payload = [&[RANGE][..], &record].concat();
                Record {
                    payload,
                    replica: self.replica,
                    version: self.version.clone(),
                    frontier: self.frontier,
                }
            }
            Staged::Joined(brought) => {
                let mut version = self.version.clone();
                version.join(&brought);
                // Of no map, so that a delta with what was written meanwhile follows.
                Record {
                    payload: vec![JOINED],
                    replica: self.replica,
                    version,
                    frontier: Frontier { version: 0, content: 0 },
                }
            }
        }
    }

    /// A record of all that is held.
    pub(super) fn whole(&self, map: &CausalMap) -> Record {
        let mut payload = Vec::with_capacity(HEAD_LEN);
        payload.push(WHOLE);
        payload.extend_from_slice(&map.replica().node.to_le_bytes());
        payload.extend_from_slice(&map.replica().incarnation.to_le_bytes());
        payload.extend_from_slice(&check_of(map.hash_key()));
        payload.extend_from_slice(&map.save());
        Record { payload, replica: map.replica(), version: map.version(), frontier: map.frontier() }
    }

    /// Writes a record; durable when it returns.
    ///
    /// # Errors
    /// The record may be there or not after the next opening; nothing more can be written until then.
    pub(super) fn write(&mut self, record: Record) -> Result<(), JournalError> {
        let Record { payload, replica, version, frontier } = record;
        let (index, len, is_whole) = (self.index + 1, payload.len() as u64, payload.first() == Some(&WHOLE));
        if is_whole && payload.len() > ENTRY_LEN_MAX {
            self.write_snapshot(index, &payload)?;
        } else {
            self.write_entry(index, payload, is_whole)?;
        }
        self.index = index;
        (self.replica, self.version, self.frontier) = (replica, version, frontier);
        if is_whole {
            (self.deltas_len, self.whole_len) = (0, len);
        } else {
            self.deltas_len += len;
        }
        Ok(())
    }

    fn write_entry(&mut self, index: u64, payload: Vec<u8>, is_whole: bool) -> Result<(), JournalError> {
        let entry = Entry { term: TERM, index, kind: EntryKind::Normal, payload: Bytes::from(payload) };
        let hard_state = HardState { term: TERM, vote: None, commit: index };
        let mut batch =
            vec![LogWrite { hard_state: Some(hard_state), entries: vec![entry], ..LogWrite::default() }];
        if is_whole && index > 1 {
            let base = LogBase { index: index - 1, term: TERM, membership: Membership::default() };
            batch.push(LogWrite { base: Some(base), ..LogWrite::default() });
        }
        Ok(self.storage.write(&batch)?)
    }

    /// Writes a complete map in the place of the entry `index` and of all before it.
    fn write_snapshot(&mut self, index: u64, payload: &[u8]) -> Result<(), JournalError> {
        let meta = SnapshotMeta { index, term: TERM, membership: Membership::default() };
        let mut writer = self.storage.snapshot_writer(&meta)?;
        writer.write_all(payload).map_err(JournalError::SnapshotWrite)?;
        writer.finish()?;
        let hard_state = HardState { term: TERM, vote: None, commit: index };
        // The log has no entry of this index, so that the snapshot replaces it.
        let write = LogWrite { hard_state: Some(hard_state), snapshot: Some(meta), ..LogWrite::default() };
        Ok(self.storage.write(&[write])?)
    }
}

/// The complete map that the log begins with, if that is a snapshot: an older one than the log is of no use.
fn read_snapshot(
    storage: &mut (impl Storage + ?Sized),
    recovered: &Recovered,
) -> Result<Option<Vec<u8>>, JournalError> {
    let begins = |meta: &SnapshotMeta| meta.index > 0 && meta.index == recovered.base.index;
    if !recovered.snapshot.as_ref().is_some_and(begins) {
        return Ok(None);
    }
    let Some(mut reader) = storage.snapshot_reader()? else { return Ok(None) };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(JournalError::SnapshotBytes)?;
    Ok(Some(bytes))
}

fn check_of(key: HashKey) -> [u8; 8] {
    key.hash(&[b"x0-kv crdt keyspace"]).to_le_bytes()
}

fn read_whole(payload: &[u8], index: u64, node: NodeId, key: HashKey) -> Result<CausalMap, JournalError> {
    let damaged = |reason| JournalError::Damaged { index, reason };
    let (head, saved) = payload.split_at_checked(HEAD_LEN).ok_or(damaged(Damage::Kind))?;
    let (node_bytes, rest) = head[1..].split_first_chunk().ok_or(damaged(Damage::Kind))?;
    let (incarnation, check) = rest.split_first_chunk().ok_or(damaged(Damage::Kind))?;
    let found = u64::from_le_bytes(*node_bytes);
    if found != node.get() {
        return Err(JournalError::Node { found, node });
    }
    if *check != check_of(key) {
        return Err(JournalError::HashKey);
    }
    let replica = ReplicaId::with_incarnation(found, u32::from_le_bytes(*incarnation));
    CausalMap::restore(saved, replica, key).map_err(|error| damaged(error.into()))
}

fn read_change(entry: &Entry, map: Option<&mut CausalMap>) -> Result<(), JournalError> {
    let damaged = |reason| JournalError::Damaged { index: entry.index, reason };
    let (kind, bytes) = entry.payload.split_first().ok_or(damaged(Damage::Kind))?;
    let map = map.ok_or(damaged(Damage::Begin))?;
    match *kind {
        DELTA => {
            let delta = MapDelta::decode_trusted(bytes, &map.version());
            let delta = delta.map_err(|error| damaged(error.into()))?;
            map.replay(&delta).map_err(|error| damaged(error.into()))?;
        }
        RANGE => map.replay_range(bytes).map_err(|error| damaged(error.into()))?,
        JOINED if map.replay_ranges() => {}
        _ => return Err(damaged(Damage::Kind)),
    }
    Ok(())
}
