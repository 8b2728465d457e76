//! What two nodes tell each other first.

use crate::Violation;

pub(super) const VERSION: u8 = 1;
/// Before the length that is in it.
pub(super) const HEAD_LEN: usize = 4;
const BODY_LEN: usize = 24;
const BODY_LEN_MAX: usize = 1024;

/// The kind that a stream begins with.
pub(super) mod kind {
    pub(in crate::quic) const CONTROL: u8 = 0;
    pub(in crate::quic) const ORDERED: u8 = 1;
    pub(in crate::quic) const BULK: u8 = 2;
}

/// See the wire format in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handshake {
    /// Drawn anew whenever a transport is made, so that a peer that began anew is told from one that dials twice.
    pub(super) instance: u64,
    /// The other side's instance as far as the sender knows it, or 0.
    pub(super) heard_instance: u64,
    /// From the node that decides: the number of this connection. From the other: the last it was told.
    pub(super) sequence: u64,
}

impl Handshake {
    pub(super) fn encode(&self) -> [u8; HEAD_LEN + BODY_LEN] {
        let mut bytes = [0; HEAD_LEN + BODY_LEN];
        bytes[0] = kind::CONTROL;
        bytes[1] = VERSION;
        bytes[2] = 24;
        bytes[4..12].copy_from_slice(&self.instance.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.heard_instance.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// How long the body is. A later version may have a longer one.
    pub(super) fn body_len(head: [u8; HEAD_LEN]) -> Result<usize, Violation> {
        let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
        if head[0] != kind::CONTROL || head[1] < VERSION || !(BODY_LEN..=BODY_LEN_MAX).contains(&len) {
            return Err(Violation::Handshake);
        }
        Ok(len)
    }

    pub(super) fn decode(body: &[u8]) -> Result<Handshake, Violation> {
        let number = |at: usize| {
            let bytes = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or(Violation::Handshake)
        };
        Ok(Handshake { instance: number(0)?, heard_instance: number(8)?, sequence: number(16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_read_as_it_was_written() {
        let handshake = Handshake { instance: 1, heard_instance: u64::MAX, sequence: 1 << 40 };
        let bytes = handshake.encode();
        let head = [bytes[0], bytes[1], bytes[2], bytes[3]];
        assert_eq!(Handshake::body_len(head), Ok(bytes.len() - HEAD_LEN));
        assert_eq!(Handshake::decode(&bytes[HEAD_LEN..]), Ok(handshake));
    }

    #[test]
    fn damaged_heads_are_refused() {
        for head in [[1, 1, 24, 0], [0, 0, 24, 0], [0, 1, 23, 0], [0, 1, 1, 4], [0, 1, 255, 255]] {
            assert_eq!(Handshake::body_len(head), Err(Violation::Handshake), "{head:?}");
        }
        // Of a later version.
        assert_eq!(Handshake::body_len([0, 2, 0, 4]), Ok(1024));
        assert_eq!(Handshake::decode(&[0; 23]), Err(Violation::Handshake));
    }
}
