//! The record of a document, as it is stored.
//!
//! Version (1 byte), kind (0 removed, 1 document in pieces, 2 document in a blob), and for a document:
//! source, number of tags, tags; then number of pieces and their names, or the reference to the blob. Strings
//! and the reference have their length before them; all numbers are little-endian and have 4 bytes.

use std::collections::{BTreeSet, HashSet};

use x0_kv::Bytes;
use x0_kv::blob::{BlobRef, BlobRefError};

use crate::retrieve::Document;

const VERSION: u8 = 1;

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Removed,
    Document { source: String, tags: BTreeSet<String>, text: Text },
}

/// The place of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Pieces(Vec<[u8; 32]>),
    Blob(BlobRef),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) body: Body,
}

/// A record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The version is not known.
    #[error("it is of version {found}, and version {VERSION} is known")]
    Version {
        /// The version.
        found: u8,
    },
    /// The record ends too early, has bytes after its end, or a part that cannot be.
    #[error("its {part} cannot be read")]
    Malformed {
        /// The part.
        part: &'static str,
    },
    /// The reference to a blob cannot be read.
    #[error("its reference to a blob cannot be read")]
    Blob(#[source] BlobRefError),
    /// The blob belongs to another collection.
    #[error("its blob is not one of this collection")]
    Foreign,
    /// A piece is not what its name says.
    #[error("a piece has another content than its name says")]
    Piece,
    /// The text is not UTF-8.
    #[error("the pieces are no UTF-8 text")]
    Text,
}

impl Record {
    pub(super) fn of(document: &Document, text: Text) -> Self {
        let (source, tags) = (document.source.clone(), document.tags.clone());
        Self { body: Body::Document { source, tags, text } }
    }

    pub(super) fn removal() -> Self {
        Self { body: Body::Removed }
    }

    /// The names of the pieces.
    pub(super) fn pieces(&self) -> HashSet<[u8; 32]> {
        match &self.body {
            Body::Document { text: Text::Pieces(pieces), .. } => pieces.iter().copied().collect(),
            _ => HashSet::new(),
        }
    }

    /// The blob with the text.
    pub(super) fn blob(&self) -> Option<&BlobRef> {
        match &self.body {
            Body::Document { text: Text::Blob(blob), .. } => Some(blob),
            _ => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Body::Document { source, tags, text } = &self.body else { return vec![VERSION, 0] };
        let mut to = vec![VERSION, if matches!(text, Text::Pieces(_)) { 1 } else { 2 }];
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
        match text {
            Text::Pieces(pieces) => {
                number(&mut to, pieces.len());
                to.extend(pieces.as_flattened());
            }
            Text::Blob(blob) => {
                // The fields are within their limits: they were decoded, or are those of `LongTexts::add`.
                let reference = blob.encode().unwrap_or_default();
                number(&mut to, reference.len());
                to.extend(reference);
            }
        }
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
            kind @ (1 | 2) => {
                let source = from.string("source")?;
                let mut tags = BTreeSet::new();
                for _ in 0..from.number("number of tags")? {
                    tags.insert(from.string("tag")?);
                }
                let text = if kind == 1 {
                    let len = from.number("number of pieces")?;
                    let names = from.take(len.saturating_mul(32), "names of pieces")?;
                    Text::Pieces(names.as_chunks::<32>().0.to_vec())
                } else {
                    let len = from.number("length of a reference")?;
                    let reference = Bytes::copy_from_slice(from.take(len, "reference")?);
                    Text::Blob(BlobRef::decode(&reference).map_err(RecordError::Blob)?)
                };
                Body::Document { source, tags, text }
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

    use x0_kv::blob::{BlobId, BlobRef};

    use super::{Record, RecordError, Text};
    use crate::retrieve::Document;

    fn document() -> Document {
        let mut document = Document::new("not part of it");
        document.source = "manual".to_owned();
        document.tags.extend(["a".to_owned(), "Größe".to_owned()]);
        document
    }

    fn record() -> Record {
        Record::of(&document(), Text::Pieces(vec![[1; 32], [2; 32]]))
    }

    fn in_a_blob() -> Record {
        Record::of(&document(), Text::Blob(BlobRef::new(BlobId::of(b"a text"), 6)))
    }

    #[test]
    fn records_are_read_as_written() {
        let empty = Record::of(&Document::default(), Text::Pieces(Vec::new()));
        for record in [record(), Record::removal(), empty, in_a_blob()] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        assert_eq!((record().pieces().len(), record().blob()), (2, None));
        assert_eq!((in_a_blob().pieces().len(), in_a_blob().blob().unwrap().len), (0, 6));
    }

    /// The format of version 1 stays readable.
    #[test]
    fn a_recorded_record_is_read() {
        let mut bytes = vec![1, 1, 1, 0, 0, 0, b's', 1, 0, 0, 0, 1, 0, 0, 0, b't', 1, 0, 0, 0];
        bytes.extend([7; 32]);
        let mut document = Document { source: "s".to_owned(), ..Document::default() };
        document.tags.insert("t".to_owned());
        assert_eq!(Record::of(&document, Text::Pieces(vec![[7; 32]])).encode(), bytes);
    }

    #[test]
    fn damaged_records_are_errors_or_other_records() {
        for bytes in [record().encode(), in_a_blob().encode()] {
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
            assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        assert_eq!(Record::decode(&[2, 0]), Err(RecordError::Version { found: 2 }));
    }
}
