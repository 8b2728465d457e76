//! The blob service: messages between the exchange of this member, which has a thread of its own, and those
//! of other members.

use std::collections::BTreeSet;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use x0_consensus::Membership;
use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEventKind};

use super::super::channel::ChannelSpec;
use super::super::outbox::Outbox;
use super::super::outgoing::Outgoing;
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::{NodeError, StartError};
use super::{Part, members_of};
use crate::blob::{BlobOptions, Blobs, Event, ExchangeInput, SendMessage};
use crate::request::error::OperationError;
use crate::seed::random_seed;

/// Messages name what they are about, so that each of them can be a stream of its own.
const LANE: Lane = Lane::Bulk;

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.blobs",
    lane: LANE,
    message_len_min: crate::blob::MESSAGE_LEN_MAX,
    waiting_len_max: 8 << 20,
};

/// The blob service; see the [module](self).
pub(crate) struct BlobTransfer {
    outbox: Outbox,
    blobs: Blobs,
    /// Messages of the exchange.
    messages: Outgoing,
}

/// Opens the blobs in the folder `blobs` of `folder` and registers the service.
fn start(part: &mut Part<'_>, options: BlobOptions, folder: &Path) -> Result<Blobs, StartError> {
    let outbox = CHANNEL.open_for_members(part.mux, part.access)?;
    let messages = Outgoing::new(part.alarm.clone());
    let sent = messages.inbox();
    let send: SendMessage = Box::new(move |to, payload| sent.put((to, payload)));
    let blobs = Blobs::start(folder, options, random_seed(), Some(send))?;
    part.event_loop.add(BlobTransfer { outbox, blobs: blobs.clone(), messages });
    Ok(blobs)
}

impl BlobTransfer {
    fn put(&self, input: ExchangeInput) {
        self.blobs.put(Event::Engine(input));
    }
}

impl Service for BlobTransfer {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
        is_raised: bool,
        _bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            match event.kind {
                PeerEventKind::Up { .. } => self.put(ExchangeInput::Up(event.peer)),
                PeerEventKind::Down { .. } => self.put(ExchangeInput::Down(event.peer)),
                _ => {}
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.blobs.message(received.from, payload);
        }
        is_busy |= is_raised && self.messages.send(cx, &mut self.outbox, LANE);
        self.outbox.flush(cx);
        Ok(is_busy)
    }

    fn members_changed(&mut self, membership: &Membership) {
        let members: BTreeSet<NodeId> = members_of(membership);
        self.put(ExchangeInput::Sources(members));
    }

    fn close(&mut self, error: &OperationError) {
        self.messages.close(error);
    }
}

/// Registers the service of blobs, which lie in the folder `blobs` of `folder`.
pub(in super::super) fn start_blobs(
    part: &mut Part<'_>,
    options: Option<BlobOptions>,
    folder: &Path,
) -> Result<Option<Blobs>, StartError> {
    options.map(|options| start(part, options, folder)).transpose()
}
