//! The CRDT sync service: datagrams between the keyspace of this member, which has a thread of its own, and
//! those of other members.

use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use x0_consensus::{Membership, MemoryStorage, Storage};
use x0_mesh::{Lane, PeerEventKind};

use crate::cluster::channel::ChannelSpec;
use crate::cluster::outbox::Outbox;
use crate::cluster::outgoing::Outgoing;
use crate::cluster::service::{Bus, RECEIVED_MAX, Service};
use crate::cluster::services::{Part, members_of};
use crate::cluster::{NodeError, NodeEvent, StartError};
use crate::crdt::{Crdt, CrdtOptions};
use crate::request::error::OperationError;
use crate::seed::random_seed;

/// Sessions repeat what was lost.
const LANE: Lane = Lane::Datagram;

pub(crate) const CHANNEL: ChannelSpec =
    ChannelSpec { name: "x0.kv.crdt.sync", lane: LANE, message_len_min: 128, waiting_len_max: 256 << 10 };

/// The CRDT sync service; see the [module](self).
pub(crate) struct CrdtSync {
    outbox: Outbox,
    crdt: Crdt,
    /// Datagrams of the sessions.
    datagrams: Outgoing,
    /// A failure of the journal was reported.
    is_failed: bool,
}

/// Opens the keyspace and registers the service. The journal lies in the folder `crdt` of `folder`, or in
/// memory.
pub(super) fn start(
    part: &mut Part<'_>,
    mut options: CrdtOptions,
    folder: Option<PathBuf>,
) -> Result<Crdt, StartError> {
    let journal: Box<dyn Storage> = match folder {
        Some(folder) => Box::new(crate::crdt::journal_in(&folder, &options, part.id)?),
        None => Box::new(MemoryStorage::new()),
    };
    let outbox = CHANNEL.open_for_members(part.mux, part.access)?;
    let len_max = outbox.message_len_max(LANE);
    options.session.datagram_len_max = options.session.datagram_len_max.min(len_max);
    let datagrams = Outgoing::new(part.alarm.clone());
    let sent = datagrams.inbox();
    let send = Box::new(move |to, payload| sent.put((to, payload)));
    let crdt = Crdt::start(options, part.id, random_seed(), journal, send, part.space.clone())?;
    part.event_loop.add(CrdtSync { outbox, crdt: crdt.clone(), datagrams, is_failed: false });
    Ok(crdt)
}

impl Service for CrdtSync {
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
            if let PeerEventKind::Up { .. } = event.kind {
                self.crdt.up(event.peer);
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.crdt.datagram(received.from, payload);
        }
        if is_raised {
            is_busy |= self.datagrams.send(cx, &mut self.outbox, LANE);
            if !self.is_failed
                && let Some(error) = self.crdt.failure()
            {
                self.is_failed = true;
                bus.observed(NodeEvent::CrdtFailed(error));
            }
        }
        Ok(is_busy)
    }

    fn members_changed(&mut self, membership: &Membership) {
        self.crdt.members(members_of(membership));
    }

    fn close(&mut self, error: &OperationError) {
        self.datagrams.close(error);
    }
}
