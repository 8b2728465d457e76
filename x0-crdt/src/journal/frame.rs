//! The bytes of a journal: a head, then frames with checksums.

use std::vec::Vec;

use crate::HashKey;

/// The first bytes of a file: the format, and a check value of the hash key.
const MAGIC: &[u8; 8] = b"x0crdtj\x01";
pub(super) const HEAD_LEN: usize = MAGIC.len() + 8;

/// The head of a frame: the length of the rest, and a checksum of this length and its place.
const FRAME_HEAD_LEN: usize = 8 + 4;
/// The checksum of the bytes of a frame.
const CHECKSUM_LEN: usize = 8;

/// The head of a file.
pub(super) fn head(key: HashKey) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&key.hash(&[b"journal", MAGIC]).to_le_bytes());
    head
}

/// Whether a file has the head of this key.
pub(super) fn has_key(bytes: &[u8], key: HashKey) -> bool {
    bytes.starts_with(&head(key))
}

fn head_check(len: [u8; 8], offset: u64, key: HashKey) -> [u8; 4] {
    let [a, b, c, d, ..] = key.hash(&[b"frame head", &len, &offset.to_le_bytes()]).to_le_bytes();
    [a, b, c, d]
}

/// The offset is hashed too, so that bytes of another place, which a disk may return, do not match.
fn checksum(body: &[u8], offset: u64, key: HashKey) -> [u8; CHECKSUM_LEN] {
    key.hash(&[b"frame", body, &offset.to_le_bytes()]).to_le_bytes()
}

/// A frame at this offset.
pub(super) fn encode(kind: u8, payload: &[u8], offset: u64, key: HashKey) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + payload.len());
    body.push(kind);
    body.extend_from_slice(payload);
    let len = (body.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(FRAME_HEAD_LEN + body.len() + CHECKSUM_LEN);
    out.extend_from_slice(&len);
    out.extend_from_slice(&head_check(len, offset, key));
    out.extend_from_slice(&body);
    out.extend_from_slice(&checksum(&body, offset, key));
    out
}

/// The kind and the payload of the frame at an offset, and its end. `None` if it is not whole.
pub(super) fn read(bytes: &[u8], offset: usize, key: HashKey) -> Option<(u8, &[u8], usize)> {
    let rest = bytes.get(offset..)?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (check, rest) = rest.split_first_chunk::<4>()?;
    if head_check(*len, offset as u64, key) != *check {
        return None;
    }
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let (body, rest) = rest.split_at_checked(len)?;
    let found = rest.first_chunk::<CHECKSUM_LEN>()?;
    let (kind, payload) = body.split_first()?;
    let end = offset + FRAME_HEAD_LEN + len + CHECKSUM_LEN;
    (checksum(body, offset as u64, key) == *found).then_some((*kind, payload, end))
}

/// Whether a whole frame begins somewhere after an offset: then what is at the offset is no interrupted
/// write, because each frame is durable before the next one is written.
pub(super) fn is_followed(bytes: &[u8], offset: usize, key: HashKey) -> bool {
    (offset + 1..bytes.len()).any(|offset| read(bytes, offset, key).is_some())
}
