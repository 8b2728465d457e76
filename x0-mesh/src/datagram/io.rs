//! Inputs and outputs.

use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use x0_identity::NodeId;

use super::{Batch, Ecn, FrameKeys};
use crate::liveness::{LivenessReason, LivenessState};
use crate::router::{LinkId, Report};

/// A port of this node: the driver chooses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

impl fmt::Display for PortId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "port {}", self.0)
    }
}

/// What happens to a [`Datagrams`](super::Datagrams).
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The neighbours have a mutual-TLS connection on a port, and the SVID of the peer was verified: the
    /// first keys of a link, or newer ones.
    Keyed {
        /// The port.
        port: PortId,
        /// The node that the SVID names.
        peer: NodeId,
        /// The number of the link among those to the peer on the port, less than
        /// [`Datagrams::LINK_NUMBERS`](super::Datagrams::LINK_NUMBERS): both ends hand in the same one, which
        /// the client of the connection has found with
        /// [`Datagrams::link_number`](super::Datagrams::link_number).
        number: u8,
        /// Where it is on the port.
        address: SocketAddr,
        /// The keys of that connection.
        keys: FrameKeys,
    },
    /// A link is over, because the SVID of the peer has expired or was revoked. Its keys are gone.
    Ended {
        /// The link.
        link: LinkId,
    },
    /// Bytes have arrived on a port. They are decrypted in place. A frame that is not authentic is counted
    /// and has no effect.
    Frame {
        /// The port.
        port: PortId,
        /// The address that they came from.
        from: SocketAddr,
        /// The bytes.
        frame: &'a mut [u8],
    },
    /// Frames of one neighbour have arrived on a port together, one after the other: each has `frame_len`
    /// bytes, but the last one may be shorter. The same as an [`Input::Frame`] for each, with less work.
    Frames {
        /// The port.
        port: PortId,
        /// The address that they came from.
        from: SocketAddr,
        /// The bytes.
        frames: &'a mut [u8],
        /// The length of each frame but the last, in bytes.
        frame_len: usize,
        /// Whether they have waited so long that their senders should slow down: datagrams become
        /// [`Ecn::Congested`].
        is_late: bool,
    },
    /// The longest frame of a port has changed.
    MtuChanged {
        /// The port.
        port: PortId,
        /// In bytes.
        mtu: usize,
    },
    /// A port has another address of its own: its neighbours learn it from the next frame, which is sent
    /// soon.
    AddressChanged {
        /// The port.
        port: PortId,
    },
    /// Frames wait for a port, or do no longer. Datagrams that leave over a busy port become
    /// [`Ecn::Congested`], so that their senders slow down.
    PortBusy {
        /// The port.
        port: PortId,
        /// Whether frames wait.
        is_busy: bool,
    },
    /// The time of [`Datagrams::poll_timeout`](super::Datagrams::poll_timeout) has come.
    Timeout,
}

/// What a driver does for a [`Datagrams`](super::Datagrams).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send frames to a neighbour. Each may be lost.
    Transmit {
        /// The port.
        port: PortId,
        /// The neighbour's address.
        to: SocketAddr,
        /// The frames.
        frames: Batch,
    },
    /// Datagrams have arrived for this node.
    Datagrams {
        /// The node that sent them, as the neighbours on the way have stated it. What must not be forged by
        /// a member is protected end to end, such as by QUIC.
        source: NodeId,
        /// Their congestion mark.
        ecn: Ecn,
        /// Their contents.
        payloads: Batch,
    },
    /// A message of the mesh itself has arrived for this node, such as one of
    /// [`traversal`](crate::traversal).
    Message {
        /// The node that sent it, as the neighbours on the way have stated it.
        source: NodeId,
        /// The content.
        payload: Vec<u8>,
    },
    /// A neighbour sees this node at another address than before.
    AddressSeen {
        /// The link.
        link: LinkId,
        /// The address, which the neighbour may have made up.
        address: SocketAddr,
    },
    /// A flooded message has arrived.
    Flood {
        /// The node that began it, as the neighbours have stated it.
        origin: NodeId,
        /// The content.
        payload: Vec<u8>,
    },
    /// The state of a link has changed.
    LinkChanged {
        /// The link.
        link: LinkId,
        /// The neighbour.
        peer: NodeId,
        /// Its new state.
        state: LivenessState,
        /// Why; `None` when the link has ended: by [`Input::Ended`], in favour of a new neighbour, or of
        /// another link that leads to the same address and works.
        reason: Option<LivenessReason>,
    },
    /// The route to a destination has changed.
    RouteChanged {
        /// The destination.
        destination: NodeId,
        /// The next hop, if any.
        next: Option<NodeId>,
    },
    /// The keys of a link are nearly used up: connect again for new ones. Reported once for each set of keys.
    RenewKeys {
        /// The link.
        link: LinkId,
    },
    /// Something that an operator or a healing policy should know.
    Report(Report),
}
