//! The task that moves messages for all channels of a mux.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::driver::Shared;

/// Drives a [`Mux`](super::Mux) for all of its channels; see [`Mux::driver`](super::Mux::driver).
///
/// While it exists, the transport wakes only its task and the tasks that wait to send. Polling it moves
/// messages into the channels, and wakes the tasks of those that received something. The owner must poll it
/// whenever it is woken: a channel that nobody polls receives nothing otherwise. Dropping it returns to the
/// mode without a driver, in which each channel that waits is woken and moves messages for all.
pub struct MuxDriver {
    shared: Arc<Shared>,
}

impl MuxDriver {
    /// `None` if the mux has a driver.
    pub(super) fn new(shared: &Arc<Shared>) -> Option<MuxDriver> {
        shared.signal().begin_driving().then(|| MuxDriver { shared: Arc::clone(shared) })
    }

    /// Moves what can be moved, and registers the waker for more. It is never ready.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        self.shared.drive(cx.waker());
        Poll::Pending
    }
}

impl Drop for MuxDriver {
    fn drop(&mut self) {
        // What arrived and was not moved is for the channels to move.
        self.shared.signal().end_driving().wake();
    }
}

impl fmt::Debug for MuxDriver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MuxDriver").field("local", &self.shared.lock().local()).finish()
    }
}
