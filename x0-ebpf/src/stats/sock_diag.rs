//! TCP's measurements over sock_diag (man 7 sock_diag; linux/inet_diag.h; linux/tcp.h).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

use super::counters::{PeerCounters, TcpCounters};
use super::error::ReadError;
use super::netlink::{Connection, Failure, attributes, u32_at, u64_at};

/// The maximum number of peers.
pub(super) const PEERS_MAX: usize = 65_536;
const TRIES: u32 = 8;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING: those with a peer that answers.
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `struct inet_diag_msg`.
const HEAD_LEN: usize = 72;
/// Offsets in `struct tcp_info`, to which the kernel only appends.
const RTT: usize = 68;
const TOTAL_RETRANS: usize = 100;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;

/// The peers that were read so far.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_address: HashMap<IpAddr, TcpCounters>,
    /// There were more than the maximum.
    pub(super) more: bool,
}

impl Peers {
    pub(super) fn into_sorted(self) -> Vec<PeerCounters> {
        let with = |(address, tcp)| PeerCounters { tcp: Some(tcp), ..PeerCounters::new(address) };
        let mut peers: Vec<_> = self.by_address.into_iter().map(with).collect();
        peers.sort_by_key(|peer| peer.address);
        peers
    }

    fn add(&mut self, address: IpAddr, one: &TcpCounters) {
        if self.by_address.len() >= PEERS_MAX && !self.by_address.contains_key(&address) {
            self.more = true;
            return;
        }
        let sum = self.by_address.entry(address).or_default();
        sum.connections = sum.connections.saturating_add(one.connections);
        sum.rtt = match (sum.rtt, one.rtt) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        sum.retransmits = sum.retransmits.saturating_add(one.retransmits);
        sum.bytes_acknowledged = sum.bytes_acknowledged.saturating_add(one.bytes_acknowledged);
        sum.bytes_received = sum.bytes_received.saturating_add(one.bytes_received);
    }
}

pub(super) fn peers(connection: &mut Connection) -> Result<Peers, ReadError> {
    for _ in 0..TRIES {
        let mut peers = Peers::default();
        match dump(connection, &mut peers) {
            Ok(true) => return Ok(peers),
            Err(Failure::Interrupted) => {}
            Ok(false) | Err(Failure::Malformed) => {
                return Err(ReadError::Malformed { what: "the table of connections" });
            }
            Err(Failure::Kernel(source)) => {
                return Err(ReadError::Kernel { what: "list the connections", source });
            }
        }
    }
    Err(ReadError::Unsteady { what: "the table of connections", tries: TRIES })
}

/// Returns whether everything could be read.
fn dump(connection: &mut Connection, peers: &mut Peers) -> Result<bool, Failure> {
    const ENOENT: i32 = 2;
    let mut whole = true;
    for family in [AF_INET, AF_INET6] {
        let answer = connection.exchange(
            SOCK_DIAG_BY_FAMILY,
            NLM_F_REQUEST | NLM_F_DUMP,
            &request(family),
            &mut |kind, body| {
                if kind == SOCK_DIAG_BY_FAMILY {
                    whole &= connection_of(body).map(|(address, one)| peers.add(address, &one)).is_some();
                }
            },
        );
        match answer {
            // A kernel without IPv6.
            Err(Failure::Kernel(error)) if family == AF_INET6 && error.raw_os_error() == Some(ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(whole)
}

/// `struct inet_diag_req_v2`: no address and no port, so every socket of the family.
fn request(family: u8) -> [u8; 56] {
    let mut request = [0; 56];
    request[0] = family;
    request[1] = IPPROTO_TCP;
    request[2] = 1 << (INET_DIAG_INFO - 1);
    request[4..8].copy_from_slice(&STATES.to_ne_bytes());
    request
}

/// One connection, as `struct inet_diag_msg` and its attributes describe it.
pub(super) fn connection_of(body: &[u8]) -> Option<(IpAddr, TcpCounters)> {
    let far = body.get(24..40)?.first_chunk::<16>()?;
    let address = match *body.first()? {
        AF_INET => IpAddr::V4(Ipv4Addr::new(far[0], far[1], far[2], far[3])),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*far)).to_canonical(),
        _ => return None,
    };
    let mut one = TcpCounters { connections: 1, ..TcpCounters::default() };
    for attribute in attributes(body.get(HEAD_LEN..)?) {
        if let (INET_DIAG_INFO, info) = attribute? {
            // Zero until the handshake is measured.
            let rtt = u32_at(info, RTT)?;
            one.rtt = (rtt != 0).then(|| Duration::from_micros(rtt.into()));
            one.retransmits = u32_at(info, TOTAL_RETRANS)?.into();
            one.bytes_acknowledged = u64_at(info, BYTES_ACKED)?;
            one.bytes_received = u64_at(info, BYTES_RECEIVED)?;
        }
    }
    Some((address, one))
}
