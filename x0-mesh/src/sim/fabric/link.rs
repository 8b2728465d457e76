//! Links of a fabric: delay, loss, bandwidth and a queue.

use std::time::Duration;

use x0_identity::NodeId;

use super::detection::Detector;
use crate::random::SplitMix64;
use crate::router::{LinkCost, falsify};
use crate::sim::LinkProfile;

/// A link of a [`Fabric`](super::Fabric), alike in both directions.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FabricLink {
    /// Delay, loss, duplication and disorder. A local network unless set.
    pub profile: LinkProfile,
    /// The cost that both routers see. A metric of 256 unless set.
    pub cost: LinkCost,
    /// In bytes per second. Unlimited unless set.
    pub bandwidth: Option<u64>,
    /// How many bytes may wait for a link of limited bandwidth; what exceeds it is lost. 64 KiB unless set.
    pub queue_len_max: u64,
}

impl Default for FabricLink {
    fn default() -> FabricLink {
        FabricLink {
            profile: LinkProfile::default(),
            cost: LinkCost::new(256),
            bandwidth: None,
            queue_len_max: 64 << 10,
        }
    }
}

impl FabricLink {
    /// Sets [`FabricLink::profile`].
    #[must_use]
    pub fn profile(mut self, profile: LinkProfile) -> FabricLink {
        self.profile = profile;
        self
    }

    /// Sets [`FabricLink::cost`].
    #[must_use]
    pub fn cost(mut self, cost: LinkCost) -> FabricLink {
        self.cost = cost;
        self
    }

    /// Sets [`FabricLink::bandwidth`] and [`FabricLink::queue_len_max`].
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64, queue_len_max: u64) -> FabricLink {
        self.bandwidth = Some(bytes_per_second);
        self.queue_len_max = queue_len_max;
        self
    }
}

/// A NAT in front of a node, on all of its links. Needs
/// [`FabricOptions::liveness`](super::FabricOptions::liveness): the probes of the detection open and keep its
/// mappings, one for each link.
///
/// A frame from outside passes within [`Nat::lifetime`] after the last frame that the node itself sent over
/// the link. The node at the other end answers to where a frame came from, as [`datagram`](crate::datagram)
/// does: a mapping with another port works as soon as the node has sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nat {
    /// For how long a mapping works after the last frame from inside.
    pub lifetime: Duration,
    /// Whether the NAT chooses another port for each destination. A link between two such NATs carries
    /// nothing: neither end knows where to send its first frame.
    pub is_hard: bool,
}

impl Nat {
    /// A NAT that keeps the port of a node for all destinations, and a mapping for so long.
    #[must_use]
    pub const fn easy(lifetime: Duration) -> Nat {
        Nat { lifetime, is_hard: false }
    }

    /// A NAT that chooses another port for each destination, and keeps a mapping for so long.
    #[must_use]
    pub const fn hard(lifetime: Duration) -> Nat {
        Nat { lifetime, is_hard: true }
    }
}

/// How a node falsifies the messages of its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgery {
    /// The member advertises every destination with the metric 1, the smallest that is not refused.
    Metric,
    /// The member advertises every destination with a sequence number that is higher by this.
    Seqno(u32),
    /// Both.
    MetricAndSeqno(u32),
}

impl Forgery {
    pub(super) fn apply(self, message: &[u8]) -> Vec<u8> {
        falsify(message, |distance| {
            if distance.metric == 0 {
                return;
            }
            if let Forgery::Metric | Forgery::MetricAndSeqno(_) = self {
                distance.metric = 1;
            }
            if let Forgery::Seqno(ahead) | Forgery::MetricAndSeqno(ahead) = self {
                distance.seqno = distance.seqno.saturating_add(ahead);
            }
        })
    }
}

#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) ends: [NodeId; 2],
    pub(super) link: FabricLink,
    /// Nothing passes from this end.
    pub(super) is_cut: [bool; 2],
    /// What this end was notified of.
    pub(super) is_up: [bool; 2],
    pub(super) changes: u32,
    pub(super) detectors: [Option<Box<Detector>>; 2],
    /// In front of each end.
    pub(super) nats: [Option<Nat>; 2],
    /// When each end sent its last frame through its mapping; `None` without one.
    mapped_at: [Option<Duration>; 2],
    /// When this end has sent all that waits.
    busy_until: [Duration; 2],
}

impl LinkState {
    pub(super) fn new(ends: [NodeId; 2], link: FabricLink) -> LinkState {
        LinkState {
            ends,
            link,
            is_cut: [false; 2],
            is_up: [false; 2],
            changes: 0,
            detectors: [None, None],
            nats: [None; 2],
            mapped_at: [None; 2],
            busy_until: [Duration::ZERO; 2],
        }
    }

    pub(super) fn end(&self, node: NodeId) -> usize {
        usize::from(self.ends[0] != node)
    }

    /// Whether the NATs of both ends keep everything from passing.
    pub(super) fn is_blocked(&self) -> bool {
        self.nats.iter().all(|nat| nat.is_some_and(|nat| nat.is_hard))
    }

    /// The NAT in front of an end has lost its mapping.
    pub(super) fn unmap(&mut self, node: NodeId) {
        self.mapped_at[self.end(node)] = None;
    }

    /// Whether the NAT of the other end lets a frame in that this end sends now.
    fn is_let_in(&self, now: Duration, end: usize) -> bool {
        let Some(nat) = self.nats[1 - end] else { return true };
        self.mapped_at[1 - end].is_some_and(|at| now <= at + nat.lifetime)
    }

    /// When a frame that is sent now arrives: never, once or twice.
    pub(super) fn arrivals(
        &mut self,
        now: Duration,
        from: NodeId,
        len: usize,
        random: &mut SplitMix64,
    ) -> [Option<Duration>; 2] {
        let end = self.end(from);
        // The frame opens the mapping even if a link loses it later.
        self.mapped_at[end] = Some(now);
        if self.is_cut[end] || self.is_blocked() || !self.is_let_in(now, end) {
            return [None; 2];
        }
        let mut sent = now;
        if let Some(bandwidth) = self.link.bandwidth {
            let time = |bytes: u64| Duration::from_secs_f64(bytes as f64 / bandwidth.max(1) as f64);
            let start = self.busy_until[end].max(now);
            if start > now + time(self.link.queue_len_max) {
                return [None; 2];
            }
            sent = start + time(len as u64);
            self.busy_until[end] = sent;
        }
        self.link.profile.datagram(random).map(|delay| delay.map(|delay| sent + delay))
    }
}
