//! Fields of the canonical bytes of records, summaries and claims.
//!
//! Numbers are little-endian; a text is its length (1 byte) and its bytes; an absent value is the byte 0, a
//! present one the byte 1 and the value. Equal objects have equal bytes.

use std::time::Duration;

/// The longest text of a record, a summary or a claim, in bytes; longer ones are cut.
pub const TEXT_LEN_MAX: usize = 200;

/// The version of all formats.
pub(crate) const VERSION: u8 = 1;

/// Bytes are not a record, summary or claim. Nothing was kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the {object} ends at byte {offset}, where more must follow: it was cut")]
    Cut {
        /// What was decoded: record, summary or claim.
        object: &'static str,
        /// The length of the bytes.
        offset: usize,
    },
    /// The version is not known.
    #[error("the {object} has version {version}, and this build reads version 1: read it with a newer one")]
    Version {
        /// What was decoded.
        object: &'static str,
        /// The version.
        version: u8,
    },
    /// A field has a value that no such object has.
    #[error("the {object} has an invalid {field} before byte {offset}: it is damaged")]
    Invalid {
        /// What was decoded.
        object: &'static str,
        /// The field.
        field: &'static str,
        /// The offset behind it.
        offset: usize,
    },
    /// Bytes follow the object.
    #[error("{len} bytes follow the {object}: it is damaged")]
    Trailing {
        /// What was decoded.
        object: &'static str,
        /// How many.
        len: usize,
    },
}

/// At most [`TEXT_LEN_MAX`] bytes of a text.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Writes fields.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new() -> Encoder {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(VERSION);
        Encoder(bytes)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// The length of a list, which is bounded far below 256.
    pub(crate) fn count(&mut self, count: usize) {
        self.byte(u8::try_from(count).unwrap_or(u8::MAX));
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn value(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    pub(crate) fn time(&mut self, time: Duration) {
        self.number(time.as_secs());
        self.0.extend_from_slice(&time.subsec_nanos().to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        let text = cut(text);
        // `cut` leaves at most 200 bytes.
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn presence(&mut self, is_present: bool) {
        self.byte(u8::from(is_present));
    }
}

/// Reads fields.
pub(crate) struct Decoder<'a> {
    object: &'static str,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// Checks the version.
    pub(crate) fn new(object: &'static str, bytes: &'a [u8]) -> Result<Decoder<'a>, DecodeError> {
        let mut decoder = Decoder { object, bytes, offset: 0 };
        match decoder.byte()? {
            VERSION => Ok(decoder),
            version => Err(DecodeError::Version { object, version }),
        }
    }

    /// Checks that all bytes were read.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { object: self.object, len }),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.offset.saturating_add(len);
        let cut = DecodeError::Cut { object: self.object, offset: self.bytes.len() };
        let taken = self.bytes.get(self.offset..end).ok_or(cut)?;
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn invalid(&self, field: &'static str) -> DecodeError {
        DecodeError::Invalid { object: self.object, field, offset: self.offset }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The length of a list.
    pub(crate) fn count(&mut self, max: usize, field: &'static str) -> Result<usize, DecodeError> {
        let count = usize::from(self.byte()?);
        if count > max { Err(self.invalid(field)) } else { Ok(count) }
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn value(&mut self) -> Result<f64, DecodeError> {
        self.number().map(f64::from_bits)
    }

    pub(crate) fn time(&mut self) -> Result<Duration, DecodeError> {
        let seconds = self.number()?;
        let nanos = u32::from_le_bytes(self.array()?);
        // A second or more of nanoseconds would be a second form of the same time.
        if nanos >= 1_000_000_000 { Err(self.invalid("time")) } else { Ok(Duration::new(seconds, nanos)) }
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let len = self.count(TEXT_LEN_MAX, "length of a text")?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.invalid("text"))
    }

    pub(crate) fn is_present(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("presence")),
        }
    }
}
