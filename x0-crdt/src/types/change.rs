//! [`Change`]: one operation while it is being made.

use crate::dot::{Dot, ReplicaId};
use crate::types::context::Context;
use crate::types::store::DotStore;

/// An operation while it is being made: it assigns dots to new values and records the dots of removed ones.
///
/// A store's operations take one and return the store of the delta; [`Causal::change`](crate::Causal::change)
/// joins it in.
#[derive(Debug)]
pub struct Change {
    replica: ReplicaId,
    next: Option<u64>,
    is_exhausted: bool,
    has_event: bool,
    context: Context,
}

impl Change {
    pub(crate) fn new(replica: ReplicaId, seen: &Context) -> Self {
        Self {
            replica,
            next: seen.next(replica),
            is_exhausted: false,
            has_event: false,
            context: Context::new(),
        }
    }

    /// The replica that makes the change.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The dot of a new event.
    ///
    /// If the writer has no event left, the last one is assigned again, and the change as a whole fails.
    pub fn dot(&mut self) -> Dot {
        let seq = self.next.unwrap_or(u64::MAX);
        self.is_exhausted |= self.next.is_none();
        self.has_event = true;
        self.next = seq.checked_add(1);
        let dot = Dot::new(self.replica, seq);
        self.context.insert(dot);
        dot
    }

    /// Records that the value of `dot` is removed.
    pub fn kill(&mut self, dot: Dot) {
        self.context.insert(dot);
    }

    /// Records that all values of a store are removed, and returns the store of that delta. If there was a
    /// value, this is an event of its own.
    #[must_use = "the store belongs into the delta"]
    pub fn remove<S: DotStore>(&mut self, store: &S) -> S {
        let mut was_any = false;
        store.for_each_dot(&mut |dot| {
            self.context.insert(dot);
            was_any = true;
        });
        if was_any {
            self.dot();
        }
        store.touched()
    }

    /// Makes a change that only removes an event of its own.
    pub(super) fn ensure_event(&mut self) {
        if !self.has_event && !self.context.is_empty() {
            self.dot();
        }
    }

    pub(crate) fn finish(self) -> Option<Context> {
        (!self.is_exhausted).then_some(self.context)
    }
}
