//! The status service: answers requests for the status of this node, and asks other nodes for theirs.
//!
//! The service also keeps the set of peers that are reached, which the status of the node reports.

use std::collections::BTreeMap;
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
}

impl Status {
    pub(crate) fn new(
        local: NodeId,
        outbox: Outbox,
        requests: Inbox<StatusRequest>,
        replica: Option<ReplicaStatus>,
    ) -> Status {
        let (waiting, space) = (BTreeMap::new(), Space::default());
        Status { local, outbox, requests, waiting, replica, space, taken: Vec::new() }
    }

    /// Sets the space that the status of this node has.
    pub(crate) fn space(mut self, space: Space) -> Status {
        self.space = space;
        self
    }

    fn message(&mut self, cx: &mut Context<'_>, bus: &Bus, from: NodeId, payload: &bytes::Bytes) {
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
            Ok(Message::Answer(_)) | Err(_) => bus.peers.decode_error(from),
        }
    }
}

impl Service for Status {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
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
            self.message(cx, bus, received.from, &payload);
        }
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

    fn close(&mut self, error: &OperationError) {
        self.requests.close(error);
        self.waiting.clear();
    }
}
