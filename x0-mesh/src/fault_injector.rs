//! Faults between two nodes, as middleware.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use x0_identity::NodeId;

use crate::{
    DownReason, Lane, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
};

/// A transport that can be cut off from its peers, by a [`FaultHandle`], while the transport beneath stays
/// connected.
///
/// A peer that is cut off in both directions is down for the owner: `Down` with [`DownReason::Blocked`],
/// [`SendError::Unreachable`], nothing received. When the cut ends and the peer is up beneath, it comes up in
/// a new epoch.
///
/// A cut in one [`Direction`] is a gray fault: the owner sees no event while it lasts. What it sends is taken
/// and lost, or what the peer sends is. Since an epoch loses nothing, the owner sees `Down` with
/// [`DownReason::Blocked`] and a new epoch when the cut ends.
///
/// To the peer nothing is down in either case: what it sends is taken, and dropped here. To cut a link as a
/// broken cable does, block at both ends. Epochs are the injector's own, and rise as those of any transport.
#[derive(Debug)]
pub struct FaultInjector<T> {
    inner: T,
    shared: Arc<Shared>,
    /// The directions that are cut, as of the last look at the handles.
    cuts: Cuts,
    /// How many changes of the handles were seen by then.
    seen: u64,
    /// Peers that are up beneath.
    up: BTreeSet<NodeId>,
    /// Peers that are up for the owner, with the injector's epoch.
    shown: BTreeMap<NodeId, u64>,
    /// Peers that are up for the owner and cut in one direction: their epoch has to end when the cut does.
    gray: BTreeSet<NodeId>,
    /// Events that come from the handles and were not polled.
    events: VecDeque<PeerEvent>,
    last_epoch: u64,
}

/// Cuts and mends the connections of a [`FaultInjector`]. Clones control the same one.
#[derive(Debug, Clone)]
pub struct FaultHandle {
    shared: Arc<Shared>,
}

/// One direction between a node and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the node to the peer.
    Send,
    /// From the peer to the node.
    Receive,
}

#[derive(Debug, Default)]
struct Shared {
    /// Counts what the handles did, so that an injector without faults costs no lock.
    changes: AtomicU64,
    control: Mutex<Control>,
}

#[derive(Debug, Default)]
struct Control {
    cuts: Cuts,
    wakers: BTreeMap<Waiting, Waker>,
}

/// The wakers of the owner.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiting {
    Event,
    Send(NodeId, Lane),
}

/// Directions that are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cut {
    send: bool,
    receive: bool,
}

#[derive(Debug, Clone, Default)]
struct Cuts {
    peers: BTreeMap<NodeId, Cut>,
    all: Cut,
}

impl Cut {
    const BOTH: Cut = Cut { send: true, receive: true };

    fn is_both(self) -> bool {
        self == Cut::BOTH
    }

    fn is_none(self) -> bool {
        self == Cut::default()
    }

    fn add(&mut self, direction: Direction) {
        match direction {
            Direction::Send => self.send = true,
            Direction::Receive => self.receive = true,
        }
    }
}

impl Cuts {
    fn of(&self, peer: NodeId) -> Cut {
        let cut = self.peers.get(&peer).copied().unwrap_or_default();
        Cut { send: cut.send || self.all.send, receive: cut.receive || self.all.receive }
    }

    fn is_none(&self) -> bool {
        self.all.is_none() && self.peers.is_empty()
    }
}

impl Shared {
    /// The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultHandle {
    /// Cuts this peer off in both directions.
    pub fn block(&self, peer: NodeId) {
        self.change(|cuts| {
            cuts.peers.insert(peer, Cut::BOTH);
        });
    }

    /// Cuts one direction to or from this peer, and leaves the other as it is.
    pub fn cut(&self, peer: NodeId, direction: Direction) {
        self.change(|cuts| cuts.peers.entry(peer).or_default().add(direction));
    }

    /// Ends every cut of this peer, except those of [`FaultHandle::block_all`] and [`FaultHandle::cut_all`].
    pub fn unblock(&self, peer: NodeId) {
        self.change(|cuts| {
            cuts.peers.remove(&peer);
        });
    }

    /// Cuts every peer off in both directions, including peers that connect later.
    pub fn block_all(&self) {
        self.change(|cuts| cuts.all = Cut::BOTH);
    }

    /// Cuts one direction of every peer, including peers that connect later.
    pub fn cut_all(&self, direction: Direction) {
        self.change(|cuts| cuts.all.add(direction));
    }

    /// Ends every cut.
    pub fn unblock_all(&self) {
        self.change(|cuts| *cuts = Cuts::default());
    }

    /// Whether this peer is cut off in both directions.
    #[must_use]
    pub fn is_blocked(&self, peer: NodeId) -> bool {
        self.shared.lock().cuts.of(peer).is_both()
    }

    fn change(&self, change: impl FnOnce(&mut Cuts)) {
        let wakers = {
            let mut control = self.shared.lock();
            change(&mut control.cuts);
            self.shared.changes.fetch_add(1, Ordering::Release);
            std::mem::take(&mut control.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T: Transport> FaultInjector<T> {
    /// Wraps a transport. There are no faults until the handle makes some.
    pub fn new(inner: T) -> (FaultInjector<T>, FaultHandle) {
        let shared = Arc::new(Shared::default());
        let handle = FaultHandle { shared: Arc::clone(&shared) };
        let injector = FaultInjector {
            inner,
            shared,
            cuts: Cuts::default(),
            seen: 0,
            up: BTreeSet::new(),
            shown: BTreeMap::new(),
            gray: BTreeSet::new(),
            events: VecDeque::new(),
            last_epoch: 0,
        };
        (injector, handle)
    }

    /// The transport beneath.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The transport beneath, without the injector. Events of cuts that were not polled are lost.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn next_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Turns what the handles did into events. Done before anything else, so that no message of an epoch is
    /// lost without its `Down`.
    fn follow(&mut self) {
        if self.shared.changes.load(Ordering::Acquire) == self.seen {
            return;
        }
        {
            let control = self.shared.lock();
            self.seen = self.shared.changes.load(Ordering::Acquire);
            self.cuts = control.cuts.clone();
        }
        for peer in self.up.clone() {
            let cut = self.cuts.of(peer);
            if self.shown.contains_key(&peer) {
                if !cut.is_none() && !cut.is_both() {
                    self.gray.insert(peer);
                } else if cut.is_both() || self.gray.contains(&peer) {
                    self.end(peer);
                }
            }
            if !cut.is_both() && !self.shown.contains_key(&peer) {
                self.begin(peer);
            }
        }
    }

    fn begin(&mut self, peer: NodeId) {
        let epoch = self.next_epoch();
        self.show(peer, epoch);
        self.events.push_back(PeerEvent { peer, kind: PeerEventKind::Up { epoch } });
    }

    fn show(&mut self, peer: NodeId, epoch: u64) {
        self.shown.insert(peer, epoch);
        if !self.cuts.of(peer).is_none() {
            self.gray.insert(peer);
        }
    }

    fn end(&mut self, peer: NodeId) {
        self.gray.remove(&peer);
        if let Some(epoch) = self.shown.remove(&peer) {
            let kind = PeerEventKind::Down { epoch, reason: DownReason::Blocked };
            self.events.push_back(PeerEvent { peer, kind });
        }
    }

    /// The event for the owner that an event beneath amounts to.
    fn translate(&mut self, event: PeerEvent) -> Option<PeerEvent> {
        let peer = event.peer;
        let is_blocked = self.cuts.of(peer).is_both();
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
                self.show(peer, epoch);
                PeerEventKind::Up { epoch }
            }
            PeerEventKind::Down { reason, .. } => {
                self.up.remove(&peer);
                self.gray.remove(&peer);
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

impl<T: Transport> Transport for FaultInjector<T> {
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
        let cut = self.cuts.of(peer);
        if peer != self.local() && cut.is_both() {
            return Poll::Ready(Err(SendError::Unreachable { peer }));
        }
        let len = transmit.payload.len() + trailer.len();
        if cut.send && self.shown.contains_key(&peer) && len <= self.message_len_max(transmit.lane) {
            // Lost on the way.
            return Poll::Ready(Ok(()));
        }
        let sent = self.inner.poll_send_with_trailer(cx, transmit, trailer);
        if sent.is_pending() {
            // A cut answers an owner that waits for room.
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
        if self.cuts.is_none() {
            return self.inner.poll_recv(cx, payload);
        }
        loop {
            // The owner's buffer is left alone where the message is not for the owner.
            let mut message = Vec::new();
            match self.inner.poll_recv(cx, &mut message) {
                Poll::Ready(Ok(received)) if self.cuts.of(received.from).receive => {}
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
