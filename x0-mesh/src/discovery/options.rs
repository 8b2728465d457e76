//! Settings.

use core::time::Duration;

use super::announcement::realm_of;

/// Settings of a [`Discovery`](super::Discovery).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveryOptions {
    /// The number of the realm; [`DiscoveryOptions::new`] takes it from a name.
    pub realm: u64,
    /// The pause between the first announcements, and the least pause between any two. 250 ms unless set.
    pub interval_min: Duration,
    /// The longest pause between two announcements. It is reached by doubling. 10 s unless set.
    pub interval_max: Duration,
    /// How long a hint is kept after its last announcement. 35 s unless set: three announcements may be lost.
    pub expiry: Duration,
    /// How long the node with the higher id waits for the other one to dial. 1 s unless set.
    pub courtesy: Duration,
    /// The pause after the first failed dial of a hint. It doubles with each. 500 ms unless set.
    pub backoff_min: Duration,
    /// The longest pause after a failed dial. 30 s unless set.
    pub backoff_max: Duration,
    /// How many hints are dialled at a time; those that have led to a neighbour do not count. 4 unless set.
    pub dials_max: usize,
    /// How many hints are kept. 256 unless set.
    pub hints_max: usize,
    /// How many hints of one IP address are kept. 8 unless set.
    pub hints_per_ip_max: usize,
}

impl DiscoveryOptions {
    /// The usual settings, for the realm of this name.
    #[must_use]
    pub fn new(realm: &str) -> DiscoveryOptions {
        DiscoveryOptions {
            realm: realm_of(realm),
            interval_min: Duration::from_millis(250),
            interval_max: Duration::from_secs(10),
            expiry: Duration::from_secs(35),
            courtesy: Duration::from_secs(1),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            dials_max: 4,
            hints_max: 256,
            hints_per_ip_max: 8,
        }
    }

    /// Sets [`DiscoveryOptions::interval_min`] and [`DiscoveryOptions::interval_max`].
    #[must_use]
    pub fn interval(mut self, min: Duration, max: Duration) -> DiscoveryOptions {
        self.interval_min = min;
        self.interval_max = max;
        self
    }

    /// Sets [`DiscoveryOptions::expiry`].
    #[must_use]
    pub fn expiry(mut self, expiry: Duration) -> DiscoveryOptions {
        self.expiry = expiry;
        self
    }

    /// Sets [`DiscoveryOptions::courtesy`].
    #[must_use]
    pub fn courtesy(mut self, courtesy: Duration) -> DiscoveryOptions {
        self.courtesy = courtesy;
        self
    }

    /// Sets [`DiscoveryOptions::backoff_min`] and [`DiscoveryOptions::backoff_max`].
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> DiscoveryOptions {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    /// Sets [`DiscoveryOptions::dials_max`], [`DiscoveryOptions::hints_max`] and
    /// [`DiscoveryOptions::hints_per_ip_max`].
    #[must_use]
    pub fn limits(mut self, dials_max: usize, hints_max: usize, hints_per_ip_max: usize) -> DiscoveryOptions {
        self.dials_max = dials_max;
        self.hints_max = hints_max;
        self.hints_per_ip_max = hints_per_ip_max;
        self
    }

    /// Values outside their range count as its nearest end.
    pub(super) fn bounded(mut self) -> DiscoveryOptions {
        self.interval_min = self.interval_min.max(Duration::from_millis(10));
        self.interval_max = self.interval_max.max(self.interval_min);
        self.backoff_min = self.backoff_min.max(Duration::from_millis(10));
        self.backoff_max = self.backoff_max.max(self.backoff_min);
        self
    }
}
