//! Errors.

use x0_identity::NodeId;

use super::PortId;
use crate::router::LinkId;

/// A datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The destination is this node.
    #[error("{to} is this node: the datagram was not sent; deliver it locally")]
    ToSelf {
        /// This node.
        to: NodeId,
    },
    /// There is no route at the moment.
    #[error("no route to {to}: the datagram was not sent; wait for `RouteChanged`")]
    NoRoute {
        /// The destination.
        to: NodeId,
    },
    /// The datagram is longer than the path carries.
    #[error("a datagram of {len} bytes, where the path carries {mtu}: it was not sent; shorten it to `mtu`")]
    TooLong {
        /// The length of the datagram, in bytes.
        len: usize,
        /// The longest datagram of the path, in bytes.
        mtu: usize,
    },
}

/// An input was not taken. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// There is no such port.
    #[error("{port} does not exist: add it with `add_port` first; nothing changed")]
    UnknownPort {
        /// The port.
        port: PortId,
    },
    /// There is no such link.
    #[error("{link} does not exist, or has ended; nothing changed")]
    UnknownLink {
        /// The link.
        link: LinkId,
    },
    /// A neighbour has the id of this node.
    #[error("the neighbour on {port} is this node: check the addresses of the port; nothing changed")]
    LinkToSelf {
        /// The port.
        port: PortId,
    },
    /// A peer names a link by a number that does not exist.
    #[error(
        "{peer} names link {number}, where there are {numbers}: the peer breaks the protocol; nothing changed"
    )]
    Number {
        /// The neighbour.
        peer: NodeId,
        /// The number.
        number: u8,
        /// How many links to one neighbour a port has at most.
        numbers: u8,
    },
    /// There are as many links as the options allow.
    #[error("the link to {peer} is beyond the limit of {links_max}: raise `links_max`; the link is not used")]
    Full {
        /// The neighbour.
        peer: NodeId,
        /// The limit.
        links_max: usize,
    },
}
