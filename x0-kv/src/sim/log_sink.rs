//! The receiver of the log lines of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A pipe to which a node writes its log, and which may be full. Shared by the world and the node's event
/// loop; one thread uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogSink(Arc<Sink>);

#[derive(Debug, Default)]
struct Sink {
    is_blocked: AtomicBool,
    /// A line waits in the event loop: the planted bug.
    is_waited_for: AtomicBool,
    dropped: AtomicU64,
}

impl LogSink {
    /// Takes a line, or drops it if the pipe is full. With the planted bug `waits` the event loop waits for
    /// room instead.
    pub(super) fn line(&self, waits: bool) {
        if !self.0.is_blocked.load(Ordering::Relaxed) {
            return;
        }
        if waits {
            self.0.is_waited_for.store(true, Ordering::Relaxed);
        } else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn block(&self, is_blocked: bool) {
        self.0.is_blocked.store(is_blocked, Ordering::Relaxed);
        if !is_blocked {
            self.0.is_waited_for.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the event loop stands still until the pipe is read.
    pub(super) fn is_waited_for(&self) -> bool {
        self.0.is_waited_for.load(Ordering::Relaxed)
    }

    /// How many lines were dropped since this was asked last.
    pub(super) fn take_dropped(&self) -> u64 {
        self.0.dropped.swap(0, Ordering::Relaxed)
    }
}
