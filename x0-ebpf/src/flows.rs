//! The flow table: bounded; a new flow replaces the least recently used one.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::address_of;
use crate::sys::Map;

/// The key of a flow. A flow has one direction: replies are another flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub target: IpAddr,
    /// Source port; 0 if the protocol has none or it cannot be read.
    pub source_port: u16,
    /// Destination port; 0 likewise.
    pub target_port: u16,
    /// The protocol after the last IPv6 extension header, as IANA numbers it.
    pub protocol: u8,
    /// Fragments after the first have no ports and form a flow of their own.
    pub later_fragment: bool,
    /// Sent rather than received.
    pub egress: bool,
}

/// The counters of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowCounters {
    /// Packets, including dropped ones.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// When the first was seen, in nanoseconds of the monotonic clock.
    pub first_ns: u64,
    /// When the last was seen, in nanoseconds of the monotonic clock.
    pub last_ns: u64,
}

fn address(bits: u128, version: u8) -> IpAddr {
    if version == 4 {
        // The low 32 bits: the others are zero.
        let [.., a, b, c, d] = bits.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

fn flow_of(key: &[u8]) -> Option<Flow> {
    let port = |at: usize| Some(u16::from_ne_bytes(key.get(at..at + 2)?.try_into().ok()?));
    let [protocol, later_fragment, version, egress] = *key.get(36..40)? else { return None };
    Some(Flow {
        source: address(address_of(key.get(..16)?)?, version),
        target: address(address_of(key.get(16..32)?)?, version),
        source_port: port(32)?,
        target_port: port(34)?,
        protocol,
        later_fragment: later_fragment != 0,
        egress: egress != 0,
    })
}

/// Every flow in the table, summed over CPUs.
pub(crate) fn snapshot(map: &Map) -> io::Result<BTreeMap<Flow, FlowCounters>> {
    let mut flows = BTreeMap::new();
    let stride = map.stride();
    map.for_each(4096, |key, value| {
        let Some(flow) = flow_of(key) else { return };
        let mut sum = FlowCounters { first_ns: u64::MAX, ..FlowCounters::default() };
        for cpu in value.chunks_exact(stride.max(1)) {
            let word = |at: usize| {
                cpu.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
            };
            // A CPU that never saw the flow has zeros.
            if word(0) > 0 {
                sum.packets += word(0);
                sum.bytes += word(8);
                sum.first_ns = sum.first_ns.min(word(16));
                sum.last_ns = sum.last_ns.max(word(24));
            }
        }
        flows.insert(flow, sum);
    })?;
    Ok(flows)
}
