//! The coordinator's session: which stamp the next write gets.

use std::collections::VecDeque;

use crate::request::command::RequestId;
use crate::request::limits::SESSION_WINDOW_MAX;

/// Whether there is a session.
#[derive(Debug)]
pub(super) enum Session {
    None,
    /// Asked for.
    Opening,
    Open(Window),
}

/// The numbers of the writes under way in one session.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) id: u64,
    /// Every write below has its answer, or wants none.
    base: u64,
    /// Whether each write from `base` on has.
    is_done: VecDeque<bool>,
}

impl Window {
    pub(super) fn new(id: u64) -> Window {
        Window { id, base: 1, is_done: VecDeque::new() }
    }

    /// The stamp of the next write, if there is room for one.
    pub(super) fn begin(&mut self) -> Option<RequestId> {
        let ahead = self.is_done.len() as u64;
        if ahead >= SESSION_WINDOW_MAX {
            return None;
        }
        self.is_done.push_back(false);
        Some(self.stamp(self.base + ahead))
    }

    /// The stamp of a write that was begun before.
    pub(super) fn stamp(&self, sequence: u64) -> RequestId {
        RequestId { session: self.id, sequence, acknowledged_below: self.base }
    }

    /// No caller waits for this write any more.
    pub(super) fn end(&mut self, sequence: u64) {
        let place = sequence.checked_sub(self.base).and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(is_done) = place.and_then(|place| self.is_done.get_mut(place)) {
            *is_done = true;
        }
        while self.is_done.front() == Some(&true) {
            self.is_done.pop_front();
            self.base += 1;
        }
    }
}
