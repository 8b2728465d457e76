//! The issuer's side of a connection.

use std::io::{self, Read, Write};

use rustls::ServerConnection;

use super::Timed;
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
