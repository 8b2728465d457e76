//! One service's part of a mux.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use x0_identity::NodeId;

use super::driver::{Polling, Shared};
use super::frame::Offer;
use super::id::ChannelId;
use crate::{Lane, Next, PeerEvent, Received, RecvError, SendError, Transmit, Transport};

/// A channel of a [`Mux`](super::Mux): a [`Transport`] for one service.
///
/// Its epochs are sessions: a peer is up once both nodes have registered the channel and agreed on a version.
/// A peer that is connected without having the channel is reported with
/// [`DownReason::NoChannel`](crate::DownReason::NoChannel), and sending to it is [`SendError::NoChannel`].
/// While the sides are agreeing, sending is pending.
pub struct Channel {
    shared: Arc<Shared>,
    local: NodeId,
    slot: usize,
    offer: Offer,
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>, local: NodeId, slot: usize, offer: Offer) -> Channel {
        Channel { shared, local, slot, offer }
    }

    /// The name of the channel.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.offer.channel
    }

    /// The version that was agreed on with a peer, for the epoch whose `Up` was polled last; `None` if its
    /// `Down` was polled too.
    #[must_use]
    pub fn version(&self, peer: NodeId) -> Option<u16> {
        self.shared.lock().engine.version(self.slot, peer)
    }
}

impl Transport for Channel {
    fn local(&self) -> NodeId {
        self.local
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.offer.len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        let Transmit { to, lane, payload } = *transmit;
        let (len, len_max) = (payload.len(), self.message_len_max(lane));
        if to == self.local {
            return Poll::Ready(Err(SendError::ToSelf));
        }
        if len_max == 0 {
            return Poll::Ready(Err(SendError::NoLane { lane }));
        }
        if len > len_max {
            return Poll::Ready(Err(SendError::TooLong { len, len_max }));
        }
        let slot = self.slot;
        self.shared.poll(
            Polling::nothing(),
            |signal| signal.wait_to_send(slot, to, lane, cx.waker()),
            |core| core.poll_send(cx, slot, transmit),
        )
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let slot = self.slot;
        self.shared.poll(
            Polling { slot, receiver: true, event: false },
            |signal| signal.wait_to_receive(slot, cx.waker()),
            |core| core.poll_recv(slot, payload),
        )
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let slot = self.slot;
        self.shared.poll(
            Polling { slot, receiver: false, event: true },
            |signal| signal.wait_for_event(slot, cx.waker()),
            |core| core.poll_event(slot),
        )
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        let slot = self.slot;
        self.shared.poll(
            Polling { slot, receiver: true, event: true },
            |signal| signal.wait_for_next(slot, cx.waker()),
            |core| core.poll_next(slot, payload),
        )
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The last one takes the transport with it, which says more to the peers than that a channel is gone.
        if Arc::strong_count(&self.shared) > 1 {
            self.shared.change(|core| core.unregister(self.slot));
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Channel")
            .field("id", &self.offer.channel)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
