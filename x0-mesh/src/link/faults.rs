//! Faults of a single link, as middleware.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::{Link, LinkEvent, LinkRecvError, LinkSendError};
use crate::Direction;
use crate::random::SplitMix64;

/// A link whose frames can be lost, in each direction, by a [`LinkFaultHandle`]. To the layer above it looks
/// like a cable that is cut or bad: sending succeeds, and nothing arrives.
#[derive(Debug)]
pub struct LinkFaultInjector<L> {
    inner: L,
    shared: Arc<Mutex<Faults>>,
}

/// Cuts and mends the link of a [`LinkFaultInjector`]. Clones control the same one.
#[derive(Debug, Clone)]
pub struct LinkFaultHandle {
    shared: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct Faults {
    /// The share of frames that are lost: sent ones, received ones.
    loss: [f64; 2],
    /// Longer frames are lost in both directions.
    len_max: usize,
    dropped: u64,
    random: SplitMix64,
}

fn lock(shared: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn position(direction: Direction) -> usize {
    match direction {
        Direction::Send => 0,
        Direction::Receive => 1,
    }
}

impl Faults {
    fn loses(&mut self, direction: Direction, len: usize) -> bool {
        let loss = self.loss[position(direction)];
        let is_lost = len > self.len_max || (loss > 0.0 && self.random.happens(loss));
        self.dropped += u64::from(is_lost);
        is_lost
    }
}

impl<L: Link> LinkFaultInjector<L> {
    /// Wraps a link that loses nothing until the handle says so. Losses are drawn from the seed.
    pub fn new(inner: L, seed: u64) -> (LinkFaultInjector<L>, LinkFaultHandle) {
        let faults =
            Faults { loss: [0.0; 2], len_max: usize::MAX, dropped: 0, random: SplitMix64::new(seed) };
        let shared = Arc::new(Mutex::new(faults));
        (LinkFaultInjector { inner, shared: Arc::clone(&shared) }, LinkFaultHandle { shared })
    }
}

impl LinkFaultHandle {
    /// Loses all frames of both directions.
    pub fn cut(&self) {
        lock(&self.shared).loss = [1.0; 2];
    }

    /// Loses this share of the frames of one direction, from 0 (none) to 1 (all).
    pub fn lose(&self, direction: Direction, share: f64) {
        lock(&self.shared).loss[position(direction)] = share;
    }

    /// Loses all frames of more than `len_max` bytes, in both directions, like a path with a smaller MTU than
    /// its ends know of.
    pub fn lose_longer(&self, len_max: usize) {
        lock(&self.shared).len_max = len_max;
    }

    /// Loses no frames from now on.
    pub fn mend(&self) {
        let mut faults = lock(&self.shared);
        (faults.loss, faults.len_max) = ([0.0; 2], usize::MAX);
    }

    /// How many frames were lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        lock(&self.shared).dropped
    }
}

impl<L: Link> Link for LinkFaultInjector<L> {
    fn local(&self) -> SocketAddr {
        self.inner.local()
    }

    fn mtu(&self) -> usize {
        self.inner.mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        // A frame that is too long is refused, whatever the faults are.
        if frame.len() <= self.inner.mtu() && lock(&self.shared).loses(Direction::Send, frame.len()) {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_send(cx, to, frame)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        let mut received = Vec::new();
        loop {
            match self.inner.poll_recv(cx, &mut received) {
                Poll::Ready(Ok(from)) => {
                    if !lock(&self.shared).loses(Direction::Receive, received.len()) {
                        *frame = received;
                        return Poll::Ready(Ok(from));
                    }
                }
                other => return other,
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.inner.poll_event(cx)
    }
}
