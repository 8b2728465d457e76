//! [`Scalar`]: the value of a register, and an element of a set.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INTEGER: u8 = 3;
const NUMBER: u8 = 4;
const TEXT: u8 = 5;

/// The value of a register, or an element of a set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Scalar {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number. In JSON, one that is not finite is `null`.
    Number(f64),
    /// A text, replaced as a whole.
    Text(String),
}

impl Scalar {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Null => alloc::vec![NULL],
            Self::Bool(value) => alloc::vec![if *value { TRUE } else { FALSE }],
            // With the sign bit flipped, so that the elements of a set are in their order.
            Self::Integer(value) => with_tag(INTEGER, &(*value ^ i64::MIN).to_be_bytes()),
            Self::Number(value) => with_tag(NUMBER, &value.to_be_bytes()),
            Self::Text(text) => with_tag(TEXT, text.as_bytes()),
        }
    }

    /// `None` for bytes that `encode` cannot have written: other programs may write to the same map.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        Some(match *tag {
            NULL if rest.is_empty() => Self::Null,
            FALSE | TRUE if rest.is_empty() => Self::Bool(*tag == TRUE),
            INTEGER => Self::Integer(i64::from_be_bytes(rest.try_into().ok()?) ^ i64::MIN),
            NUMBER => Self::Number(f64::from_be_bytes(rest.try_into().ok()?)),
            TEXT => Self::Text(core::str::from_utf8(rest).ok()?.into()),
            _ => return None,
        })
    }
}

fn with_tag(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag], bytes].concat()
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<i32> for Scalar {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Scalar {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn scalars_read_back_and_integers_are_in_order() {
        let all: [Scalar; 8] = [
            Scalar::Null,
            false.into(),
            true.into(),
            i64::MIN.into(),
            7.into(),
            1.5.into(),
            "".into(),
            "ü".into(),
        ];
        for scalar in &all {
            let bytes = scalar.encode();
            assert_eq!(Scalar::decode(&bytes).as_ref(), Some(scalar));
        }
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["null", "false", "true", "-9223372036854775808", "7", "1.5", "", "ü"]);
        assert!(Scalar::from(-1).encode() < Scalar::from(0).encode());
        for bytes in [&[][..], &[0, 0], &[1, 1], &[3, 0], &[4], &[5, 0xff], &[9]] {
            assert_eq!(Scalar::decode(bytes), None, "{bytes:?}");
        }
    }
}
