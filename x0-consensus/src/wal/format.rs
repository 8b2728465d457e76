//! The encoding of a log on disk, format 1.
//!
//! All numbers are little-endian. A segment is a file whose name is its sequence number (16 hexadecimal
//! digits, `.wal`). It is created at its full length and overwritten from the front:
//!
//! ```text
//! segment  = segment header (64) , state record , record* , [ commit marker ] , any bytes
//! header   = magic (8) , version u32 , header length u32 , sequence u64 , file length u64 , previous end u64 ,
//!            first record number u64 , zeros (12) , crc u32
//! record   = crc of the header u32 , crc of the body u32 , body length u32 , parts u32 , number u64 , synced u64 , body
//! body     = [ hard state ] [ snapshot ] [ entries ] [ base ] [ last index ] , zeros to a multiple of 8   (the parts that `parts` has)
//! hard state = term u64 , vote u64 (0: none) , commit u64
//! snapshot = index u64 , term u64 , membership
//! entries  = first index u64 , count u32 , ( term u64 , length u32 , kind u32 , payload )*
//! base     = index u64 , term u64 , membership
//! membership = flags u8 , 4 * ( count u32 , node u64 * ) , [ identity ]     (voters, outgoing voters, learners, next learners)
//! identity = cluster u64 , count u32 , ( node u64 , incarnation u64 , index u64 )*
//! ```
//!
//! The flags of a membership are 1 (auto leave) and 2 (an identity follows).
//!
//! The crc is CRC-32C. The crcs of a record's header and body start from the crc of the segment's sequence
//! number and the record's offset, so that a record that a recycled file still holds from its earlier use, or
//! a record at another offset, is invalid.
//!
//! `number` counts the records of the whole log. `synced` is the offset in this segment up to which the file
//! was known to be durable when the record was written; it distinguishes a torn tail from damage (see
//! [`Wal`](super::Wal)). A *commit marker* (`seal` in the code) is a record without a body that is written
//! after a batch once that is durable. It does not use up its number, and the next record overwrites it.

use crc32c::{crc32c, crc32c_append};

/// The newest format, which is the one that is written.
pub(crate) const VERSION: u32 = 1;
pub(crate) const SEGMENT_HEADER_LEN: usize = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 32;
/// Records start at multiples of this, so that a search skips other offsets.
pub(crate) const ALIGNMENT: usize = 8;

/// The largest sequence and record number, so that sums of them do not overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

const MAGIC: [u8; 8] = *b"x0-wal\r\n";

/// The parts of a body: bits of `parts`.
pub(crate) mod part {
    pub(crate) const HARD_STATE: u32 = 1;
    pub(crate) const SNAPSHOT: u32 = 1 << 1;
    pub(crate) const ENTRIES: u32 = 1 << 2;
    pub(crate) const BASE: u32 = 1 << 3;
    /// The record opens a segment: it repeats everything but the entries, and ends with the last index of the
    /// log.
    pub(crate) const STATE: u32 = 1 << 4;
    /// The snapshot replaces the log.
    pub(crate) const REPLACES_LOG: u32 = 1 << 5;
    /// A commit marker.
    pub(crate) const SEAL: u32 = 1 << 6;
    pub(crate) const ALL: u32 = (1 << 7) - 1;
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) sequence: u64,
    /// The length at which the file was created. A shorter file is damaged.
    pub(crate) file_len: u64,
    /// The offset of the end of the records in the previous segment.
    pub(crate) previous_end: u64,
    /// The number of the first record of this segment.
    pub(crate) first_number: u64,
}

/// The header of a segment is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentHeaderError {
    Version(u32),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&64_u32.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_number.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentHeaderError> {
        let decoded = || {
            Some((
                bytes.get(..60)?,
                read_u32(bytes, 60)?,
                read_u32(bytes, 8)?,
                SegmentHeader {
                    sequence: read_u64(bytes, 16)?,
                    file_len: read_u64(bytes, 24)?,
                    previous_end: read_u64(bytes, 32)?,
                    first_number: read_u64(bytes, 40)?,
                },
            ))
        };
        let (covered, crc, version, header) = decoded().ok_or(SegmentHeaderError::Damaged)?;
        if covered[..8] != MAGIC {
            return Err(SegmentHeaderError::Damaged);
        }
        // A later format may have its crc elsewhere, so that the version is checked first.
        if version != VERSION {
            return Err(SegmentHeaderError::Version(version));
        }
        if crc32c(covered) != crc {
            return Err(SegmentHeaderError::Damaged);
        }
        Ok(header)
    }
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) body_crc: u32,
    /// The length of the body with its padding: a multiple of [`ALIGNMENT`].
    pub(crate) body_len: u32,
    pub(crate) parts: u32,
    pub(crate) number: u64,
    pub(crate) synced: u64,
}

/// The initial value of the crcs of a record at this offset.
pub(crate) fn seed(sequence: u64, offset: u64) -> u32 {
    crc32c_append(crc32c(&sequence.to_le_bytes()), &offset.to_le_bytes())
}

impl RecordHeader {
    pub(crate) fn encode(&self, seed: u32) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.parts.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        // The header has a checksum of its own: recovery trusts `body_len` and `synced` before it reads the
        // body.
        let crc = crc32c_append(seed, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header at the front of `bytes`, if it is valid.
    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_LEN)?;
        let header = RecordHeader {
            body_crc: read_u32(bytes, 4)?,
            body_len: read_u32(bytes, 8)?,
            parts: read_u32(bytes, 12)?,
            number: read_u64(bytes, 16)?,
            synced: read_u64(bytes, 24)?,
        };
        // Zeros must be invalid, and these checks skip most offsets of a search without computing a crc.
        let is_plausible = header.parts & !part::ALL == 0
            && header.parts != 0
            && (1..=NUMBER_MAX).contains(&header.number)
            && (header.body_len as usize).is_multiple_of(ALIGNMENT);
        (is_plausible && crc32c_append(seed, &bytes[4..]) == read_u32(bytes, 0)?).then_some(header)
    }

    pub(crate) fn is_seal(&self) -> bool {
        self.parts & part::SEAL != 0
    }
}

/// A commit marker with this number at this offset.
pub(crate) fn seal(sequence: u64, offset: u64, number: u64) -> [u8; RECORD_HEADER_LEN] {
    let seed = seed(sequence, offset);
    // The `synced` of a marker is its own offset: everything before it is durable. The number is that of the
    // next record, which overwrites it, so that numbers have no gap.
    RecordHeader { body_crc: seed, body_len: 0, parts: part::SEAL, number, synced: offset }.encode(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_any_flipped_bit_is_detected() {
        let header = SegmentHeader { sequence: 7, file_len: 4096, previous_end: 640, first_number: 12 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }

        let record =
            RecordHeader { body_crc: 1, body_len: 24, parts: part::HARD_STATE, number: 3, synced: 64 };
        let bytes = record.encode(seed(7, 64));
        assert_eq!(RecordHeader::decode(&bytes, seed(7, 64)), Some(record));
        assert_eq!(RecordHeader::decode(&bytes, seed(8, 64)), None, "another segment");
        assert_eq!(RecordHeader::decode(&bytes, seed(7, 72)), None, "another offset");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, seed(7, 64)), None, "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_not_reported_as_damage() {
        let mut bytes = SegmentHeader { sequence: 1, file_len: 0, previous_end: 0, first_number: 1 }.encode();
        bytes[8] = 9;
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentHeaderError::Version(9)));
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(SegmentHeaderError::Damaged));
    }
}
