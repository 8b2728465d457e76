//! A channel with room for the messages that its lanes do not accept at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEvent, PeerEventKind, Received, RecvError, Transmit};

use super::channel::Versioned;
use super::peers::Peers;
use crate::admin::{PeerRole, PeerRoles};

/// The most messages that are refused before other services get their turn.
const REFUSED_MAX: usize = 256;

/// The channel of one service and the messages that wait for it, by peer and lane.
pub(crate) struct Outbox {
    channel: Box<dyn Versioned>,
    waiting: BTreeMap<(NodeId, Lane), Queue>,
    /// The most bytes that wait for one lane of one peer.
    len_max: usize,
    buffer: Vec<u8>,
    /// The name of the channel and the roles of its peers, if it accepts messages of members only.
    members_only: Option<(&'static str, Access)>,
}

/// The roles of the peers, and the counter of messages that are refused because of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) roles: PeerRoles,
    pub(crate) peers: Arc<Peers>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    len_bytes: usize,
}

/// The message was not sent and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Outbox {
    pub(crate) fn new(channel: Box<dyn Versioned>, len_max: usize) -> Outbox {
        Outbox { channel, waiting: BTreeMap::new(), len_max, buffer: Vec::new(), members_only: None }
    }

    /// Refuses the messages of peers that are not members.
    pub(crate) fn for_members(mut self, channel: &'static str, access: Access) -> Outbox {
        self.members_only = Some((channel, access));
        self
    }

    /// With something between the service and the channel.
    #[cfg_attr(not(feature = "sim"), allow(dead_code, reason = "for the simulator"))]
    pub(crate) fn wrapped(mut self, wrap: impl FnOnce(Box<dyn Versioned>) -> Box<dyn Versioned>) -> Outbox {
        self.channel = wrap(self.channel);
        self
    }

    /// The longest message of a lane, in bytes.
    #[cfg_attr(not(feature = "crdt"), expect(dead_code, reason = "only datagrams are cut to length"))]
    pub(crate) fn message_len_max(&self, lane: Lane) -> usize {
        self.channel.message_len_max(lane)
    }

    /// The version that was agreed on with a peer that is up; 1, the first one, for any other.
    pub(crate) fn version(&self, peer: NodeId) -> u16 {
        self.channel.version(peer).unwrap_or(1)
    }

    /// Sends a message now, or queues it after those that wait for its lane.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
    ) -> Result<(), Lost> {
        // Without a queue there is no order to keep.
        if !self.waiting.contains_key(&(to, lane)) {
            match self.channel.poll_send(cx, &Transmit { to, lane, payload: &payload }) {
                Poll::Ready(sent) => return sent.map_err(|_| Lost),
                Poll::Pending => {}
            }
        }
        let queue = self.waiting.entry((to, lane)).or_default();
        // One message is always accepted, so that none is too long to be sent at all.
        if !queue.messages.is_empty() && queue.len_bytes + payload.len() > self.len_max {
            return Err(Lost);
        }
        queue.len_bytes += payload.len();
        queue.messages.push_back(payload);
        Ok(())
    }

    /// Sends waiting messages as far as the lanes accept them. A lane that refuses a message loses all that
    /// wait for it; returns the peers concerned.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> Vec<NodeId> {
        let mut lost = Vec::new();
        if self.waiting.is_empty() {
            return lost;
        }
        let Outbox { channel, waiting, .. } = self;
        waiting.retain(|&(to, lane), queue| {
            while let Some(payload) = queue.messages.front() {
                match channel.poll_send(cx, &Transmit { to, lane, payload }) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(())) => {
                        queue.len_bytes -= payload.len();
                        queue.messages.pop_front();
                    }
                    Poll::Ready(Err(_)) => {
                        lost.push(to);
                        return false;
                    }
                }
            }
            false
        });
        lost
    }

    /// The next message.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Received, Bytes), RecvError>> {
        for _ in 0..REFUSED_MAX {
            let Poll::Ready(received) = self.channel.poll_recv(cx, &mut self.buffer)? else {
                return Poll::Pending;
            };
            if let Some((channel, access)) = &self.members_only
                && access.roles.of(received.from) != PeerRole::Member
            {
                access.peers.refused(channel);
                continue;
            }
            return Poll::Ready(Ok((received, Bytes::from(std::mem::take(&mut self.buffer)))));
        }
        // The other services get their turn although a peer sends as fast as it can.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next event of a peer. Messages that wait for a peer whose connection has ended are dropped: they
    /// must not travel in its next epoch.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let event = self.channel.poll_event(cx);
        if let Poll::Ready(PeerEvent { peer, kind: PeerEventKind::Down { .. }, .. }) = &event {
            self.waiting.retain(|(to, _), _| to != peer);
        }
        event
    }
}
