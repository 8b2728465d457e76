//! A transport between threads of one process: what it takes to implement [`Transport`] from outside of the
//! family.
//!
//! A [`Switchboard`] knows who is there. A message goes straight into the receiver's box, which has a bound
//! for each peer and lane; so there is nothing under way, and an epoch ends when a [`Local`] is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use x0_identity::NodeId;
use x0_mesh::{
    DownReason, Lane, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
};

/// Ordered lanes, numbered from 0.
const ORDERED_LANES: u8 = 4;
/// The longest message, in bytes.
const MESSAGE_LEN_MAX: usize = 8 << 20;
/// How many messages of one peer and lane may lie in a box.
const LANE_MESSAGES_MAX: usize = 64;

/// The place where the nodes of this process find each other. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Switchboard(Arc<Mutex<Boxes>>);

#[derive(Debug, Default)]
struct Boxes {
    known: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Inbox>,
    epochs: u64,
}

/// The events and messages that a node has not taken yet.
#[derive(Debug, Default)]
struct Inbox {
    peers: BTreeMap<NodeId, VecDeque<Epoch>>,
    last: Option<(NodeId, Lane)>,
    wakers: Vec<Waker>,
}

/// The news of an epoch: its beginning, its messages, its end.
#[derive(Debug)]
struct Epoch {
    number: u64,
    is_told: bool,
    lanes: BTreeMap<Lane, VecDeque<Vec<u8>>>,
    ended: Option<DownReason>,
}

impl Inbox {
    fn open_epoch(&mut self, peer: NodeId) -> Option<&mut Epoch> {
        self.peers.get_mut(&peer)?.back_mut().filter(|epoch| epoch.ended.is_none())
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Switchboard {
    fn lock(&self) -> MutexGuard<'_, Boxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's end. A node that is already connected starts again with new epochs.
    #[must_use]
    pub fn plug_in(&self, local: NodeId) -> Local {
        self.unplug(local);
        let mut boxes = self.lock();
        boxes.known.insert(local);
        let mut inbox = Inbox::default();
        let others: Vec<NodeId> = boxes.nodes.keys().copied().collect();
        for peer in others {
            boxes.epochs += 1;
            let number = boxes.epochs;
            let epoch = || Epoch { number, is_told: false, lanes: BTreeMap::new(), ended: None };
            inbox.peers.entry(peer).or_default().push_back(epoch());
            if let Some(other) = boxes.nodes.get_mut(&peer) {
                other.peers.entry(local).or_default().push_back(epoch());
                other.wake();
            }
        }
        boxes.nodes.insert(local, inbox);
        Local { board: self.clone(), local }
    }

    fn unplug(&self, local: NodeId) {
        let mut boxes = self.lock();
        boxes.nodes.remove(&local);
        for other in boxes.nodes.values_mut() {
            if let Some(epoch) = other.open_epoch(local) {
                epoch.ended = Some(DownReason::Closed);
            }
            other.wake();
        }
    }
}

/// One node's transport.
#[derive(Debug)]
pub struct Local {
    board: Switchboard,
    local: NodeId,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.board.unplug(self.local);
    }
}

impl Transport for Local {
    fn local(&self) -> NodeId {
        self.local
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Ordered(number) if number >= ORDERED_LANES => 0,
            _ => MESSAGE_LEN_MAX,
        }
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
        let mut boxes = self.board.lock();
        if !boxes.known.contains(&to) {
            return Poll::Ready(Err(SendError::UnknownPeer { peer: to }));
        }
        let Some(inbox) = boxes.nodes.get_mut(&to) else {
            return Poll::Ready(Err(SendError::Unreachable { peer: to }));
        };
        let Some(epoch) = inbox.open_epoch(self.local) else {
            return Poll::Ready(Err(SendError::Unreachable { peer: to }));
        };
        let queue = epoch.lanes.entry(lane).or_default();
        if queue.len() < LANE_MESSAGES_MAX {
            queue.push_back(payload.to_vec());
            inbox.wake();
            return Poll::Ready(Ok(()));
        }
        if lane == Lane::Datagram {
            return Poll::Ready(Err(SendError::Congested { peer: to, lane }));
        }
        // The taker of a message from that inbox wakes every task that waits for it.
        inbox.wakers.push(cx.waker().clone());
        Poll::Pending
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let mut boxes = self.board.lock();
        let Some(inbox) = boxes.nodes.get_mut(&self.local) else {
            return Poll::Ready(Err(RecvError::Closed));
        };
        let mut waiting = Vec::new();
        for (peer, epochs) in &inbox.peers {
            let lanes =
                epochs.front().filter(|epoch| epoch.is_told).into_iter().flat_map(|epoch| &epoch.lanes);
            waiting.extend(lanes.filter(|(_, queue)| !queue.is_empty()).map(|(lane, _)| (*peer, *lane)));
        }
        // Peers and lanes take turns.
        let last = inbox.last;
        let next = waiting.iter().find(|turn| last.is_none_or(|last| **turn > last)).or(waiting.first());
        let Some((from, lane)) = next.copied() else {
            inbox.wakers.push(cx.waker().clone());
            return Poll::Pending;
        };
        inbox.last = Some((from, lane));
        let queue = inbox.peers.get_mut(&from).and_then(VecDeque::front_mut);
        let message = queue.and_then(|epoch| epoch.lanes.get_mut(&lane)?.pop_front());
        inbox.wake();
        *payload = message.unwrap_or_default();
        Poll::Ready(Ok(Received { from, lane }))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let mut boxes = self.board.lock();
        let Some(inbox) = boxes.nodes.get_mut(&self.local) else { return Poll::Pending };
        for (peer, epochs) in &mut inbox.peers {
            let Some(epoch) = epochs.front_mut() else { continue };
            let number = epoch.number;
            if !epoch.is_told {
                epoch.is_told = true;
                return Poll::Ready(PeerEvent { peer: *peer, kind: PeerEventKind::Up { epoch: number } });
            }
            if epoch.lanes.values().all(VecDeque::is_empty)
                && let Some(reason) = epoch.ended.take()
            {
                epochs.pop_front();
                return Poll::Ready(PeerEvent {
                    peer: *peer,
                    kind: PeerEventKind::Down { epoch: number, reason },
                });
            }
        }
        inbox.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}
