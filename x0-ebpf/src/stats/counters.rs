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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCounters {
    /// The peer's address. An IPv4 address mapped into IPv6 is given as IPv4.
    pub address: IpAddr,
    /// What came from it, of every protocol. None where the backend does not see packets.
    pub rx: Option<DirectionCounters>,
    /// What went to it, of every protocol. None where the backend does not see packets.
    pub tx: Option<DirectionCounters>,
    /// What TCP has measured. None where no connection is open, or the backend does not ask.
    pub tcp: Option<TcpCounters>,
}

/// What TCP has measured to one peer, over the connections that are open now: those of a closed connection are gone, so the
/// sums may fall. The traffic of QUIC and other UDP is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TcpCounters {
    /// How many connections the numbers are of.
    pub connections: u32,
    /// The smoothed round-trip time of that connection which has the shortest, so that a queue filled by one connection
    /// does not look like a longer way. None before the first measurement.
    pub rtt: Option<Duration>,
    /// Segments sent again, over all connections.
    pub retransmits: u64,
    /// Bytes acknowledged by the peer, over all connections. Payload, no headers; the opening of a connection counts as one.
    pub bytes_acknowledged: u64,
    /// Bytes received from the peer, over all connections. Payload, no headers.
    pub bytes_received: u64,
}

impl PeerCounters {
    /// A peer of which nothing is known yet.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self { address, rx: None, tx: None, tcp: None }
    }
}

impl LinkCounters {
    /// A link of which nothing is counted yet.
    #[must_use]
    pub fn new(index: Option<u32>, name: impl Into<String>) -> Self {
        Self { index, name: name.into(), ..Self::default() }
    }
}
