//! The bytes of messages. See the wire format in the documentation of the [module](super).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address and a port.
pub(crate) const ADDRESS_LEN: usize = 18;
pub(super) const CANDIDATES_MAX: usize = 8;

/// The bytes of an address. The scope of a link-local one is lost: it says nothing to another node.
pub(crate) fn encode_address(address: SocketAddr) -> [u8; ADDRESS_LEN] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS_LEN];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_le_bytes());
    bytes
}

/// An address; `None` without a port.
pub(crate) fn decode_address(bytes: [u8; ADDRESS_LEN]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_le_bytes(port.try_into().ok()?);
    let ip = Ipv6Addr::from(*ip);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    (port != 0).then(|| SocketAddr::new(ip, port))
}

/// The candidates of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Whether it wants an answer.
    pub(super) is_call: bool,
    /// At most 8.
    pub(super) candidates: Vec<SocketAddr>,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.candidates.len() * ADDRESS_LEN);
        bytes.push(if self.is_call { 1 } else { 2 });
        for candidate in &self.candidates {
            bytes.extend_from_slice(&encode_address(*candidate));
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let ([kind], rest) = bytes.split_first_chunk::<1>()?;
        let is_call = match kind {
            1 => true,
            2 => false,
            _ => return None,
        };
        let (addresses, rest) = rest.as_chunks::<ADDRESS_LEN>();
        if !rest.is_empty() || addresses.len() > CANDIDATES_MAX {
            return None;
        }
        let candidates: Option<Vec<SocketAddr>> =
            addresses.iter().map(|bytes| decode_address(*bytes)).collect();
        Some(Message { is_call, candidates: candidates? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Message {
        let candidates = ["192.0.2.1:7001", "[2001:db8::1]:65535"];
        Message { is_call: true, candidates: candidates.iter().map(|text| text.parse().unwrap()).collect() }
    }

    /// The bytes of version 1 do not change.
    #[test]
    fn the_recorded_message_is_read() {
        let recorded = include_bytes!("../../tests/data/candidates_v1.bin");
        assert_eq!(sample().encode(), recorded);
        assert_eq!(Message::decode(recorded), Some(sample()));
    }

    #[test]
    fn a_message_has_one_encoding_and_bounds() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..len]).is_some(), len > 0 && (len - 1) % ADDRESS_LEN == 0);
        }
        for position in 0..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[position] = byte;
                if let Some(message) = Message::decode(&changed) {
                    assert_eq!(message.encode(), changed);
                }
            }
        }
        let full =
            Message { is_call: false, candidates: alloc::vec![sample().candidates[0]; CANDIDATES_MAX] };
        assert_eq!(Message::decode(&full.encode()), Some(full.clone()));
        let more = [&full.encode()[..], &encode_address(full.candidates[0])].concat();
        assert_eq!(Message::decode(&more), None);
        assert_eq!(decode_address([7; 16 + 2]).map(|address| address.port()), Some(0x0707));
        assert_eq!(decode_address([0; ADDRESS_LEN]), None);
    }
}
