//! A receiver of traces (OTLP over HTTP) in small: it accepts each request and counts the traced puts, or it
//! fails in one of several ways.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

/// The longest body that is read, in bytes.
const BODY_LEN_MAX: usize = 16 << 20;
/// The name of a span of each traced put, which occurs once in its encoding.
const SPAN: &[u8] = b"consensus.propose";

/// The answer of a receiver to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Accepts it.
    Accept,
    /// Asks to try again later.
    Refuse,
    /// Answers bytes that are not HTTP.
    Garbage,
    /// Accepts the connection, reads nothing and answers nothing.
    Hang,
    /// Nobody listens on the port.
    Absent,
}

impl Answer {
    fn bytes(self) -> &'static [u8] {
        match self {
            Answer::Refuse => b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            Answer::Garbage => b"\x00\xffnot HTTP\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        }
    }
}

/// The receiver. Its thread ends with the process.
pub(super) struct Receiver {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    puts: AtomicU64,
}

impl Receiver {
    /// Takes a free port of the loopback.
    pub(super) fn start(answer: Answer) -> Result<Receiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen for traces")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::<Counts>::default();
        let to = Arc::clone(&counts);
        // Dropping the listener frees the port, which the system gives to nobody for a while.
        if answer != Answer::Absent {
            std::thread::spawn(move || {
                let mut held = Vec::new();
                for stream in listener.incoming().flatten() {
                    match answer {
                        Answer::Hang => held.push(stream),
                        // A client that breaks off concerns its request alone.
                        _ => drop(serve(&stream, answer, &to)),
                    }
                }
            });
        }
        Ok(Receiver { port, counts })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// The traced puts that have arrived.
    pub(super) fn puts(&self) -> u64 {
        self.counts.puts.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: &TcpStream, answer: Answer, counts: &Counts) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut len = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the request ended in its head");
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse()?;
        }
    }
    if len > BODY_LEN_MAX {
        bail!("a request of {len} bytes");
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    stream.write_all(answer.bytes())?;
    if answer != Answer::Accept {
        return Ok(());
    }
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let puts = body.windows(SPAN.len()).filter(|window| *window == SPAN).count();
    counts.puts.fetch_add(puts as u64, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(receiver: &Receiver, text: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, receiver.port())).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn requests_are_counted_and_broken_ones_are_not() {
        let receiver = Receiver::start(Answer::Accept).unwrap();
        let body = "consensus.propose and consensus.propose";
        let answer =
            send(&receiver, &format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(send(&receiver, "POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), "");
        assert_eq!(send(&receiver, "POST / HTTP/1.1\r\ncontent-le"), "");
        assert_eq!((receiver.requests(), receiver.puts()), (1, 2));
    }

    #[test]
    fn receivers_fail_as_they_are_told() {
        let request = "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        let refusing = Receiver::start(Answer::Refuse).unwrap();
        assert!(send(&refusing, request).starts_with("HTTP/1.1 503 "));
        assert!(!send(&Receiver::start(Answer::Garbage).unwrap(), request).starts_with("HTTP/"));
        let absent = Receiver::start(Answer::Absent).unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, absent.port())).is_err());
        assert_eq!(refusing.requests(), 0);
    }
}
