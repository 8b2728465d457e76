//! The encoding of Protocol Buffers, as far as the messages of this crate need it.

use std::string::String;
use std::vec::Vec;

/// Bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a message of Protocol Buffers: the peer is of another protocol or faulty")]
pub struct DecodeError;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(DecodeError) }
    }

    /// proto3: a string is UTF-8.
    pub(crate) fn string(self) -> Result<String, DecodeError> {
        core::str::from_utf8(self.bytes()?).map(Into::into).map_err(|_| DecodeError)
    }
}

/// Reads the fields of a message in order.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Reader<'a> {
        Reader(message)
    }

    /// The next field: its number and its value. Groups, which proto3 does not have, are refused.
    pub(crate) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| DecodeError)?;
                let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(self.array()?),
            _ => return Err(DecodeError),
        };
        if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
            Err(DecodeError)
        } else {
            Ok(Some((tag >> 3, value)))
        }
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], DecodeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(DecodeError)?;
        self.0 = rest;
        Ok(*array)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            // The tenth byte holds one bit.
            if shift == 63 && byte > 1 {
                return Err(DecodeError);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError)
    }
}

/// Writes a message. Default values are left out, as proto3 does.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer::default()
    }

    pub(crate) fn bytes(mut self, field: u32, bytes: &[u8]) -> Writer {
        if !bytes.is_empty() {
            self.put(field, bytes);
        }
        self
    }

    pub(crate) fn string(self, field: u32, text: &str) -> Writer {
        self.bytes(field, text.as_bytes())
    }

    /// An element of a repeated field, or a message that is present: written even if it is empty.
    pub(crate) fn element(mut self, field: u32, bytes: &[u8]) -> Writer {
        self.put(field, bytes);
        self
    }

    /// A number of a `oneof`: written even if it is zero.
    pub(crate) fn number(mut self, field: u32, number: u64) -> Writer {
        self.varint(u64::from(field) << 3);
        self.varint(number);
        self
    }

    /// A double of a `oneof`: written even if it is zero.
    pub(crate) fn double(mut self, field: u32, number: f64) -> Writer {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend(number.to_le_bytes());
        self
    }

    /// An entry of a map.
    pub(crate) fn entry(self, field: u32, key: &str, value: &[u8]) -> Writer {
        let entry = Writer::new().string(1, key).bytes(2, value).finish();
        self.element(field, &entry)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn put(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(0x80 | value.to_le_bytes()[0]);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// The key and the value of an entry of a map. A part that is absent has its default value.
pub(crate) fn read_entry(entry: &[u8]) -> Result<(String, &[u8]), DecodeError> {
    let (mut key, mut content) = (String::new(), &[][..]);
    let mut reader = Reader::new(entry);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => key = value.string()?,
            2 => content = value.bytes()?,
            _ => {}
        }
    }
    Ok((key, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let message = Writer::new()
            .string(1, "text")
            .string(2, "")
            .element(3, &[])
            .number(4, u64::MAX)
            .double(5, -0.5)
            .entry(6, "key", b"value")
            .bytes(1000, &[0; 300])
            .finish();
        let mut reader = Reader::new(&message);
        assert_eq!(reader.field(), Ok(Some((1, Value::Bytes(b"text")))));
        assert_eq!(reader.field(), Ok(Some((3, Value::Bytes(b"")))));
        assert_eq!(reader.field(), Ok(Some((4, Value::Varint(u64::MAX)))));
        assert_eq!(reader.field(), Ok(Some((5, Value::Fixed64((-0.5_f64).to_le_bytes())))));
        let entry = reader.field().unwrap().unwrap().1.bytes().unwrap();
        assert_eq!(read_entry(entry), Ok(("key".into(), &b"value"[..])));
        assert_eq!(reader.field(), Ok(Some((1000, Value::Bytes(&[0; 300])))));
        assert_eq!(reader.field(), Ok(None));
    }

    #[test]
    fn broken_messages_are_refused() {
        for (message, why) in [
            (&[0x0a][..], "no length"),
            (&[0x0a, 5, 1], "cut content"),
            (&[0x02, 0], "field 0"),
            (&[0x0b], "a group"),
            (&[0x0e], "an unknown type"),
            (&[0x09, 1], "a cut fixed64"),
            (&[0x0d, 1], "a cut fixed32"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "a varint of 65 bits"),
            (&[0x08, 0x80], "a cut varint"),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 0], "a field number above 2^29"),
        ] {
            assert_eq!(Reader::new(message).field(), Err(DecodeError), "{why}");
        }
        assert_eq!(Value::Bytes(&[0xff]).string(), Err(DecodeError));
        assert_eq!(Value::Fixed32([0; 4]).bytes(), Err(DecodeError));
        assert_eq!(Reader::new(&[0x0d, 1, 2, 3, 4]).field(), Ok(Some((1, Value::Fixed32([1, 2, 3, 4])))));
    }
}
