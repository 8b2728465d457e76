//! The congestion window of a connection, with a lower bound.
//!
//! A controller that takes every loss for congestion shrinks its window to two packets on a path that loses a
//! third of them, although nothing is congested. Each loss of both packets, or of their acknowledgement, then
//! costs a probe timeout, and the connection carries fewer bytes than its services send, for as long as the
//! loss lasts. Radio links lose packets like that.
//!
//! So the window does not shrink below that of a new connection. This asks no more of a congested path than
//! another connection does that begins there: RFC 9002 §7.2 allows each of them ten packets in the first
//! round trip.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// The first window in bytes, if packets are not longer than a tenth of it (RFC 9002 §7.2).
const INITIAL_LEN: u64 = 14_720;
/// The first window in packets (RFC 9002 §7.2).
const INITIAL_PACKETS: u64 = 10;
/// The window is never shorter than so many packets (RFC 9002 §7.2).
const PACKETS_MIN: u64 = 2;

/// Makes the controllers of connections: CUBIC (RFC 9438) with a lower bound.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Bounded {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(BoundedWindow { inner, mtu: current_mtu })
    }
}

/// A controller whose window has a lower bound.
struct BoundedWindow {
    inner: Box<dyn Controller>,
    mtu: u16,
}

impl BoundedWindow {
    fn bound(&self) -> u64 {
        let mtu = u64::from(self.mtu);
        (INITIAL_PACKETS * mtu).min(INITIAL_LEN.max(PACKETS_MIN * mtu))
    }
}

impl Controller for BoundedWindow {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().max(self.bound())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(BoundedWindow { inner: self.inner.clone_box(), mtu: self.mtu })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lose_everything(controller: &mut dyn Controller, mut now: Instant) {
        for _ in 0..50 {
            let sent = now;
            now += Duration::from_secs(1);
            controller.on_congestion_event(now, sent, true, 1200);
        }
    }

    #[test]
    fn loss_does_not_shrink_the_window_below_that_of_a_new_connection() {
        let now = Instant::now();
        let mut controller = Arc::new(Bounded::default()).build(now, 1200);
        assert_eq!(controller.window(), 12_000);
        lose_everything(&mut *controller, now);
        assert_eq!(controller.window(), 12_000);
        assert_eq!(controller.metrics().congestion_window, 12_000);
        // A path to another address begins with a copy (RFC 9000 §9.4).
        assert_eq!(controller.clone_box().window(), 12_000);
        // CUBIC by itself: two packets.
        let mut cubic = Arc::new(CubicConfig::default()).build(now, 1200);
        lose_everything(&mut *cubic, now);
        assert_eq!(cubic.window(), 2400);
    }

    /// The bound follows RFC 9002 §7.2 for packets of any length.
    #[test]
    fn the_bound_follows_the_length_of_packets() {
        let now = Instant::now();
        let mut controller = Arc::new(Bounded::default()).build(now, 1200);
        lose_everything(&mut *controller, now);
        for (mtu, window) in [(1452, 14_520), (1500, 14_720), (6500, 14_720), (9000, 18_000), (1200, 12_000)]
        {
            controller.on_mtu_update(mtu);
            assert!(controller.window() >= window, "{mtu}");
        }
        lose_everything(&mut *controller, now);
        assert_eq!(controller.window(), 12_000);
    }
}
