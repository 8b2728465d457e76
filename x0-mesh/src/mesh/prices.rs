//! Lanes that may not use paths which cost money.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;
use x0_identity::NodeId;

use super::node::Shared;
use crate::quic::race;
use crate::{Lane, Next, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport};

/// Between two looks at the prices while messages wait: a price may change without a change of the route.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
        // Without a route the transport beneath knows what to say.
        self.lanes.get(&lane).is_none_or(|per_gb_max| price.is_none_or(|price| price <= *per_gb_max))
    }
}

/// A transport over a mesh whose lanes use paths up to a price only. [`Mesh::limit_prices`] makes one.
///
/// A message on a lane whose limit the price of the present path exceeds waits: `poll_send` is pending, as if
/// the lane were full, until the path is cheap enough or the epoch ends; on [`Lane::Datagram`], which never
/// waits, it is [`SendError::Congested`]. Messages that the transport has taken before the price rose still
/// leave, and what the peer sends is a matter of the peer's limits.
///
/// [`Mesh::limit_prices`]: super::Mesh::limit_prices
#[derive(Debug)]
pub struct PriceLimiter<T> {
    inner: T,
    limits: PriceLimits,
    /// Peers in an epoch.
    up: BTreeSet<NodeId>,
    shared: Weak<Shared>,
    waiting: Arc<Waiting>,
}

/// Wakers of messages that wait for another path.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<BTreeMap<(NodeId, Lane), Waker>>);

impl Waiting {
    /// The map is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes and removes those for which this holds.
    fn wake(&self, holds: impl Fn(NodeId, Lane) -> bool) {
        let mut woken = Vec::new();
        self.lock().retain(|(peer, lane), waker| {
            let is_kept = !holds(*peer, *lane);
            if !is_kept {
                woken.push(waker.clone());
            }
            is_kept
        });
        // Outside of the lock: a waker may poll.
        woken.into_iter().for_each(Waker::wake);
    }
}

fn price(shared: &Shared, to: NodeId) -> Option<u16> {
    shared.lock().engine.router().route(to).map(|route| route.price)
}

impl<T> PriceLimiter<T> {
    /// A limiter; [`wake_always`] wakes what waits.
    pub(super) fn new(inner: T, limits: PriceLimits, shared: &Arc<Shared>) -> PriceLimiter<T> {
        let (shared, waiting) = (Arc::downgrade(shared), Arc::default());
        PriceLimiter { inner, limits, up: BTreeSet::new(), shared, waiting }
    }

    pub(super) fn waiting(&self) -> Weak<Waiting> {
        Arc::downgrade(&self.waiting)
    }

    /// The transport beneath.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    fn is_cheap(&self, to: NodeId, lane: Lane) -> bool {
        let Some(shared) = self.shared.upgrade() else { return true };
        self.limits.allows(lane, price(&shared, to))
    }

    /// Whether a message may be handed to the transport beneath; registers the waker if not.
    fn admit(&self, cx: &Context<'_>, to: NodeId, lane: Lane) -> Poll<Result<(), SendError>> {
        // Outside of an epoch the transport beneath keeps its contract: it takes what fits or refuses.
        if !self.limits.lanes.contains_key(&lane) || !self.up.contains(&to) || self.is_cheap(to, lane) {
            return Poll::Ready(Ok(()));
        }
        if lane == Lane::Datagram {
            return Poll::Ready(Err(SendError::Congested { peer: to, lane }));
        }
        self.waiting.lock().insert((to, lane), cx.waker().clone());
        // The path may have changed before the waker was there.
        if self.is_cheap(to, lane) {
            self.waiting.lock().remove(&(to, lane));
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn note(&mut self, event: &PeerEvent) {
        match event.kind {
            PeerEventKind::Up { .. } => {
                self.up.insert(event.peer);
            }
            PeerEventKind::Down { .. } => {
                self.up.remove(&event.peer);
                self.waiting.wake(|peer, _| peer == event.peer);
            }
            _ => {}
        }
    }
}

/// Wakes messages whose path has become cheap enough, until the limiter or the mesh is dropped.
pub(super) async fn wake_always(shared: Weak<Shared>, waiting: Weak<Waiting>, limits: PriceLimits) {
    loop {
        let (Some(strong), Some(strong_waiting)) = (shared.upgrade(), waiting.upgrade()) else { return };
        let changed = Arc::clone(&strong.changed);
        // Before the look at the prices: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        changed.as_mut().enable();
        strong_waiting.wake(|peer, lane| limits.allows(lane, price(&strong, peer)));
        drop((strong, strong_waiting));
        race(changed, sleep(LOOK_INTERVAL)).await;
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
        self.inner.poll_recv(cx, payload)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let event = std::task::ready!(self.inner.poll_event(cx));
        self.note(&event);
        Poll::Ready(event)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        let next = std::task::ready!(self.inner.poll_next(cx, payload));
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
        match self.admit(cx, transmit.to, transmit.lane) {
            Poll::Ready(Ok(())) if trailer.is_empty() => self.inner.poll_send(cx, transmit),
            Poll::Ready(Ok(())) => self.inner.poll_send_with_trailer(cx, transmit, trailer),
            refused => refused,
        }
    }
}
