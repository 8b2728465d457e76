//! Transports over a simulated network, and their common clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use x0_identity::NodeId;

use super::link::LinkProfile;
use super::network::{Input, Network, Output};
use super::port::Port;
use super::transport::SimTransport;
use crate::{Lane, PeerEventKind};

/// A mesh of [`SimTransport`]s in virtual time, which passes only on request. Clones are the same mesh.
#[derive(Debug, Clone)]
pub struct SimMesh(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) network: Network,
    pub(super) now: Duration,
    pub(super) ports: BTreeMap<NodeId, Port>,
    /// Bytes of each lane that were sent and not received.
    pub(super) under_way: BTreeMap<(NodeId, NodeId, Lane), usize>,
}

impl SimMesh {
    /// A mesh without nodes.
    #[must_use]
    pub fn new(seed: u64) -> SimMesh {
        SimMesh(Arc::new(Mutex::new(Inner {
            network: Network::new(seed),
            now: Duration::ZERO,
            ports: BTreeMap::new(),
            under_way: BTreeMap::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a node and returns its transport; a node that runs already restarts. Dropping the transport is
    /// a crash of the node.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> SimTransport {
        let mut inner = self.lock();
        let life = inner.ports.get(&node).map_or(0, |port| port.life + 1);
        inner.ports.insert(node, Port::new(life));
        inner.under_way.retain(|(from, to, _), _| *from != node && *to != node);
        let now = inner.now;
        inner.network.start(now, node);
        let wakers = inner.dispatch();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        SimTransport::new(self.clone(), node, life)
    }

    /// See [`Network::set_profile`].
    pub fn set_profile(&self, profile: LinkProfile) {
        self.lock().network.set_profile(profile);
    }

    /// See [`Network::set_link_profile`].
    pub fn set_link_profile(&self, from: NodeId, to: NodeId, profile: LinkProfile) {
        self.lock().network.set_link_profile(from, to, profile);
    }

    /// See [`Network::set_silence`].
    pub fn set_silence(&self, silence: Duration) {
        self.lock().network.set_silence(silence);
    }

    /// See [`Network::cut`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.network.cut(now, from, to);
    }

    /// See [`Network::partition`].
    pub fn partition(&self, groups: &[&[NodeId]]) {
        self.change(|network, now| network.partition(now, groups));
    }

    /// See [`Network::heal`].
    pub fn heal(&self) {
        self.change(Network::heal);
    }

    /// See [`Network::reset`].
    pub fn reset(&self, one: NodeId, other: NodeId) {
        self.change(|network, now| network.reset(now, one, other));
    }

    /// When the next thing happens, if ever: [`step`](SimMesh::step) goes there.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.lock().network.poll_timeout()
    }

    /// Sets the time, for a simulator that has a schedule of its own. Nothing may be due before `now`; time
    /// never goes back.
    pub fn advance_to(&self, now: Duration) {
        let mut inner = self.lock();
        inner.now = inner.now.max(now);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Network, Duration)) {
        let mut inner = self.lock();
        let now = inner.now;
        change(&mut inner.network, now);
        let wakers = inner.dispatch();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The time since the mesh was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// See [`Network::trace_hash`].
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.lock().network.trace_hash()
    }

    /// Lets time pass until the next occurrence. Returns whether there was one.
    pub fn step(&self) -> bool {
        let mut inner = self.lock();
        let Some(due) = inner.network.poll_timeout() else { return false };
        inner.now = inner.now.max(due);
        let now = inner.now;
        // Only a message can be refused.
        let _ = inner.network.handle(now, Input::Timeout);
        let wakers = inner.dispatch();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    /// Lets this much time pass.
    pub fn advance(&self, duration: Duration) {
        let end = self.now() + duration;
        while self.lock().network.poll_timeout().is_some_and(|due| due <= end) {
            self.step();
        }
        self.lock().now = end;
    }

    /// Runs a future, and lets time pass whenever it waits. `None` if it waits and nothing will ever happen.
    pub fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            if !self.step() {
                return None;
            }
        }
    }
}

impl Inner {
    /// Puts the outputs of the network into the ports of their nodes. Returns the wakers to call.
    pub(super) fn dispatch(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(output) = self.network.poll_output() {
            match output {
                Output::Deliver(delivery) => {
                    let Some(port) = self.ports.get_mut(&delivery.to) else { continue };
                    port.push_message(delivery.from, delivery.lane, delivery.payload);
                    wakers.extend(port.receiver.take());
                }
                Output::Event { at, event } => {
                    let Some(port) = self.ports.get_mut(&at) else { continue };
                    // Up or down: an owner that waits for room gets an answer now.
                    let peer = event.peer;
                    if matches!(event.kind, PeerEventKind::Down { .. }) {
                        self.under_way.retain(|(from, to, _), _| (*from, *to) != (at, peer));
                    }
                    port.push_event(event);
                    wakers.extend(port.watcher.take());
                    wakers.extend(port.receiver.take());
                    let waiting = std::mem::take(&mut port.senders);
                    for ((to, lane), waker) in waiting {
                        if to == peer {
                            wakers.push(waker);
                        } else {
                            port.senders.insert((to, lane), waker);
                        }
                    }
                }
            }
        }
        wakers
    }

    /// The receiver has taken this much of a lane. Returns the waker of the sender.
    pub(super) fn release(&mut self, from: NodeId, to: NodeId, lane: Lane, len: usize) -> Option<Waker> {
        let under_way = self.under_way.get_mut(&(from, to, lane))?;
        *under_way = under_way.saturating_sub(len);
        self.ports.get_mut(&from)?.senders.remove(&(to, lane))
    }
}
