//! The issuer's side of a connection.

use std::io::{self, Read, Write};
use std::time::Instant;

use rustls::ServerConnection;

use super::{MESSAGE_MAX, Timed};
use crate::deadline::Deadline;

/// A stream of TLS that sends what was written when it is flushed, or when nothing is left to read: the
/// answers to requests that arrive together leave together.
pub(super) struct RequestStream {
    pub(super) tls: ServerConnection,
    socket: Deadline,
}

impl RequestStream {
    /// Does the handshake.
    pub(super) fn accept(mut tls: ServerConnection, mut socket: Deadline) -> io::Result<RequestStream> {
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(RequestStream { tls, socket })
    }

    /// Sends what is left, and the end of the stream.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()
    }
}

/// With an error or a panic between two requests as well: the answers to those before it were given.
impl Drop for RequestStream {
    fn drop(&mut self) {
        // The time of the request that failed may be over.
        self.socket.by = Instant::now() + MESSAGE_MAX;
        // If the workload still takes them.
        let _ = self.flush();
    }
}

impl Timed for RequestStream {
    fn deadline(&mut self) -> &mut Deadline {
        &mut self.socket
    }
}

impl Read for RequestStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.flush()?;
            // The end of the connection is known by the next turn.
            self.tls.read_tls(&mut self.socket)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The alert, if the peer still takes it.
                let _ = self.flush();
                return Err(io::Error::other(error));
            }
        }
    }
}

impl Write for RequestStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full buffer takes nothing.
        match self.tls.writer().write(bytes)? {
            0 if !bytes.is_empty() => {
                self.flush()?;
                self.tls.writer().write(bytes)
            }
            len => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "authority"))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustls::{ClientConnection, StreamOwned};

    use super::*;
    use crate::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};

    /// A signer may take longer than a message, and fail then.
    #[test]
    fn answers_before_a_request_that_fails_late_are_sent() {
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let authority = Authority::new(trust_domain.clone(), &AuthorityOptions::default()).unwrap();
        let id = SpiffeId::for_node(&trust_domain, NodeId::new(1).unwrap());
        let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(svid, authority.bundle()).unwrap();
        let timed = |stream| Deadline { stream, by: Instant::now() + MESSAGE_MAX };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tls = ClientConnection::new(identity.client_config(), "issuer".try_into().unwrap()).unwrap();
        let mut workload = StreamOwned::new(tls, timed(stream));
        let workload = std::thread::spawn(move || {
            let mut answer = [0; 6];
            workload.read_exact(&mut answer).map(|()| answer)
        });
        let (stream, _) = listener.accept().unwrap();
        let tls = ServerConnection::new(identity.server_config()).unwrap();
        let mut issuer = RequestStream::accept(tls, timed(stream)).unwrap();
        issuer.write_all(b"answer").unwrap();
        issuer.socket.by = Instant::now();
        drop(issuer);
        assert_eq!(&workload.join().unwrap().unwrap(), b"answer");
    }
}
