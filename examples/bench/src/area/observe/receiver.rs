//! A receiver of traces (OTLP over HTTP) in small: it accepts each request and counts the traced puts, or it
//! hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

/// The longest body that is read, in bytes.
const BODY_LEN_MAX: usize = 16 << 20;
/// The name of a span of each traced put, which occurs once in its encoding.
const SPAN: &[u8] = b"consensus.propose";

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
    /// Listens on a free port of the loopback. One that does not answer accepts connections and reads
    /// nothing.
    pub(super) fn start(answers: bool) -> Result<Receiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen for traces")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::<Counts>::default();
        let to = Arc::clone(&counts);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                match answers {
                    // A client that breaks off concerns its request alone.
                    true => drop(serve(&stream, &to)),
                    false => held.push(stream),
                }
            }
        });
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

fn serve(mut stream: &TcpStream, counts: &Counts) -> Result<()> {
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
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let puts = body.windows(SPAN.len()).filter(|window| *window == SPAN).count();
    counts.puts.fetch_add(puts as u64, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_broken_ones_are_not() {
        let receiver = Receiver::start(true).unwrap();
        let send = |text: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, receiver.port())).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        let body = "consensus.propose and consensus.propose";
        let answer = send(&format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(send("POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), "");
        assert_eq!(send("POST / HTTP/1.1\r\ncontent-le"), "");
        assert_eq!((receiver.requests(), receiver.puts()), (1, 2));
    }
}
