//! The snapshot service: snapshots of the state, in chunks, from the leader to a member that lags too far
//! behind for the log.
//!
//! Snapshots have a channel of their own, so that a large snapshot does not fill the budget of the replicas'
//! other messages.

use std::task::{Context, Poll};
use std::time::Duration;

use x0_consensus::Input;
use x0_mesh::Lane;

use super::super::NodeError;
use super::super::channel::ChannelSpec;
use super::super::outbox::Outbox;
use super::super::service::{Bus, RECEIVED_MAX, Service};

/// Chunks carry their place, so that each of them can be a stream of its own.
const LANE: Lane = Lane::Bulk;

pub(crate) const CHANNEL: ChannelSpec =
    ChannelSpec { name: "x0.kv.snapshots", lane: LANE, message_len_min: 0, waiting_len_max: 8 << 20 };

/// The snapshot service; see the [module](self).
pub(crate) struct Snapshots {
    outbox: Outbox,
}

impl Snapshots {
    pub(crate) fn new(outbox: Outbox) -> Snapshots {
        Snapshots { outbox }
    }
}

impl Service for Snapshots {
    fn wants(&self, bus: &Bus) -> bool {
        !bus.snapshots.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
        _is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while self.outbox.poll_event(cx).is_ready() {
            is_busy = true;
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            bus.replica.push_back(Input::Message { from: received.from, payload });
        }
        while let Some((to, payload)) = bus.snapshots.pop_front() {
            is_busy = true;
            if self.outbox.send(cx, to, LANE, payload).is_err() {
                bus.replica.push_back(Input::Unreachable { peer: to });
            }
        }
        for peer in self.outbox.flush(cx) {
            bus.replica.push_back(Input::Unreachable { peer });
        }
        Ok(is_busy)
    }
}
