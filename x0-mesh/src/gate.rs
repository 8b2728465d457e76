//! Faults between two nodes, as middleware.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use x0_identity::NodeId;

use crate::{
    DownReason, Lane, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
};

/// A transport that can be cut off from its peers, by a [`GateHandle`], while the transport beneath stays connected.
///
/// To the owner a blocked peer is down: `Down` with [`DownReason::Blocked`], [`SendError::Unreachable`], nothing received.
/// To the **peer** nothing is down: what it sends is taken, and dropped here. To cut a link as a broken cable would, block at
/// both ends. When the block ends and the peer is up beneath, it comes up here in a new epoch.
///
/// Epochs are the gate's own, and rise as those of any transport.
#[derive(Debug)]
pub struct Gate<T> {
    inner: T,
    shared: Arc<Shared>,
    /// What is blocked, as far as the handles have been followed.
    blocked: Blocked,
    /// How far that is.
    followed: u64,
    /// Peers that are up beneath.
    up: BTreeSet<NodeId>,
    /// Peers that are up for the owner, with the gate's epoch.
    shown: BTreeMap<NodeId, u64>,
    /// What the handle changed and the owner has not been told.
    events: VecDeque<PeerEvent>,
    last_epoch: u64,
}

/// Blocks and unblocks the peers of a [`Gate`]. Clones control the same gate.
#[derive(Debug, Clone)]
pub struct GateHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Counts what the handles did, so that an untouched gate costs no lock.
    changes: AtomicU64,
    control: Mutex<Control>,
}

#[derive(Debug, Default)]
struct Control {
    blocked: Blocked,
    wakers: BTreeMap<Waiting, Waker>,
}

/// What somebody waits for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiting {
    Event,
    Send(NodeId, Lane),
}

#[derive(Debug, Clone, Default)]
struct Blocked {
    peers: BTreeSet<NodeId>,
    is_all: bool,
}

impl Blocked {
    fn holds(&self, peer: NodeId) -> bool {
        self.is_all || self.peers.contains(&peer)
    }

    fn is_none(&self) -> bool {
        !self.is_all && self.peers.is_empty()
    }
}

impl Shared {
    /// The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateHandle {
    /// Cuts this peer off.
    pub fn block(&self, peer: NodeId) {
        self.change(|blocked| {
            blocked.peers.insert(peer);
        });
    }

    /// Ends [`GateHandle::block`] for this peer, but not [`GateHandle::block_all`].
    pub fn unblock(&self, peer: NodeId) {
        self.change(|blocked| {
            blocked.peers.remove(&peer);
        });
    }

    /// Cuts every peer off, those that come later as well.
    pub fn block_all(&self) {
        self.change(|blocked| blocked.is_all = true);
    }

    /// Lets every peer through again.
    pub fn unblock_all(&self) {
        self.change(|blocked| *blocked = Blocked::default());
    }

    /// Whether this peer is cut off.
    #[must_use]
    pub fn is_blocked(&self, peer: NodeId) -> bool {
        self.shared.lock().blocked.holds(peer)
    }

    fn change(&self, change: impl FnOnce(&mut Blocked)) {
        let wakers = {
            let mut control = self.shared.lock();
            change(&mut control.blocked);
            self.shared.changes.fetch_add(1, Ordering::Release);
            std::mem::take(&mut control.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T: Transport> Gate<T> {
    /// Puts a gate, open at first, in front of a transport.
    pub fn new(inner: T) -> (Gate<T>, GateHandle) {
        let shared = Arc::new(Shared::default());
        let handle = GateHandle { shared: Arc::clone(&shared) };
        let gate = Gate {
            inner,
            shared,
            blocked: Blocked::default(),
            followed: 0,
            up: BTreeSet::new(),
            shown: BTreeMap::new(),
            events: VecDeque::new(),
            last_epoch: 0,
        };
        (gate, handle)
    }

    /// The transport beneath.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Takes the gate away. What it had not told of blocked peers is forgotten.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn next_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Turns what the handles did into events. Done before anything else, so that no message is dropped inside an epoch.
    fn follow(&mut self) {
        if self.shared.changes.load(Ordering::Acquire) == self.followed {
            return;
        }
        {
            let control = self.shared.lock();
            self.followed = self.shared.changes.load(Ordering::Acquire);
            self.blocked = control.blocked.clone();
        }
        for peer in self.up.clone() {
            match (self.blocked.holds(peer), self.shown.get(&peer).copied()) {
                (true, Some(epoch)) => {
                    self.shown.remove(&peer);
                    let kind = PeerEventKind::Down { epoch, reason: DownReason::Blocked };
                    self.events.push_back(PeerEvent { peer, kind });
                }
                (false, None) => {
                    let epoch = self.next_epoch();
                    self.shown.insert(peer, epoch);
                    self.events.push_back(PeerEvent { peer, kind: PeerEventKind::Up { epoch } });
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    /// What the owner is told of an event beneath.
    fn translate(&mut self, event: PeerEvent) -> Option<PeerEvent> {
        let peer = event.peer;
        let is_blocked = self.blocked.holds(peer);
        let kind = match event.kind {
            PeerEventKind::Up { .. } => {
                self.up.insert(peer);
                if is_blocked {
                    return None;
                }
                let epoch = match self.shown.get(&peer) {
                    Some(epoch) => *epoch,
                    None => self.next_epoch(),
                };
                self.shown.insert(peer, epoch);
                PeerEventKind::Up { epoch }
            }
            PeerEventKind::Down { reason, .. } => {
                self.up.remove(&peer);
                match self.shown.remove(&peer) {
                    Some(epoch) => PeerEventKind::Down { epoch, reason },
                    None if is_blocked => return None,
                    // An attempt that failed.
                    None => PeerEventKind::Down { epoch: self.next_epoch(), reason },
                }
            }
            kind @ PeerEventKind::Degraded => {
                if !self.shown.contains_key(&peer) {
                    return None;
                }
                kind
            }
        };
        Some(PeerEvent { peer, kind })
    }
}

impl<T: Transport> Transport for Gate<T> {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.inner.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.poll_send_with_trailer(cx, transmit, &[])
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        self.follow();
        let peer = transmit.to;
        if peer != self.local() && self.blocked.holds(peer) {
            return Poll::Ready(Err(SendError::Unreachable { peer }));
        }
        let sent = self.inner.poll_send_with_trailer(cx, transmit, trailer);
        if sent.is_pending() {
            // A block answers who waits for room.
            self.shared.lock().wakers.insert(Waiting::Send(peer, transmit.lane), cx.waker().clone());
        }
        sent
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        self.follow();
        if self.blocked.is_none() {
            return self.inner.poll_recv(cx, payload);
        }
        loop {
            // The owner's buffer is left alone where the message is not for the owner.
            let mut message = Vec::new();
            match self.inner.poll_recv(cx, &mut message) {
                Poll::Ready(Ok(received)) if self.blocked.holds(received.from) => {}
                Poll::Ready(Ok(received)) => {
                    *payload = message;
                    return Poll::Ready(Ok(received));
                }
                other => return other,
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        // Registered before it is looked at, so that a change in between is not missed.
        self.shared.lock().wakers.insert(Waiting::Event, cx.waker().clone());
        loop {
            self.follow();
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            match self.inner.poll_event(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(event) => {
                    if let Some(event) = self.translate(event) {
                        return Poll::Ready(event);
                    }
                }
            }
        }
    }
}
