//! The record of a document, as it is stored.
//!
//! Version (1 byte), kind (0 removed, 1 document), and for a document: source, number of tags, tags, number
//! of pieces, their names. Strings have their length before them; all numbers are little-endian and have 4
//! bytes.

use std::collections::{BTreeSet, HashSet};

use crate::retrieve::Document;

const VERSION: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Removed,
    Document { source: String, tags: BTreeSet<String>, pieces: Vec<[u8; 32]> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) body: Body,
}

/// A record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Its version is not known.
    #[error("it is of version {found}, and version {VERSION} is known")]
    Version {
        /// The version.
        found: u8,
    },
    /// It ends too early, has bytes after its end, or a part that cannot be.
    #[error("its {part} cannot be read")]
    Malformed {
        /// The part.
        part: &'static str,
    },
    /// A piece is not what its name says.
    #[error("a piece has another content than its name says")]
    Piece,
    /// The text is not UTF-8.
    #[error("the pieces are no UTF-8 text")]
    Text,
}

impl Record {
    pub(super) fn of(document: &Document, pieces: Vec<[u8; 32]>) -> Self {
        let (source, tags) = (document.source.clone(), document.tags.clone());
        Self { body: Body::Document { source, tags, pieces } }
    }

    pub(super) fn removal() -> Self {
        Self { body: Body::Removed }
    }

    /// The names of the pieces.
    pub(super) fn pieces(&self) -> HashSet<[u8; 32]> {
        match &self.body {
            Body::Removed => HashSet::new(),
            Body::Document { pieces, .. } => pieces.iter().copied().collect(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Body::Document { source, tags, pieces } = &self.body else { return vec![VERSION, 0] };
        let mut to = vec![VERSION, 1];
        // Longer ones do not fit a value, which the caller checks.
        let number = |to: &mut Vec<u8>, number: usize| {
            to.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        };
        number(&mut to, source.len());
        to.extend(source.as_bytes());
        number(&mut to, tags.len());
        for tag in tags {
            number(&mut to, tag.len());
            to.extend(tag.as_bytes());
        }
        number(&mut to, pieces.len());
        to.extend(pieces.as_flattened());
        to
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder(bytes);
        let version = from.byte("version")?;
        if version != VERSION {
            return Err(RecordError::Version { found: version });
        }
        let body = match from.byte("kind")? {
            0 => Body::Removed,
            1 => {
                let source = from.string("source")?;
                let mut tags = BTreeSet::new();
                for _ in 0..from.number("number of tags")? {
                    tags.insert(from.string("tag")?);
                }
                let len = from.number("number of pieces")?;
                let names = from.take(len.saturating_mul(32), "names of pieces")?;
                Body::Document { source, tags, pieces: names.as_chunks::<32>().0.to_vec() }
            }
            _ => return Err(RecordError::Malformed { part: "kind" }),
        };
        if !from.0.is_empty() {
            return Err(RecordError::Malformed { part: "end" });
        }
        Ok(Self { body })
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(RecordError::Malformed { part })?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, part: &'static str) -> Result<u8, RecordError> {
        Ok(self.take(1, part)?[0])
    }

    fn number(&mut self, part: &'static str) -> Result<usize, RecordError> {
        let bytes = self.take(4, part)?.try_into().map_err(|_| RecordError::Malformed { part })?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    fn string(&mut self, part: &'static str) -> Result<String, RecordError> {
        let len = self.number(part)?;
        let bytes = self.take(len, part)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| RecordError::Malformed { part })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::{Record, RecordError};
    use crate::retrieve::Document;

    fn record() -> Record {
        let mut document = Document::new("not part of it");
        document.source = "manual".to_owned();
        document.tags.extend(["a".to_owned(), "Größe".to_owned()]);
        Record::of(&document, vec![[1; 32], [2; 32]])
    }

    #[test]
    fn records_are_read_as_written() {
        for record in [record(), Record::removal(), Record::of(&Document::default(), Vec::new())] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        assert_eq!(record().pieces().len(), 2);
    }

    /// The format of version 1 stays readable.
    #[test]
    fn a_recorded_record_is_read() {
        let mut bytes = vec![1, 1, 1, 0, 0, 0, b's', 1, 0, 0, 0, 1, 0, 0, 0, b't', 1, 0, 0, 0];
        bytes.extend([7; 32]);
        let mut document = Document { source: "s".to_owned(), ..Document::default() };
        document.tags.insert("t".to_owned());
        assert_eq!(Record::of(&document, vec![[7; 32]]).encode(), bytes);
    }

    #[test]
    fn damaged_records_are_errors_or_other_records() {
        let bytes = record().encode();
        for at in 0..bytes.len() {
            assert!(Record::decode(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(read) = Record::decode(&damaged) {
                    assert_eq!(Record::decode(&read.encode()), Ok(read));
                }
            }
        }
        assert_eq!(Record::decode(&[2, 0]), Err(RecordError::Version { found: 2 }));
        assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
