//! JSON (RFC 8259), read strictly: a name occurs once in an object, and what is nested is bounded.
//!
//! A parser that keeps the last of two equal names lets two readers see two documents (Trust Domain and
//! Bundle §6.3).

use std::string::String;
use std::vec::Vec;

/// Objects and arrays within one another.
const DEPTH_MAX: usize = 16;

/// The reason that bytes are not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The bytes break the grammar of RFC 8259, or are not UTF-8.
    #[error("the text is not JSON at byte {position}: correct it")]
    Syntax {
        /// The offset of the byte.
        position: usize,
    },
    /// A name occurs twice in one object (RFC 8259 §4, Trust Domain and Bundle §6.3).
    #[error("a name occurs twice in the object that ends at byte {position}: remove one of the two")]
    DuplicateName {
        /// The offset of the byte after the second name.
        position: usize,
    },
    /// More than 16 objects and arrays are nested.
    #[error("more than 16 objects and arrays are nested at byte {position}: flatten the document")]
    Depth {
        /// The offset of the byte.
        position: usize,
    },
}

/// A value. A number keeps its text, since a `u64` does not fit into a double.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Json, JsonError> {
        let text = core::str::from_utf8(bytes)
            .map_err(|error| JsonError::Syntax { position: error.valid_up_to() })?;
        let mut parser = Parser { text, position: 0, depth: 0 };
        let value = parser.value()?;
        parser.space();
        if parser.position == text.len() { Ok(value) } else { Err(parser.syntax()) }
    }

    /// The member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(present, _)| present == name).map(|(_, value)| value)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// A number without fraction and exponent.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        if let Json::Number(text) = self { text.parse().ok() } else { None }
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Number(text) => out.push_str(text),
            Json::String(text) => write_string(text, out),
            Json::Array(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_string(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\x1f' => out.push_str(&std::format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl Parser<'_> {
    fn syntax(&self) -> JsonError {
        JsonError::Syntax { position: self.position }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), JsonError> {
        if self.text.as_bytes()[self.position..].starts_with(text.as_bytes()) {
            self.position += text.len();
            Ok(())
        } else {
            Err(self.syntax())
        }
    }

    fn value(&mut self) -> Result<Json, JsonError> {
        self.space();
        match self.peek() {
            Some(b'n') => self.expect("null").map(|()| Json::Null),
            Some(b't') => self.expect("true").map(|()| Json::Bool(true)),
            Some(b'f') => self.expect("false").map(|()| Json::Bool(false)),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[') => self.array(),
            Some(b'{') => self.object(),
            _ => Err(self.syntax()),
        }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.position += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(JsonError::Depth { position: self.position }) } else { Ok(()) }
    }

    /// Whether another element follows; the first needs no comma.
    fn another(&mut self, end: u8, first: bool) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(byte) if byte == end => {
                self.position += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.position += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.syntax()),
        }
    }

    fn array(&mut self) -> Result<Json, JsonError> {
        self.enter()?;
        let mut values = Vec::new();
        while self.another(b']', values.is_empty())? {
            values.push(self.value()?);
        }
        Ok(Json::Array(values))
    }

    fn object(&mut self) -> Result<Json, JsonError> {
        self.enter()?;
        let mut members: Vec<(String, Json)> = Vec::new();
        while self.another(b'}', members.is_empty())? {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(":")?;
            members.push((name, self.value()?));
        }
        // Sorted, because a quadratic search takes long for the names that fit in.
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(JsonError::DuplicateName { position: self.position });
        }
        Ok(Json::Object(members))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let begin = self.position;
        while let Some(b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
        if self.position > begin { Ok(()) } else { Err(self.syntax()) }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let begin = self.position;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(self.text[begin..self.position].into()))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        self.position += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.position..];
            let stop = rest
                .find(|character: char| matches!(character, '"' | '\\' | '\0'..='\x1f'))
                .ok_or(JsonError::Syntax { position: self.text.len() })?;
            text.push_str(&rest[..stop]);
            self.position += stop;
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.position += 1;
                    let character = self.escape()?;
                    text.push(character);
                }
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.position += 1;
                let first = self.hexadecimal()?;
                // A high surrogate is followed by a low one; either alone is not a character.
                let scalar = if (0xd800..0xdc00).contains(&first) {
                    self.expect("\\u")?;
                    let second = self.hexadecimal()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(self.syntax());
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                return char::from_u32(scalar).ok_or(self.syntax());
            }
            _ => return Err(self.syntax()),
        };
        self.position += 1;
        Ok(character)
    }

    fn hexadecimal(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.position..self.position + 4).ok_or(self.syntax())?;
        let mut number = 0;
        for byte in digits {
            number = number << 4 | char::from(*byte).to_digit(16).ok_or(self.syntax())?;
        }
        self.position += 4;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of other authors agrees on what is JSON, but for names that occur twice and deep nesting.
    #[test]
    fn serde_json_agrees() {
        for text in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "-1.5e+3",
            "1E5",
            "18446744073709551615",
            "\"\"",
            r#""a\"\\\/\b\f\n\r\té😀""#,
            "[]",
            "[1,2]",
            "{}",
            r#"{"a":1,"b":[{}]}"#,
            "\"\u{7f}é\"",
        ] {
            let value = Json::parse(text.as_bytes()).unwrap();
            let other: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut written = String::new();
            value.write(&mut written);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), other, "{text}");
            assert_eq!(Json::parse(written.as_bytes()).unwrap(), value);
        }
        for text in [
            "",
            " ",
            "nul",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            "\"",
            "\"\n\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            "1 2",
            "[",
            "]",
            "\u{feff}1",
            "'a'",
            "NaN",
            "//",
            "[1]x",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert_eq!(Json::parse(b"\"\xff\""), Err(JsonError::Syntax { position: 1 }));
        assert_eq!(Json::parse(br#"{"a":1,"b":2,"a":1}"#), Err(JsonError::DuplicateName { position: 19 }));
        assert!(Json::parse("[".repeat(16).as_bytes()).is_err());
        let nested = |depth: usize| Json::parse(("[".repeat(depth) + &"]".repeat(depth)).as_bytes());
        assert!(nested(16).is_ok());
        assert_eq!(nested(17), Err(JsonError::Depth { position: 17 }));
        assert!(nested(1_000_000).is_err());
    }

    #[test]
    fn numbers_have_64_bits() {
        assert_eq!(Json::parse(b"18446744073709551615").unwrap().as_u64(), Some(u64::MAX));
        for text in ["18446744073709551616", "-1", "1.0", "1e3"] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().as_u64(), None, "{text}");
        }
    }
}
