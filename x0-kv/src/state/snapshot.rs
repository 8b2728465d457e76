//! The format of snapshots.
//!
//! ```text
//! "x0kvsnap" | version 1
//! block*       kind (1) | length of payload (4, little-endian) | payload | CRC-32C of kind, length and payload (4)
//! ```
//!
//! Blocks come in this order: one header (applied index), one block of keyspaces (name and id, ascending by
//! name), one block of members (id, addresses and incarnation, ascending by id), sessions, entries, one end
//! (how many sessions and entries there were). A block of entries begins with the id of its keyspace and ends
//! after the first entry that fills it to 64 KiB. Ids ascend over the blocks of entries and keys ascend
//! within a keyspace; each keyspace has at least one block. So the same state has the same bytes whichever
//! storage engine holds it.
//!
//! An entry is key, revision, value and the checksum that it got when it was written (4, little-endian). The
//! checksum is verified when the snapshot is written and when it is read: the checksum of a block alone would
//! cover damage that happened before.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{
    KEY_LEN_MAX, KEYSPACE_NAME_LEN_MAX, KEYSPACES_MAX, MEMBERS_LEN_MAX, RANGE_ENTRIES_MAX,
    SESSION_OUTCOMES_LEN_MAX, VALUE_LEN_MAX,
};
use crate::request::member::Members;
use crate::request::operation::RangeQuery;
use crate::state::session::{Session, Sessions};
use crate::state::storage::entry::{Space, Spaces, Stored, checksum};
use crate::state::storage::{EngineError, View};

const MAGIC: &[u8; 8] = b"x0kvsnap";
/// The version of the format of this module.
pub const SNAPSHOT_VERSION: u8 = 1;
const BLOCK_LEN_MIN: usize = 64 << 10;
/// One session can hold this much, which no block of entries does.
const BLOCK_LEN_MAX: usize = SESSION_OUTCOMES_LEN_MAX + (1 << 20);
const BLOCK_HEAD_LEN: usize = 5;
const CHECKSUM_LEN: usize = 4;

const HEADER: u8 = 1;
const KEYSPACES: u8 = 2;
const MEMBERS: u8 = 3;
const SESSIONS: u8 = 4;
const ENTRIES: u8 = 5;
const END: u8 = 6;
const KEYSPACES_LEN_MAX: usize = KEYSPACES_MAX * (KEYSPACE_NAME_LEN_MAX + 16);

/// A snapshot was not restored. The state is what it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The stream could not be read.
    #[error("cannot read the snapshot")]
    Read(#[from] io::Error),
    /// The stream is not a snapshot of this crate.
    #[error("these bytes are not a snapshot of x0-kv")]
    NotASnapshot,
    /// The snapshot is of another version.
    #[error("the snapshot has format version {found}, this version of the crate knows {SNAPSHOT_VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The snapshot was damaged on its way.
    #[error("the snapshot is damaged in block {block}: {reason}")]
    Damaged {
        /// Which block, counted from 0.
        block: u64,
        /// How.
        reason: &'static str,
    },
    /// A block does not hold what it should.
    #[error("block {block} of the snapshot is malformed")]
    Malformed {
        /// Which block, counted from 0.
        block: u64,
        /// How.
        source: DecodeError,
    },
    /// The checksum of an entry does not match: it was damaged before or after the snapshot was taken.
    #[error(
        "the snapshot is damaged in block {block}: the checksum of key {key:?} in keyspace {keyspace} does not match; take another snapshot"
    )]
    DamagedEntry {
        /// The block, counted from 0.
        block: u64,
        /// The keyspace of the entry.
        keyspace: KeyspaceName,
        /// The key of the entry.
        key: Bytes,
    },
    /// The snapshot is of another log index than announced.
    #[error("the snapshot is of log index {found}, expected {expected}")]
    Index {
        /// The index announced.
        expected: u64,
        /// The index in it.
        found: u64,
    },
    /// The engine could not store it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A snapshot as a stream. Holds a block at a time.
pub(crate) struct Writer {
    view: View,
    applied: u64,
    sessions: std::vec::IntoIter<(u64, Arc<Session>)>,
    session_count: u64,
    /// The keyspaces whose entries are still to be read.
    spaces: std::vec::IntoIter<Space>,
    /// The keyspace being read, and the rest of it; `None` at its end.
    space: Space,
    rest: Option<RangeQuery>,
    pending: std::vec::IntoIter<Stored>,
    entry_count: u64,
    stage: Stage,
    /// The block being handed out, and how much of it was.
    block: Vec<u8>,
    at: usize,
}

enum Stage {
    Header,
    Keyspaces,
    Members,
    Sessions,
    Entries,
    End,
    Done,
}

impl Writer {
    pub(crate) fn new(view: View, applied: u64, sessions: &Sessions) -> Writer {
        let sessions: Vec<_> = sessions.iter().map(|(id, session)| (id, Arc::clone(session))).collect();
        let mut spaces = view.spaces().by_id().into_iter();
        Writer {
            space: spaces.next().unwrap_or(Space::DEFAULT),
            spaces,
            view,
            applied,
            session_count: sessions.len() as u64,
            sessions: sessions.into_iter(),
            rest: Some(RangeQuery::all()),
            pending: Vec::new().into_iter(),
            entry_count: 0,
            stage: Stage::Header,
            block: Vec::new(),
            at: 0,
        }
    }

    /// The next entry of the keyspace being read.
    fn next_entry(&mut self) -> Result<Option<Stored>, EngineError> {
        loop {
            if let Some(entry) = self.pending.next() {
                return Ok(Some(entry));
            }
            let Some(range) = self.rest.take() else { return Ok(None) };
            let page = self.view.page(&self.space, &range, BLOCK_LEN_MIN)?;
            self.rest = page.continuation.map(|continuation| range.resume(continuation));
            self.pending = page.entries.into_iter();
        }
    }

    /// Makes the next block, or leaves an empty one at the end.
    fn fill(&mut self) -> Result<(), EngineError> {
        self.block.clear();
        self.at = 0;
        match self.stage {
            Stage::Header => {
                self.block.put_slice(MAGIC);
                self.block.put_u8(SNAPSHOT_VERSION);
                let from = self.begin(HEADER);
                codec::put_u64(&mut self.block, self.applied);
                self.finish(from);
                self.stage = Stage::Keyspaces;
            }
            Stage::Keyspaces => {
                let from = self.begin(KEYSPACES);
                for (name, id) in self.view.spaces().iter() {
                    codec::put_bytes(&mut self.block, name.as_bytes());
                    codec::put_u64(&mut self.block, id);
                }
                self.finish(from);
                self.stage = Stage::Members;
            }
            Stage::Members => {
                let from = self.begin(MEMBERS);
                self.view.members().encode(&mut self.block);
                self.finish(from);
                self.stage = Stage::Sessions;
            }
            Stage::Sessions => {
                let from = self.begin(SESSIONS);
                for (id, session) in self.sessions.by_ref() {
                    codec::put_u64(&mut self.block, id);
                    session.encode(&mut self.block);
                    if self.block.len() - from >= BLOCK_LEN_MIN {
                        break;
                    }
                }
                self.finish(from);
                if self.sessions.len() == 0 {
                    self.stage = Stage::Entries;
                }
            }
            Stage::Entries => {
                let from = self.begin(ENTRIES);
                codec::put_u64(&mut self.block, self.space.id);
                while self.block.len() - from < BLOCK_LEN_MIN {
                    let Some(entry) = self.next_entry()? else {
                        match self.spaces.next() {
                            Some(space) => (self.space, self.rest) = (space, Some(RangeQuery::all())),
                            None => self.stage = Stage::End,
                        }
                        break;
                    };
                    put_entry(&mut self.block, &entry);
                    self.entry_count += 1;
                }
                self.finish(from);
            }
            Stage::End => {
                let from = self.begin(END);
                codec::put_u64(&mut self.block, self.session_count);
                codec::put_u64(&mut self.block, self.entry_count);
                self.finish(from);
                self.stage = Stage::Done;
            }
            Stage::Done => {}
        }
        Ok(())
    }

    fn begin(&mut self, kind: u8) -> usize {
        let from = self.block.len();
        self.block.put_u8(kind);
        self.block.put_u32_le(0);
        from
    }

    fn finish(&mut self, from: usize) {
        let len = u32::try_from(self.block.len() - from - BLOCK_HEAD_LEN).unwrap_or(u32::MAX);
        self.block[from + 1..from + BLOCK_HEAD_LEN].copy_from_slice(&len.to_le_bytes());
        let checksum = crc32c::crc32c(&self.block[from..]);
        self.block.put_u32_le(checksum);
    }
}

impl Read for Writer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.fill().map_err(io::Error::other)?;
        }
        let len = buffer.len().min(self.block.len() - self.at);
        buffer[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

fn put_entry(to: &mut Vec<u8>, entry: &Stored) {
    codec::put_bytes(to, &entry.key);
    codec::put_u64(to, entry.revision);
    codec::put_bytes(to, &entry.value);
    to.put_u32_le(entry.checksum);
}

/// The parts of a snapshot that are not entries.
pub(crate) struct Restored {
    pub(crate) applied: u64,
    pub(crate) spaces: Spaces,
    pub(crate) members: Members,
    pub(crate) sessions: Sessions,
}

/// Reads a snapshot to its end, and gives the entries to `take`, a block at a time.
///
/// Nothing that `take` was given may be kept before this returns `Ok`: only then was the snapshot whole.
pub(crate) fn read(
    from: &mut dyn Read,
    expected: Option<u64>,
    mut take: impl FnMut(&Space, Vec<Stored>) -> Result<(), EngineError>,
) -> Result<Restored, RestoreError> {
    let mut head = [0_u8; MAGIC.len() + 1];
    from.read_exact(&mut head)?;
    let [magic @ .., version] = head;
    if magic != *MAGIC {
        return Err(RestoreError::NotASnapshot);
    }
    if version != SNAPSHOT_VERSION {
        return Err(RestoreError::Version { found: version });
    }
    let mut blocks = Blocks { from, count: 0, kind: HEADER };
    let mut sessions = Sessions::default();
    let mut applied = 0;
    let mut spaces = Spaces::default();
    let mut members = Members::default();
    let mut entry_count = 0;
    // The keyspaces whose entries have not come yet, and the last key of the current one.
    let mut following = Vec::new().into_iter();
    let mut current: Option<(Space, Bytes)> = None;
    loop {
        let (kind, payload) = blocks.next()?;
        let block = blocks.count - 1;
        let malformed = |source| RestoreError::Malformed { block, source };
        let mut payload_from = Decoder::new(&payload);
        match kind {
            HEADER => applied = payload_from.u64("applied index").map_err(malformed)?,
            SESSIONS => {
                while payload_from.remaining() > 0 {
                    let id = payload_from.u64("session").map_err(malformed)?;
                    let session = Session::decode(&mut payload_from).map_err(malformed)?;
                    sessions.insert(id, session).map_err(malformed)?;
                }
            }
            KEYSPACES => {
                spaces = keyspaces(&mut payload_from, applied).map_err(malformed)?;
                following = spaces.by_id().into_iter();
            }
            MEMBERS => members = Members::decode(&mut payload_from).map_err(malformed)?,
            ENTRIES => {
                let id = payload_from.u64("keyspace").map_err(malformed)?;
                let entries = entries(&mut payload_from).map_err(malformed)?;
                if current.as_ref().is_none_or(|(space, _)| space.id != id) {
                    current =
                        following.next().filter(|space| space.id == id).map(|next| (next, Bytes::new()));
                }
                let Some((space, last_key)) = &mut current else {
                    return Err(RestoreError::Damaged { block, reason: "its keyspace is not the next one" });
                };
                entry_count += entries.len() as u64;
                for entry in &entries {
                    if entry.key <= *last_key {
                        return Err(RestoreError::Damaged { block, reason: "its keys do not ascend" });
                    }
                    if checksum(space.id, entry.revision, &entry.key, &entry.value) != entry.checksum {
                        let (keyspace, key) = (space.name.clone(), entry.key.clone());
                        return Err(RestoreError::DamagedEntry { block, keyspace, key });
                    }
                    *last_key = entry.key.clone();
                }
                take(space, entries)?;
            }
            _ => {
                let counts = (
                    payload_from.u64("count of sessions").map_err(malformed)?,
                    payload_from.u64("count of entries").map_err(malformed)?,
                );
                payload_from.finish().map_err(malformed)?;
                if counts != (sessions.len() as u64, entry_count) || following.next().is_some() {
                    return Err(RestoreError::Damaged { block, reason: "blocks before it are missing" });
                }
                if blocks.from.read(&mut [0])? != 0 {
                    return Err(RestoreError::Damaged { block, reason: "bytes follow the end" });
                }
                return match expected {
                    Some(expected) if expected != applied => {
                        Err(RestoreError::Index { expected, found: applied })
                    }
                    _ => Ok(Restored { applied, spaces, members, sessions }),
                };
            }
        }
        payload_from.finish().map_err(malformed)?;
    }
}

struct Blocks<'a> {
    from: &'a mut dyn Read,
    count: u64,
    /// The least kind that may come next.
    kind: u8,
}

impl Blocks<'_> {
    fn next(&mut self) -> Result<(u8, Bytes), RestoreError> {
        let block = self.count;
        let damaged = |reason| RestoreError::Damaged { block, reason };
        let mut head = [0_u8; BLOCK_HEAD_LEN];
        self.from.read_exact(&mut head)?;
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        // One header, one block of keyspaces, one of members, then sessions and entries in that order, then
        // the end. Checked before the length is used.
        if kind < self.kind
            || kind > END
            || (block == 0) != (kind == HEADER)
            || (block == 1) != (kind == KEYSPACES)
            || (block == 2) != (kind == MEMBERS)
        {
            return Err(damaged("its kind is not one that may come here"));
        }
        let len_max = match kind {
            KEYSPACES => KEYSPACES_LEN_MAX,
            MEMBERS => MEMBERS_LEN_MAX,
            SESSIONS => BLOCK_LEN_MAX,
            _ => BLOCK_LEN_MIN + VALUE_LEN_MAX + KEY_LEN_MAX + 64,
        };
        if len > len_max {
            return Err(damaged("its length is above the limit"));
        }
        // Grown as bytes arrive: a length alone allocates nothing.
        let mut payload = Vec::new();
        let taken = (&mut *self.from).take((len + CHECKSUM_LEN) as u64).read_to_end(&mut payload)?;
        if taken != len + CHECKSUM_LEN {
            return Err(damaged("it ends too early"));
        }
        let checksum = payload.split_off(len);
        let computed = crc32c::crc32c_append(crc32c::crc32c(&head), &payload);
        if *checksum != computed.to_le_bytes() {
            return Err(damaged("its checksum does not match"));
        }
        self.count += 1;
        // Headers, keyspaces and members have one block each.
        self.kind = if kind < SESSIONS { kind + 1 } else { kind };
        Ok((kind, payload.into()))
    }
}

fn keyspaces(from: &mut Decoder<'_>, applied: u64) -> Result<Spaces, DecodeError> {
    let mut spaces = Spaces::default();
    let mut ids = std::collections::BTreeSet::new();
    let mut last = KeyspaceName::DEFAULT;
    while from.remaining() > 0 {
        let name = KeyspaceName::from_encoded(from.bytes("name of a keyspace", KEYSPACE_NAME_LEN_MAX)?)?;
        let id = from.u64("id of a keyspace")?;
        // Names ascend, and no two keyspaces were created by one command.
        if name <= last || id == 0 || id > applied || !ids.insert(id) {
            return Err(DecodeError::Order { what: "keyspaces" });
        }
        last = name.clone();
        spaces.insert(&name, id);
    }
    match spaces.len() {
        len if len > KEYSPACES_MAX => {
            Err(DecodeError::TooLong { what: "list of keyspaces", len: len as u64, max: KEYSPACES_MAX })
        }
        _ => Ok(spaces),
    }
}

fn entries(from: &mut Decoder<'_>) -> Result<Vec<Stored>, DecodeError> {
    let mut entries = Vec::with_capacity((from.remaining() / 64).min(RANGE_ENTRIES_MAX as usize));
    while from.remaining() > 0 {
        let key = from.bytes("key", KEY_LEN_MAX)?;
        let revision = from.u64("revision")?;
        let value = from.bytes("value", VALUE_LEN_MAX)?;
        entries.push(Stored { key, value, revision, checksum: from.u32("checksum")? });
    }
    Ok(entries)
}
