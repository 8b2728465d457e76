//! Status codes of gRPC, and the trailers that carry them.

use core::fmt;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// The result of a call in gRPC. Codes that the Workload API does not use are [`Code::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The call succeeded; a stream ended.
    Ok,
    /// The caller ended the call.
    Cancelled,
    /// The request, or its security header, is wrong. Do not retry.
    InvalidArgument,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The caller is not entitled to what it requests now. Retry with growing pauses.
    PermissionDenied,
    /// A limit is reached.
    ResourceExhausted,
    /// The server does not have the method. Do not retry.
    Unimplemented,
    /// The server failed, or broke a rule of the protocol.
    Internal,
    /// The server cannot answer now. Retry with growing pauses.
    Unavailable,
    /// Another code.
    Other(u32),
}

impl Code {
    /// The number of the code.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Code::Ok => 0,
            Code::Cancelled => 1,
            Code::InvalidArgument => 3,
            Code::DeadlineExceeded => 4,
            Code::PermissionDenied => 7,
            Code::ResourceExhausted => 8,
            Code::Unimplemented => 12,
            Code::Internal => 13,
            Code::Unavailable => 14,
            Code::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u32) -> Code {
        match number {
            0 => Code::Ok,
            1 => Code::Cancelled,
            3 => Code::InvalidArgument,
            4 => Code::DeadlineExceeded,
            7 => Code::PermissionDenied,
            8 => Code::ResourceExhausted,
            12 => Code::Unimplemented,
            13 => Code::Internal,
            14 => Code::Unavailable,
            other => Code::Other(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Other(number) => write!(formatter, "code {number}"),
            known => write!(formatter, "{known:?}"),
        }
    }
}

/// A code with the message of the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call ended with {code}: {message}")]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The message, for an operator. It may be empty.
    pub message: String,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    pub(crate) fn ok() -> Status {
        Status::new(Code::Ok, "")
    }

    /// The trailers of a call that ends with this status.
    pub(crate) fn trailers(&self) -> Vec<(&'static str, String)> {
        let mut trailers = Vec::from([("grpc-status", self.code.number().to_string())]);
        if !self.message.is_empty() {
            trailers.push(("grpc-message", percent_encode(&self.message)));
        }
        trailers
    }

    /// The status in trailers, if they have one. A code that is not a number is unknown (2).
    pub(crate) fn from_trailers<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Status> {
        let code = get("grpc-status")?;
        let number = core::str::from_utf8(code).ok().and_then(|text| text.parse().ok()).unwrap_or(2);
        let message = get("grpc-message").map(percent_decode).unwrap_or_default();
        Some(Status { code: Code::from_number(number), message })
    }
}

/// Everything but printable ASCII, and `%` itself.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// What is not encoded correctly stays as it is: a decoder must not lose a message for that.
fn percent_decode(encoded: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::new();
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let decoded = match *after {
            [high, low, ..] if byte == b'%' => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_its_trailers() {
        for message in ["", "no identity", "100 % of \u{e4}\n", "%zz", "%"] {
            for number in 0..20 {
                let status = Status::new(Code::from_number(number), message);
                assert_eq!(status.code.number(), number);
                let trailers = status.trailers();
                assert!(
                    trailers.iter().all(|(_, value)| value.bytes().all(|byte| matches!(byte, b' '..=b'~')))
                );
                let get = |name: &str| {
                    trailers.iter().find(|(present, _)| *present == name).map(|(_, value)| value.as_bytes())
                };
                assert_eq!(Status::from_trailers(get), Some(status));
            }
        }
        assert_eq!(Status::from_trailers(|_| None), None);
        assert_eq!(Status::from_trailers(|_| Some(b"%4")).unwrap(), Status::new(Code::Other(2), "%4"));
        assert_eq!(
            Status::new(Code::Unavailable, "wait").to_string(),
            "the call ended with Unavailable: wait"
        );
        assert_eq!(Code::Other(2).to_string(), "code 2");
    }
}
