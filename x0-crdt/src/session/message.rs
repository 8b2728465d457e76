//! The datagrams of a session.

use alloc::vec::Vec;
use core::ops::Range;

use super::transfer::{Part, put_ranges, ranges};
use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::{Frontier, ReplicaId};

/// The kinds of transfers in parts. Each side has at most one of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A delta of the state.
    Delta,
    /// A version that is too long for a request.
    Version,
    /// The hashes of the values that a reconciliation has found missing.
    Hashes,
    /// The members and their versions.
    Members,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Delta, Self::Version, Self::Hashes, Self::Members];

    const fn tag(self) -> u8 {
        match self {
            Self::Delta => 0,
            Self::Version => 1,
            Self::Hashes => 2,
            Self::Members => 3,
        }
    }

    fn of(tag: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.tag() == tag)
            .ok_or(DecodeError::Tag { what: "kind of transfer", tag })
    }
}

/// A reference to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionRef {
    /// The hash of the version, by which the receiver checks what it made of the changes.
    pub(super) hash: u64,
    /// The hash of a version that the receiver knows, and the changes to it; 0 for the empty one. `None`: the
    /// receiver knows it, or collects it by its hash.
    pub(super) changes: Option<(u64, Vec<(ReplicaId, u64)>)>,
}

/// The extent of a requested delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The changes since the version.
    Since,
    /// All.
    Complete,
    /// The values of the hashes that the requesting side holds ready, and what has changed.
    Chosen,
    /// A range of keys, see [`RangeRef`].
    Range,
    /// The values of events that are not in the version, and the hash of all that is held.
    News,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeRef {
    /// The most bytes.
    pub(super) len_max: u64,
    /// The first key of the range. `None`: the requesting side holds it ready.
    pub(super) from: Option<Vec<u8>>,
}

/// The part that every announcement has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct About {
    /// The summary of the sender's members.
    pub(super) members: u32,
    /// Every member is known to have seen all that the sender has seen.
    pub(super) quiet: bool,
    /// The receiver answers with an announcement of its own.
    pub(super) asks: bool,
}

impl About {
    fn put(self, out: &mut Vec<u8>) {
        out.push(u8::from(self.asks) | u8::from(self.quiet) << 1);
        out.extend_from_slice(&self.members.to_le_bytes());
    }

    fn read(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let flags = input.byte("flags")?;
        if flags > 3 {
            return Err(DecodeError::Tag { what: "flag", tag: flags });
        }
        Ok(Self { members: short(input)?, quiet: flags & 2 != 0, asks: flags & 1 != 0 })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The sender's frontier, and the check value of its hash key.
    Frontier { frontier: Frontier, key_check: u32, about: About },
    /// The hash of a frontier that both sides had when they were last in sync, instead of the frontier.
    Same { hash: u64, about: About },
    /// The heartbeats of the sender's members at the version of this hash (its lower half), by their low
    /// bits: requests the rows that are newer at the receiver. `hash` is that of the whole numbers.
    Beats { version: u32, hash: u32, quiet: bool, bytes: &'a [u8] },
    /// The rows of members that are newer than the heartbeats of this hash.
    Rows { version: u32, base: u32, bytes: &'a [u8] },
    /// Requests a delta. `whole`: with whole keys instead of the values that this side holds at them.
    Pull { number: u64, version: VersionRef, extent: Extent, whole: bool, range: Option<RangeRef> },
    /// Requests the missing parts of an answer, or another transfer; the number of a version is its hash.
    Want { kind: Kind, number: u64, missing: Vec<Range<usize>> },
    /// A part.
    Part { kind: Kind, part: Part<'a> },
    /// The answer to a pull that history cannot serve: `items` values are held, `common` of them of events in
    /// the version of the pull. `covers`: the sender has seen all of this version.
    Behind { number: u64, items: u64, common: u64, covers: bool },
    /// The answer to a request for parts that are not held any more.
    Gone { number: u64 },
    /// Requests coded symbols from this one on, of the values of events in the version of the hash `since`.
    Sketch { number: u64, since: u64, from: u64, count: u64 },
    /// Coded symbols; the version of this hash is that of their sender.
    Symbols { number: u64, version: u64, from: u64, bytes: &'a [u8] },
    /// The keep-alive of a receiver.
    Here,
    /// The delta since a version that both sides had (its hash), whose join yields the frontier of the hash
    /// `result`: an announcement that needs no pull.
    Push { base: u64, result: u64, about: About, bytes: &'a [u8] },
    /// Refuses a delta: it is longer than the sender of this takes.
    Refuse { number: u64, limit: u64 },
    /// The answer to a pull that is too long for one transfer: to be requested by ranges.
    Ranges { number: u64 },
}

/// The bit of a requested extent that asks for whole keys.
const WHOLE: u8 = 8;

const FRONTIER: u8 = 1;
const PULL: u8 = 2;
const WANT: u8 = 3;
const PART: u8 = 4;
const BEHIND: u8 = 5;
const GONE: u8 = 6;
const SKETCH: u8 = 7;
const SYMBOLS: u8 = 8;
const HERE: u8 = 9;
const SAME: u8 = 10;
const BEATS: u8 = 11;
const ROWS: u8 = 12;
const PUSH: u8 = 13;
const REFUSE: u8 = 14;
const RANGES: u8 = 15;

/// The version of the session's datagrams, in the high bits of their first byte.
const VERSION: u8 = 1 << 4;

impl<'a> Message<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Frontier { frontier, key_check, about } => {
                out.push(VERSION | FRONTIER);
                out.extend_from_slice(&frontier.version.to_le_bytes());
                out.extend_from_slice(&frontier.content.to_le_bytes());
                out.extend_from_slice(&key_check.to_le_bytes());
                about.put(&mut out);
            }
            Self::Same { hash, about } => {
                out.push(VERSION | SAME);
                out.extend_from_slice(&hash.to_le_bytes());
                about.put(&mut out);
            }
            Self::Beats { version, hash, quiet, bytes } => {
                out.push(VERSION | BEATS);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&hash.to_le_bytes());
                quiet.encode(&mut out);
                out.extend_from_slice(bytes);
            }
            Self::Rows { version, base, bytes } => {
                out.push(VERSION | ROWS);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&base.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Pull { number, version, extent, whole, range } => {
                out.push(VERSION | PULL);
                put_integer(*number, &mut out);
                let tag = match extent {
                    Extent::Since => 0,
                    Extent::Complete => 1,
                    Extent::Chosen => 2,
                    Extent::Range => 3,
                    Extent::News => 4,
                };
                out.push(tag | if *whole { WHOLE } else { 0 });
                out.extend_from_slice(&version.hash.to_le_bytes());
                version.changes.is_some().encode(&mut out);
                if let Some((anchor, changes)) = &version.changes {
                    out.extend_from_slice(&anchor.to_le_bytes());
                    put_integer(changes.len() as u64, &mut out);
                    for change in changes {
                        change.encode(&mut out);
                    }
                }
                if let Some(range) = range {
                    put_integer(range.len_max, &mut out);
                    range.from.is_some().encode(&mut out);
                    out.extend_from_slice(range.from.as_deref().unwrap_or_default());
                }
            }
            Self::Want { kind, number, missing } => {
                out.extend_from_slice(&[VERSION | WANT, kind.tag()]);
                put_integer(*number, &mut out);
                put_ranges(missing, &mut out);
            }
            Self::Part { kind, part } => {
                out.push(VERSION | PART);
                out.push(kind.tag() << 1 | u8::from(part.last));
                put_integer(part.number, &mut out);
                put_integer(part.total_len as u64, &mut out);
                put_integer(part.part_len as u64, &mut out);
                put_integer(part.index as u64, &mut out);
                out.extend_from_slice(part.bytes);
            }
            Self::Behind { number, items, common, covers } => {
                out.push(VERSION | BEHIND);
                put_integer(*number, &mut out);
                put_integer(*items, &mut out);
                put_integer(*common, &mut out);
                covers.encode(&mut out);
            }
            Self::Gone { number } => {
                out.push(VERSION | GONE);
                put_integer(*number, &mut out);
            }
            Self::Sketch { number, since, from, count } => {
                out.push(VERSION | SKETCH);
                put_integer(*number, &mut out);
                out.extend_from_slice(&since.to_le_bytes());
                put_integer(*from, &mut out);
                put_integer(*count, &mut out);
            }
            Self::Symbols { number, version, from, bytes } => {
                out.push(VERSION | SYMBOLS);
                put_integer(*number, &mut out);
                out.extend_from_slice(&version.to_le_bytes());
                put_integer(*from, &mut out);
                out.extend_from_slice(bytes);
            }
            Self::Here => out.push(VERSION | HERE),
            Self::Push { base, result, about, bytes } => {
                out.push(VERSION | PUSH);
                out.extend_from_slice(&base.to_le_bytes());
                out.extend_from_slice(&result.to_le_bytes());
                about.put(&mut out);
                out.extend_from_slice(bytes);
            }
            Self::Refuse { number, limit } => {
                out.push(VERSION | REFUSE);
                put_integer(*number, &mut out);
                put_integer(*limit, &mut out);
            }
            Self::Ranges { number } => {
                out.push(VERSION | RANGES);
                put_integer(*number, &mut out);
            }
        }
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = ByteReader::new(bytes);
        let first = input.byte("a datagram")?;
        if first & 0xf0 != VERSION {
            return Err(DecodeError::Version { found: first >> 4 });
        }
        let message = match first & 0x0f {
            FRONTIER => Self::Frontier {
                frontier: Frontier { version: hash(&mut input)?, content: hash(&mut input)? },
                key_check: short(&mut input)?,
                about: About::read(&mut input)?,
            },
            SAME => Self::Same { hash: hash(&mut input)?, about: About::read(&mut input)? },
            BEATS => Self::Beats {
                version: short(&mut input)?,
                hash: short(&mut input)?,
                quiet: bool::decode(&mut input)?,
                bytes: input.take(input.len(), "heartbeats")?,
            },
            ROWS => Self::Rows {
                version: short(&mut input)?,
                base: short(&mut input)?,
                bytes: input.take(input.len(), "rows of members")?,
            },
            PULL => {
                let number = input.integer("a number")?;
                let tag = input.byte("an extent")?;
                let whole = tag & WHOLE != 0;
                let extent = match tag & !WHOLE {
                    0 => Extent::Since,
                    1 => Extent::Complete,
                    2 => Extent::Chosen,
                    3 => Extent::Range,
                    4 => Extent::News,
                    _ => return Err(DecodeError::Tag { what: "extent", tag }),
                };
                let version = version_ref(&mut input)?;
                let range = if extent == Extent::Range { Some(range_ref(&mut input)?) } else { None };
                Self::Pull { number, version, extent, whole, range }
            }
            WANT => Self::Want {
                kind: Kind::of(input.byte("a kind")?)?,
                number: input.integer("a number")?,
                missing: ranges(&mut input)?,
            },
            PART => {
                let tag = input.byte("a part")?;
                let kind = Kind::of(tag >> 1)?;
                let number = input.integer("a number")?;
                let mut length = || {
                    let length = input.integer("a part")?;
                    usize::try_from(length).map_err(|_| DecodeError::Range { what: "a part" })
                };
                let (total_len, part_len, index) = (length()?, length()?, length()?);
                let bytes = input.take(input.len(), "a part")?;
                let part = Part { number, total_len, part_len, index, bytes, last: tag & 1 == 1 };
                Self::Part { kind, part }
            }
            BEHIND => Self::Behind {
                number: input.integer("a number")?,
                items: input.integer("items")?,
                common: input.integer("items")?,
                covers: bool::decode(&mut input)?,
            },
            GONE => Self::Gone { number: input.integer("a number")? },
            SKETCH => Self::Sketch {
                number: input.integer("a number")?,
                since: hash(&mut input)?,
                from: input.integer("symbols")?,
                count: input.integer("symbols")?,
            },
            SYMBOLS => Self::Symbols {
                number: input.integer("a number")?,
                version: hash(&mut input)?,
                from: input.integer("symbols")?,
                bytes: input.take(input.len(), "symbols")?,
            },
            HERE => Self::Here,
            PUSH => Self::Push {
                base: hash(&mut input)?,
                result: hash(&mut input)?,
                about: About::read(&mut input)?,
                bytes: input.take(input.len(), "a delta")?,
            },
            REFUSE => Self::Refuse { number: input.integer("a number")?, limit: input.integer("a limit")? },
            RANGES => Self::Ranges { number: input.integer("a number")? },
            tag => return Err(DecodeError::Tag { what: "datagram", tag }),
        };
        input.finish()?;
        Ok(message)
    }
}

fn hash(input: &mut ByteReader<'_>) -> Result<u64, DecodeError> {
    Ok(u64::from_le_bytes(input.array("a hash")?))
}

fn short(input: &mut ByteReader<'_>) -> Result<u32, DecodeError> {
    Ok(u32::from_le_bytes(input.array("a hash")?))
}

fn version_ref(input: &mut ByteReader<'_>) -> Result<VersionRef, DecodeError> {
    let hash_of_it = hash(input)?;
    let changes = if bool::decode(input)? {
        let anchor = hash(input)?;
        let count = input.count(10, "changes of a version")?;
        let changes = (0..count).map(|_| <(ReplicaId, u64)>::decode(input)).collect::<Result<Vec<_>, _>>()?;
        Some((anchor, changes))
    } else {
        None
    };
    Ok(VersionRef { hash: hash_of_it, changes })
}

fn range_ref(input: &mut ByteReader<'_>) -> Result<RangeRef, DecodeError> {
    let len_max = input.integer("a range")?;
    let is_inline = bool::decode(input)?;
    // Up to the end of the datagram, so that its length needs no bytes.
    let from = is_inline.then(|| input.take(input.len(), "a key")).transpose()?;
    Ok(RangeRef { len_max, from: from.map(<[u8]>::to_vec) })
}
