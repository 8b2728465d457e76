//! What travels over the links: messages of routers, and packets.

use std::time::Duration;

use x0_identity::NodeId;

use super::{Event, Fabric, FabricViolation, Travelling, nanoseconds, position};
use crate::liveness::LivenessInput;
use crate::router::{LinkId, Packet, Session};

/// Bytes of a simulated packet, for links of limited bandwidth.
const PACKET_LEN: usize = 1200;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketOutcome {
    /// The packet reached its destination.
    Delivered {
        /// The number that [`Fabric::send`] returned.
        number: u64,
        /// When it was sent.
        sent_at: Duration,
        /// When it arrived.
        at: Duration,
        /// Over how many links it came.
        hops: u32,
        /// Whether it was on a detour at the end.
        is_detour: bool,
    },
    /// The packet was dropped. One that a link loses has no outcome, as in a real network.
    Dropped {
        /// The number that [`Fabric::send`] returned.
        number: u64,
        /// Where it was.
        at: NodeId,
        /// Why.
        loss: Loss,
    },
}

/// Why a node dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The router knows no way.
    NoRoute,
    /// The packet was on a detour that ended.
    Bound,
    /// The hop limit.
    Hops,
    /// The sender's session with the node was over, or had not begun.
    Session,
}

impl Fabric {
    pub(super) fn transmit(&mut self, from: NodeId, link: LinkId, to: NodeId, message: Vec<u8>) {
        self.stats.messages += 1;
        self.stats.message_bytes += message.len() as u64;
        let message = match self.nodes[position(from)].forgery {
            Some(forgery) => forgery.apply(&message),
            None => message,
        };
        self.record([nanoseconds(self.now), from.get(), to.get(), message.len() as u64]);
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        let [first, second] = state.arrivals(self.now, from, message.len(), &mut self.random);
        if let Some(at) = second {
            self.enqueue(at, Event::Message { link, to, message: message.clone() });
        }
        match first {
            Some(at) => self.enqueue(at, Event::Message { link, to, message }),
            None => self.stats.lost += 1,
        }
        self.detect(link, from, LivenessInput::Sent);
    }

    /// Sends a packet on from a node.
    pub(super) fn forward(&mut self, at: NodeId, number: u64, packet: Packet, hops: u32, sent_at: Duration) {
        let Some(router) = self.nodes[position(at)].router.as_ref() else { return };
        let dropped = |loss| PacketOutcome::Dropped { number, at, loss };
        if hops >= self.options.hops_max {
            self.outcomes.push_back(dropped(Loss::Hops));
            return;
        }
        let hop = match router.forward(&packet) {
            Ok(hop) => hop,
            Err(_) => {
                let loss = if packet.bound.is_some() { Loss::Bound } else { Loss::NoRoute };
                self.outcomes.push_back(dropped(loss));
                return;
            }
        };
        let Some(session) = router.session(hop.peer) else {
            self.outcomes.push_back(dropped(Loss::Session));
            return;
        };
        let is_lower = hop.bound.is_none_or(|bound| packet.bound.is_none_or(|old| bound < old));
        if !is_lower || (packet.bound.is_some() && hop.bound.is_none()) {
            self.violations.push(FabricViolation::Bound { at, destination: packet.destination });
        }
        let packet = Packet { destination: packet.destination, from: Some(at), bound: hop.bound };
        let travelling = Travelling { number, from: at, packet, hops: hops + 1, sent_at, session };
        let (link, to) = (hop.link, hop.peer);
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        let arrivals = state.arrivals(self.now, at, PACKET_LEN, &mut self.random);
        if arrivals == [None; 2] {
            self.stats.lost += 1;
        }
        for arrival in arrivals.into_iter().flatten() {
            self.enqueue(arrival, Event::Packet { link, to, travelling });
        }
        self.detect(link, at, LivenessInput::Sent);
    }

    pub(super) fn arrive(&mut self, link: LinkId, to: NodeId, travelling: Travelling) {
        let Travelling { number, from, packet, hops, sent_at, session } = travelling;
        let Some(state) = self.links.get(link.0 as usize) else { return };
        let is_up = state.is_up[state.end(to)];
        let Some(router) = self.nodes[position(to)].router.as_ref().filter(|_| is_up) else { return };
        let expected = Session { local: session.remote, remote: session.local };
        if router.session(from) != Some(expected) {
            self.outcomes.push_back(PacketOutcome::Dropped { number, at: to, loss: Loss::Session });
            return;
        }
        if packet.destination == to {
            self.stats.delivered += 1;
            self.stats.hops += u64::from(hops);
            let (at, is_detour) = (self.now, packet.bound.is_some());
            self.outcomes.push_back(PacketOutcome::Delivered { number, sent_at, at, hops, is_detour });
            return;
        }
        self.forward(to, number, packet, hops, sent_at);
    }
}
