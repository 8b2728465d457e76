//! Messages between exchanges.
//!
//! Each message begins with [`MARK`], which distinguishes them from others on a shared lane: the messages of
//! consensus begin with their version, which is 1. Then the version of this format, the kind, the blob's name
//! and the fields of the kind.

use std::ops::Range;

use bytes::Bytes;

use super::chunks::ChunkSet;
use super::merkle::{self, Digest};
use super::reference::{decode_digest, decode_id};
use super::{BLOB_LEN_MAX, BlobId, CHUNK_LEN};
use crate::request::codec::{DecodeError, Decoder, put_bytes, put_u64};

/// The first byte of every message.
pub const MARK: u8 = 0xB1;
/// The version this crate writes and understands.
const VERSION: u8 = 1;
/// Most ranges in a want.
pub(super) const RANGES_MAX: usize = 64;
/// Longest path: of a blob of [`BLOB_LEN_MAX`] bytes.
const PATH_MAX: usize = 18;
/// Longest message, in bytes: a chunk with the longest path.
pub const MESSAGE_LEN_MAX: usize = CHUNK_LEN + PATH_MAX * 32 + 64;

const WANT: u8 = 1;
const HAVE: u8 = 2;
const CHUNK: u8 = 3;
const GONE: u8 = 4;

// The longest path fits, and so does the longest bit map.
const _: () = assert!(BLOB_LEN_MAX / CHUNK_LEN as u64 <= 1 << PATH_MAX);
const _: () = assert!(BLOB_LEN_MAX / CHUNK_LEN as u64 / 8 + 128 <= MESSAGE_LEN_MAX as u64);

/// A message from one exchange to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// These chunks are wanted; without any, it is asked what there is. The stamp comes back with them.
    Want { id: BlobId, stamp: u64, ranges: Vec<Range<u32>> },
    /// There is this much of it. Length and root prove themselves: the name follows from them.
    Have { id: BlobId, holding: Holding },
    /// A chunk, and the way from it to the root. The stamp is that of the want: a chunk may be wanted again
    /// while it is on its way, and only the stamp shows how long it took.
    Chunk { id: BlobId, stamp: u64, index: u32, piece: Piece },
    /// There is nothing of it.
    Gone { id: BlobId },
}

/// The part of a blob that a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The blob's length in bytes.
    pub len: u64,
    /// The root over its chunks.
    pub root: [u8; 32],
    /// Which of them.
    pub chunks: ChunkSet,
}

impl Holding {
    /// The chunks of the blob of `len` bytes with this root.
    #[must_use]
    pub fn new(len: u64, root: [u8; 32], chunks: ChunkSet) -> Holding {
        Holding { len, root, chunks }
    }
}

/// A chunk of a blob, with what proves that it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The hashes beside the way from the chunk up to the root, the lowest first.
    pub path: Vec<[u8; 32]>,
    /// The chunk.
    pub bytes: Bytes,
}

impl Piece {
    /// A chunk and its path.
    #[must_use]
    pub fn new(path: Vec<[u8; 32]>, bytes: Bytes) -> Piece {
        Piece { path, bytes }
    }

    /// Whether it is chunk `index` of the blob of `len` bytes with this root.
    #[must_use]
    pub fn is_right(&self, len: u64, root: &[u8; 32], index: u32) -> bool {
        let count = merkle::chunk_count(len);
        index < count
            && self.bytes.len() == merkle::chunk_len(len, index)
            && merkle::climb(merkle::leaf(&self.bytes), index, count, &self.path) == Some(*root)
    }
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let begin = |kind, id: &BlobId, len: usize| {
        let mut to = Vec::with_capacity(64 + len);
        to.extend([MARK, VERSION, kind]);
        to.extend(id.as_bytes());
        to
    };
    match message {
        Message::Want { id, stamp, ranges } => {
            let mut to = begin(WANT, id, 0);
            put_u64(&mut to, *stamp);
            put_u64(&mut to, ranges.len() as u64);
            for range in ranges {
                put_u64(&mut to, range.start.into());
                put_u64(&mut to, (range.end - range.start).into());
            }
            to
        }
        Message::Have { id, holding: Holding { len, root, chunks } } => {
            let is_whole = chunks.is_whole();
            let mut to = begin(HAVE, id, chunks.as_bytes().len());
            put_u64(&mut to, *len);
            to.extend(root);
            to.push(u8::from(is_whole));
            if !is_whole {
                to.extend(chunks.as_bytes());
            }
            to
        }
        Message::Chunk { id, stamp, index, piece } => {
            let mut to = begin(CHUNK, id, piece.path.len() * 32 + piece.bytes.len());
            put_u64(&mut to, *stamp);
            put_u64(&mut to, (*index).into());
            put_u64(&mut to, piece.path.len() as u64);
            to.extend(piece.path.iter().flatten());
            put_bytes(&mut to, &piece.bytes);
            to
        }
        Message::Gone { id } => begin(GONE, id, 0),
    }
}

pub(super) fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
    if bytes.len() > MESSAGE_LEN_MAX {
        let len = bytes.len() as u64;
        return Err(DecodeError::TooLong { what: "message", len, max: MESSAGE_LEN_MAX });
    }
    let mut from = Decoder::new(bytes);
    match from.u8("mark")? {
        MARK => {}
        tag => return Err(DecodeError::Tag { what: "mark of a blob's message", tag }),
    }
    match from.u8("version")? {
        VERSION => {}
        found => return Err(DecodeError::Version { found }),
    }
    let kind = from.u8("kind")?;
    let id = decode_id(&mut from)?;
    let message = match kind {
        WANT => {
            let stamp = from.u64("stamp")?;
            let count = from.len("ranges", RANGES_MAX)?;
            let mut ranges = Vec::with_capacity(count);
            for _ in 0..count {
                ranges.push(decode_range(&mut from)?);
            }
            Message::Want { id, stamp, ranges }
        }
        HAVE => Message::Have { id, holding: decode_holding(&mut from)? },
        CHUNK => {
            let stamp = from.u64("stamp")?;
            let index = decode_index(&mut from)?;
            let path_len = from.len("path", PATH_MAX)?;
            let mut path: Vec<Digest> = Vec::with_capacity(path_len);
            for _ in 0..path_len {
                path.push(decode_digest(&mut from, "path")?);
            }
            let bytes = from.bytes("chunk", CHUNK_LEN)?;
            Message::Chunk { id, stamp, index, piece: Piece { path, bytes } }
        }
        GONE => Message::Gone { id },
        tag => return Err(DecodeError::Tag { what: "kind of a blob's message", tag }),
    };
    from.finish()?;
    Ok(message)
}

const COUNT_MAX: usize = 1 << PATH_MAX;

fn decode_index(from: &mut Decoder<'_>) -> Result<u32, DecodeError> {
    let index = from.len("number of a chunk", COUNT_MAX - 1)?;
    // The index is below 2^18.
    Ok(u32::try_from(index).unwrap_or(u32::MAX))
}

fn decode_range(from: &mut Decoder<'_>) -> Result<Range<u32>, DecodeError> {
    let start = decode_index(from)?;
    match from.len("range", COUNT_MAX - start as usize)? {
        0 => Err(DecodeError::Tag { what: "length of a range", tag: 0 }),
        len => Ok(start..start + u32::try_from(len).unwrap_or(0)),
    }
}

fn decode_holding(from: &mut Decoder<'_>) -> Result<Holding, DecodeError> {
    let len = from.u64("length")?;
    if len > BLOB_LEN_MAX {
        let max = usize::try_from(BLOB_LEN_MAX).unwrap_or(usize::MAX);
        return Err(DecodeError::TooLong { what: "blob", len, max });
    }
    let root = decode_digest(from, "root")?;
    let count = merkle::chunk_count(len);
    if from.bool("mark of a whole blob")? {
        return Ok(Holding { len, root, chunks: ChunkSet::all(count) });
    }
    // The bits must be there before anything is kept for them.
    let bits_len = count.div_ceil(8) as usize;
    if from.remaining() < bits_len {
        return Err(DecodeError::Truncated { what: "chunks" });
    }
    let mut bits = Vec::with_capacity(bits_len);
    for _ in 0..bits_len {
        bits.push(from.u8("chunks")?);
    }
    let chunks = ChunkSet::from_bytes(count, &bits);
    // One encoding for one holding.
    if chunks.is_whole() || chunks.as_bytes() != bits {
        return Err(DecodeError::Tag { what: "set of chunks", tag: 0 });
    }
    Ok(Holding { len, root, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message> {
        let id = BlobId::of(b"sample");
        let mut some = ChunkSet::none(19);
        some.insert(3);
        some.insert(18);
        let len = 18 * CHUNK_LEN as u64 + 5;
        vec![
            Message::Want { id, stamp: 0, ranges: Vec::new() },
            Message::Want { id, stamp: 1 << 40, ranges: vec![0..1, 7..300, (1 << 18) - 1..1 << 18] },
            Message::Have { id, holding: Holding::new(len, [7; 32], some) },
            Message::Have { id, holding: Holding::new(len, [7; 32], ChunkSet::all(19)) },
            Message::Have { id, holding: Holding::new(0, [7; 32], ChunkSet::all(0)) },
            Message::Have { id, holding: Holding::new(BLOB_LEN_MAX, [7; 32], ChunkSet::none(1 << 18)) },
            Message::Chunk {
                id,
                stamp: u64::MAX,
                index: 300,
                piece: Piece::new(vec![[1; 32]; 9], Bytes::from_static(b"chunk")),
            },
            Message::Chunk {
                id,
                stamp: u64::MAX,
                index: (1 << 18) - 1,
                piece: Piece::new(vec![[1; 32]; PATH_MAX], vec![3; CHUNK_LEN].into()),
            },
            Message::Gone { id },
        ]
    }

    #[test]
    fn encoded_values_are_decoded() {
        for message in samples() {
            let bytes = Bytes::from(encode(&message));
            assert_eq!(bytes[0], MARK);
            assert!(bytes.len() <= MESSAGE_LEN_MAX);
            assert_eq!(decode(&bytes).unwrap(), message);
        }
    }

    /// A decoded message is encoded to the same bytes: no message has two forms.
    fn check(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        if let Ok(message) = decode(&bytes) {
            assert_eq!(encode(&message), bytes, "{message:?}");
        }
    }

    /// The creator of a name may cut as it likes; a chunk that does not fit its place in the file is not
    /// accepted.
    #[test]
    fn a_chunk_of_another_length_is_not_right_even_if_the_tree_is_over_it() {
        let (short, long) = (vec![1; 10], vec![2; CHUNK_LEN]);
        for (first, second) in [(&short, &long), (&long, &short)] {
            let leaves = [merkle::leaf(first), merkle::leaf(second)];
            let (_, root) = merkle::tree(&leaves);
            let len = CHUNK_LEN as u64 + 10;
            let first = Piece::new(vec![leaves[1]], first.clone().into());
            let second = Piece::new(vec![leaves[0]], second.clone().into());
            let is_cut_right = first.bytes.len() == CHUNK_LEN;
            assert_eq!(first.is_right(len, &root, 0), is_cut_right);
            assert_eq!(second.is_right(len, &root, 1), is_cut_right);
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_say_something_else() {
        for message in samples() {
            let bytes = encode(&message);
            // The head and the tail; what is between are the bytes of chunks and bits.
            let places = (0..bytes.len()).filter(|at| *at < 600 || at + 40 > bytes.len());
            for at in places {
                assert!(decode(&Bytes::copy_from_slice(&bytes[..at])).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1 << bit;
                    check(damaged);
                }
            }
            let mut long = bytes;
            long.push(0);
            assert!(decode(&Bytes::from(long)).is_err());
        }
    }

    /// Rounds to try: more with `X0_KV_BLOB_FUZZ`.
    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "any part of a random number is random")]
    fn random_bytes_are_refused_or_are_a_message() {
        let rounds =
            std::env::var("X0_KV_BLOB_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000_u64);
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let samples: Vec<Vec<u8>> = samples().iter().map(encode).filter(|bytes| bytes.len() < 1000).collect();
        for round in 0..rounds {
            let mut bytes = match round % 3 {
                0 => Vec::new(),
                _ => samples[random() as usize % samples.len()].clone(),
            };
            if bytes.is_empty() {
                bytes = (0..random() % 120).map(|_| random() as u8).collect();
                bytes.splice(0..bytes.len().min(3), [MARK, VERSION, 1 + random() as u8 % 4]);
            }
            for _ in 0..random() % 4 {
                let at = random() as usize % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random() as u8;
                }
            }
            if random() % 4 == 0 {
                bytes.truncate(random() as usize % (bytes.len() + 1));
            }
            check(bytes);
        }
    }
}
