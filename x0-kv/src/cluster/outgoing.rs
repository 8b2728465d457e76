//! Messages that threads leave for a service to send.

use std::task::Context;

use bytes::Bytes;
use x0_identity::NodeId;
use x0_mesh::Lane;

use super::inbox::{Alarm, Inbox};
use super::outbox::Outbox;
use crate::request::error::OperationError;

/// Messages that threads leave for a service, which sends them on its channel.
pub(crate) struct Outgoing {
    messages: Inbox<(NodeId, Bytes)>,
    /// For reuse.
    taken: Vec<(NodeId, Bytes)>,
}

impl Outgoing {
    pub(crate) fn new(alarm: Alarm) -> Outgoing {
        Outgoing { messages: Inbox::new(alarm), taken: Vec::new() }
    }

    /// The inbox for messages and their receivers.
    pub(crate) fn inbox(&self) -> Inbox<(NodeId, Bytes)> {
        self.messages.clone()
    }

    /// Sends all messages that wait. Whether there were any. A message that cannot be sent is dropped: the
    /// protocols of these services repeat what is missing, or give up after a time.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox, lane: Lane) -> bool {
        self.send_as(cx, outbox, lane, |_, _, payload| payload)
    }

    /// As [`send`](Outgoing::send), with a last change of each message that depends on its receiver.
    pub(crate) fn send_as(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        lane: Lane,
        change: impl Fn(&Outbox, NodeId, Bytes) -> Bytes,
    ) -> bool {
        self.messages.take(&mut self.taken);
        let is_busy = !self.taken.is_empty();
        for (to, payload) in self.taken.drain(..) {
            let payload = change(outbox, to, payload);
            let _ = outbox.send(cx, to, lane, payload);
        }
        is_busy
    }

    /// Drops the messages that wait, and all later ones.
    pub(crate) fn close(&self, error: &OperationError) {
        self.messages.close(error);
    }
}
