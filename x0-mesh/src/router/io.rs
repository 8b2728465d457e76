//! Inputs, outputs and snapshots of a router.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::{Distance, LinkCost, LinkId};

/// What happens to a router.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// A link is usable in both directions and leads to this neighbour, whose identity was verified; or the
    /// cost of a link that is up has changed, or a degraded link has recovered.
    LinkUp {
        /// The link.
        link: LinkId,
        /// The neighbour.
        peer: NodeId,
        /// The cost of sending over it.
        cost: LinkCost,
    },
    /// A link loses frames or answers late. It stays in use, at eight times its metric, until another route
    /// is known: make before break.
    LinkDegraded {
        /// The link.
        link: LinkId,
    },
    /// The cost of a link has changed; a degraded link remains degraded.
    LinkCost {
        /// The link.
        link: LinkId,
        /// The cost of sending over it.
        cost: LinkCost,
    },
    /// A link is not usable. No message of it is taken any more.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A message of the neighbour's router.
    Message {
        /// The link on which it arrived.
        link: LinkId,
        /// Its bytes.
        message: &'a [u8],
    },
    /// The time of [`Router::poll_timeout`](super::Router::poll_timeout) has come.
    Timeout,
}

/// What a driver does for a router.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a message to the router of a neighbour. It may be lost, repeated or overtaken.
    Send {
        /// The link.
        link: LinkId,
        /// The neighbour at its other end.
        peer: NodeId,
        /// The bytes.
        message: Vec<u8>,
    },
    /// The route to a destination has changed. [`Router::route`](super::Router::route) has it.
    RouteChanged {
        /// The destination.
        destination: NodeId,
        /// The neighbour that is used from now on, if any.
        next: Option<NodeId>,
    },
    /// Something that an operator or a healing policy should know.
    Report(Report),
}

/// A finding about the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Report {
    /// A neighbour relays a route to this node with a sequence number that this node never used: some member
    /// forges routes, and traffic to this node may vanish there. This node outbids the number if it can.
    #[error(
        "{neighbour} relays sequence number {seqno} of this node, which is at {own}: a member forges routes to this node"
    )]
    ForgedSeqno {
        /// The neighbour, which may be honest.
        neighbour: NodeId,
        /// The sequence number.
        seqno: u32,
        /// The sequence number of this node at that time.
        own: u32,
    },
    /// Nothing has arrived from a destination while datagrams were sent to it over a relay whose link is up:
    /// a member on the way drops them, such as one that advertises false metrics, or the destination does not
    /// answer. Detected by [`datagram`](crate::datagram), once until something arrives or the next hop
    /// changes. A source is what neighbours state: a member that also forges datagrams of the destination is
    /// not detected.
    #[error(
        "nothing has arrived from {destination} for {} ms while datagrams were sent to it over {next}: a node on the way drops them, or it does not answer; check both",
        silence.as_millis()
    )]
    NoAnswer {
        /// The destination.
        destination: NodeId,
        /// The next hop.
        next: NodeId,
        /// The time since the first of the datagrams.
        silence: Duration,
    },
    /// A neighbour answers at more addresses on one port than this node has numbers for links to it: the
    /// address is not used. Detected by [`mesh`](crate::mesh), at each dial. Its findings have only the last
    /// one of several such addresses of a neighbour.
    #[error(
        "{address} of {neighbour} is not used: links to its other addresses on the port have all numbers; if they are configured, configure fewer"
    )]
    AddressUnused {
        /// The neighbour.
        neighbour: NodeId,
        /// The address.
        address: SocketAddr,
    },
    /// A destination was ignored because the table is full. Reported once for each neighbour and session.
    #[error(
        "{destination} is ignored: the table holds {destinations_max} destinations; raise `destinations_max`"
    )]
    TableFull {
        /// The destination.
        destination: NodeId,
        /// The limit.
        destinations_max: usize,
    },
}

/// Why a route is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteKind {
    /// The next hop satisfies the feasibility condition: every packet may take it.
    Feasible,
    /// No next hop is feasible at the moment. Packets travel with a bound, until the destination answers with
    /// a newer sequence number.
    Detour,
}

/// The route to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The destination.
    pub destination: NodeId,
    /// The neighbour.
    pub next: NodeId,
    /// The best link to it.
    pub link: LinkId,
    /// The distance from this node.
    pub distance: Distance,
    /// The price of a GB over all links and relays of the path; saturates.
    pub price: u16,
    /// The longest datagram that passes all links of the path, in bytes; `u16::MAX` without a limit.
    pub mtu: u16,
    /// The region that the destination advertises.
    pub region: u16,
    /// Why it is used.
    pub kind: RouteKind,
    /// How many other neighbours are feasible: each takes over at once when this one fails.
    pub backups: usize,
}

/// A packet that has to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The destination.
    pub destination: NodeId,
    /// The neighbour that it came from; `None` for a packet of this node.
    pub from: Option<NodeId>,
    /// The bound that it carries. `None` until a node has put it on a detour.
    pub bound: Option<u32>,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextHop {
    /// The neighbour.
    pub peer: NodeId,
    /// The link to it.
    pub link: LinkId,
    /// The bound that the packet carries from here on.
    pub bound: Option<u32>,
    /// The price of a GB on the whole path. A service that may not use paid paths refuses a price above zero.
    pub price: u16,
    /// The longest datagram that the link carries, in bytes.
    pub mtu: u16,
}

/// A packet cannot be forwarded; it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No neighbour advertises the destination.
    #[error("no route to {destination}: wait for `RouteChanged`")]
    NoRoute {
        /// The destination.
        destination: NodeId,
    },
    /// The packet is on a detour, and no neighbour is nearer to the destination than its bound.
    #[error("no neighbour is within the bound {bound} of the detour to {destination}: the packet is dropped")]
    Bound {
        /// The destination.
        destination: NodeId,
        /// The bound of the packet.
        bound: u32,
    },
}

/// The session with a neighbour: both ends have to agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The number that this node chose.
    pub local: u32,
    /// The number that the neighbour chose.
    pub remote: u32,
}

/// Failovers by the failure of the next hop that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Failovers {
    /// No link to the next hop is usable.
    pub link_down: u64,
    /// The best link to the next hop loses frames or answers late.
    pub link_degraded: u64,
    /// The next hop has no usable way to the destination any more.
    pub withdrawn: u64,
}

/// Counts of a router since it was made, and the size of its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RouterStats {
    /// Messages that were sent.
    pub sent_messages: u64,
    /// Bytes of these messages, without the headers of the layers below.
    pub sent_bytes: u64,
    /// Entries of these messages.
    pub sent_entries: u64,
    /// Messages that were sent again, at least in part.
    pub retransmissions: u64,
    /// Messages that were refused.
    pub refused_messages: u64,
    /// Destinations that were ignored because the table was full.
    pub ignored_destinations: u64,
    /// Times that [`Report::ForgedSeqno`] was found.
    pub forged_seqnos: u64,
    /// Times that the last feasible next hop of a destination was lost.
    pub starvations: u64,
    /// Times that the next hop of a destination changed, its first and its loss among them.
    pub route_changes: u64,
    /// Failovers: changes to another next hop because the one in use failed.
    pub failovers: Failovers,
    /// Destinations that are kept, this node among them.
    pub destinations: usize,
    /// Neighbours in use.
    pub neighbours: usize,
}
