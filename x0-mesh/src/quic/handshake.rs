//! The first bytes on each control stream.

use crate::Violation;

pub(super) const VERSION: u8 = 1;
/// The bytes up to and including the length.
pub(super) const HEAD_LEN: usize = 4;
const BODY_LEN: usize = 24;
const BODY_LEN_MAX: usize = 1024;

/// The kind at the beginning of each stream.
pub(super) mod kind {
    pub(in crate::quic) const CONTROL: u8 = 0;
    pub(in crate::quic) const ORDERED: u8 = 1;
    pub(in crate::quic) const BULK: u8 = 2;
}

/// See the wire format in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handshake {
    /// Drawn when a transport is made: it distinguishes a peer that restarted from one that dials twice.
    pub(super) instance: u64,
    /// The receiver's instance as the sender knows it, or 0.
    pub(super) known_instance: u64,
    /// From the node that decides: the number of this connection. From the other one: the last number that it
    /// received.
    pub(super) sequence: u64,
}

impl Handshake {
    pub(super) fn encode(&self) -> [u8; HEAD_LEN + BODY_LEN] {
        let mut bytes = [0; HEAD_LEN + BODY_LEN];
        bytes[0] = kind::CONTROL;
        bytes[1] = VERSION;
        bytes[2] = 24;
        bytes[4..12].copy_from_slice(&self.instance.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.known_instance.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// The length of the body. A later version may have a longer one, of which this version reads the
    /// beginning.
    pub(super) fn body_len(head: [u8; HEAD_LEN]) -> Result<usize, Violation> {
        let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
        // A later version is read as this one: what it adds comes after the fields of this one.
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
        Ok(Handshake { instance: number(0)?, known_instance: number(8)?, sequence: number(16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_read_as_it_was_written() {
        let handshake = Handshake { instance: 1, known_instance: u64::MAX, sequence: 1 << 40 };
        let bytes = handshake.encode();
        let head = [bytes[0], bytes[1], bytes[2], bytes[3]];
        assert_eq!(Handshake::body_len(head), Ok(bytes.len() - HEAD_LEN));
        assert_eq!(Handshake::decode(&bytes[HEAD_LEN..]), Ok(handshake));
    }

    #[test]
    fn the_recorded_handshake_is_read_and_written() {
        let recorded = include_bytes!("../../tests/data/quic_handshake_v1.bin");
        let handshake = Handshake {
            instance: 0x1122_3344_5566_7788,
            known_instance: 0x99aa_bbcc_ddee_ff00,
            sequence: 42,
        };
        assert_eq!(Handshake::decode(&recorded[HEAD_LEN..]), Ok(handshake));
        assert_eq!(handshake.encode(), *recorded);
    }

    #[test]
    fn damaged_heads_are_refused() {
        for head in [[1, 1, 24, 0], [0, 0, 24, 0], [0, 1, 23, 0], [0, 1, 1, 4], [0, 1, 255, 255]] {
            assert_eq!(Handshake::body_len(head), Err(Violation::Handshake), "{head:?}");
        }
        // The message is of a later version.
        assert_eq!(Handshake::body_len([0, 2, 0, 4]), Ok(1024));
        assert_eq!(Handshake::decode(&[0; 23]), Err(Violation::Handshake));
    }
}
