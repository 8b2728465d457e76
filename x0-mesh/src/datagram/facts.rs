//! What is known of links and paths, as snapshots.

use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::PortId;
use crate::liveness::{LivenessReason, LivenessState};
use crate::router::{LinkCost, LinkId, Route, RouteKind};

/// A link at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LinkFacts {
    /// The link.
    pub link: LinkId,
    /// The port of the link.
    pub port: PortId,
    /// The neighbour.
    pub peer: NodeId,
    /// The number of the link among those to the neighbour on the port: 0, unless the neighbour was reached
    /// at several addresses.
    pub number: u8,
    /// Where the neighbour is.
    pub address: SocketAddr,
    /// Where the neighbour sees this node, once it has said so.
    pub seen_as: Option<SocketAddr>,
    /// Whether it works.
    pub state: LivenessState,
    /// Why the state is that; `None` before the first change.
    pub reason: Option<LivenessReason>,
    /// The smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// The share of the neighbour's probes that arrive, once there were enough.
    pub receive_ratio: Option<f64>,
    /// The same in the other direction.
    pub send_ratio: Option<f64>,
    /// The pause between two probes of this end while there is no traffic.
    pub keep_alive: Duration,
    /// What the router takes it for.
    pub cost: LinkCost,
    /// The longest datagram, in bytes.
    pub mtu: usize,
    /// Frames that were sent, and their bytes.
    pub sent_frames: u64,
    /// In bytes, headers of lower layers not counted.
    pub sent_bytes: u64,
    /// Of these, bytes of probes, router messages and labels.
    pub control_bytes: u64,
    /// Frames that have arrived.
    pub received_frames: u64,
    /// In bytes.
    pub received_bytes: u64,
}

/// A path at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathFacts {
    /// The destination.
    pub destination: NodeId,
    /// The neighbour that is used.
    pub next: NodeId,
    /// The link to it.
    pub link: LinkId,
    /// Why this neighbour is used.
    pub kind: RouteKind,
    /// The sum of the links' metrics.
    pub metric: u32,
    /// The price of a GB over the whole path.
    pub price: u16,
    /// The region of the destination.
    pub region: u16,
    /// The longest datagram, in bytes.
    pub mtu: usize,
    /// Other neighbours that take over at once when this one fails.
    pub backups: usize,
}

impl PathFacts {
    pub(super) fn of(route: Route) -> PathFacts {
        PathFacts {
            destination: route.destination,
            next: route.next,
            link: route.link,
            kind: route.kind,
            metric: route.distance.metric,
            price: route.price,
            region: route.region,
            mtu: usize::from(route.mtu),
            backups: route.backups,
        }
    }
}

/// Counts of a [`Datagrams`](super::Datagrams) since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DatagramStats {
    /// Datagrams of this node that were sent.
    pub sent: u64,
    /// Datagrams for this node that arrived.
    pub received: u64,
    /// Datagrams of others that were sent on.
    pub relayed: u64,
    /// Bytes of these datagrams.
    pub relayed_bytes: u64,
    /// Datagrams that were dropped: no route, or none within the bound of a detour.
    pub no_route: u64,
    /// Datagrams of others that were dropped, because this node does not relay.
    pub relay_refused: u64,
    /// Datagrams that were dropped: their hop limit was used up.
    pub hop_limit: u64,
    /// Datagrams that were dropped: longer than the next link carries.
    pub too_long: u64,
    /// Datagrams that were dropped: the neighbour has not acknowledged their label in time.
    pub unlabelled: u64,
    /// Frames of unknown keys, or forged ones, or those of another session of the router.
    pub refused: u64,
    /// Frames that arrived twice, or too late.
    pub replayed: u64,
    /// Authentic frames that break the format.
    pub malformed: u64,
    /// Times that a destination did not answer, see [`Report::NoAnswer`](crate::router::Report::NoAnswer).
    pub unanswered: u64,
    /// Flooded messages that arrived for the first time.
    pub floods: u64,
    /// Flooded messages that had arrived before.
    pub flood_duplicates: u64,
    /// Times that a flooded message was longer than a link to a neighbour carries.
    pub flood_too_long: u64,
}
