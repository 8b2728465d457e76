//! Messages of one peer that the owner has not received yet.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::DownReason;

/// The messages of one peer, by epoch. Those of a later epoch, and its `Up`, wait until the last message of
/// the epoch before was received: so `Down` comes after the last message of its epoch.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) segments: VecDeque<Segment>,
}

/// One epoch.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) epoch: u64,
    /// Whether the epoch is up, or was, and not only an attempt that failed.
    pub(super) is_up: bool,
    pub(super) down: Option<DownReason>,
    pub(super) lanes: Vec<InLane>,
    /// How many messages the lanes hold.
    pub(super) count: usize,
}

#[derive(Debug, Default)]
pub(super) struct InLane {
    pub(super) messages: VecDeque<Vec<u8>>,
    /// Bytes of the messages, and bytes reserved for bulk messages that are arriving.
    pub(super) len: usize,
    /// Whether it is among the turns.
    pub(super) is_listed: bool,
    /// Whether a reader waits for room.
    pub(super) is_waited_for: bool,
    pub(super) room: Arc<Notify>,
}

impl Segment {
    pub(super) fn up(epoch: u64, lanes: usize) -> Segment {
        let lanes = (0..lanes).map(|_| InLane::default()).collect();
        Segment { epoch, is_up: true, down: None, lanes, count: 0 }
    }

    pub(super) fn failed(epoch: u64, reason: DownReason) -> Segment {
        Segment { epoch, is_up: false, down: Some(reason), lanes: Vec::new(), count: 0 }
    }
}

impl InLane {
    pub(super) fn has_room(&self, len: usize, len_max: usize) -> bool {
        self.len == 0 || self.len.saturating_add(len) <= len_max
    }

    /// Removes the next message.
    pub(super) fn pop(&mut self, len_max: usize) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.len = self.len.saturating_sub(message.len());
        // Not at each message: a reader that wakes finds room for many, and the peer gets its credit in large
        // steps.
        if self.is_waited_for && self.len <= len_max / 2 {
            self.is_waited_for = false;
            self.room.notify_waiters();
        }
        Some(message)
    }
}

impl Inbox {
    /// The epoch of this number, unless it is over.
    pub(super) fn running(&mut self, epoch: u64) -> Option<&mut Segment> {
        self.segments.back_mut().filter(|segment| segment.epoch == epoch && segment.down.is_none())
    }
}
