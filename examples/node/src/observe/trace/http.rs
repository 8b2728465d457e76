//! A blocking HTTP client for one receiver: one request per connection, within a limit of time and length.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

use super::receiver::Receiver;

/// Most bytes of the head of an answer that are read.
const HEAD_LEN_MAX: usize = 16 << 10;

/// Posts to one receiver from a thread that may wait. The body of an answer is not read: that of a success
/// says nothing, and that of a failure is not shown.
#[derive(Debug)]
pub(super) struct BlockingClient {
    receiver: Receiver,
    limit: Duration,
}

impl BlockingClient {
    /// A request takes at most `limit`, without the time of the name server.
    pub(super) fn new(receiver: Receiver, limit: Duration) -> BlockingClient {
        BlockingClient { receiver, limit }
    }

    /// Posts a body. Returns the status of the answer.
    fn post(&self, content_type: &str, body: &[u8]) -> io::Result<u16> {
        let Receiver { host, port, path } = &self.receiver;
        let mut connected = Err(io::Error::other("the name of the receiver has no address"));
        let addresses = (host.as_str(), *port).to_socket_addrs()?;
        let until = Instant::now() + self.limit;
        for address in addresses {
            connected = TcpStream::connect_timeout(&address, left(until)?);
            if connected.is_ok() {
                break;
            }
        }
        let mut stream = connected?;
        stream.set_write_timeout(Some(left(until)?))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.receiver.authority(),
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        // The limit of a socket is one of each call: a receiver that takes some bytes each second would hold
        // the thread.
        let mut rest = request.as_slice();
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(until)?))?;
            match stream.write(rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => rest = &rest[len..],
            }
        }
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while head.len() < HEAD_LEN_MAX && !head.contains(&b'\n') {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(&mut buffer)? {
                0 => break,
                len => head.extend_from_slice(&buffer[..len]),
            }
        }
        status(&head)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not one of HTTP"))
    }
}

/// The time until then.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The status of the first line of an answer.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest.get(1) == Some(&b' '))?;
    let after = rest.get(5).copied().unwrap_or(b'\r');
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (matches!(after, b' ' | b'\r' | b'\n') && (100..600).contains(&status)).then_some(status)
}

#[async_trait]
impl HttpClient for BlockingClient {
    /// Blocks. The future is ready when it is polled first.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok());
        let status = self.post(content_type.unwrap_or("application/x-protobuf"), request.body())?;
        Ok(Response::builder().status(status).body(Bytes::new())?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        for garbage in
            [&b""[..], b"HTTP/2 200", b"HTTP/1.1 20x OK", b"HTTP/1.1 2000", b"HTTP/1.1 099 no", b"\xff\xfe"]
        {
            assert_eq!(status(garbage), None, "{garbage:?}");
        }
    }

    /// Posts to a receiver that answers like this, in turn.
    fn posted(limit: Duration, answer: impl FnOnce(TcpStream) + Send + 'static) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || answer(listener.accept().unwrap().0));
        let status = BlockingClient::new(url.parse().unwrap(), limit).post("a/b", b"body");
        serving.join().unwrap();
        status
    }

    #[test]
    fn a_body_is_posted_and_the_status_returned() {
        let status = posted(Duration::from_secs(20), |mut stream| {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"body") {
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
            assert!(request.contains("\r\nContent-Type: a/b\r\nContent-Length: 4\r\n"), "{request}");
            // The first line comes in two parts.
            stream.write_all(b"HTTP/1.1 2").unwrap();
            stream.flush().unwrap();
            stream.write_all(b"04 No Content\r\n\r\n").unwrap();
        });
        assert_eq!(status.unwrap(), 204);
    }

    #[test]
    fn receivers_that_do_not_behave_are_errors_within_the_limit() {
        let begun = Instant::now();
        let error = posted(Duration::from_secs(20), |mut stream| {
            stream.write_all(&[0xff; 100]).unwrap();
            stream.write_all(b"\n").unwrap();
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let limit = Duration::from_millis(50);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hanging = std::thread::spawn(move || {
            let stream = listener.accept();
            let _ = held.recv();
            drop(stream);
        });
        let receiver: Receiver = url.parse().unwrap();
        assert!(BlockingClient::new(receiver.clone(), limit).post("a/b", b"body").is_err());
        drop(hold);
        hanging.join().unwrap();
        // The listener is gone.
        assert!(BlockingClient::new(receiver, limit).post("a/b", b"body").is_err());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
