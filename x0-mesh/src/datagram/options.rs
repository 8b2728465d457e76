//! Settings.

use alloc::boxed::Box;
use core::time::Duration;

use crate::liveness::LivenessOptions;
use crate::router::{Etx, Metric, RouterOptions};

/// Settings of a [`Datagrams`](super::Datagrams).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatagramOptions {
    /// The settings of the router.
    pub router: RouterOptions,
    /// The settings of the detection on each link.
    pub liveness: LivenessOptions,
    /// How many nodes a datagram passes at most. 32 unless set.
    pub hop_limit: u8,
    /// How many links are used, those that are down among them. 512 unless set. A neighbour beyond the limit
    /// replaces the one whose link is down for longest, if that is 10 s or more.
    pub links_max: usize,
}

impl DatagramOptions {
    /// The usual settings. The seed must differ each time that the node starts.
    #[must_use]
    pub fn new(seed: u64) -> DatagramOptions {
        let [a, b, c, d, ..] = seed.to_le_bytes();
        DatagramOptions {
            router: RouterOptions::new(seed),
            liveness: LivenessOptions::new(u32::from_le_bytes([a, b, c, d])),
            hop_limit: 32,
            links_max: 512,
        }
    }

    /// Sets [`DatagramOptions::router`].
    #[must_use]
    pub fn router(mut self, router: RouterOptions) -> DatagramOptions {
        self.router = router;
        self
    }

    /// Sets [`DatagramOptions::liveness`].
    #[must_use]
    pub fn liveness(mut self, liveness: LivenessOptions) -> DatagramOptions {
        self.liveness = liveness;
        self
    }

    /// Sets [`DatagramOptions::hop_limit`]; zero counts as 1.
    #[must_use]
    pub fn hop_limit(mut self, hop_limit: u8) -> DatagramOptions {
        self.hop_limit = hop_limit.max(1);
        self
    }

    /// Sets [`DatagramOptions::links_max`].
    #[must_use]
    pub fn links_max(mut self, links_max: usize) -> DatagramOptions {
        self.links_max = links_max;
        self
    }
}

/// Settings of a port.
#[derive(Debug)]
#[non_exhaustive]
pub struct PortOptions {
    /// The longest frame, in bytes. Messages of the router are 25 bytes longer as frames: with ports that
    /// carry less than 1225 bytes, set [`RouterOptions::message_len_max`] accordingly.
    pub mtu: usize,
    /// What its links cost. [`Etx`] unless set.
    pub metric: Box<dyn Metric>,
    /// The throughput of its links in bits per second, if the owner knows it, as the speed of an interface:
    /// the metric [`Throughput`](crate::router::Throughput) needs it, because probes are too few to measure
    /// it.
    pub throughput: Option<u64>,
    /// [`LivenessOptions::interval_idle_max`] of new links of the port, if it is to differ from that of the
    /// other ports.
    pub interval_idle_max: Option<Duration>,
}

impl PortOptions {
    /// A port with frames of up to `mtu` bytes.
    #[must_use]
    pub fn new(mtu: usize) -> PortOptions {
        PortOptions { mtu, metric: Box::new(Etx), throughput: None, interval_idle_max: None }
    }

    /// Sets [`PortOptions::interval_idle_max`].
    #[must_use]
    pub fn interval_idle_max(mut self, interval_idle_max: Duration) -> PortOptions {
        self.interval_idle_max = Some(interval_idle_max);
        self
    }

    /// Sets [`PortOptions::throughput`].
    #[must_use]
    pub fn throughput(mut self, bits_per_second: u64) -> PortOptions {
        self.throughput = Some(bits_per_second);
        self
    }

    /// Sets [`PortOptions::metric`].
    #[must_use]
    pub fn metric(mut self, metric: impl Metric + 'static) -> PortOptions {
        self.metric = Box::new(metric);
        self
    }
}
