//! Inputs, outputs and snapshots.

use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::announcement::LEN;

/// What happens to a [`Discovery`](super::Discovery).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscoveryInput<'a> {
    /// A datagram has arrived on the port of the groups. One that is not an announcement is counted and has
    /// no effect.
    Received {
        /// The address that it came from.
        from: SocketAddr,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The neighbours that this node has on the segment: hints of these nodes are not dialled. Handed in
    /// after each change.
    Neighbours {
        /// The nodes that their SVIDs name.
        peers: &'a [NodeId],
    },
    /// A dial has led to a neighbour. The driver keeps the neighbour's keys from now on, until it hands in
    /// `Ended`.
    Reached {
        /// The address of [`DiscoveryOutput::Dial`].
        address: SocketAddr,
    },
    /// A dial has failed, or the driver has given up an address that it had reached.
    Ended {
        /// The address of [`DiscoveryOutput::Dial`].
        address: SocketAddr,
    },
    /// The time of [`Discovery::poll_timeout`](super::Discovery::poll_timeout) has come.
    Timeout,
}

/// What a driver does for a [`Discovery`](super::Discovery).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscoveryOutput {
    /// Send an announcement to the groups. It may be lost.
    Announce {
        /// The bytes.
        bytes: [u8; LEN],
    },
    /// Dial an address, and report the outcome by [`DiscoveryInput::Reached`] or [`DiscoveryInput::Ended`].
    Dial {
        /// The address.
        address: SocketAddr,
    },
}

/// What is known of a hint at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hint {
    /// Where the link of the node is said to be.
    pub address: SocketAddr,
    /// The node that is said to be there.
    pub node: NodeId,
    /// What is done about it.
    pub state: HintState,
    /// Failed dials in a row.
    pub failures: u32,
    /// When it expires unless it is announced again, in the time of the engine.
    pub expires: Duration,
}

/// What is done about a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HintState {
    /// The address waits for its next dial.
    Waiting,
    /// The address is being dialled.
    Dialling,
    /// A dial led to a neighbour.
    Reached,
}

/// Counts of a [`Discovery`](super::Discovery) since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DiscoveryStats {
    /// Announcements that were sent.
    pub announced: u64,
    /// Announcements of other nodes of the realm that arrived.
    pub heard: u64,
    /// Announcements of another realm.
    pub foreign: u64,
    /// Datagrams that are no announcement of this version, or come from an address that no node has.
    pub malformed: u64,
    /// Announcements that were dropped, because there are too many addresses, or too many of one IP address.
    pub dropped: u64,
    /// Hints that were replaced by newer ones.
    pub replaced: u64,
    /// Dials that were begun.
    pub dials: u64,
    /// Dials that failed, and addresses that were given up.
    pub ended: u64,
}
