//! Lanes that may not use paths which cost money.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use x0_identity::NodeId;

use super::node::Shared;
use crate::quic::race;
use crate::{
    Lane, Next, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport, is_guest,
};

/// Between two looks at the prices while messages wait: a price may change without a change of the route.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Events that are kept for an owner that sends and does not poll them.
const EVENTS_MAX: usize = 1024;

/// The highest price of a path that each lane may use. A lane without a limit uses every path.
#[derive(Debug, Clone, Default)]
pub struct PriceLimits {
    lanes: BTreeMap<Lane, u16>,
}

impl PriceLimits {
    /// No limit for any lane.
    #[must_use]
    pub fn new() -> PriceLimits {
        PriceLimits::default()
    }

    /// Sets the highest price of a GB, as [`Cost::price`](crate::router::Cost::price) gives it, summed over
    /// the links and relays of a path: 0 for a lane that uses free paths only.
    #[must_use]
    pub fn lane(mut self, lane: Lane, per_gb_max: u16) -> PriceLimits {
        self.lanes.insert(lane, per_gb_max);
        self
    }

    fn allows(&self, lane: Lane, price: Option<u16>) -> bool {
        // Without a route the transport beneath decides: the peer is unreachable, unknown or beside the mesh.
        self.lanes.get(&lane).is_none_or(|per_gb_max| price.is_none_or(|price| price <= *per_gb_max))
    }
}

/// A transport over a mesh whose lanes use paths up to a price only. [`Mesh::limit_prices`] makes one.
///
/// A message on a lane whose limit the price of the present path exceeds waits: `poll_send` is pending, as if
/// the lane were full, until the path is cheap enough, the epoch ends, the mesh is dropped, or the transport
/// has said to its receiver that it is over. On
/// [`Lane::Datagram`], which never waits, it is [`SendError::Congested`]; so it is on every lane for an owner
/// that leaves 1024 events unpolled. Between `Down` of a peer and its next `Up` such a message is
/// [`SendError::Unreachable`], also after the peer was removed, or removed and added again. A message for a
/// peer without any event so far waits too, even if the transport does not know the peer.
///
/// Messages that the transport has taken before the price rose, or before there was a route, still leave. The
/// limits apply to what this node sends; the peer has limits of its own. The price is that of the path over
/// the mesh also for a peer whose connection goes beside it ([`Mesh::socket_beside`]): give no node of the
/// mesh another address there.
///
/// [`Mesh::limit_prices`]: super::Mesh::limit_prices
/// [`Mesh::socket_beside`]: super::Mesh::socket_beside
#[derive(Debug)]
pub struct PriceLimiter<T> {
    inner: T,
    limits: PriceLimits,
    /// Nodes whose last epoch, or first attempt, is over. The transport beneath may take messages for them
    /// all the same: a peer that was removed and added again is reached for the first time.
    down: BTreeSet<NodeId>,
    /// Events that the owner has not polled.
    events: VecDeque<PeerEvent>,
    /// Whether the transport beneath is over: it has the errors of all messages from then on.
    is_closed: bool,
    shared: Weak<Shared>,
    waiting: Arc<Waiting>,
    /// The waker of `waiting`.
    waker: Waker,
}

/// The tasks that wait for the transport beneath. As a waker it wakes all of them: the owner for events and
/// messages, and the senders, whose epochs the events may end.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Mutex<Wakers>,
    /// Notified when a sender begins to wait, and when the limiter is dropped.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Wakers {
    /// Wakers of messages that wait for another path.
    senders: BTreeMap<(NodeId, Lane), Waker>,
    owner: Option<Waker>,
    /// Whether the task that wakes senders has ended, and with it the mesh.
    is_over: bool,
}

impl Waiting {
    /// The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_owner(&self, waker: &Waker) {
        match &mut self.lock().owner {
            Some(owner) => owner.clone_from(waker),
            owner => *owner = Some(waker.clone()),
        }
    }

    fn add_sender(&self, to: NodeId, lane: Lane, waker: &Waker) {
        let mut wakers = self.lock();
        if wakers.senders.is_empty() {
            self.changed.notify_one();
        }
        wakers.senders.insert((to, lane), waker.clone());
    }

    /// Wakes and removes the senders for which `is_woken` holds.
    fn wake_senders(&self, is_woken: impl Fn(NodeId, Lane) -> bool) {
        let senders: Vec<(NodeId, Lane)> = self.lock().senders.keys().copied().collect();
        for (to, lane) in senders.into_iter().filter(|(to, lane)| is_woken(*to, *lane)) {
            // Outside of the lock: a waker may poll.
            let waker = self.lock().senders.remove(&(to, lane));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Waiting>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Waiting>) {
        let owner = self.lock().owner.take();
        if let Some(owner) = owner {
            owner.wake();
        }
        self.wake_senders(|_, _| true);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// The part of the task that wakes senders. When the task ends, also before its first poll, all senders are
/// woken, because nothing else wakes them after that.
pub(super) struct SenderWaker {
    waiting: Weak<Waiting>,
    changed: Arc<Notify>,
}

impl Drop for SenderWaker {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.upgrade() {
            waiting.lock().is_over = true;
            waiting.wake_senders(|_, _| true);
        }
    }
}

fn price(shared: &Shared, to: NodeId) -> Option<u16> {
    shared.lock().engine.router().route(to).map(|route| route.price)
}

impl<T> PriceLimiter<T> {
    /// A limiter; [`wake_always`] wakes the senders that wait.
    pub(super) fn new(inner: T, limits: PriceLimits, shared: &Arc<Shared>) -> PriceLimiter<T> {
        let waiting: Arc<Waiting> = Arc::default();
        PriceLimiter {
            inner,
            limits,
            down: BTreeSet::new(),
            events: VecDeque::new(),
            is_closed: false,
            shared: Arc::downgrade(shared),
            waker: Waker::from(Arc::clone(&waiting)),
            waiting,
        }
    }

    pub(super) fn sender_waker(&self) -> SenderWaker {
        SenderWaker { waiting: Arc::downgrade(&self.waiting), changed: Arc::clone(&self.waiting.changed) }
    }

    /// The transport beneath.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    fn is_cheap(&self, to: NodeId, lane: Lane) -> bool {
        let Some(shared) = self.shared.upgrade() else { return true };
        self.limits.allows(lane, price(&shared, to)) || self.waiting.lock().is_over
    }

    /// Notes that the transport beneath is over, if so.
    fn note_end<R>(&mut self, received: &Result<R, RecvError>) {
        if received.is_err() && !std::mem::replace(&mut self.is_closed, true) {
            self.waiting.wake_senders(|_, _| true);
        }
    }

    fn note(&mut self, event: &PeerEvent) {
        match event.kind {
            PeerEventKind::Up { .. } => {
                self.down.remove(&event.peer);
            }
            PeerEventKind::Down { .. } => {
                // Guests are not bounded in number, and no limit applies to them: they have no route.
                if !is_guest(event.peer) {
                    self.down.insert(event.peer);
                }
                self.waiting.wake_senders(|to, _| to == event.peer);
            }
            _ => {}
        }
    }
}

impl<T: Transport> PriceLimiter<T> {
    /// Takes the events of the transport beneath before the owner polls them: true if all of them.
    fn take_events(&mut self) -> bool {
        while self.events.len() < EVENTS_MAX {
            let polled = self.inner.poll_event(&mut Context::from_waker(&self.waker));
            let Poll::Ready(event) = polled else { return true };
            self.note(&event);
            self.events.push_back(event);
        }
        false
    }

    /// Whether a message may be handed to the transport beneath; registers the waker if not.
    fn admit(&mut self, waker: &Waker, to: NodeId, lane: Lane, len: usize) -> Poll<Result<(), SendError>> {
        let len_max = self.inner.message_len_max(lane);
        // A lane that does not exist has no room for any message; the transport beneath has the errors.
        let is_refused = len_max == 0 || len > len_max || self.is_closed;
        if is_refused || !self.limits.lanes.contains_key(&lane) || self.is_cheap(to, lane) {
            return Poll::Ready(Ok(()));
        }
        let waits = lane != Lane::Datagram;
        if waits {
            // Before the look at events and price: a change in between is not missed.
            self.waiting.add_sender(to, lane, waker);
        }
        // Not only at the owner's polls of events: an owner that waits for this message polls none.
        let is_complete = self.take_events();
        let outcome = if self.is_cheap(to, lane) {
            Ok(())
        } else if is_complete && self.down.contains(&to) {
            Err(SendError::Unreachable { peer: to })
        } else if is_complete && waits {
            return Poll::Pending;
        } else {
            Err(SendError::Congested { peer: to, lane })
        };
        self.waiting.lock().senders.remove(&(to, lane));
        Poll::Ready(outcome)
    }
}

/// Wakes messages whose path has become cheap enough, until the limiter or the mesh is dropped.
pub(super) async fn wake_always(shared: Weak<Shared>, sender_waker: SenderWaker, limits: PriceLimits) {
    loop {
        let (Some(strong), Some(waiting)) = (shared.upgrade(), sender_waker.waiting.upgrade()) else {
            return;
        };
        let changed = Arc::clone(&strong.changed);
        // Before the look at the prices: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        changed.as_mut().enable();
        waiting.wake_senders(|to, lane| limits.allows(lane, price(&strong, to)));
        let is_idle = waiting.lock().senders.is_empty();
        drop((strong, waiting));
        if is_idle {
            sender_waker.changed.notified().await;
        } else {
            race(changed, sleep(LOOK_INTERVAL)).await;
        }
    }
}

impl<T: Transport> Transport for PriceLimiter<T> {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.inner.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.poll_send_with_trailer(cx, transmit, &[])
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let received = std::task::ready!(self.inner.poll_recv(cx, payload));
        self.note_end(&received);
        Poll::Ready(received)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        self.waiting.set_owner(cx.waker());
        let event = std::task::ready!(self.inner.poll_event(&mut Context::from_waker(&self.waker)));
        self.note(&event);
        Poll::Ready(event)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Ok(Next::Event(event)));
        }
        self.waiting.set_owner(cx.waker());
        let polled = self.inner.poll_next(&mut Context::from_waker(&self.waker), payload);
        let next = std::task::ready!(polled);
        self.note_end(&next);
        if let Ok(Next::Event(event)) = &next {
            self.note(event);
        }
        Poll::Ready(next)
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        let len = transmit.payload.len() + trailer.len();
        match self.admit(cx.waker(), transmit.to, transmit.lane, len) {
            Poll::Ready(Ok(())) if trailer.is_empty() => self.inner.poll_send(cx, transmit),
            Poll::Ready(Ok(())) => self.inner.poll_send_with_trailer(cx, transmit, trailer),
            refused => refused,
        }
    }
}
