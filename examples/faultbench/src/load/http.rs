//! As much of HTTP/1.1 (RFC 9112) as etcd's gateway needs: requests with a body, and answers within bounds.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest head of an answer, in bytes.
const HEAD_LEN_MAX: usize = 8 << 10;
/// The longest body of an answer on a connection that goes on.
const BODY_LEN_MAX: usize = 64 << 10;
/// The longest answer to a range.
const RANGE_LEN_MAX: u64 = 64 << 20;

/// A connection with one request at a time.
pub(super) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, address })
    }

    /// Sends a request and reads the whole answer. Returns its status.
    pub(super) async fn post(&mut self, path: &str, body: &str) -> Result<u16> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            if let Some((status, len)) = head(&answer)?
                && answer.len() >= len
            {
                return Ok(status);
            }
            if answer.len() > HEAD_LEN_MAX + BODY_LEN_MAX {
                bail!("an answer is too long");
            }
            if self.stream.read_buf(&mut answer).await? == 0 {
                bail!("the connection ended within an answer");
            }
        }
    }
}

/// The status and the length of the whole answer, once its head is complete.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        if answer.len() > HEAD_LEN_MAX {
            bail!("the head of an answer is too long");
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..end]).context("the head of an answer is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.context("an answer has no status")?;
    let lengths = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let len: usize =
        lengths.next().and_then(|(_, len)| len.trim().parse().ok()).context("an answer has no length")?;
    if len > BODY_LEN_MAX {
        bail!("an answer is too long");
    }
    Ok(Some((status, end + 4 + len)))
}

/// Sends a request on a connection of its own and returns the body of the answer: HTTP/1.0, whose answers
/// have no chunks and end with the connection.
pub(super) async fn get_all(address: SocketAddr, path: &str, body: &str) -> Result<Vec<u8>> {
    let mut stream = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address)).await??;
    stream.write_all(last_request(path, body).as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(RANGE_LEN_MAX).read_to_end(&mut answer).await?;
    last_answer(&answer).map(<[u8]>::to_vec)
}

fn last_request(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The body of an answer that ends with its connection.
fn last_answer(answer: &[u8]) -> Result<&[u8]> {
    let end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer has no end of its head")?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if !line.ends_with(b" 200 OK") {
        bail!("the answer is {}", String::from_utf8_lossy(line));
    }
    Ok(&answer[end + 4..])
}

/// The same from a thread that may block, for the program that runs the trials.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str, limit: Duration) -> Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(last_request(path, body).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(RANGE_LEN_MAX).read_to_end(&mut answer)?;
    last_answer(&answer).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nDate: x\r\n\r\nabc";
        assert_eq!(head(answer).unwrap(), Some((200, answer.len())));
        assert_eq!(head(&answer[..20]).unwrap(), None);
        for broken in [
            &b"HTTP/1.1\r\nContent-Length: 3\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            b"\xff\xff\r\n\r\n",
        ] {
            assert!(head(broken).is_err(), "{broken:?}");
        }
        assert!(head(&[b'x'; HEAD_LEN_MAX + 1]).is_err());
    }

    #[test]
    fn an_answer_that_ends_with_its_connection_is_all_after_the_head() {
        assert_eq!(last_answer(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n").unwrap(), b"body\r\n\r\n");
        assert!(last_answer(b"HTTP/1.0 503 Service Unavailable\r\n\r\n").is_err());
        assert!(last_answer(b"HTTP/1.0 200 OK\r\n").is_err());
    }
}
