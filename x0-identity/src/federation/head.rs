//! Heads of HTTP/1.1 messages (RFC 9112 §2), read strictly.

use std::string::String;
use std::vec::Vec;

/// The bytes of a head, without the body, that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    bytes: Vec<u8>,
}

/// A head cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    Length,
    Syntax,
}

/// A start line and fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) start_line: String,
    fields: Vec<(String, String)>,
}

const END: &[u8] = b"\r\n\r\n";

impl HeadReader {
    /// Takes bytes until the head is complete, and returns it with the number of bytes taken.
    pub(super) fn read(&mut self, bytes: &[u8], len_max: usize) -> Result<(usize, Option<Head>), HeadError> {
        let before = self.bytes.len();
        let room = (len_max + 1).saturating_sub(before);
        self.bytes.extend(&bytes[..bytes.len().min(room)]);
        let from = before.saturating_sub(END.len() - 1);
        let found = self.bytes[from..].windows(END.len()).position(|window| window == END);
        match found {
            Some(place) => {
                let len = from + place + END.len();
                let head = parse(&self.bytes[..len - END.len()])?;
                self.bytes.clear();
                Ok((len - before, Some(head)))
            }
            None if self.bytes.len() > len_max => Err(HeadError::Length),
            None => Ok((bytes.len(), None)),
        }
    }
}

impl Head {
    /// The values of a field, in order.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(of_name).map(|(_, value)| value.as_str())
    }

    /// The only value of a field. `Err`, if there are different ones.
    pub(super) fn value<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, HeadError> {
        let mut values = self.values(name);
        let first = values.next();
        if values.any(|further| Some(further) != first) { Err(HeadError::Syntax) } else { Ok(first) }
    }

    /// RFC 9112 §6.2: digits only, and equal if there are several.
    pub(super) fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let Some(text) = self.value("content-length")? else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeadError::Syntax);
        }
        // More than 2^64 bytes are more than any bound.
        Ok(Some(text.parse().unwrap_or(u64::MAX)))
    }
}

fn parse(bytes: &[u8]) -> Result<Head, HeadError> {
    let text = core::str::from_utf8(bytes).map_err(|_| HeadError::Syntax)?;
    let mut lines = text.split("\r\n");
    let start_line = String::from(lines.next().unwrap_or_default());
    if start_line.contains(is_control) {
        return Err(HeadError::Syntax);
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HeadError::Syntax)?;
        // RFC 9112 §5.1, §5.2: no space before the colon, and no line that continues the one before.
        if name.is_empty() || !name.bytes().all(is_token) || value.contains(|c| c != '\t' && is_control(c)) {
            return Err(HeadError::Syntax);
        }
        fields.push((name.into(), value.trim_matches([' ', '\t']).into()));
    }
    Ok(Head { start_line, fields })
}

fn is_control(character: char) -> bool {
    character.is_ascii_control()
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
