//! The manifest: the sequence number of the newest segment, kept apart from the segments.
//!
//! Without it, a log whose newest segment file was deleted would look like a log that was never longer, and
//! this member would take back entries that it has acknowledged.
//!
//! ```text
//! file = slot , zeros to 512 , slot , zeros to 512
//! slot = magic (8) , version u32 , zeros (4) , sequence u64 , zeros (36) , crc u32
//! ```
//!
//! All numbers are little-endian, and the crc is CRC-32C. A sequence is written to the slot of its parity, so
//! that a torn write leaves the previous sequence in the other slot. The file is overwritten in place: it
//! needs no space after its creation. A segment is durable before its sequence is written here, so that a
//! manifest that is one behind is usual after a crash, and one that is ahead proves a loss.

use std::io;

use crc32c::crc32c;

use crate::directory::{Directory, DirectoryFile};

use super::format::{NUMBER_MAX, read_u32, read_u64};
use super::names;

const MAGIC: [u8; 8] = *b"x0-mani\n";
const VERSION: u32 = 1;
const SLOT_LEN: usize = 64;
/// The distance of the slots, a sector: a torn write damages one of them only.
const SLOT_DISTANCE: u64 = 512;

/// The manifest of a log.
pub(crate) struct Manifest {
    file: Box<dyn DirectoryFile>,
}

fn encode(sequence: u64) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The sequence in a slot; `None` if the slot is torn, damaged or unused.
fn decode(bytes: &[u8; SLOT_LEN]) -> Option<u64> {
    let is_valid =
        bytes[..8] == MAGIC && read_u32(bytes, 8)? == VERSION && read_u32(bytes, 60)? == crc32c(&bytes[..60]);
    read_u64(bytes, 16).filter(|sequence| is_valid && *sequence <= NUMBER_MAX)
}

impl Manifest {
    /// Opens the manifest, and reads the sequence of the newest segment; 0 if no slot is valid. `None` if
    /// there is no manifest.
    pub(crate) fn open(directory: &dyn Directory) -> io::Result<Option<(Manifest, u64)>> {
        let file = match directory.open(names::MANIFEST) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut newest = 0;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_LEN];
            file.read_at(slot * SLOT_DISTANCE, &mut bytes)?;
            // One slot is torn after a crash in `set`: the other one has the previous sequence. A manifest
            // that is behind proves less, but nothing wrong.
            newest = newest.max(decode(&bytes).unwrap_or(0));
        }
        Ok(Some((Manifest { file }, newest)))
    }

    /// Creates the manifest of a log without one, durably.
    pub(crate) fn create(directory: &dyn Directory, newest: u64) -> io::Result<Manifest> {
        let mut file = directory.create(names::MANIFEST)?;
        // At full length, so that later writes need no space.
        file.write_at(0, &[0; 2 * 512])?;
        let mut manifest = Manifest { file };
        manifest.set(newest)?;
        // The name as well: without it the file is gone after a power loss although its content was
        // synchronised (fsync(2): the directory needs a synchronisation of its own).
        directory.sync()?;
        Ok(manifest)
    }

    /// Records the newest segment, durably.
    pub(crate) fn set(&mut self, newest: u64) -> io::Result<()> {
        // Alternating: the slot that is being overwritten is never the only valid one.
        self.file.write_at(newest % 2 * SLOT_DISTANCE, &encode(newest))?;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_makes_a_slot_invalid() {
        let bytes = encode(7);
        assert_eq!(decode(&bytes), Some(7));
        assert_eq!(decode(&[0; SLOT_LEN]), None);
        assert_eq!(decode(&encode(u64::MAX)), None);
        for bit in 0..SLOT_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
