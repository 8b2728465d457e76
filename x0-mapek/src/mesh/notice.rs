//! The message that one end of a quarantine sends to the other.

use std::time::Duration;

use crate::codec::{DecodeError, Decoder, Encoder};

/// The sender keeps away from the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
    /// For how long.
    pub(super) lasts: Duration,
}

impl Notice {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.time(self.lasts);
        encoder.finish()
    }

    /// The notice of some bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one notice.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Notice, DecodeError> {
        let mut decoder = Decoder::new("notice", bytes)?;
        let lasts = decoder.time()?;
        decoder.finish()?;
        Ok(Notice { lasts })
    }
}
