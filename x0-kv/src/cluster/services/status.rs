//! The status service: answers requests for the status of this node, and asks other nodes for theirs.
//!
//! The service also keeps the set of peers that are reached, which the status of the node reports. On a
//! client it reports the members that let attempts time out to the other members.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEventKind};

use super::super::channel::ChannelSpec;
use super::super::inbox::Inbox;
use super::super::outbox::Outbox;
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::status_message::{self, Message};
use super::super::{NodeError, NodeEvent, NodeStatus};
use super::consensus::ReplicaStatus;
use crate::request::error::OperationError;
use crate::space::Space;

/// Requests and answers: one lane, in order.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec =
    ChannelSpec { name: "x0.kv.status", lane: LANE, message_len_min: 0, waiting_len_max: 1 << 16 };

/// The time between two looks of a client at attempts without an answer.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A request for the status of another node.
#[derive(Debug)]
pub(crate) struct StatusRequest {
    pub(crate) node: NodeId,
    pub(crate) answer: oneshot::Sender<NodeStatus>,
}

/// The status service; see the [module](self).
pub(crate) struct Status {
    local: NodeId,
    outbox: Outbox,
    requests: Inbox<StatusRequest>,
    waiting: BTreeMap<NodeId, Vec<StatusRequest>>,
    /// `None` on a client.
    replica: Option<ReplicaStatus>,
    space: Space,
    taken: Vec<StatusRequest>,
    /// The attempts without an answer that a client has reported, and when it looks again.
    reported: BTreeMap<NodeId, u64>,
    report_at: Duration,
}

impl Status {
    pub(crate) fn new(
        local: NodeId,
        outbox: Outbox,
        requests: Inbox<StatusRequest>,
        replica: Option<ReplicaStatus>,
    ) -> Status {
        let (waiting, space) = (BTreeMap::new(), Space::default());
        let (taken, reported, report_at) = (Vec::new(), BTreeMap::new(), Duration::ZERO);
        Status { local, outbox, requests, waiting, replica, space, taken, reported, report_at }
    }

    /// Sets the space that the status of this node has.
    pub(crate) fn space(mut self, space: Space) -> Status {
        self.space = space;
        self
    }

    /// Reports the members that have let attempts of this client time out since the last report.
    fn report(&mut self, cx: &mut Context<'_>, now: Duration, bus: &Bus) {
        if self.replica.is_some() || now < self.report_at {
            return;
        }
        self.report_at = now.saturating_add(REPORT_EVERY);
        let counts = bus.peers.waiting().get().unanswered;
        let is_new = |(node, count): &(&NodeId, &u64)| self.reported.get(node) != Some(count);
        let new: BTreeSet<NodeId> = counts.iter().filter(is_new).map(|(node, _)| *node).collect();
        let mut others = bus.peers.reached();
        others.retain(|node| !new.contains(node));
        // Without another member the report is made when one is reached.
        if new.is_empty() || others.is_empty() {
            return;
        }
        self.reported = counts;
        let payload = status_message::encode_unanswered(&new);
        for to in others {
            // A lost report is followed by the next, as long as attempts time out.
            let _ = self.outbox.send(cx, to, LANE, payload.clone());
        }
    }

    fn message(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        bus: &Bus,
        from: NodeId,
        payload: &bytes::Bytes,
    ) {
        match status_message::decode(payload) {
            Ok(Message::Request) => {
                if let Some(replica) = &self.replica {
                    let status = NodeStatus::new(self.local, replica, &bus.peers, self.space.status());
                    // A node that does not accept the answer asks again.
                    let _ = self.outbox.send(cx, from, LANE, status_message::encode_answer(&status));
                }
            }
            Ok(Message::Answer(status)) if status.node == from => {
                for request in self.waiting.remove(&from).unwrap_or_default() {
                    // The caller may have stopped waiting.
                    let _ = request.answer.send(NodeStatus::clone(&status));
                }
            }
            Ok(Message::Unanswered(mut nodes)) => {
                if let Some(replica) = &self.replica {
                    // Only of members: their number is bounded.
                    let membership = replica.get().membership;
                    nodes.retain(|node| membership.contains(*node));
                    bus.peers.reports().take(now, from, &nodes);
                }
            }
            Ok(Message::Answer(_)) | Err(_) => bus.peers.decode_error(from),
        }
    }
}

impl Service for Status {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            bus.peers.event(&event);
            if let PeerEventKind::Down { .. } = event.kind {
                self.waiting.remove(&event.peer);
            }
            bus.observed(NodeEvent::Peer(event));
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.message(cx, now, bus, received.from, &payload);
        }
        self.report(cx, now, bus);
        if is_raised {
            let mut requests = std::mem::take(&mut self.taken);
            self.requests.take(&mut requests);
            for request in requests.drain(..) {
                is_busy = true;
                let to = request.node;
                let waiting = self.waiting.entry(to).or_default();
                waiting.retain(|waiting| !waiting.answer.is_closed());
                waiting.push(request);
                if self.outbox.send(cx, to, LANE, status_message::encode_request()).is_err() {
                    self.waiting.remove(&to);
                }
            }
            self.taken = requests;
        }
        for peer in self.outbox.flush(cx) {
            self.waiting.remove(&peer);
        }
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.replica.is_none().then_some(self.report_at)
    }

    fn close(&mut self, error: &OperationError) {
        self.requests.close(error);
        self.waiting.clear();
    }
}
