//! Ethernet addresses, and the bytes of an Ethernet frame.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Local experimental EtherType 1 (IEEE 802, clause 9.2.4).
pub(super) const ETHER_TYPE: u16 = 0x88b5;
/// Two addresses and the EtherType.
const ETHERNET_LEN: usize = 14;
/// The part of the MTU that a frame of the link uses itself: version and length.
pub(super) const OVERHEAD: usize = 3;
pub(super) const HEADER_LEN: usize = ETHERNET_LEN + OVERHEAD;
const VERSION: u8 = 1;
/// `fe80::/64` (RFC 4291 §2.5.6).
const LINK_LOCAL: u64 = 0xfe80 << 48;

/// The address of an Ethernet interface. Its text has six pairs of hexadecimal digits: `02:00:00:12:34:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

/// A text is no address of an Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error(
    "{text:?} is no address of an interface: write six pairs of hexadecimal digits, such as 02:00:00:12:34:56, \
         the first of them even"
)]
pub struct MacAddressError {
    /// The text.
    pub text: String,
}

impl MacAddress {
    /// An address of one interface; `None` for a group of interfaces, and for the address zero.
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Option<MacAddress> {
        // IEEE 802, clause 8.2.2: the lowest bit of the first byte marks a group.
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(MacAddress(bytes))
    }

    /// The bytes of the address, in the order of the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The socket address that stands for it (RFC 4291 appendix A).
    pub(super) fn address(self) -> SocketAddr {
        let [a, b, c, d, e, f] = self.0;
        let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        let ip = Ipv6Addr::from_bits(u128::from(LINK_LOCAL) << 64 | u128::from(id));
        SocketAddr::from((ip, ETHER_TYPE))
    }

    /// The Ethernet address that a socket address stands for, `None` for any other address.
    pub(super) fn at(address: SocketAddr) -> Option<MacAddress> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        let [a, b, c, 0xff, 0xfe, d, e, f] = *ip.octets().last_chunk::<8>()? else { return None };
        let mac = MacAddress::new([a ^ 2, b, c, d, e, f])?;
        (mac.address().ip() == ip && address.port() == ETHER_TYPE).then_some(mac)
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<MacAddress, MacAddressError> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        let is_valid = bytes.iter_mut().all(|byte| {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'));
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).map(|value| *byte = value).is_some()
        });
        let address = MacAddress::new(bytes).filter(|_| is_valid && pairs.next().is_none());
        address.ok_or_else(|| MacAddressError { text: text.to_owned() })
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The header of a frame of this length; `None` if no header can hold the length.
pub(super) fn encode_header(to: MacAddress, from: MacAddress, len: usize) -> Option<[u8; HEADER_LEN]> {
    let len = u16::try_from(len).ok().filter(|len| *len > 0)?;
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    header[14] = VERSION;
    header[15..].copy_from_slice(&len.to_le_bytes());
    Some(header)
}

/// The sender and the content of a frame to this interface, `None` for all other bytes.
pub(super) fn decode(bytes: &[u8], local: MacAddress) -> Option<(MacAddress, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, e0, e1, version, l0, l1] = *header;
    let from = MacAddress::new([f0, f1, f2, f3, f4, f5])?;
    let is_valid = [t0, t1, t2, t3, t4, t5] == local.0
        && u16::from_be_bytes([e0, e1]) == ETHER_TYPE
        && version == VERSION;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let content = rest.get(..len).filter(|content| is_valid && !content.is_empty())?;
    Some((from, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(text: &str) -> MacAddress {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_mapped_both_ways() {
        for text in ["02:00:00:12:34:56", "00:1b:21:ff:fe:00", "fe:ff:ff:ff:ff:ff"] {
            let mac = mac(text);
            assert_eq!(mac.to_string(), text);
            assert_eq!(MacAddress::at(mac.address()), Some(mac));
            assert_eq!(MacAddress::new(mac.bytes()), Some(mac));
        }
        for other in
            ["192.0.2.1:34997", "[fe80::1]:34997", "[fe80::ff:fe12:3456]:1", "[fe81::ff:fe12:3456]:34997"]
        {
            assert_eq!(MacAddress::at(other.parse().unwrap()), None, "{other}");
        }
        for wrong in [
            "",
            "02:00:00:12:34",
            "02:00:00:12:34:56:78",
            "2:0:0:12:34:56",
            "+2:00:00:12:34:56",
            "03:00:00:12:34:56",
            "00:00:00:00:00:00",
            "02-00-00-12-34-56",
        ] {
            assert_eq!(wrong.parse::<MacAddress>().unwrap_err().text, wrong);
        }
    }

    #[test]
    fn frames_survive_and_each_rule_is_kept() {
        let (one, two) = (mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02"));
        let mut bytes = encode_header(two, one, 5).unwrap().to_vec();
        bytes.extend_from_slice(b"frame");
        assert_eq!(bytes, include_bytes!("../../../tests/data/ethernet_v1.bin"));
        assert_eq!(decode(&bytes, two), Some((one, &b"frame"[..])));
        // To another interface.
        assert_eq!(decode(&bytes, one), None);
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len], two), None, "{len} bytes");
        }
        for position in [0, 12, 13, 14, 15, 16] {
            let mut changed = bytes.clone();
            changed[position] ^= 0x40;
            assert_eq!(decode(&changed, two), None, "byte {position}");
        }
        // A frame of a group, and one without content.
        let mut changed = bytes.clone();
        changed[6] |= 1;
        assert_eq!(decode(&changed, two), None);
        changed.clone_from(&bytes);
        changed[15] = 0;
        assert_eq!(decode(&changed, two), None);
        // A network card pads to 60 bytes.
        bytes.resize(60, 0);
        assert_eq!(decode(&bytes, two), Some((one, &b"frame"[..])));
        assert_eq!(encode_header(two, one, 0), None);
        assert_eq!(encode_header(two, one, 65_536), None);
    }
}
