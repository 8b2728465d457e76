//! The link program in plain Rust: the reference that the eBPF program is tested against.
//!
//! Written from the RFCs and from the contract in bpf/include/packet.h, on slices: no pointer, no map, no
//! shared code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::{Peer, PeerBy};
use crate::filter::{Action, Mac, Source};
use crate::flows::Flow;

/// VLAN tags that are skipped.
const VLAN_TAGS_MAX: usize = 4;
/// IPv6 extension headers that are skipped.
const EXTENSIONS_MAX: usize = 6;

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A rule for its network.
    Rule,
    /// No rule allows it.
    Default,
    /// A rule for its hardware address.
    Mac,
}

/// The fate of a frame, and the counters that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// Why it is dropped; `None`: it passes.
    pub dropped: Option<Cause>,
    /// Malformed: passed, and no rule asked.
    pub broken: bool,
    /// The peer of the frame, when it arrives.
    pub peer: Option<Peer>,
    /// The flow it belongs to, when it arrives.
    pub flow: Option<Flow>,
}

/// The filter as the model sees it: a list.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Rules. [`Action::Limit`] passes here: a model has no clock.
    pub rules: Vec<(Source, Action)>,
    /// IPv4 that no rule covers is dropped.
    pub drop_v4: bool,
    /// IPv6 that no rule covers is dropped.
    pub drop_v6: bool,
    /// The definition of a peer.
    pub peer_by: PeerBy,
}

enum Network<'a> {
    Other,
    Broken,
    V4(&'a [u8]),
    V6(&'a [u8]),
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn network(frame: &[u8]) -> Network<'_> {
    let Some(mut kind) = short(frame, 12) else { return Network::Broken };
    let mut rest = &frame[14..];
    let mut tags = 0;
    // IEEE 802.1Q and 802.1ad.
    while kind == 0x8100 || kind == 0x88a8 {
        if tags == VLAN_TAGS_MAX || rest.len() < 4 {
            return Network::Broken;
        }
        kind = u16::from_be_bytes([rest[2], rest[3]]);
        rest = &rest[4..];
        tags += 1;
    }
    match kind {
        0x0800 if rest.len() < 20 || rest[0] >> 4 != 4 || rest[0] & 15 < 5 => Network::Broken,
        0x0800 => Network::V4(rest),
        0x86dd if rest.len() < 40 || rest[0] >> 4 != 6 => Network::Broken,
        0x86dd => Network::V6(rest),
        _ => Network::Other,
    }
}

fn v4_at(packet: &[u8], at: usize) -> IpAddr {
    packet
        .get(at..at + 4)
        .and_then(<[u8]>::first_chunk)
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |bytes: &[u8; 4]| IpAddr::V4((*bytes).into()))
}

fn v6_at(packet: &[u8], at: usize) -> IpAddr {
    packet
        .get(at..at + 16)
        .and_then(<[u8]>::first_chunk)
        .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |bytes: &[u8; 16]| IpAddr::V6((*bytes).into()))
}

/// Protocol, whether it is a later fragment, and what follows the headers.
fn transport_v4(packet: &[u8]) -> (u8, bool, &[u8]) {
    let later = short(packet, 6).is_some_and(|fragment| fragment & 0x1fff != 0);
    (packet[9], later, packet.get(usize::from(packet[0] & 15) * 4..).unwrap_or_default())
}

fn transport_v6(packet: &[u8]) -> (u8, bool, &[u8]) {
    let mut next = packet[6];
    let mut rest = &packet[40..];
    for _ in 0..EXTENSIONS_MAX {
        // RFC 8200 section 4: hop-by-hop, routing, fragment, destination; RFC 4302: authentication.
        if ![0, 43, 44, 51, 60].contains(&next) {
            break;
        }
        if rest.len() < 8 {
            return (next, false, &[]);
        }
        let len = match next {
            44 => 8,
            51 => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        let later = next == 44 && u16::from_be_bytes([rest[2], rest[3]]) & 0xfff8 != 0;
        next = rest[0];
        rest = rest.get(len..).unwrap_or_default();
        if later {
            return (next, true, rest);
        }
    }
    (next, false, rest)
}

fn ports(protocol: u8, later: bool, rest: &[u8]) -> (u16, u16) {
    // TCP, UDP, DCCP, SCTP, UDP-Lite.
    if later || ![6, 17, 33, 132, 136].contains(&protocol) || rest.len() < 4 {
        return (0, 0);
    }
    (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]))
}

impl Model {
    fn action_for(&self, address: IpAddr) -> Option<Action> {
        self.rules
            .iter()
            .filter_map(|(source, action)| match source {
                Source::Network(prefix) if prefix.contains(address) => Some((prefix.length(), *action)),
                _ => None,
            })
            .max_by_key(|(length, _)| *length)
            .map(|(_, action)| action)
    }

    fn drops_mac(&self, mac: Mac) -> bool {
        self.rules.contains(&(Source::Mac(mac), Action::Drop))
    }

    /// The fate of a frame that arrives. Any bytes will do.
    #[must_use]
    pub fn judge(&self, frame: &[u8]) -> Judgement {
        let mut judgement = Judgement { dropped: None, broken: false, peer: None, flow: None };
        let (source, target, (protocol, later_fragment, rest)) = match network(frame) {
            Network::Broken => {
                judgement.broken = true;
                return judgement;
            }
            Network::Other => (None, None, (0, false, &[][..])),
            Network::V4(packet) => (Some(v4_at(packet, 12)), Some(v4_at(packet, 16)), transport_v4(packet)),
            Network::V6(packet) => (Some(v6_at(packet, 8)), Some(v6_at(packet, 24)), transport_v6(packet)),
        };
        let mac: Mac = frame.get(6..12).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        judgement.peer = match self.peer_by {
            PeerBy::Nothing => None,
            // An IPv4-mapped IPv6 source cannot be distinguished from the IPv4 address: RFC 4291 section
            // 2.5.5.2.
            PeerBy::Address => source.map(|address| Peer::Address(address.to_canonical())),
            PeerBy::Mac => Some(Peer::Mac(mac)),
        };
        if let (Some(source), Some(target)) = (source, target) {
            let (source_port, target_port) = ports(protocol, later_fragment, rest);
            judgement.flow = Some(Flow {
                source,
                target,
                source_port,
                target_port,
                protocol,
                later_fragment,
                egress: false,
            });
        }
        judgement.dropped = if self.drops_mac(mac) {
            Some(Cause::Mac)
        } else {
            let by_default = match source {
                Some(IpAddr::V4(_)) => self.drop_v4,
                Some(IpAddr::V6(_)) => self.drop_v6,
                None => false,
            };
            match source.and_then(|address| self.action_for(address)) {
                Some(Action::Drop) => Some(Cause::Rule),
                Some(_) => None,
                None => by_default.then_some(Cause::Default),
            }
        };
        judgement
    }
}
