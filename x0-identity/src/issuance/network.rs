//! The drivers of issuing over the network: TLS over TCP, with threads. They decide nothing: the engines do.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use std::vec;
use std::vec::Vec;

use crate::deadline::Deadline;

mod endpoint;
mod source;
mod stream;

pub use endpoint::{IssuanceEndpoint, IssuanceEndpointOptions, Sign};
pub use source::{IssuanceSource, IssuanceSourceError, StoreKey, TpmAnswers};

/// The time for a handshake, and for each message to arrive or to be taken.
const MESSAGE_MAX: Duration = Duration::from_secs(10);

/// A stream of TLS that ends each operation by a moment.
trait Timed: Read + Write {
    fn deadline(&mut self) -> &mut Deadline;

    /// Reads a message with its length before it. The length is checked before anything is allocated.
    fn read_message(&mut self, len_max: usize) -> io::Result<Vec<u8>> {
        self.deadline().by = Instant::now() + MESSAGE_MAX;
        let mut len = [0; 4];
        self.read_exact(&mut len)?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > len_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; len];
        self.read_exact(&mut message)?;
        Ok(message)
    }

    /// Writes a message after its length. The stream may send it later: see its type.
    fn write_message(&mut self, message: &[u8]) -> io::Result<()> {
        self.deadline().by = Instant::now() + MESSAGE_MAX;
        let len = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.write_all(&[&len.to_be_bytes(), message].concat())
    }
}

impl Timed for rustls::StreamOwned<rustls::ClientConnection, Deadline> {
    fn deadline(&mut self) -> &mut Deadline {
        &mut self.sock
    }
}
