//! Counters of links and peers.

use std::net::IpAddr;
use std::time::Duration;

/// The packets in one direction of a link, since the link was created or the programs were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DirectionCounters {
    /// Packets, as defined in the table of the module `stats`.
    pub packets: u64,
    /// Bytes, with the headers that the table of the module `stats` lists.
    pub bytes: u64,
    /// Malformed packets that the device received, or packets that it could not send.
    pub errors: u64,
    /// Packets that were dropped because a queue was full, or by a program. Packets that a card missed count
    /// as dropped, as in `/proc/net/dev`.
    pub drops: u64,
}

/// The counters of one link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LinkCounters {
    /// The link's index in its namespace. None from `/proc/net/dev`, which has only names; the indices in
    /// sysfs are those of the namespace in which it was mounted.
    pub index: Option<u32>,
    /// The link's name, at most 15 bytes.
    pub name: String,
    /// Received packets.
    pub rx: DirectionCounters,
    /// Sent packets.
    pub tx: DirectionCounters,
}

/// The counters of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCounters {
    /// The peer's address. An IPv4-mapped IPv6 address is given as IPv4.
    pub address: IpAddr,
    /// Packets received from it, of every protocol. None if the backend does not see packets.
    pub rx: Option<DirectionCounters>,
    /// Packets sent to it, of every protocol. None if the backend does not see packets.
    pub tx: Option<DirectionCounters>,
    /// TCP's measurements. None if no connection is open or the backend does not read them.
    pub tcp: Option<TcpCounters>,
}

/// TCP's measurements of one peer over the open connections. The sums decrease when a connection closes.
/// Traffic of QUIC and other UDP protocols is not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TcpCounters {
    /// The number of open connections.
    pub connections: u32,
    /// The shortest smoothed round-trip time of all connections, so that a queue that one connection fills
    /// does not look like a longer path. None before the first measurement.
    pub rtt: Option<Duration>,
    /// Retransmitted segments, over all connections.
    pub retransmits: u64,
    /// Bytes acknowledged by the peer, over all connections. Payload, no headers; the opening of a connection
    /// counts as one.
    pub bytes_acknowledged: u64,
    /// Bytes received from the peer, over all connections. Payload, no headers.
    pub bytes_received: u64,
}

impl PeerCounters {
    /// A peer without counters.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self { address, rx: None, tx: None, tcp: None }
    }
}

impl LinkCounters {
    /// A link with counters at zero.
    #[must_use]
    pub fn new(index: Option<u32>, name: impl Into<String>) -> Self {
        Self { index, name: name.into(), ..Self::default() }
    }
}
