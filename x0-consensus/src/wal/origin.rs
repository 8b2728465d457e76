//! The origin of a log: the fingerprints of the folder and the files in which it was written, and the
//! incarnation of the replica that writes it.
//!
//! A log that was restored from a copy lacks the entries and the vote that this replica acknowledged after
//! the copy was made. Nothing in its contents shows that. The origin does: the files of a copy have other
//! fingerprints than the ones that the origin has recorded.
//!
//! ```text
//! file = slot , zeros to 512 , slot , zeros to 512
//! slot = magic (8) , version u32 , zeros (4) , generation u64 , incarnation u64 , sequence u64 ,
//!        4 * ( device u64 , inode u64 , time of birth in ns u64 (0: unknown) ) , crc u32
//! ```
//!
//! The four fingerprints are those of the folder, of this file, of the manifest, and of the segment with the
//! number `sequence`; the fields of a fingerprint are 0 if there is none. All numbers are little-endian, and
//! the crc is CRC-32C. The slot of the higher generation counts. A slot is written at the place of the parity
//! of its generation, so that a torn write leaves the previous one. The file appears under its name when its
//! first slot is durable.
//!
//! The fingerprints of the folder and of the two files that are created once detect a folder that was copied
//! as a whole. That of the newest segment detects that only segments were brought back. Older segments are
//! connected to the newest one by the numbers of their records.

use std::io;

use crc32c::crc32c;

use crate::directory::{Directory, DirectoryFile, Fingerprint};

use super::format::{read_u32, read_u64};
use super::names;

const MAGIC: [u8; 8] = *b"x0-orig\n";
const VERSION: u32 = 1;
const FINGERPRINTS: usize = 4;
const SLOT_LEN: usize = 40 + FINGERPRINTS * 24 + 4;
/// The distance of the slots, a sector: a torn write damages one of them only.
const SLOT_DISTANCE: u64 = 512;

/// The contents of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Recorded {
    generation: u64,
    incarnation: u64,
    sequence: u64,
    fingerprints: [Option<Fingerprint>; FINGERPRINTS],
}

/// The origin of a log.
pub(crate) struct Origin {
    file: Box<dyn DirectoryFile>,
    recorded: Recorded,
    /// The part of the folder that is a copy, until the copy is adopted.
    copied: Option<&'static str>,
}

fn encode(recorded: &Recorded) -> [u8; SLOT_LEN] {
    let mut bytes = Vec::with_capacity(SLOT_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for number in [recorded.generation, recorded.incarnation, recorded.sequence] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for fingerprint in recorded.fingerprints {
        let Fingerprint { device, inode, born_ns } = fingerprint.unwrap_or_default();
        for number in [device, inode, born_ns.unwrap_or(0)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    let mut slot = [0; SLOT_LEN];
    slot.copy_from_slice(&bytes);
    slot
}

/// The contents of a slot; `None` if it is torn, damaged or unused.
fn decode(bytes: &[u8; SLOT_LEN]) -> Option<Recorded> {
    let end = SLOT_LEN - 4;
    if bytes[..8] != MAGIC || read_u32(bytes, 8)? != VERSION || read_u32(bytes, end)? != crc32c(&bytes[..end])
    {
        return None;
    }
    let mut fingerprints = [None; FINGERPRINTS];
    for (at, fingerprint) in fingerprints.iter_mut().enumerate() {
        let start = 40 + at * 24;
        let (device, inode, born) =
            (read_u64(bytes, start)?, read_u64(bytes, start + 8)?, read_u64(bytes, start + 16)?);
        let is_held = (device, inode, born) != (0, 0, 0);
        *fingerprint = is_held.then(|| Fingerprint::new(device, inode, Some(born).filter(|born| *born != 0)));
    }
    Some(Recorded {
        generation: read_u64(bytes, 16)?,
        incarnation: read_u64(bytes, 24)?,
        sequence: read_u64(bytes, 32)?,
        fingerprints,
    })
}

/// The fingerprint of a file; `None` if there is no such file.
fn fingerprint(directory: &dyn Directory, name: &str) -> io::Result<Option<Fingerprint>> {
    match directory.fingerprint(Some(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

impl Recorded {
    /// The present fingerprints.
    fn take(&mut self, directory: &dyn Directory, sequence: u64) -> io::Result<()> {
        self.sequence = sequence;
        self.fingerprints = [
            directory.fingerprint(None)?,
            fingerprint(directory, names::ORIGIN)?,
            fingerprint(directory, names::MANIFEST)?,
            fingerprint(directory, &names::segment(sequence))?,
        ];
        Ok(())
    }

    /// The part of the folder that differs from the one that was recorded.
    fn difference(&self, directory: &dyn Directory, newest: u64) -> io::Result<Option<&'static str>> {
        let mut present = Recorded::default();
        present.take(directory, self.sequence)?;
        let parts = ["the folder", "the file `origin`", "the file `manifest`", "the newest segment"];
        for (at, part) in parts.into_iter().enumerate() {
            // After a crash the origin may be one segment behind the log, and then that segment may be gone.
            let is_compared = at < FINGERPRINTS - 1 || newest == self.sequence;
            if let (Some(recorded), Some(present)) = (self.fingerprints[at], present.fingerprints[at])
                && is_compared
                && !present.is_same(&recorded)
            {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }
}

impl Origin {
    /// Opens the origin and compares it with the folder, whose newest segment has the number `newest`. `None`
    /// if there is no origin: the log is new or was written by a release without one.
    pub(crate) fn open(directory: &dyn Directory, newest: u64) -> io::Result<Option<Origin>> {
        let file = match directory.open(names::ORIGIN) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut recorded: Option<Recorded> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_LEN];
            file.read_at(slot * SLOT_DISTANCE, &mut bytes)?;
            let found = decode(&bytes);
            if found.map(|found| found.generation) > recorded.map(|recorded| recorded.generation) {
                recorded = found;
            }
        }
        // Without a valid slot the file is damaged, and it is created again with a new incarnation.
        let Some(recorded) = recorded else { return Ok(None) };
        let copied = recorded.difference(directory, newest)?;
        Ok(Some(Origin { file, recorded, copied }))
    }

    /// Creates the origin, durably, in place of one that is damaged.
    pub(crate) fn create(directory: &dyn Directory, newest: u64, incarnation: u64) -> io::Result<Origin> {
        let partial = names::partial(names::ORIGIN, 0);
        let mut file = directory.create(&partial)?;
        // At full length, so that later writes need no space.
        file.write_at(0, &[0; 2 * 512])?;
        let mut origin = Origin { file, recorded: Recorded::default(), copied: None };
        origin.recorded.incarnation = incarnation;
        // First without fingerprints, then with them: the file must have its name before it can be asked for
        // its own.
        origin.write()?;
        directory.rename(&partial, names::ORIGIN)?;
        directory.sync()?;
        origin.set(directory, newest)?;
        Ok(origin)
    }

    /// The number that distinguishes this replica from earlier ones of the same id.
    pub(crate) fn incarnation(&self) -> u64 {
        self.recorded.incarnation
    }

    /// The number of the segment that is recorded.
    pub(crate) fn sequence(&self) -> u64 {
        self.recorded.sequence
    }

    /// The part of the folder that is a copy.
    pub(crate) fn copied(&self) -> Option<&'static str> {
        self.copied
    }

    /// Records a new segment, durably. The fingerprints of a copy are recorded only by
    /// [`adopt`](Origin::adopt): otherwise a crash before that would hide the copy.
    pub(crate) fn set(&mut self, directory: &dyn Directory, newest: u64) -> io::Result<()> {
        if self.copied.is_some() {
            return Ok(());
        }
        self.recorded.take(directory, newest)?;
        self.write()
    }

    /// Records the present fingerprints and the incarnation, durably.
    pub(crate) fn adopt(
        &mut self,
        directory: &dyn Directory,
        newest: u64,
        incarnation: u64,
    ) -> io::Result<()> {
        let before = self.recorded;
        self.recorded.incarnation = incarnation;
        let written = self.recorded.take(directory, newest).and_then(|()| self.write());
        match &written {
            Ok(()) => self.copied = None,
            Err(_) => self.recorded = before,
        }
        written
    }

    fn write(&mut self) -> io::Result<()> {
        self.recorded.generation += 1;
        let place = self.recorded.generation % 2 * SLOT_DISTANCE;
        self.file.write_at(place, &encode(&self.recorded))?;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_makes_a_slot_invalid() {
        let fingerprints = [
            Some(Fingerprint::new(1, 2, Some(3))),
            None,
            Some(Fingerprint::new(0, 5, None)),
            Some(Fingerprint::new(6, u64::MAX, Some(u64::MAX))),
        ];
        let recorded = Recorded { generation: 7, incarnation: u64::MAX, sequence: 9, fingerprints };
        let bytes = encode(&recorded);
        assert_eq!(decode(&bytes), Some(recorded));
        assert_eq!(decode(&[0; SLOT_LEN]), None);
        for bit in 0..SLOT_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
