//! The space service: reports the space of this node, and exchanges with the other members who has any.
//!
//! A leader without space hands its leadership to a member that has some. A leader with space refuses writes
//! as long as too few members have space to make them durable: otherwise they would time out.
//!
//! A message is the version (1) and whether the sender refuses writes.

use std::collections::BTreeSet;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::Membership;
use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEventKind};

use super::super::channel::ChannelSpec;
use super::super::outbox::Outbox;
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::{NodeError, NodeEvent};
use super::members_of;
use crate::request::error::OperationError;
use crate::space::{Space, SpaceStatus};
use crate::telemetry::HealthTelemetry;

/// The latest state wins, and the order says which it is.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec =
    ChannelSpec { name: "x0.kv.space", lane: LANE, message_len_min: 0, waiting_len_max: 1 << 10 };

const VERSION: u8 = 1;
/// How often the state is repeated while it matters: a message may be lost with its connection.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Which members have space, as the services of this node know it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpaceView {
    /// The space of this node.
    pub(crate) own: SpaceStatus,
    /// The other members that have reported that they have none.
    pub(crate) lacking: BTreeSet<NodeId>,
}

impl SpaceView {
    /// Whether too few of the voters have space to make a write durable, `local` being this node.
    fn is_quorum_lacking(&self, local: NodeId, voters: &BTreeSet<NodeId>) -> bool {
        let lacking = |voter: &NodeId| match *voter == local {
            true => self.own.refuses_writes(),
            false => self.lacking.contains(voter),
        };
        let with_space = voters.iter().filter(|voter| !lacking(voter)).count();
        !voters.is_empty() && with_space <= voters.len() / 2
    }

    /// Whether a leader must refuse a write, `local` being this node.
    pub(crate) fn refuses_writes(&self, local: NodeId, membership: &Membership) -> bool {
        let is_short = self.own.refuses_writes() || !self.lacking.is_empty();
        is_short
            && (self.own.refuses_writes()
                || self.is_quorum_lacking(local, &membership.voters)
                || self.is_quorum_lacking(local, &membership.voters_outgoing))
    }
}

/// The space service; see the [module](self).
pub(crate) struct SpaceService {
    outbox: Outbox,
    space: Space,
    /// The status that was reported last.
    reported: SpaceStatus,
    members: BTreeSet<NodeId>,
    repeat_at: Option<Duration>,
    telemetry: HealthTelemetry,
}

impl SpaceService {
    pub(crate) fn new(outbox: Outbox, space: Space, membership: &Membership) -> SpaceService {
        let (reported, members) = (SpaceStatus::default(), members_of(membership));
        SpaceService { outbox, space, reported, members, repeat_at: None, telemetry: HealthTelemetry::new() }
    }

    fn send(&mut self, cx: &mut Context<'_>, to: NodeId) {
        let message = [VERSION, u8::from(self.reported.refuses_writes())];
        // A message that is lost is repeated.
        let _ = self.outbox.send(cx, to, LANE, Bytes::copy_from_slice(&message));
    }

    /// Reports a change, and repeats what the others must know.
    fn report(&mut self, cx: &mut Context<'_>, now: Duration, bus: &mut Bus) -> bool {
        let status = self.space.status();
        let conditions = |status: &SpaceStatus| SpaceStatus { free: None, ..*status };
        let is_changed = conditions(&status) != conditions(&self.reported);
        if !is_changed && self.repeat_at.is_none_or(|due| due > now) {
            return false;
        }
        let was_refusing = std::mem::replace(&mut self.reported, status).refuses_writes();
        bus.space.own = status;
        self.telemetry.space(&status);
        if is_changed {
            bus.observed(NodeEvent::Space(status));
        }
        if status.refuses_writes() || was_refusing {
            let reached = bus.peers.reached();
            for member in reached.into_iter().filter(|peer| self.members.contains(peer)).collect::<Vec<_>>() {
                self.send(cx, member);
            }
        }
        // Once more after the end of the shortage.
        self.repeat_at = (status.refuses_writes() || was_refusing).then(|| now + REPEAT_AFTER);
        true
    }
}

impl Service for SpaceService {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        _is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            match event.kind {
                PeerEventKind::Up { .. } if self.reported.refuses_writes() => self.send(cx, event.peer),
                // The peer reports a full disk again in its next epoch.
                PeerEventKind::Down { .. } => drop(bus.space.lacking.remove(&event.peer)),
                _ => {}
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            match payload[..] {
                [VERSION, 0] => drop(bus.space.lacking.remove(&received.from)),
                [VERSION, 1] if self.members.contains(&received.from) => {
                    bus.space.lacking.insert(received.from);
                }
                [VERSION, 1] => {}
                _ => bus.peers.decode_error(received.from),
            }
        }
        is_busy |= self.report(cx, now, bus);
        self.outbox.flush(cx);
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.repeat_at
    }

    fn members_changed(&mut self, membership: &Membership) {
        self.members = members_of(membership);
    }

    fn close(&mut self, _error: &OperationError) {
        // A thread that waits for space would delay the end of the node.
        self.space.stop();
    }
}

impl Drop for SpaceService {
    fn drop(&mut self) {
        self.space.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn view(own: bool, lacking: &[u64]) -> SpaceView {
        let own = SpaceStatus { is_low: own, ..SpaceStatus::default() };
        SpaceView { own, lacking: lacking.iter().copied().map(node).collect() }
    }

    #[test]
    fn a_leader_refuses_writes_without_space_here_or_at_a_quorum() {
        let three = Membership::of_voters([1, 2, 3].map(node));
        let refuses = |own, lacking: &[u64]| view(own, lacking).refuses_writes(node(1), &three);
        assert!(!refuses(false, &[]) && !refuses(false, &[2]) && !refuses(false, &[4, 5]));
        assert!(refuses(true, &[]) && refuses(false, &[2, 3]) && refuses(true, &[2, 3]));
        let joint = Membership { voters_outgoing: [1, 4, 5].map(node).into(), ..three };
        assert!(view(false, &[4, 5]).refuses_writes(node(1), &joint));
        assert!(!view(false, &[2, 4]).refuses_writes(node(1), &joint));
    }
}
