//! The bytes of frames. See the wire format in the documentation of the [module](super).

use x0_identity::NodeId;

use super::Ecn;

/// The part in clear.
pub(super) const OUTER_LEN: usize = 8;
pub(super) const TAG_LEN: usize = 16;
pub(super) const SHORT_LEN: usize = 8;
/// Destination and source of a long datagram.
pub(super) const NODES_LEN: usize = 16;
/// What a frame adds to a short datagram.
pub(super) const OVERHEAD: usize = OUTER_LEN + SHORT_LEN + TAG_LEN;
/// What a frame adds to a flooded message.
pub(super) const FLOOD_OVERHEAD: usize = OUTER_LEN + FLOOD_LEN + TAG_LEN;
pub(super) const FLOOD_LEN: usize = 18;

/// The first byte of a frame.
pub(super) mod kind {
    pub(in crate::datagram) const CONTROL: u8 = 0x10;
    pub(in crate::datagram) const SHORT: u8 = 0x11;
    pub(in crate::datagram) const LONG: u8 = 0x12;
}

/// The first byte of the content of a control frame.
pub(super) mod control {
    pub(in crate::datagram) const PROBE: u8 = 1;
    pub(in crate::datagram) const ROUTER: u8 = 2;
    pub(in crate::datagram) const LABEL: u8 = 3;
    pub(in crate::datagram) const FLOOD: u8 = 4;
    pub(in crate::datagram) const ADDRESS: u8 = 5;
    pub(in crate::datagram) const LENGTH: u8 = 6;
    pub(in crate::datagram) const ARRIVED: u8 = 7;
}

const HAS_BOUND: u8 = 1;
const ANNOUNCES: u8 = 2;
const IS_MESSAGE: u8 = 4;
/// The position of the congestion mark, which has two bits.
const ECN_SHIFT: u8 = 3;
const ECN_MASK: u8 = 3 << ECN_SHIFT;

/// The overhead of a control frame.
pub(super) const CONTROL_OVERHEAD: usize = OUTER_LEN + TAG_LEN;

/// Whether bytes from a link begin as a frame does, of any version. Other bytes belong to the QUIC connection
/// of the neighbours.
#[must_use]
pub fn is_frame(bytes: &[u8]) -> bool {
    // RFC 9000 §17: a QUIC packet has the bit 0x40 set.
    bytes.first().is_some_and(|first| first & 0x40 == 0)
}

/// The index of the receiver's keys and the low half of the counter, `None` for bytes that are no frame of
/// this version.
pub(super) fn decode_outer(bytes: &[u8]) -> Option<(u8, u32, u32)> {
    let (outer, rest) = bytes.split_first_chunk::<OUTER_LEN>()?;
    let [first, i0, i1, i2, c0, c1, c2, c3] = *outer;
    let is_known = matches!(first, kind::CONTROL | kind::SHORT | kind::LONG) && rest.len() >= TAG_LEN;
    is_known.then(|| (first, u32::from_le_bytes([i0, i1, i2, 0]), u32::from_le_bytes([c0, c1, c2, c3])))
}

pub(super) fn encode_outer(first: u8, index: u32, counter: u32) -> [u8; OUTER_LEN] {
    let [i0, i1, i2, _] = index.to_le_bytes();
    let [c0, c1, c2, c3] = counter.to_le_bytes();
    [first, i0, i1, i2, c0, c1, c2, c3]
}

/// The header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) hop_limit: u8,
    pub(super) announces: bool,
    /// For the mesh itself.
    pub(super) is_message: bool,
    pub(super) ecn: Ecn,
    pub(super) label: u16,
    pub(super) bound: Option<u32>,
}

impl Header {
    pub(super) fn encode(self) -> [u8; SHORT_LEN] {
        let flags =
            if self.bound.is_some() { HAS_BOUND } else { 0 } | if self.announces { ANNOUNCES } else { 0 };
        let flags = flags | if self.is_message { IS_MESSAGE } else { 0 } | self.ecn.bits() << ECN_SHIFT;
        let [l0, l1] = self.label.to_le_bytes();
        let [b0, b1, b2, b3] = self.bound.unwrap_or(0).to_le_bytes();
        [self.hop_limit, flags, l0, l1, b0, b1, b2, b3]
    }

    /// The header, and what follows it.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<SHORT_LEN>()?;
        let [hop_limit, flags, l0, l1, b0, b1, b2, b3] = *header;
        let bound = u32::from_le_bytes([b0, b1, b2, b3]);
        let has_bound = flags & HAS_BOUND != 0;
        let announces = flags & ANNOUNCES != 0;
        let is_message = flags & IS_MESSAGE != 0;
        let is_known = flags & !(HAS_BOUND | ANNOUNCES | IS_MESSAGE | ECN_MASK) == 0;
        let is_valid = hop_limit != 0 && is_known && (has_bound || bound == 0);
        let ecn = Ecn::from_bits(flags >> ECN_SHIFT);
        let label = u16::from_le_bytes([l0, l1]);
        let bound = has_bound.then_some(bound);
        is_valid.then_some((Header { hop_limit, announces, is_message, ecn, label, bound }, rest))
    }
}

/// The nodes of a long datagram, destination first, and what follows.
pub(super) fn decode_nodes(bytes: &[u8]) -> Option<(NodeId, NodeId, &[u8])> {
    let (destination, rest) = bytes.split_first_chunk::<8>()?;
    let (source, rest) = rest.split_first_chunk::<8>()?;
    let node = |bytes: [u8; 8]| NodeId::new(u64::from_le_bytes(bytes));
    Some((node(*destination)?, node(*source)?, rest))
}

/// The head of a flooded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood {
    pub(super) hop_limit: u8,
    pub(super) origin: NodeId,
    pub(super) number: u64,
}

impl Flood {
    pub(super) fn encode(self) -> [u8; FLOOD_LEN] {
        let mut bytes = [0; FLOOD_LEN];
        bytes[0] = control::FLOOD;
        bytes[1] = self.hop_limit;
        bytes[2..10].copy_from_slice(&self.origin.get().to_le_bytes());
        bytes[10..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// From what follows the kind.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Flood, &[u8])> {
        let ([hop_limit], rest) = bytes.split_first_chunk::<1>()?;
        let (origin, rest) = rest.split_first_chunk::<8>()?;
        let (number, payload) = rest.split_first_chunk::<8>()?;
        let origin = NodeId::new(u64::from_le_bytes(*origin))?;
        let flood = Flood { hop_limit: *hop_limit, origin, number: u64::from_le_bytes(*number) };
        (*hop_limit != 0).then_some((flood, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_have_one_encoding() {
        let header = Header {
            hop_limit: 64,
            announces: false,
            is_message: true,
            ecn: Ecn::Ect0,
            label: 0x0102,
            bound: Some(0x0304_0506),
        };
        assert_eq!(Header::decode(&header.encode()), Some((header, &[][..])));
        for position in 0..SHORT_LEN {
            for byte in 0..=255 {
                let mut bytes = header.encode();
                bytes[position] = byte;
                if let Some((header, _)) = Header::decode(&bytes) {
                    assert_eq!(header.encode(), bytes);
                }
            }
        }
        for invalid in [[0, 1, 0, 0, 0, 0, 0, 0], [1, 32, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]] {
            assert_eq!(Header::decode(&invalid), None);
        }
        assert_eq!(Header::decode(&[1; 7]), None);
        let nodes = [[1, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
        assert_eq!(decode_nodes(&nodes), None);
        assert_eq!(decode_nodes(&nodes[1..]), None);
    }

    #[test]
    fn floods_survive() {
        let flood = Flood { hop_limit: 3, origin: NodeId::new(9).unwrap(), number: u64::MAX };
        let mut bytes = flood.encode().to_vec();
        bytes.extend_from_slice(b"all");
        assert_eq!(bytes[0], control::FLOOD);
        assert_eq!(Flood::decode(&bytes[1..]), Some((flood, &b"all"[..])));
        bytes[1] = 0;
        assert_eq!(Flood::decode(&bytes[1..]), None);
        assert_eq!(Flood::decode(&bytes[1..17]), None);
    }

    /// QUIC packets and frames share a link.
    #[test]
    fn no_quic_packet_begins_as_a_frame() {
        for first in 0..=255_u8 {
            let is_quic = first & 0x40 != 0;
            assert_eq!(is_frame(&[first]), !is_quic);
            let mut bytes = [0; OUTER_LEN + TAG_LEN];
            bytes[0] = first;
            assert!(!is_quic || decode_outer(&bytes).is_none());
        }
        assert!(!is_frame(&[]));
        assert_eq!(decode_outer(&encode_outer(kind::LONG, 0x0a_0b0c, 7)), None);
        let frame = [&encode_outer(kind::LONG, 0x0a_0b0c, 7)[..], &[0; TAG_LEN]].concat();
        assert_eq!(decode_outer(&frame), Some((kind::LONG, 0x0a_0b0c, 7)));
    }
}
