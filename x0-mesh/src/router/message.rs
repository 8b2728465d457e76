//! The bytes of router messages. Nothing is allocated while decoding, so that nothing has to be bounded.
//!
//! # Wire format, version 1
//! Numbers are little-endian; `varint` is LEB128 in its shortest form, up to 32 bits.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | version | 1 | 1 |
//! | flags | 1 | bit 0: a number follows; the other bits are 0 |
//! | session | 4 | of the sender, not 0 |
//! | to session | 4 | of the receiver as the sender knows it; 0: unknown |
//! | number | 4 | with bit 0 only: entries are acknowledged by this number; not 0 |
//! | acks | 1 + 4 each | numbers of messages that arrived, at most 16 |
//! | entries | | to the end of the message; only with bit 0 |
//!
//! An entry begins with two bytes. The first one has the kind in its lower four bits, and the depth in the
//! upper four (update only). The second one is the *shape*: bits 0 to 2 are the bytes of the node less 1,
//! bits 3 and 4 those of the seqno less 1; a price (bit 5), an mtu (bit 6) and a region (bit 7) follow. Bits
//! of fields that the kind lacks are 0. Node and seqno have no more bytes than they need, so that one number
//! has one encoding: most of what a network sends when it starts is entries.
//!
//! | kind | content after the shape |
//! |---|---|
//! | 1 update | node 1 to 8, seqno 1 to 4, metric varint; with their bits: price, mtu, region (varint of 16 bits each, not 0; without its bit a price or region is 0, and an mtu has no limit) |
//! | 2 retraction | node 1 to 8 |
//! | 3 request | node 1 to 8, seqno 1 to 4, hops 1 |

use alloc::vec::Vec;

use x0_identity::NodeId;

use super::{Distance, MessageError};

pub(super) const VERSION: u8 = 1;
/// Acknowledgements in one message.
pub(super) const ACKS_MAX: usize = 16;
/// The longest header: with a number and all acknowledgements.
pub(super) const HEADER_LEN_MAX: usize = 14 + 1 + 4 * ACKS_MAX;
/// The longest entry: an update.
pub(super) const ENTRY_LEN_MAX: usize = 2 + 8 + 4 + 5 + 3 + 3 + 3;
/// The deepest detour that the format can express.
pub(super) const DEPTH_MAX: u8 = 15;

const NUMBERED: u8 = 1;

/// What a neighbour says of its way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Advert {
    pub(super) distance: Distance,
    pub(super) price: u16,
    /// The longest datagram that passes; `u16::MAX` without a limit, never 0.
    pub(super) mtu: u16,
    /// How many times a packet is turned around on the way; 0 for a route of the distance-vector protocol.
    pub(super) depth: u8,
}

impl Advert {
    pub(super) const NONE: Advert = Advert { distance: Distance::WORST, price: 0, mtu: u16::MAX, depth: 0 };

    pub(super) const fn is_some(&self) -> bool {
        self.distance.is_finite()
    }
}

/// An [`Advert`] without its depth, as tables keep it: they have many of them.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(2))]
pub(super) struct Packed {
    seqno: u32,
    metric: u32,
    price: u16,
    mtu: u16,
}

const _: () = assert!(size_of::<Packed>() == 12 && align_of::<Packed>() == 2, "tables rely on it");

impl Packed {
    pub(super) const NONE: Packed = Packed::new(&Advert::NONE);

    pub(super) const fn new(advert: &Advert) -> Packed {
        let Distance { seqno, metric } = advert.distance;
        Packed { seqno, metric, price: advert.price, mtu: advert.mtu }
    }

    pub(super) const fn unpack(self, depth: u8) -> Advert {
        let distance = Distance { seqno: self.seqno, metric: self.metric };
        Advert { distance, price: self.price, mtu: self.mtu, depth }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Update { node: NodeId, advert: Advert, region: u16 },
    Retraction { node: NodeId },
    Request { node: NodeId, seqno: u32, hops: u8 },
}

mod kind {
    pub(super) const UPDATE: u8 = 1;
    pub(super) const RETRACTION: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
}

/// The second byte of an entry.
mod shape {
    pub(super) const NODE: u8 = 0b111;
    pub(super) const SEQNO: u8 = 0b11 << SEQNO_SHIFT;
    pub(super) const SEQNO_SHIFT: u32 = 3;
    pub(super) const PRICE: u8 = 1 << 5;
    pub(super) const MTU: u8 = 1 << 6;
    pub(super) const REGION: u8 = 1 << 7;
}

impl Entry {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Entry::Update { node, advert, region } => {
                let optional = [
                    (shape::PRICE, advert.price, 0),
                    (shape::MTU, advert.mtu, u16::MAX),
                    (shape::REGION, *region, 0),
                ];
                let given = optional.into_iter().filter(|(_, value, absent)| value != absent);
                let flags = given.clone().fold(0, |flags, (flag, ..)| flags | flag);
                let first = kind::UPDATE | advert.depth.min(DEPTH_MAX) << 4;
                put_start(bytes, first, flags, *node, Some(advert.distance.seqno));
                put_varint(bytes, advert.distance.metric);
                for (_, value, _) in given {
                    put_varint(bytes, u32::from(value));
                }
            }
            Entry::Retraction { node } => put_start(bytes, kind::RETRACTION, 0, *node, None),
            Entry::Request { node, seqno, hops } => {
                put_start(bytes, kind::REQUEST, 0, *node, Some(*seqno));
                bytes.push(*hops);
            }
        }
    }
}

/// Begins an entry: kind and depth, shape, node and sequence number.
fn put_start(bytes: &mut Vec<u8>, first: u8, flags: u8, node: NodeId, seqno: Option<u32>) {
    let node = Short::new(node.get());
    let seqno = seqno.map(|seqno| Short::new(u64::from(seqno)));
    let seqno_extra = seqno.as_ref().map_or(0, Short::extra);
    bytes.extend_from_slice(&[first, flags | node.extra() | seqno_extra << shape::SEQNO_SHIFT]);
    bytes.extend_from_slice(node.bytes());
    if let Some(seqno) = &seqno {
        bytes.extend_from_slice(seqno.bytes());
    }
}

/// A number in as few bytes as it needs, at least one.
struct Short {
    bytes: [u8; 8],
    /// From 0 to 7.
    extra: u8,
}

impl Short {
    fn new(number: u64) -> Short {
        let bytes = number.to_le_bytes();
        let highest = (0..8).rev().find(|position| bytes[usize::from(*position)] != 0);
        Short { bytes, extra: highest.unwrap_or(0) }
    }

    /// The number of its bytes, less 1.
    fn extra(&self) -> u8 {
        self.extra
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..=usize::from(self.extra)]
    }
}

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) session: u32,
    pub(super) to_session: u32,
    pub(super) number: Option<u32>,
}

impl Header {
    /// Begins a message; entries follow. At most [`ACKS_MAX`] acknowledgements are taken.
    pub(super) fn encode(&self, acks: &[u32], bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&[VERSION, u8::from(self.number.is_some())]);
        bytes.extend_from_slice(&self.session.to_le_bytes());
        bytes.extend_from_slice(&self.to_session.to_le_bytes());
        if let Some(number) = self.number {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let acks = acks.get(..ACKS_MAX).unwrap_or(acks);
        // At most 16.
        bytes.push(u8::try_from(acks.len()).unwrap_or(0));
        for ack in acks {
            bytes.extend_from_slice(&ack.to_le_bytes());
        }
    }
}

/// A message whose every byte was checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) header: Header,
    acks: &'a [u8],
    entries: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks a whole message, so that an invalid one has no effect.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Message<'a>, MessageError> {
        let mut reader = Reader { bytes, len: bytes.len() };
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(MessageError::Version { version });
        }
        let [flags] = reader.array()?;
        if flags & !NUMBERED != 0 {
            return Err(MessageError::Flags { flags });
        }
        let header = Header {
            session: reader.nonzero("session")?,
            to_session: reader.u32()?,
            number: if flags & NUMBERED == 0 { None } else { Some(reader.nonzero("number")?) },
        };
        let [acks] = reader.array()?;
        let acks_len = usize::from(acks);
        if acks_len > ACKS_MAX {
            return Err(MessageError::Value { field: "acknowledgement count", offset: reader.offset() - 1 });
        }
        let acks = reader.slice(4 * acks_len)?;
        let entries = reader.bytes;
        if header.number.is_none() && !entries.is_empty() {
            return Err(MessageError::Unnumbered { offset: reader.offset() });
        }
        while !reader.bytes.is_empty() {
            reader.entry()?;
        }
        Ok(Message { header, acks, entries })
    }

    pub(super) fn acks(&self) -> impl Iterator<Item = u32> + 'a {
        let (acks, _) = self.acks.as_chunks::<4>();
        acks.iter().map(|ack| u32::from_le_bytes(*ack))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + 'a {
        let mut reader = Reader { bytes: self.entries, len: self.entries.len() };
        // Each entry was checked by `decode`.
        core::iter::from_fn(move || if reader.bytes.is_empty() { None } else { reader.entry().ok() })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    fn offset(&self) -> usize {
        self.len - self.bytes.len()
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (slice, rest) =
            self.bytes.split_at_checked(len).ok_or(MessageError::Truncated { offset: self.len })?;
        self.bytes = rest;
        Ok(slice)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], MessageError> {
        let (array, rest) =
            self.bytes.split_first_chunk::<LEN>().ok_or(MessageError::Truncated { offset: self.len })?;
        self.bytes = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_le_bytes)
    }

    fn nonzero(&mut self, field: &'static str) -> Result<u32, MessageError> {
        let offset = self.offset();
        let number = self.u32()?;
        if number == 0 { Err(MessageError::Value { field, offset }) } else { Ok(number) }
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, MessageError> {
        let offset = self.offset();
        let mut number = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The shortest form only, so that a message has one encoding.
                let is_shortest = byte != 0 || shift == 0;
                return u32::try_from(number)
                    .ok()
                    .filter(|_| is_shortest)
                    .ok_or(MessageError::Value { field, offset });
            }
        }
        Err(MessageError::Value { field, offset })
    }

    fn varint16(&mut self, field: &'static str) -> Result<u16, MessageError> {
        let offset = self.offset();
        u16::try_from(self.varint(field)?).map_err(|_| MessageError::Value { field, offset })
    }

    /// A number of `extra` bytes and one more.
    fn short(&mut self, extra: u8, field: &'static str) -> Result<u64, MessageError> {
        let offset = self.offset();
        let slice = self.slice(usize::from(extra) + 1)?;
        if extra > 0 && slice.last() == Some(&0) {
            return Err(MessageError::Value { field, offset });
        }
        Ok(slice.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn node(&mut self, shape: u8) -> Result<NodeId, MessageError> {
        let offset = self.offset();
        let number = self.short(shape & shape::NODE, "node")?;
        NodeId::new(number).ok_or(MessageError::Value { field: "node", offset })
    }

    fn seqno(&mut self, shape: u8) -> Result<u32, MessageError> {
        let offset = self.offset();
        let number = self.short((shape & shape::SEQNO) >> shape::SEQNO_SHIFT, "seqno")?;
        u32::try_from(number).map_err(|_| MessageError::Value { field: "seqno", offset })
    }

    /// A value that follows with its bit of the shape, and is not given otherwise.
    fn optional(&mut self, is_given: bool, absent: u16, field: &'static str) -> Result<u16, MessageError> {
        if !is_given {
            return Ok(absent);
        }
        let offset = self.offset();
        let value = self.varint16(field)?;
        if value == 0 || value == absent { Err(MessageError::Value { field, offset }) } else { Ok(value) }
    }

    fn entry(&mut self) -> Result<Entry, MessageError> {
        let offset = self.offset();
        let [first] = self.array()?;
        let (kind, depth) = (first & 0xf, first >> 4);
        let allowed = match kind {
            kind::UPDATE => u8::MAX,
            kind::RETRACTION if depth == 0 => shape::NODE,
            kind::REQUEST if depth == 0 => shape::NODE | shape::SEQNO,
            _ => return Err(MessageError::Kind { kind: first, offset }),
        };
        let offset = self.offset();
        let [shape] = self.array()?;
        if shape & !allowed != 0 {
            return Err(MessageError::Value { field: "shape", offset });
        }
        let node = self.node(shape)?;
        Ok(match kind {
            kind::UPDATE => {
                let seqno = self.seqno(shape)?;
                let offset = self.offset();
                let metric = self.varint("metric")?;
                if metric == Distance::METRIC_INFINITE {
                    return Err(MessageError::Value { field: "metric", offset });
                }
                let price = self.optional(shape & shape::PRICE != 0, 0, "price")?;
                let mtu = self.optional(shape & shape::MTU != 0, u16::MAX, "mtu")?;
                let region = self.optional(shape & shape::REGION != 0, 0, "region")?;
                let advert = Advert { distance: Distance { seqno, metric }, price, mtu, depth };
                Entry::Update { node, advert, region }
            }
            kind::REQUEST => Entry::Request { node, seqno: self.seqno(shape)?, hops: self.array::<1>()?[0] },
            _ => Entry::Retraction { node },
        })
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        bytes.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    bytes.push(low);
}

#[cfg(test)]
mod tests;
