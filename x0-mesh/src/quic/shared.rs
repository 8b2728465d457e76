//! The state that the transport and its tasks share, and futures that wait for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use quinn::Endpoint;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use x0_identity::NodeId;

use super::options::QuicOptions;
use super::spares::Spares;
use super::state::State;

/// The spares of bulk messages are as many bytes as so many full inboxes of a lane. Messages travel several
/// at once, and end together.
const SPARE_QUEUES: usize = 4;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) config: QuicOptions,
    pub(super) client: quinn::ClientConfig,
    pub(super) endpoint: Endpoint,
    pub(super) runtime: Handle,
    /// A permit for each peer that dialled this node.
    pub(super) incoming: Arc<Semaphore>,
    /// Taken while the state is locked, and never the other way round.
    pub(super) spares: Arc<Spares>,
}

impl Shared {
    pub(super) fn new(
        config: QuicOptions,
        state: State,
        client: quinn::ClientConfig,
        endpoint: Endpoint,
        runtime: Handle,
    ) -> Shared {
        // Bounds the state that strangers can make this node keep before they have shown an identity (RFC
        // 9000 §21.1).
        let incoming = Arc::new(Semaphore::new(config.incoming_max.min(Semaphore::MAX_PERMITS)));
        let spares = Spares::new(config.receive_queue_len_max.saturating_mul(SPARE_QUEUES));
        Shared { state: Mutex::new(state), config, client, endpoint, runtime, incoming, spares }
    }

    /// The state is consistent between any two calls of its methods, so a panic elsewhere does not spoil it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and calls the wakers once the lock is free: a waker may run code that takes the
    /// lock again.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> R) -> R {
        let mut wakers = Vec::new();
        let result = change(&mut self.lock(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// The next bytes to write on a lane; `None` when the epoch is over.
    pub(super) async fn outgoing(&self, peer: NodeId, epoch: u64, lane: usize) -> Option<Bytes> {
        poll_fn(|cx| {
            // The waker is registered under the same lock as the look: a message that comes in between finds
            // it.
            let mut state = self.lock();
            let Some(peer) = state.peers.get_mut(&peer) else { return Poll::Ready(None) };
            if peer.link.as_ref().is_none_or(|link| link.epoch != epoch) {
                return Poll::Ready(None);
            }
            match peer.outbox.lanes.get_mut(lane).map(|lane| lane.take(cx)) {
                None => Poll::Ready(None),
                Some(None) => Poll::Pending,
                Some(Some(bytes)) => Poll::Ready(Some(bytes)),
            }
        })
        .await
    }

    /// QUIC has taken bytes of a lane.
    pub(super) fn written(&self, peer: NodeId, epoch: u64, lane: usize, len: usize) {
        let sender = {
            let mut state = self.lock();
            state.telemetry.sent(len);
            // Bytes of an epoch that ended were taken off with it.
            let Some(peer) = state.peers.get_mut(&peer) else { return };
            if peer.link.as_ref().is_none_or(|link| link.epoch != epoch) {
                return;
            }
            let len_max = self.config.send_queue_len_max;
            peer.outbox.lanes.get_mut(lane).and_then(|lane| lane.written(len, len_max))
        };
        if let Some(sender) = sender {
            sender.wake();
        }
    }

    /// Waits until a lane has room for a message, and reserves it; with length zero, until there is any room.
    /// `None` when the epoch is over.
    pub(super) async fn room(&self, peer: NodeId, epoch: u64, lane: usize, len: usize) -> Option<()> {
        loop {
            let room = {
                let mut state = self.lock();
                let segment = state.peers.get_mut(&peer)?.inbox.running(epoch)?;
                Arc::clone(&segment.lanes.get_mut(lane)?.room)
            };
            let mut notified = pin!(room.notified());
            // Before the look at the state: room that is made in between is not missed.
            notified.as_mut().enable();
            {
                let mut state = self.lock();
                let len_max = state.receive_queue_len_max;
                let segment = state.peers.get_mut(&peer)?.inbox.running(epoch)?;
                let lane = segment.lanes.get_mut(lane)?;
                let has_room = if len == 0 { lane.len < len_max } else { lane.has_room(len, len_max) };
                if has_room {
                    lane.len += len;
                    return Some(());
                }
                // So that a message that is taken only notifies when a reader waits.
                lane.is_waited_for = true;
            }
            notified.await;
        }
    }

    /// The notification that the dialler of a peer need not wait longer.
    pub(super) fn retry(&self, peer: NodeId) -> Arc<Notify> {
        self.lock().peers.get(&peer).map(|peer| Arc::clone(&peer.retry)).unwrap_or_default()
    }

    /// Waits until the peer is connected, or until it is not.
    pub(super) async fn linked(&self, peer: NodeId, is_linked: bool) {
        loop {
            let Some(changed) = self.lock().peers.get(&peer).map(|peer| Arc::clone(&peer.changed)) else {
                return;
            };
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            match self.lock().peers.get(&peer) {
                Some(peer) if peer.link.is_some() != is_linked => {}
                _ => return,
            }
            notified.await;
        }
    }
}
