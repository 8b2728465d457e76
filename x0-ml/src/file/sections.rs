//! The layout that all files share.

use super::damage::Damage;

/// Bytes before the table of sections: kind, version, number of sections.
const PREFIX: usize = 16;
/// Bytes of a section in the table: name, checksum, offset, length.
const ENTRY: usize = 24;
/// More than any file has; bounds the table before it is read.
const SECTIONS_MAX: usize = 64;

/// A number as files hold it. A number of 2^32 or more becomes one that does not fit the rest of the file, so
/// that the file is refused when it is read.
pub(crate) fn count32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Collects sections and writes them behind their table.
pub(crate) struct SectionWriter {
    kind: [u8; 8],
    version: u32,
    sections: Vec<(u32, Vec<u8>)>,
}

impl SectionWriter {
    pub(crate) fn new(kind: [u8; 8], version: u32) -> Self {
        Self { kind, version, sections: Vec::new() }
    }

    pub(crate) fn section(&mut self, name: u32, bytes: Vec<u8>) {
        self.sections.push((name, bytes));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let header = PREFIX + ENTRY * self.sections.len() + 4;
        let body: usize = self.sections.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut file = Vec::with_capacity(header + body);
        file.extend(self.kind);
        file.extend(self.version.to_le_bytes());
        file.extend(count32(self.sections.len()).to_le_bytes());
        let mut offset = header;
        for (name, bytes) in &self.sections {
            file.extend(name.to_le_bytes());
            file.extend(crc32c::crc32c(bytes).to_le_bytes());
            file.extend((offset as u64).to_le_bytes());
            file.extend((bytes.len() as u64).to_le_bytes());
            offset += bytes.len();
        }
        file.extend(crc32c::crc32c(&file).to_le_bytes());
        for (_, bytes) in &self.sections {
            file.extend(bytes);
        }
        file
    }
}

/// The checked sections of a file.
pub(crate) struct Sections<'a> {
    sections: Vec<(u32, Reader<'a>)>,
}

impl<'a> Sections<'a> {
    /// Checks the header and the checksum of every section.
    pub(crate) fn parse(file: &'a [u8], kind: [u8; 8], version: u32) -> Result<Self, Damage> {
        let mut header = Reader::new(file, 0);
        if header.bytes(8)? != kind {
            return Err(Damage::new(0, "the file is of another kind"));
        }
        if header.u32()? != version {
            return Err(Damage::new(8, "the version is unknown"));
        }
        let count = header.u32()? as usize;
        if count > SECTIONS_MAX {
            return Err(Damage::new(12, "too many sections"));
        }
        let table: Vec<(u32, u32, u64, u64)> = (0..count)
            .map(|_| Ok((header.u32()?, header.u32()?, header.u64()?, header.u64()?)))
            .collect::<Result<_, Damage>>()?;
        let end = PREFIX + ENTRY * count;
        if header.u32()? != crc32c::crc32c(&file[..end]) {
            return Err(Damage::new(end, "the checksum of the header differs"));
        }
        let mut expected = end + 4;
        let mut sections = Vec::with_capacity(count);
        for (index, (name, checksum, offset, len)) in table.into_iter().enumerate() {
            let at = PREFIX + ENTRY * index;
            let len = usize::try_from(len).map_err(|_| Damage::new(at, "a section is too long"))?;
            if offset != expected as u64 {
                return Err(Damage::new(at, "a section does not follow the one before"));
            }
            let bytes = file
                .get(expected..expected.saturating_add(len))
                .ok_or(Damage::new(file.len(), "the file is truncated"))?;
            if crc32c::crc32c(bytes) != checksum {
                return Err(Damage::new(expected, "the checksum of a section differs"));
            }
            sections.push((name, Reader::new(bytes, expected)));
            expected += len;
        }
        if expected != file.len() {
            return Err(Damage::new(expected, "bytes after the last section"));
        }
        Ok(Self { sections })
    }

    /// The section of this name.
    pub(crate) fn section(&self, name: u32) -> Result<Reader<'a>, Damage> {
        self.optional(name).ok_or(Damage::new(PREFIX, "a section is missing"))
    }

    pub(crate) fn optional(&self, name: u32) -> Option<Reader<'a>> {
        self.sections.iter().find(|(found, _)| *found == name).map(|(_, reader)| reader.clone())
    }
}

/// Reads numbers from bytes and knows where in the file it is.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Damage at the present place.
    pub(crate) fn damage(&self, reason: &'static str) -> Damage {
        Damage::new(self.offset, reason)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(|| self.damage("too short"))?;
        self.bytes = rest;
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let taken = self.bytes(N)?;
        taken.try_into().map_err(|_| self.damage("too short"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32, Damage> {
        self.array().map(f32::from_le_bytes)
    }

    /// An error unless exactly `count` items of `size` bytes are left.
    pub(crate) fn expect(&self, count: usize, size: usize) -> Result<(), Damage> {
        if count.checked_mul(size) == Some(self.bytes.len()) {
            Ok(())
        } else {
            Err(self.damage("a section has a wrong length"))
        }
    }
}
