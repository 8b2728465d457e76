//! The body of a record: encoded from a [`Write`], decoded without a copy of the payloads.

use std::collections::BTreeSet;
use std::ops::Range;

use crc32c::crc32c_append;
use x0_identity::NodeId;

use crate::entry::{EntryKind, HardState, LogBase, Membership, Registration, SnapshotMeta};
use crate::storage::Write;
use crate::storage::outline::INDEX_MAX;

use super::format::{ALIGNMENT, RECORD_HEADER_LEN, RecordHeader, part, read_u32, read_u64, seed};

const ENTRY_HEADER_LEN: usize = 16;
const KIND_NORMAL: u32 = 0;
const KIND_MEMBERSHIP: u32 = 1;
/// The flag of a membership that has a cluster id and incarnations. A release without them refuses it.
const IDENTITY: u8 = 2;

/// The location of a record, and the other fields of its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) number: u64,
    pub(crate) synced: u64,
}

/// The state that the first record of a segment repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a> {
    pub(crate) hard_state: HardState,
    pub(crate) base: &'a LogBase,
    pub(crate) snapshot: Option<&'a SnapshotMeta>,
    pub(crate) last_index: u64,
}

fn membership_len(membership: &Membership) -> u64 {
    let roles =
        [&membership.voters, &membership.voters_outgoing, &membership.learners, &membership.learners_next];
    let identity = if membership.has_identity() { 12 + 24 * membership.incarnations.len() as u64 } else { 0 };
    1 + roles.iter().map(|role| 4 + 8 * role.len() as u64).sum::<u64>() + identity
}

/// The length of the record of a write, header and padding included.
pub(crate) fn encoded_len(write: &Write) -> u64 {
    let mut len = RECORD_HEADER_LEN as u64;
    len += write.hard_state.map_or(0, |_| 24);
    len += write.snapshot.as_ref().map_or(0, |meta| 16 + membership_len(&meta.membership));
    if !write.entries.is_empty() {
        len += 12;
        len += write.entries.iter().map(|entry| (ENTRY_HEADER_LEN + entry.payload.len()) as u64).sum::<u64>();
    }
    len += write.base.as_ref().map_or(0, |base| 16 + membership_len(&base.membership));
    len.next_multiple_of(ALIGNMENT as u64)
}

fn put_u32(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

/// Appends a length. The limit of a batch is far below 2^32.
fn put_len(bytes: &mut Vec<u8>, len: usize) {
    put_u32(bytes, u32::try_from(len).unwrap_or(u32::MAX));
}

fn put_hard_state(bytes: &mut Vec<u8>, hard_state: HardState) {
    put_u64(bytes, hard_state.term);
    put_u64(bytes, hard_state.vote.map_or(0, NodeId::get));
    put_u64(bytes, hard_state.commit);
}

fn put_membership(bytes: &mut Vec<u8>, membership: &Membership) {
    let has_identity = membership.has_identity();
    bytes.push(u8::from(membership.auto_leave) | if has_identity { IDENTITY } else { 0 });
    for role in
        [&membership.voters, &membership.voters_outgoing, &membership.learners, &membership.learners_next]
    {
        put_len(bytes, role.len());
        role.iter().for_each(|node| put_u64(bytes, node.get()));
    }
    if has_identity {
        put_u64(bytes, membership.cluster);
        put_len(bytes, membership.incarnations.len());
        for (node, Registration { incarnation, index }) in &membership.incarnations {
            [node.get(), *incarnation, *index].iter().for_each(|number| put_u64(bytes, *number));
        }
    }
}

fn put_base(bytes: &mut Vec<u8>, base: &LogBase) {
    put_u64(bytes, base.index);
    put_u64(bytes, base.term);
    put_membership(bytes, &base.membership);
}

fn put_snapshot(bytes: &mut Vec<u8>, meta: &SnapshotMeta) {
    put_u64(bytes, meta.index);
    put_u64(bytes, meta.term);
    put_membership(bytes, &meta.membership);
}

/// Appends a record; `put_body` appends its body and returns its parts.
fn put_record(bytes: &mut Vec<u8>, place: Place, put_body: impl FnOnce(&mut Vec<u8>) -> u32) {
    let start = bytes.len();
    bytes.resize(start + RECORD_HEADER_LEN, 0);
    let parts = put_body(bytes);
    // Aligned, so that the search for a proof of durability looks at every eighth offset only.
    let padded = (bytes.len() - start).next_multiple_of(ALIGNMENT);
    bytes.resize(start + padded, 0);
    let seed = seed(place.sequence, place.offset);
    let body = &bytes[start + RECORD_HEADER_LEN..];
    let header = RecordHeader {
        body_crc: crc32c_append(seed, body),
        body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        parts,
        number: place.number,
        synced: place.synced,
    };
    bytes[start..start + RECORD_HEADER_LEN].copy_from_slice(&header.encode(seed));
}

/// Appends the record of a write.
pub(crate) fn put_write(bytes: &mut Vec<u8>, place: Place, write: &Write, replaces_log: bool) {
    put_record(bytes, place, |bytes| {
        let mut parts = 0;
        if let Some(hard_state) = write.hard_state {
            parts |= part::HARD_STATE;
            put_hard_state(bytes, hard_state);
        }
        // The parts have the order in which they take effect: a snapshot may replace the log that the entries
        // continue, and the base may only be set once the entries before it are there.
        if let Some(meta) = &write.snapshot {
            parts |= part::SNAPSHOT;
            // Decided when the batch is written and recorded: recovery cannot compare the snapshot with
            // entries that are in removed segments.
            if replaces_log {
                parts |= part::REPLACES_LOG;
            }
            put_snapshot(bytes, meta);
        }
        if let Some(first) = write.entries.first() {
            parts |= part::ENTRIES;
            put_u64(bytes, first.index);
            put_len(bytes, write.entries.len());
            for entry in &write.entries {
                put_u64(bytes, entry.term);
                put_len(bytes, entry.payload.len());
                put_u32(
                    bytes,
                    if entry.kind == EntryKind::Membership { KIND_MEMBERSHIP } else { KIND_NORMAL },
                );
                bytes.extend_from_slice(&entry.payload);
            }
        }
        if let Some(base) = &write.base {
            parts |= part::BASE;
            put_base(bytes, base);
        }
        parts
    });
}

/// Appends the record that opens a segment.
pub(crate) fn put_state(bytes: &mut Vec<u8>, place: Place, state: &State<'_>) {
    put_record(bytes, place, |bytes| {
        let mut parts = part::STATE | part::HARD_STATE | part::BASE;
        put_hard_state(bytes, state.hard_state);
        if let Some(meta) = state.snapshot {
            parts |= part::SNAPSHOT;
            put_snapshot(bytes, meta);
        }
        put_base(bytes, state.base);
        put_u64(bytes, state.last_index);
        parts
    });
}

/// A decoded body.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) hard_state: Option<HardState>,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) replaces_log: bool,
    pub(crate) entries: Option<Entries>,
    pub(crate) base: Option<LogBase>,
    /// Only in the first record of a segment.
    pub(crate) last_index: Option<u64>,
}

/// The location of the entries in a body. Decoding has checked that each of them is whole.
#[derive(Debug, Clone)]
pub(crate) struct Entries {
    pub(crate) first_index: u64,
    pub(crate) count: u32,
    bytes: Range<usize>,
}

/// An entry whose payload is at this range of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryAt {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Range<usize>,
}

impl Entries {
    pub(crate) fn iter<'a>(&self, body: &'a [u8]) -> impl Iterator<Item = EntryAt> + use<'a> {
        let mut reader =
            Reader { bytes: body.get(..self.bytes.end).unwrap_or_default(), at: self.bytes.start };
        (self.first_index..self.first_index.saturating_add(u64::from(self.count)))
            .map_while(move |index| reader.entry(index))
    }
}

/// Reads numbers from a body; `None` if it is too short or has an invalid value.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let number = read_u32(self.bytes, self.at)?;
        self.at += 4;
        Some(number)
    }

    fn u64(&mut self) -> Option<u64> {
        let number = read_u64(self.bytes, self.at)?;
        self.at += 8;
        Some(number)
    }

    fn hard_state(&mut self) -> Option<HardState> {
        Some(HardState { term: self.u64()?, vote: NodeId::new(self.u64()?), commit: self.u64()? })
    }

    fn role(&mut self) -> Option<BTreeSet<NodeId>> {
        let count = self.u32()? as usize;
        // Checked before the allocation: the body must have room for so many nodes.
        if count > (self.bytes.len() - self.at) / 8 {
            return None;
        }
        (0..count).map(|_| self.u64().and_then(NodeId::new)).collect()
    }

    fn membership(&mut self) -> Option<Membership> {
        let flags = *self.bytes.get(self.at)?;
        if flags & !(1 | IDENTITY) != 0 {
            return None;
        }
        self.at += 1;
        let mut membership = Membership {
            auto_leave: flags & 1 != 0,
            voters: self.role()?,
            voters_outgoing: self.role()?,
            learners: self.role()?,
            learners_next: self.role()?,
            ..Membership::default()
        };
        if flags & IDENTITY != 0 {
            membership.cluster = self.u64()?;
            let count = self.u32()? as usize;
            // Checked before the allocation, as for a role.
            if count > (self.bytes.len() - self.at) / 24 {
                return None;
            }
            for _ in 0..count {
                let node = self.u64().and_then(NodeId::new)?;
                let registration = Registration { incarnation: self.u64()?, index: self.u64()? };
                membership.incarnations.insert(node, registration);
            }
        }
        Some(membership)
    }

    fn index(&mut self) -> Option<u64> {
        self.u64().filter(|index| *index <= INDEX_MAX)
    }

    fn base(&mut self) -> Option<LogBase> {
        Some(LogBase { index: self.index()?, term: self.u64()?, membership: self.membership()? })
    }

    fn entry(&mut self, index: u64) -> Option<EntryAt> {
        let term = self.u64()?;
        let len = self.u32()? as usize;
        let kind = match self.u32()? {
            KIND_NORMAL => EntryKind::Normal,
            KIND_MEMBERSHIP => EntryKind::Membership,
            _ => return None,
        };
        // A range and no copy: recovery walks over the whole log and needs no payload.
        let payload = self.at..self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        self.at = payload.end;
        Some(EntryAt { index, term, kind, payload })
    }

    fn entries(&mut self) -> Option<Entries> {
        let (first_index, count, start) = (self.u64()?, self.u32()?, self.at);
        // A record with the part but without entries is never written.
        if first_index == 0 || count == 0 || first_index > INDEX_MAX {
            return None;
        }
        // Walked once here, so that `Entries::iter` cannot end early and lose entries silently.
        (0..count).try_for_each(|_| self.entry(0).map(|_| ()))?;
        Some(Entries { first_index, count, bytes: start..self.at })
    }
}

impl Body {
    /// Decodes a body; `None` if it is invalid. All lengths are checked against the body before anything is
    /// allocated.
    pub(crate) fn decode(parts: u32, body: &[u8]) -> Option<Body> {
        let mut reader = Reader { bytes: body, at: 0 };
        let has = |part| parts & part != 0;
        let decoded = Body {
            hard_state: if has(part::HARD_STATE) { Some(reader.hard_state()?) } else { None },
            snapshot: match has(part::SNAPSHOT) {
                true => reader.base().map(|base| {
                    Some(SnapshotMeta { index: base.index, term: base.term, membership: base.membership })
                })?,
                false => None,
            },
            replaces_log: has(part::REPLACES_LOG),
            entries: if has(part::ENTRIES) { Some(reader.entries()?) } else { None },
            base: if has(part::BASE) { Some(reader.base()?) } else { None },
            last_index: if has(part::STATE) { Some(reader.index()?) } else { None },
        };
        // Exactly one encoding for a body: bytes left over would be a part that this version does not know.
        let padding = body.get(reader.at..)?;
        // The first record of a segment has all parts of the state, and never entries.
        let is_state_whole =
            !has(part::STATE) || (has(part::HARD_STATE) && has(part::BASE) && !has(part::ENTRIES));
        let is_whole = padding.len() < ALIGNMENT
            && padding.iter().all(|byte| *byte == 0)
            && is_state_whole
            && (!decoded.replaces_log || decoded.snapshot.is_some())
            && (!has(part::SEAL) || parts == part::SEAL);
        is_whole.then_some(decoded)
    }
}
