//! Messages that wait for their lane.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};

use bytes::Bytes;
use x0_identity::NodeId;
use x0_mesh::{Lane, Transmit, Transport};

/// The lanes that the cluster uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// The replicas' messages.
    Consensus,
    /// Pieces of snapshots.
    Snapshot,
    /// The coordinators' messages.
    Operations,
    /// Questions how a node is, and answers.
    Inspection,
    /// The sessions of CRDT keyspaces. May be lost.
    Crdt,
    /// Requests of clients to CRDT keyspaces, and answers.
    CrdtOperations,
    /// The exchange of blobs. Shares its lane with pieces of snapshots.
    Blob,
}

/// The first byte of the messages of blobs. Those of consensus begin with their version.
const BLOB_MARK: u8 = 0xB1;
#[cfg(feature = "blob")]
const _: () = assert!(BLOB_MARK == crate::blob::MARK);
const _: () = assert!(BLOB_MARK != x0_consensus::MESSAGE_VERSION);

impl Road {
    pub(super) const COUNT: usize = 7;
    const ALL: [Road; Road::COUNT] = [
        Road::Consensus,
        Road::Snapshot,
        Road::Operations,
        Road::Inspection,
        Road::Crdt,
        Road::CrdtOperations,
        Road::Blob,
    ];

    pub(super) fn lane(self) -> Lane {
        match self {
            Road::Consensus => Lane::Ordered(0),
            Road::Snapshot | Road::Blob => Lane::Bulk,
            Road::Operations => Lane::Ordered(1),
            Road::Inspection => Lane::Ordered(2),
            Road::Crdt => Lane::Datagram,
            Road::CrdtOperations => Lane::Ordered(3),
        }
    }

    /// Which one a message came by.
    pub(super) fn of(lane: Lane, payload: &[u8]) -> Option<Road> {
        if lane == Lane::Bulk && payload.first() == Some(&BLOB_MARK) {
            return Some(Road::Blob);
        }
        Road::ALL.into_iter().find(|road| road.lane() == lane)
    }

    /// How many bytes may wait for it, for one peer.
    fn len_max(self) -> usize {
        match self {
            Road::Consensus | Road::Operations => 32 << 20,
            Road::Snapshot | Road::Blob => 8 << 20,
            Road::Inspection => 1 << 16,
            Road::Crdt => 256 << 10,
            Road::CrdtOperations => 8 << 20,
        }
    }
}

/// Messages that a lane did not take at once, by peer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    peers: BTreeMap<NodeId, [Queue; Road::COUNT]>,
    /// How many messages wait, all together.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    len_bytes: usize,
}

/// The message was not sent, and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

impl Outgoing {
    /// Sends a message now, or puts it behind those that wait for its lane.
    pub(super) fn send<T: Transport + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
        to: NodeId,
        road: Road,
        payload: Bytes,
    ) -> Result<(), Lost> {
        // Without a queue there is nothing to keep the order of.
        let queue = self.peers.get_mut(&to).map(|queues| &mut queues[road as usize]);
        if queue.as_ref().is_none_or(|queue| queue.messages.is_empty()) {
            match transport.poll_send(cx, &Transmit { to, lane: road.lane(), payload: &payload }) {
                Poll::Ready(sent) => return sent.map_err(|_| Lost),
                Poll::Pending => {}
            }
        }
        let queue = &mut self.peers.entry(to).or_default()[road as usize];
        // One message is always taken, so that none is too long to ever be sent.
        if !queue.messages.is_empty() && queue.len_bytes + payload.len() > road.len_max() {
            return Err(Lost);
        }
        queue.len_bytes += payload.len();
        queue.messages.push_back(payload);
        self.waiting += 1;
        Ok(())
    }

    /// Sends what waits, as far as the lanes take it. What a lane refuses is lost, with all that waits behind it; `lost` is told.
    pub(super) fn flush<T: Transport + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
        mut lost: impl FnMut(NodeId, Road),
    ) {
        if self.waiting == 0 {
            return;
        }
        let waiting = &mut self.waiting;
        self.peers.retain(|&to, queues| {
            for road in Road::ALL {
                let queue = &mut queues[road as usize];
                while let Some(payload) = queue.messages.front() {
                    match transport.poll_send(cx, &Transmit { to, lane: road.lane(), payload }) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(())) => {
                            queue.len_bytes -= payload.len();
                            queue.messages.pop_front();
                            *waiting -= 1;
                        }
                        Poll::Ready(Err(_)) => {
                            *waiting -= queue.messages.len();
                            *queue = Queue::default();
                            lost(to, road);
                        }
                    }
                }
            }
            queues.iter().any(|queue| !queue.messages.is_empty())
        });
    }

    /// Forgets what waits for a peer that cannot be reached.
    pub(super) fn forget(&mut self, peer: NodeId) {
        if let Some(queues) = self.peers.remove(&peer) {
            self.waiting -= queues.iter().map(|queue| queue.messages.len()).sum::<usize>();
        }
    }
}
