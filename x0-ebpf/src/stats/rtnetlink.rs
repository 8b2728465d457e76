//! The kernel's link counters over rtnetlink.

use netlink_packet_core::{Emitable, NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, ParseableParametrized};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};

use super::LinkStats;
use super::backend::{Backend, BackendKind, PassedOver, Refusal};
use super::counters::{DirectionCounters, LinkCounters, PeerCounters};
use super::error::ReadError;
use super::netlink::{Connection, Failure, u32_at};
use super::sock_diag::{self, PEERS_MAX};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const HEAD_LEN: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS64: u16 = 23;
/// The maximum number of reads of a table that changes during each of them.
const TRIES: u32 = 8;

/// The links' counters over rtnetlink (`IFLA_STATS64`), the peers' over sock_diag (`INET_DIAG_INFO`). Needs
/// no capability.
pub struct Rtnetlink {
    backend: Backend,
    route: Connection,
    diag: Connection,
}

impl std::fmt::Debug for Rtnetlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtnetlink").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Rtnetlink {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses the socket (a seccomp filter may forbid the family), or its answer cannot be
    /// parsed.
    pub fn open(passed_over: &[PassedOver]) -> Result<Self, Refusal> {
        let route = Connection::open(NETLINK_ROUTE)
            .map_err(|error| Refusal::kernel("open a rtnetlink socket", &error))?;
        let diag = Connection::open(NETLINK_SOCK_DIAG)
            .map_err(|error| Refusal::kernel("open a sock_diag socket", &error))?;
        let mut stats = Self { backend: Backend::new(BackendKind::Rtnetlink, passed_over), route, diag };
        // A first read, so that a source that cannot be read is skipped.
        match stats.links(&mut Vec::new()) {
            Ok(()) | Err(ReadError::Unsteady { .. }) => Ok(stats),
            Err(ReadError::Kernel { what, source }) => Err(Refusal::kernel(what, &source)),
            Err(_) => Err(Refusal::Malformed { what: "the table of links" }),
        }
    }
}

impl LinkStats for Rtnetlink {
    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn links(&mut self, into: &mut Vec<LinkCounters>) -> Result<(), ReadError> {
        let mut request = vec![0; LinkMessage::default().buffer_len()];
        LinkMessage::default().emit(&mut request);
        for _ in 0..TRIES {
            into.clear();
            let mut whole = true;
            let answer =
                self.route.exchange(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &request, &mut |kind, body| {
                    if kind == RTM_NEWLINK {
                        whole &= link(body).map(|link| into.push(link)).is_some();
                    }
                });
            match answer {
                Ok(()) if whole => return Ok(()),
                Err(Failure::Interrupted) => {}
                Ok(()) | Err(Failure::Malformed) => {
                    into.clear();
                    return Err(ReadError::Malformed { what: "the table of links" });
                }
                Err(Failure::Kernel(source)) => {
                    into.clear();
                    return Err(ReadError::Kernel { what: "list the links", source });
                }
            }
        }
        into.clear();
        Err(ReadError::Unsteady { what: "the table of links", tries: TRIES })
    }

    fn peers(&mut self, into: &mut Vec<PeerCounters>) -> Result<(), ReadError> {
        into.clear();
        let peers = sock_diag::peers(&mut self.diag)?;
        let more = peers.more;
        into.extend(peers.into_sorted());
        if more { Err(ReadError::TooMany { what: "peers", limit: PEERS_MAX }) } else { Ok(()) }
    }
}

/// A link in a message of rtnetlink. Only the two needed attributes are decoded, so that an attribute of a
/// newer kernel that the decoder does not know does no harm.
pub(super) fn link(body: &[u8]) -> Option<LinkCounters> {
    let index = u32_at(body, 4)?;
    let mut counters = LinkCounters::new(Some(index), "");
    let mut counted = false;
    for attribute in super::netlink::attributes(body.get(HEAD_LEN..)?) {
        let (kind, value) = attribute?;
        // Decoded again from the whole attribute, header included.
        if kind != IFLA_IFNAME && kind != IFLA_STATS64 {
            continue;
        }
        let mut whole = Vec::with_capacity(4 + value.len());
        whole.extend_from_slice(&u16::try_from(4 + value.len()).ok()?.to_ne_bytes());
        whole.extend_from_slice(&kind.to_ne_bytes());
        whole.extend_from_slice(value);
        let nla = NlaBuffer::new_checked(whole.as_slice()).ok()?;
        match LinkAttribute::parse_with_param(&nla, AddressFamily::Unspec) {
            Ok(LinkAttribute::IfName(name)) => counters.name = name,
            Ok(LinkAttribute::Stats64(stats)) => {
                counted = true;
                (counters.rx, counters.tx) = directions(&stats);
            }
            _ => return None,
        }
    }
    (counted && !counters.name.is_empty()).then_some(counters)
}

/// Packets that a card missed because its queue was full count as dropped, as in `/proc/net/dev`
/// (net/core/net-procfs.c).
fn directions(stats: &Stats64) -> (DirectionCounters, DirectionCounters) {
    let rx = DirectionCounters {
        packets: stats.rx_packets,
        bytes: stats.rx_bytes,
        errors: stats.rx_errors,
        drops: stats.rx_dropped.saturating_add(stats.rx_missed_errors),
    };
    let tx = DirectionCounters {
        packets: stats.tx_packets,
        bytes: stats.tx_bytes,
        errors: stats.tx_errors,
        drops: stats.tx_dropped,
    };
    (rx, tx)
}
