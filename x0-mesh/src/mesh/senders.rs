//! Connections of QUIC that wait for room at a port.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::thread::{self, ThreadId};

use crate::datagram::PortId;

/// A connection of the QUIC endpoint: the port that had no room for its packet, and the number of changes of
/// routes and links at that time.
#[derive(Debug, Default)]
pub(super) struct Sender(Mutex<Option<(PortId, u64)>>);

/// Senders that wait for a port. quinn asks whether a socket is writable without saying where the connection
/// sends. The answer is yes, therefore, until the connection has tried: it does so next on its thread.
#[derive(Debug, Default)]
pub(super) struct Senders {
    /// The connection of each thread that may send.
    admitted: HashMap<ThreadId, Weak<Sender>>,
    waiting: Vec<(PortId, Waker)>,
    /// How often routes and links have changed: after that another port may be the right one.
    changes: u64,
}

impl Senders {
    /// The port that a sender found busy, as long as its path can lead there.
    pub(super) fn blocked(&self, sender: &Sender) -> Option<PortId> {
        let blocked = *sender.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.filter(|(_, changes)| *changes == self.changes).map(|(port, _)| port)
    }

    /// Registers a sender for the time when a port has room.
    pub(super) fn wait(&mut self, port: PortId, waker: &Waker) {
        if !self.waiting.iter().any(|(known, sender)| *known == port && sender.will_wake(waker)) {
            self.waiting.push((port, waker.clone()));
        }
    }

    /// A sender tries next on this thread.
    pub(super) fn admit(&mut self, sender: &Arc<Sender>) {
        self.admitted.insert(thread::current().id(), Arc::downgrade(sender));
    }

    /// The sender of this thread tries to send: `busy` is the port that it would need, if that has no room.
    pub(super) fn tries(&mut self, busy: Option<PortId>) {
        let sender = self.admitted.remove(&thread::current().id()).and_then(|sender| sender.upgrade());
        // The endpoint itself sends without asking, and loses what finds no room.
        if let Some(sender) = sender {
            let blocked = busy.map(|port| (port, self.changes));
            *sender.0.lock().unwrap_or_else(PoisonError::into_inner) = blocked;
        }
    }

    /// A port has room.
    pub(super) fn wake(&mut self, port: PortId) {
        let (woken, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(at, _)| *at == port);
        self.waiting = waiting;
        let woken: Vec<(PortId, Waker)> = woken;
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A route or a link has changed.
    pub(super) fn wake_all(&mut self) {
        self.changes += 1;
        self.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }
}
