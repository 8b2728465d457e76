//! Settings of the detection.

use core::time::Duration;

/// Settings of a [`Liveness`](super::Liveness). Both ends of a link may have different ones.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LivenessOptions {
    /// A number that differs each time that the node starts.
    pub instance: u32,
    /// The longest pause between two frames while the link carries traffic: where there is no traffic in this
    /// direction, probes fill it. 25 ms unless set.
    pub interval_active: Duration,
    /// The longest pause between two frames of a link without traffic. 600 ms unless set.
    pub interval_idle: Duration,
    /// The longest pause that [`interval_idle`](LivenessOptions::interval_idle) may grow to as long as frames
    /// of the peer arrive on time. With a longer one than `interval_idle` the pause follows the lifetime of
    /// the mapping of a NAT, and an idle link that has failed is noticed later: at its next traffic. 600 ms
    /// unless set.
    pub interval_idle_max: Duration,
    /// The pause between two probes of a link that is down. 50 ms unless set.
    pub interval_down: Duration,
    /// How long a link counts as active after its last traffic. 1 s unless set.
    pub active_hold: Duration,
    /// The pause between two probes that want an answer at once, while the peer is suspected. 4 ms unless
    /// set.
    pub request_interval: Duration,
    /// How many such probes have to remain without answer. 8 unless set.
    pub requests: u32,
    /// By how much a timer may be late before this process counts as not scheduled. 5 ms unless set.
    pub lateness_max: Duration,
    /// A link is degraded when a smaller share of probes arrives in either direction. 0.6 unless set.
    pub degraded_ratio: f64,
    /// A degraded link is up again when this share of probes arrives in both directions. 0.9 unless set.
    pub recovered_ratio: f64,
}

impl Default for LivenessOptions {
    fn default() -> LivenessOptions {
        LivenessOptions {
            instance: 0,
            interval_active: Duration::from_millis(25),
            interval_idle: Duration::from_millis(600),
            interval_idle_max: Duration::from_millis(600),
            interval_down: Duration::from_millis(50),
            active_hold: Duration::from_secs(1),
            request_interval: Duration::from_millis(4),
            requests: 8,
            lateness_max: Duration::from_millis(5),
            degraded_ratio: 0.6,
            recovered_ratio: 0.9,
        }
    }
}

impl LivenessOptions {
    /// The default options with this instance.
    #[must_use]
    pub fn new(instance: u32) -> LivenessOptions {
        LivenessOptions { instance, ..LivenessOptions::default() }
    }

    /// Sets the pauses of a link with traffic, without traffic, and of one that is down.
    #[must_use]
    pub fn intervals(mut self, active: Duration, idle: Duration, down: Duration) -> LivenessOptions {
        self.interval_active = active;
        self.interval_idle = idle;
        self.interval_down = down;
        self
    }

    /// Sets [`LivenessOptions::interval_idle_max`].
    #[must_use]
    pub fn interval_idle_max(mut self, interval_idle_max: Duration) -> LivenessOptions {
        self.interval_idle_max = interval_idle_max;
        self
    }

    /// Sets the probes that a suspected peer has to leave without answer, and the pause between them.
    #[must_use]
    pub fn requests(mut self, count: u32, interval: Duration) -> LivenessOptions {
        self.requests = count;
        self.request_interval = interval;
        self
    }

    /// Sets [`LivenessOptions::lateness_max`].
    #[must_use]
    pub fn lateness_max(mut self, lateness_max: Duration) -> LivenessOptions {
        self.lateness_max = lateness_max;
        self
    }

    /// Sets [`LivenessOptions::degraded_ratio`] and [`LivenessOptions::recovered_ratio`].
    #[must_use]
    pub fn ratios(mut self, degraded: f64, recovered: f64) -> LivenessOptions {
        self.degraded_ratio = degraded;
        self.recovered_ratio = recovered;
        self
    }

    /// A pause on the wire, in milliseconds.
    pub(super) fn wire(interval: Duration) -> u16 {
        u16::try_from(interval.as_millis()).unwrap_or(u16::MAX).max(1)
    }
}
