//! Settings.

use core::time::Duration;

/// Settings of a [`Traversal`](super::Traversal).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TraversalOptions {
    /// The least pause between two calls to a node, and between two answers to it. The pause between calls
    /// doubles with each. 1 s unless set.
    pub interval_min: Duration,
    /// The longest pause between two calls to a node. 5 min unless set.
    pub interval_max: Duration,
    /// How long a direct path is wanted after the last traffic. 60 s unless set.
    pub hold: Duration,
    /// How many candidates are dialled at a time; those that have led to a neighbour do not count. 16 unless
    /// set.
    pub dials_max: usize,
    /// How many nodes are kept. 64 unless set.
    pub peers_max: usize,
}

impl Default for TraversalOptions {
    fn default() -> TraversalOptions {
        TraversalOptions {
            interval_min: Duration::from_secs(1),
            interval_max: Duration::from_secs(300),
            hold: Duration::from_secs(60),
            dials_max: 16,
            peers_max: 64,
        }
    }
}

impl TraversalOptions {
    /// Sets [`TraversalOptions::interval_min`] and [`TraversalOptions::interval_max`].
    #[must_use]
    pub fn interval(mut self, min: Duration, max: Duration) -> TraversalOptions {
        self.interval_min = min;
        self.interval_max = max;
        self
    }

    /// Sets [`TraversalOptions::hold`].
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> TraversalOptions {
        self.hold = hold;
        self
    }

    /// Sets [`TraversalOptions::dials_max`] and [`TraversalOptions::peers_max`].
    #[must_use]
    pub fn limits(mut self, dials_max: usize, peers_max: usize) -> TraversalOptions {
        self.dials_max = dials_max;
        self.peers_max = peers_max;
        self
    }

    /// Values outside their range count as its nearest end.
    pub(super) fn bounded(mut self) -> TraversalOptions {
        self.interval_min = self.interval_min.max(Duration::from_millis(10));
        self.interval_max = self.interval_max.max(self.interval_min);
        self.peers_max = self.peers_max.max(1);
        self
    }
}
