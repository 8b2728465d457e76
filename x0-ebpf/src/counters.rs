//! The counters of the link program: per interface and hook, and per peer.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::AddAssign;

use crate::filter::Mac;
use crate::sys::Map;

/// Entries fetched by one system call.
const CHUNK: usize = 4096;

/// The counters of one interface at one hook. `packets` and `bytes` include dropped frames.
///
/// Bytes are those of the frame with its Ethernet header, without checksum and preamble. They exclude a VLAN
/// tag that the card removed. At TC, a super-packet of GRO or TSO counts as its segments; the bytes of a sent
/// one include the headers of every segment, those of a received one the headers once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceCounters {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of dropped frames, for any cause.
    pub dropped_bytes: u64,
    /// Dropped by a rule for their network.
    pub dropped_rule: u64,
    /// Dropped because no rule allowed them.
    pub dropped_default: u64,
    /// Dropped because they exceeded a rate.
    pub dropped_rate: u64,
    /// Dropped by a rule for their hardware address.
    pub dropped_mac: u64,
    /// Passed, but malformed: truncated, contradictory or with more than four VLAN tags, so that no rule was
    /// evaluated.
    pub broken: u64,
}

impl InterfaceCounters {
    /// Dropped frames, for any cause.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_rule + self.dropped_default + self.dropped_rate + self.dropped_mac
    }

    pub(crate) fn sum(value: &[u8], stride: usize) -> Self {
        let [packets, bytes, dropped_bytes, dropped_rule, dropped_default, dropped_rate, dropped_mac, broken] =
            sum_words(value, stride, 0);
        Self {
            packets,
            bytes,
            dropped_bytes,
            dropped_rule,
            dropped_default,
            dropped_rate,
            dropped_mac,
            broken,
        }
    }
}

/// Adds up the first `N` words at `at` of every CPU's value.
pub(crate) fn sum_words<const N: usize>(value: &[u8], stride: usize, at: usize) -> [u64; N] {
    let mut sums = [0u64; N];
    for cpu in value.chunks_exact(stride.max(1)) {
        for (sum, word) in sums.iter_mut().zip(cpu.get(at..).unwrap_or_default().chunks_exact(8)) {
            *sum = sum.wrapping_add(word.try_into().map_or(0, u64::from_ne_bytes));
        }
    }
    sums
}

/// The sender of a received frame or the receiver of a sent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// The other end's IP address.
    Address(IpAddr),
    /// The other end's hardware address.
    Mac(Mac),
}

/// The address that identifies a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerBy {
    /// Peers are not counted.
    Nothing,
    /// The IP address: the source of received packets, the destination of sent ones. Frames without IP belong
    /// to no peer.
    #[default]
    Address,
    /// The hardware address, for meshes below IP. All hosts beyond a router are then one peer.
    Mac,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Mac([a, b, c, d, e, g]) => write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
        }
    }
}

/// A peer's address as the program writes it: two numbers of the host's byte order.
pub(crate) fn address_of(key: &[u8]) -> Option<u128> {
    let word = |at: usize| Some(u64::from_ne_bytes(key.get(at..at + 8)?.try_into().ok()?));
    Some(u128::from(word(0)?) << 64 | u128::from(word(8)?))
}

impl Peer {
    pub(crate) fn from_key(by: PeerBy, key: u128) -> Self {
        if by == PeerBy::Mac {
            let [_, _, _, _, _, _, _, _, _, _, mac @ ..] = key.to_be_bytes();
            return Self::Mac(mac);
        }
        let v6 = Ipv6Addr::from_bits(key);
        Self::Address(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
    }

    /// The key in the kernel's tables.
    pub(crate) fn key(&self) -> u128 {
        match self {
            Self::Address(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
            Self::Address(IpAddr::V6(v6)) => v6.to_bits(),
            Self::Mac(mac) => crate::filter::key_mac(*mac).into(),
        }
    }
}

/// The traffic to and from a peer, on all interfaces that the program is attached to.
///
/// "Received" is what XDP or TC ingress saw, "sent" what TC egress saw. Attach only one of the first two to
/// an interface, or the peer counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTraffic {
    /// Packets received, dropped ones with them.
    pub rx_packets: u64,
    /// Their bytes, the Ethernet header with them.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received packets that the filter dropped.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

impl AddAssign for PeerTraffic {
    fn add_assign(&mut self, other: Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.dropped_packets += other.dropped_packets;
        self.dropped_bytes += other.dropped_bytes;
    }
}

impl From<[u64; 6]> for PeerTraffic {
    fn from([rx_packets, rx_bytes, tx_packets, tx_bytes, dropped_packets, dropped_bytes]: [u64; 6]) -> Self {
        Self { rx_packets, rx_bytes, tx_packets, tx_bytes, dropped_packets, dropped_bytes }
    }
}

/// The cache of bpf/link.bpf.c: four ways of `struct peer_way` and a hand.
pub(crate) const WAYS: usize = 4;
const WAY_LEN: usize = 80;

/// The tables of peers: the cache in front, and what has fallen out of it.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) table: Map,
    pub(crate) cache: Map,
    pub(crate) by: PeerBy,
}

impl Peers {
    /// Every peer, summed over CPUs.
    ///
    /// The table is read before the cache: a peer that moves from the cache to the table meanwhile is counted
    /// once, with what it had in the table before.
    pub(crate) fn snapshot(&self) -> io::Result<BTreeMap<Peer, PeerTraffic>> {
        let mut peers: Vec<(u128, PeerTraffic)> = Vec::new();
        let stride = self.table.stride();
        self.table.for_each(CHUNK, |key, value| {
            if let Some(key) = address_of(key) {
                peers.push((key, sum_words::<6>(value, stride, 0).into()));
            }
        })?;
        let stride = self.cache.stride();
        let mut torn = Vec::new();
        let mut cached = |value: &[u8], torn: Option<&mut Vec<u32>>, index: u32| {
            let mut whole = true;
            for way in value.chunks_exact(stride.max(1)).flat_map(|cpu| cpu.chunks_exact(WAY_LEN).take(WAYS))
            {
                let half = |at: usize| {
                    way.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
                };
                // begun, used, ended: see `struct peer_way`.
                if half(72) == 0 {
                    continue;
                }
                whole &= half(16) == half(76);
                if let (Some(key), true) = (address_of(way), half(16) == half(76)) {
                    peers.push((key, sum_words::<6>(way, WAY_LEN, 24).into()));
                }
            }
            if let (false, Some(torn)) = (whole, torn) {
                torn.push(index);
            }
        };
        self.cache.for_each(512, |key, value| {
            cached(value, Some(&mut torn), key.try_into().map_or(0, u32::from_ne_bytes));
        })?;
        drop(torn);
        let mut merged: BTreeMap<Peer, PeerTraffic> = BTreeMap::new();
        for (key, counters) in peers {
            *merged.entry(Peer::from_key(self.by, key)).or_default() += counters;
        }
        Ok(merged)
    }
}
