//! [`Field`]: the key of a field, so that the fields of a map are neighbours.
//!
//! The names of the path, each with [`NAME`] before and [`END`] after it, then the kind of the field, and
//! behind it an element for a set. In a name, [`END`] and [`NAME`] are escaped, so that no name is the prefix
//! of another one.

use alloc::string::String;
use alloc::vec::Vec;

use super::{DEPTH_MAX, DocumentError, Scalar};

const END: u8 = 0;
const NAME: u8 = 1;

/// The kinds of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Register = 2,
    Counter = 3,
    Flag = 4,
    Set = 5,
    Map = 6,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Register, Self::Counter, Self::Flag, Self::Set, Self::Map];
}

/// A path and a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) names: Vec<String>,
    pub(super) kind: Kind,
}

impl Field {
    pub(super) fn new(path: &str, kind: Kind) -> Result<Self, DocumentError> {
        Ok(Self { names: names(path)?, kind })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut key = prefix(&self.names);
        key.push(self.kind as u8);
        key
    }

    /// The key of an element of a set.
    pub(super) fn encode_with(&self, element: &Scalar) -> Vec<u8> {
        let mut key = self.encode();
        key.extend_from_slice(&element.encode());
        key
    }

    /// The field of a key, and what follows the kind. `None` for a key that is of no field.
    pub(super) fn decode(key: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = key;
        let mut names = Vec::new();
        while rest.first() == Some(&NAME) {
            let (name, len) = name_of(rest)?;
            names.push(name?);
            rest = rest.get(len..)?;
            // What no replica writes may be in the map all the same.
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        let (tag, rest) = rest.split_first()?;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == *tag)?;
        (kind == Kind::Set || rest.is_empty()).then_some((Self { names, kind }, rest))
    }
}

/// The names of a path.
fn names(path: &str) -> Result<Vec<String>, DocumentError> {
    let mut parts = path.split('/');
    if parts.next() != Some("") {
        return Err(DocumentError::Path);
    }
    let depth = parts.clone().count();
    if depth > DEPTH_MAX {
        return Err(DocumentError::Depth { depth });
    }
    parts.map(unescaped).collect()
}

/// RFC 6901, section 4.
fn unescaped(part: &str) -> Result<String, DocumentError> {
    let mut name = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(char) = chars.next() {
        name.push(match char {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(DocumentError::Path),
            },
            char => char,
        });
    }
    Ok(name)
}

/// The bytes before all keys at and below a path.
pub(super) fn prefix_of(path: &str) -> Result<Vec<u8>, DocumentError> {
    names(path).map(|names| prefix(&names))
}

pub(super) fn prefix(names: &[String]) -> Vec<u8> {
    let mut key = Vec::new();
    for name in names {
        key.push(NAME);
        for byte in name.bytes() {
            match byte {
                END => key.extend_from_slice(&[NAME, NAME]),
                NAME => key.extend_from_slice(&[NAME, NAME + 1]),
                byte => key.push(byte),
            }
        }
        key.push(END);
    }
    key
}

/// The first name in a key, and how many bytes it takes. The name is `None` if it is no text.
pub(super) fn name_of(key: &[u8]) -> Option<(Option<String>, usize)> {
    let rest = key.strip_prefix(&[NAME])?;
    let len = rest.iter().position(|byte| *byte == END)?;
    let mut bytes = Vec::with_capacity(len);
    let mut escaped = rest.get(..len)?.iter();
    let mut is_valid = true;
    while let Some(byte) = escaped.next() {
        bytes.push(match *byte {
            NAME => match escaped.next() {
                Some(&NAME) => END,
                Some(byte) if *byte == NAME + 1 => NAME,
                _ => {
                    is_valid = false;
                    continue;
                }
            },
            byte => byte,
        });
    }
    Some((String::from_utf8(bytes).ok().filter(|_| is_valid), len + 2))
}

/// The first key below a prefix: those of its own fields come after the names.
pub(super) fn below(prefix: &[u8]) -> Vec<u8> {
    [prefix, &[NAME]].concat()
}

/// The first key after all those with a prefix that ends with a name.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    // The prefix ends with END, which is not the greatest byte.
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_field_and_fields_below_a_path_share_its_prefix() {
        for path in ["", "/", "/a", "/a/b", "/a~1b/~0", "/\0\u{1}\u{2}//x", "/ü"] {
            for kind in Kind::ALL {
                let field = Field::new(path, kind).unwrap();
                let key = field.encode();
                assert_eq!(Field::decode(&key), Some((field, &[][..])), "{path:?}");
                assert!(key.starts_with(&prefix_of(path).unwrap()));
            }
        }
        assert!(!prefix_of("/ab").unwrap().starts_with(&prefix_of("/a").unwrap()));
        assert!(!prefix_of("/a\0").unwrap().starts_with(&prefix_of("/a").unwrap()));
        for path in ["a", "a/b", "/~", "/~2"] {
            assert_eq!(names(path), Err(DocumentError::Path), "{path}");
        }
        assert_eq!(names(&"/a".repeat(65)), Err(DocumentError::Depth { depth: 65 }));
        let deep = prefix(&alloc::vec![String::from("a"); 65]);
        for key in
            [&b""[..], b"\x01a", b"\x01a\0", b"\x01\x01\0\x02", b"\x02x", b"x", &[&deep[..], &[2]].concat()]
        {
            assert_eq!(Field::decode(key), None, "{}", key.escape_ascii());
        }
    }
}
