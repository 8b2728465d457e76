//! The answer of a bundle endpoint (RFC 9112), read from pieces.

use std::string::{String, ToString};
use std::vec::Vec;

use super::head::{Head, HeadError, HeadReader};
use crate::BUNDLE_LEN_MAX;

/// The longest head of an answer, in bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Interim answers (1xx) before the final one.
const INTERIM_MAX: u32 = 8;
/// The longest line of a chunk's size, and all trailers together, in bytes.
const LINE_LEN_MAX: usize = 1024;

/// An answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The bytes are not an answer of HTTP/1.1.
    #[error("the answer of the endpoint is not HTTP/1.1: correct the URL, or the server")]
    Syntax,
    /// The head is longer than 16 KiB.
    #[error("the head of the answer is longer than 16 KiB: shorten its fields")]
    HeadLength,
    /// The body is longer than [`BUNDLE_LEN_MAX`].
    #[error(
        "the answer is longer than the {BUNDLE_LEN_MAX} bytes that a bundle may have: remove authorities"
    )]
    BodyLength,
    /// The body has a content coding, which was not requested.
    #[error(
        "the answer has the content coding {coding:?}, which was not requested: serve the bundle as it is"
    )]
    ContentCoding {
        /// The coding.
        coding: String,
    },
    /// The connection ended before the answer.
    #[error("the connection ended before the answer was complete: the next fetch may succeed")]
    Truncated,
}

impl From<HeadError> for ResponseError {
    fn from(error: HeadError) -> ResponseError {
        match error {
            HeadError::Length => ResponseError::HeadLength,
            HeadError::Syntax => ResponseError::Syntax,
        }
    }
}

/// A complete answer; the body is only read with status 200.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Reads one answer to a `GET`.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    head: HeadReader,
    interim: u32,
    body: Vec<u8>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// Bytes of the body that are missing.
    Length(usize),
    /// Until the connection ends.
    Ends,
    /// A line of a chunk's size, as far as it has arrived.
    Size(Vec<u8>),
    /// Bytes of the chunk that are missing, with the line break after it.
    Chunk(usize),
    /// A line of a trailer, as far as it has arrived, and the bytes of all of them.
    Trailer(Vec<u8>, usize),
}

impl ResponseReader {
    /// Takes bytes, and returns the answer when it is complete.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Response>, ResponseError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head => {
                    let (taken, head) = self.head.read(bytes, HEAD_LEN_MAX)?;
                    bytes = &bytes[taken..];
                    if let Some(head) = head
                        && let Some(response) = self.begin(&head)?
                    {
                        return Ok(Some(response));
                    }
                }
                State::Length(missing) => {
                    let taken = bytes.len().min(*missing);
                    self.body.extend(&bytes[..taken]);
                    *missing -= taken;
                    if *missing == 0 {
                        return Ok(Some(self.complete()));
                    }
                    bytes = &bytes[taken..];
                }
                State::Ends => {
                    if self.body.len() + bytes.len() > BUNDLE_LEN_MAX {
                        return Err(ResponseError::BodyLength);
                    }
                    self.body.extend(bytes);
                    bytes = &[];
                }
                State::Size(line) => {
                    bytes = take_line(line, bytes)?;
                    let Some(text) = line.strip_suffix(b"\r\n") else { continue };
                    let size = chunk_size(text)?;
                    if size > BUNDLE_LEN_MAX - self.body.len() {
                        return Err(ResponseError::BodyLength);
                    }
                    self.state =
                        if size == 0 { State::Trailer(Vec::new(), 0) } else { State::Chunk(size + 2) };
                }
                State::Chunk(missing) => {
                    // The line break belongs to the chunk, and not to the body.
                    let of_body = bytes.len().min(missing.saturating_sub(2));
                    self.body.extend(&bytes[..of_body]);
                    *missing -= of_body;
                    bytes = &bytes[of_body..];
                    while *missing <= 2
                        && let Some((byte, after)) = bytes.split_first()
                    {
                        if *byte != b"\n\r"[*missing - 1] {
                            return Err(ResponseError::Syntax);
                        }
                        bytes = after;
                        *missing -= 1;
                        if *missing == 0 {
                            self.state = State::Size(Vec::new());
                            break;
                        }
                    }
                }
                State::Trailer(line, all) => {
                    let before = line.len();
                    bytes = take_line(line, bytes)?;
                    *all += line.len() - before;
                    if *all > LINE_LEN_MAX {
                        return Err(ResponseError::Syntax);
                    }
                    match line.strip_suffix(b"\r\n") {
                        Some([]) => return Ok(Some(self.complete())),
                        Some(_) => line.clear(),
                        None => {}
                    }
                }
            }
        }
        Ok(None)
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self) -> Result<Response, ResponseError> {
        match self.state {
            State::Ends => Ok(self.complete()),
            _ => Err(ResponseError::Truncated),
        }
    }

    fn complete(&mut self) -> Response {
        Response { status: 200, location: None, body: core::mem::take(&mut self.body) }
    }

    /// Reads a head; `Some`, if the answer has no body that matters.
    fn begin(&mut self, head: &Head) -> Result<Option<Response>, ResponseError> {
        let status = status(&head.start_line).ok_or(ResponseError::Syntax)?;
        match status {
            // 101 was not requested.
            101 => return Err(ResponseError::Syntax),
            100..200 => {
                self.interim += 1;
                return if self.interim > INTERIM_MAX { Err(ResponseError::Syntax) } else { Ok(None) };
            }
            200 => {}
            _ => {
                let location = head.value("location")?.map(ToString::to_string);
                return Ok(Some(Response { status, location, body: Vec::new() }));
            }
        }
        if let Some(coding) =
            head.values("content-encoding").find(|text| !text.eq_ignore_ascii_case("identity"))
        {
            return Err(ResponseError::ContentCoding { coding: coding.into() });
        }
        let length = head.content_length()?;
        // RFC 9112 §6.3: both are an error, for two readers may see two messages.
        self.state = match (head.value("transfer-encoding")?, length) {
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => State::Size(Vec::new()),
            (Some(_), _) => return Err(ResponseError::Syntax),
            (None, Some(0)) => return Ok(Some(self.complete())),
            (None, Some(len)) => match usize::try_from(len) {
                Ok(len) if len <= BUNDLE_LEN_MAX => State::Length(len),
                _ => return Err(ResponseError::BodyLength),
            },
            (None, None) => State::Ends,
        };
        Ok(None)
    }
}

/// RFC 9112 §4.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let code = rest.split(' ').next()?;
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    code.parse().ok().filter(|code| *code >= 100)
}

/// Adds bytes up to a line feed to the line, and returns the bytes after it.
fn take_line<'a>(line: &mut Vec<u8>, bytes: &'a [u8]) -> Result<&'a [u8], ResponseError> {
    let len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |place| place + 1);
    if line.len() + len > LINE_LEN_MAX {
        return Err(ResponseError::Syntax);
    }
    line.extend(&bytes[..len]);
    if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
        return Err(ResponseError::Syntax);
    }
    Ok(&bytes[len..])
}

/// RFC 9112 §7.1; extensions are ignored.
fn chunk_size(line: &[u8]) -> Result<usize, ResponseError> {
    let text = core::str::from_utf8(line).map_err(|_| ResponseError::Syntax)?;
    let digits = text.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ResponseError::Syntax);
    }
    usize::from_str_radix(digits, 16).map_err(|_| ResponseError::BodyLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Response, ResponseError> {
        let whole = ResponseReader::default().read(text.as_bytes());
        // The same in pieces of every length.
        for len in 1..text.len() {
            let mut reader = ResponseReader::default();
            let mut pieces = text.as_bytes().chunks(len).map(|piece| reader.read(piece));
            let read = pieces.find(|read| !matches!(read, Ok(None))).unwrap_or(Ok(None));
            assert_eq!(read, whole, "pieces of {len} bytes of {text:?}");
        }
        let mut reader = ResponseReader::default();
        match reader.read(text.as_bytes())? {
            Some(response) => Ok(response),
            None => reader.ended(),
        }
    }

    fn body(text: &str) -> Result<String, ResponseError> {
        read(text).map(|response| String::from_utf8(response.body).unwrap())
    }

    #[test]
    fn bodies_in_each_framing() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcdX").unwrap(), "abcd");
        assert_eq!(body("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n").unwrap(), "");
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nabcd").unwrap(), "abcd");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let text = format!("{chunked}2\r\nab\r\n0a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n");
        assert_eq!(body(&text).unwrap(), "ab0123456789");
        assert_eq!(body("HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabcd").unwrap(), "abcd");
    }

    #[test]
    fn other_statuses_end_with_the_head() {
        let redirect = read("HTTP/1.1 307 Temporary Redirect\r\nLocation: /b\r\n\r\nmore").unwrap();
        assert_eq!((redirect.status, redirect.location.as_deref()), (307, Some("/b")));
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\n").unwrap().status, 404);
    }

    #[test]
    fn answers_that_are_refused() {
        let refused = |text: &str, expected: ResponseError| assert_eq!(read(text), Err(expected), "{text:?}");
        let head = "HTTP/1.1 200 OK\r\n";
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nName : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n",
        ] {
            refused(text, ResponseError::Syntax);
        }
        refused(
            &format!("{head}Content-Encoding: gzip\r\n\r\n"),
            ResponseError::ContentCoding { coding: "gzip".into() },
        );
        refused(&format!("{head}Content-Length: 3\r\n\r\nab"), ResponseError::Truncated);
        refused(&head[..10], ResponseError::Truncated);
        refused(&format!("{head}Content-Length: {}\r\n\r\n", BUNDLE_LEN_MAX + 1), ResponseError::BodyLength);
        refused(&format!("{head}Content-Length: {}9\r\n\r\n", u64::MAX), ResponseError::BodyLength);
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        refused(&format!("{chunked}{:x}\r\n", BUNDLE_LEN_MAX + 1), ResponseError::BodyLength);
        refused(&format!("{chunked}fffffffffffffffff\r\n"), ResponseError::BodyLength);
    }

    #[test]
    fn what_is_endless_is_refused() {
        let endless = |begin: &str, piece: &str| {
            let mut reader = ResponseReader::default();
            let mut read = reader.read(begin.as_bytes());
            for _ in 0..4_000_000 / piece.len() {
                if read.is_err() {
                    break;
                }
                read = reader.read(piece.as_bytes());
            }
            read.unwrap_err()
        };
        let head = "HTTP/1.1 200 OK\r\n";
        let line = "A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n";
        assert_eq!(endless(head, line), ResponseError::HeadLength);
        assert_eq!(endless("", "HTTP/1.1 100 Continue\r\n\r\n"), ResponseError::Syntax);
        assert_eq!(endless(&format!("{head}\r\n"), line), ResponseError::BodyLength);
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(endless(&chunked, &format!("{:x}\r\n{line}\r\n", line.len())), ResponseError::BodyLength);
        assert_eq!(endless(&format!("{chunked}0\r\n"), line), ResponseError::Syntax);
        assert_eq!(endless(&chunked, "000000000"), ResponseError::Syntax);
    }
}
