//! What is counted.

use std::net::IpAddr;
use std::time::Duration;

/// What went one way through a link, since the link was made or the programs were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DirectionCounters {
    /// Packets. See the module's table for what is one.
    pub packets: u64,
    /// Bytes. See the module's table for which headers are in it.
    pub bytes: u64,
    /// Packets the device found broken (received) or could not send.
    pub errors: u64,
    /// Packets thrown away for want of room, or by a program. What a card missed counts as dropped, as in
    /// `/proc/net/dev`.
    pub drops: u64,
}

/// The counters of one link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LinkCounters {
    /// The link's index in its namespace. None from `/proc/net/dev`, which has names only: sysfs has indices, but of the
    /// namespace of whoever mounted it.
    pub index: Option<u32>,
    /// The link's name, at most 15 bytes.
    pub name: String,
    /// What came in.
    pub rx: DirectionCounters,
    /// What went out.
    pub tx: DirectionCounters,
}

/// What is known of one peer.
///
/// The rtnetlink backend asks sock_diag, so it knows the TCP connections that are open now: its numbers are of those, and
/// those of a closed connection are gone. The traffic of QUIC and other UDP is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCounters {
    /// The peer's address. An IPv4 address mapped into IPv6 is given as IPv4.
    pub address: IpAddr,
    /// How many connections the numbers are of.
    pub connections: u32,
    /// The smoothed round-trip time of that connection which has the shortest, so that a queue filled by one connection
    /// does not look like a longer way. None before the first measurement.
    pub rtt: Option<Duration>,
    /// Segments sent again, over all connections.
    pub retransmits: u64,
    /// Bytes acknowledged by the peer, over all connections. Payload, no headers.
    pub bytes_acknowledged: u64,
    /// Bytes received from the peer, over all connections. Payload, no headers.
    pub bytes_received: u64,
}

impl PeerCounters {
    /// A peer of which nothing is known yet.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self { address, connections: 0, rtt: None, retransmits: 0, bytes_acknowledged: 0, bytes_received: 0 }
    }
}

impl LinkCounters {
    /// A link of which nothing is counted yet.
    #[must_use]
    pub fn new(index: Option<u32>, name: impl Into<String>) -> Self {
        Self { index, name: name.into(), ..Self::default() }
    }
}
