//! Ethernet frames with a number in them.

use std::net::Ipv4Addr;

use super::veth::VethEnd;

/// IPv4.
const ETHERTYPE: u16 = 0x0800;
const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const NUMBER_LEN: usize = 8;
/// The shortest that holds its number.
const LEN_MIN: usize = ETHERNET_LEN + IP_LEN + UDP_LEN + NUMBER_LEN;
/// The longest on a link with an MTU of 1500 bytes.
const LEN_MAX: usize = 1514;
const PROTOCOL_UDP: u8 = 17;

/// Builds a frame: Ethernet, IPv4, UDP, and a number that distinguishes it from the others.
#[derive(Debug, Clone)]
pub struct Frame {
    macs: [[u8; 6]; 2],
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    number: u64,
    len: usize,
}

impl Frame {
    /// From one end of a pair to the other, with the addresses of both, 60 bytes long, numbered zero.
    #[must_use]
    pub const fn between(from: &VethEnd, to: &VethEnd) -> Self {
        Self {
            macs: [to.mac(), from.mac()],
            addresses: [from.address(), to.address()],
            ports: [40_000, 40_001],
            number: 0,
            len: 60,
        }
    }

    /// From another address than the link's: another peer, for programs that count by peer.
    #[must_use]
    pub const fn source(mut self, address: Ipv4Addr) -> Self {
        self.addresses[0] = address;
        self
    }

    /// With a number, to be read by [`number`](Self::number_of).
    #[must_use]
    pub const fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// So many bytes from the Ethernet address to the end of the payload, within 50 to 1514.
    #[must_use]
    pub fn len(mut self, len: usize) -> Self {
        self.len = len.clamp(LEN_MIN, LEN_MAX);
        self
    }

    /// The bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let [to, from] = self.macs;
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        bytes[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        let (ip, rest) = bytes[ETHERNET_LEN..].split_at_mut(IP_LEN);
        // The length is at most 1514, by `len`.
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&short(self.len - ETHERNET_LEN));
        ip[8] = 64;
        ip[9] = PROTOCOL_UDP;
        ip[12..16].copy_from_slice(&self.addresses[0].octets());
        ip[16..20].copy_from_slice(&self.addresses[1].octets());
        let sum = checksum(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        // A UDP checksum of zero is none (RFC 768).
        rest[0..2].copy_from_slice(&self.ports[0].to_be_bytes());
        rest[2..4].copy_from_slice(&self.ports[1].to_be_bytes());
        rest[4..6].copy_from_slice(&short(self.len - ETHERNET_LEN - IP_LEN));
        rest[UDP_LEN..UDP_LEN + NUMBER_LEN].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// The number in the bytes of a frame. None if they are too few.
    #[must_use]
    pub fn number_of(bytes: &[u8]) -> Option<u64> {
        let number = bytes.get(LEN_MIN - NUMBER_LEN..LEN_MIN)?;
        number.first_chunk().map(|number| u64::from_be_bytes(*number))
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum & 0xffff).unwrap_or(0)
}
