//! The seam `Metric`: from measurements of a link to its cost.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use super::LinkCost;

/// What is known of a link. A field that was not measured is `None`, and a [`Metric`] that needs it answers
/// with a high cost, not with none: an unmeasured link is used where nothing else leads to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct LinkSample {
    /// The share of frames from the neighbour that arrive, from 0 to 1.
    pub receive_ratio: Option<f64>,
    /// The share of frames to the neighbour that arrive, from 0 to 1, as the neighbour reports it.
    pub send_ratio: Option<f64>,
    /// The smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// The throughput, in bits per second.
    pub throughput: Option<u64>,
}

impl LinkSample {
    /// Sets both ratios.
    #[must_use]
    pub fn ratios(mut self, receive_ratio: f64, send_ratio: f64) -> LinkSample {
        self.receive_ratio = Some(receive_ratio);
        self.send_ratio = Some(send_ratio);
        self
    }

    /// Sets [`LinkSample::rtt`].
    #[must_use]
    pub fn rtt(mut self, rtt: Duration) -> LinkSample {
        self.rtt = Some(rtt);
        self
    }

    /// Sets [`LinkSample::throughput`].
    #[must_use]
    pub fn throughput(mut self, bits_per_second: u64) -> LinkSample {
        self.throughput = Some(bits_per_second);
        self
    }
}

/// The cost of a link as a function of its measurements.
///
/// # Contract
/// * `cost` is a pure function: equal samples give equal costs.
/// * The metric is at least 1, and does not fall when a measurement gets worse.
/// * It moves in steps: a cost that follows the noise of each measurement makes routes infeasible and costs
///   control messages. The metrics here round to steps of 1/8.
pub trait Metric: fmt::Debug + Send {
    /// A short name for reports, such as `etx`.
    fn name(&self) -> &'static str;

    /// The cost of a link.
    fn cost(&self, sample: &LinkSample) -> LinkCost;
}

/// The cost of a perfect link, and the unit of the metrics here.
const UNIT: u32 = 256;
/// The cost of a link that has to be measured before it is worth using.
const UNMEASURED: u32 = 64 * UNIT;

/// Keeps the three highest bits and rounds up, so that noise seldom changes a metric.
fn step(metric: u32) -> u32 {
    let metric = metric.max(1);
    let low = metric.ilog2().saturating_sub(3);
    metric.div_ceil(1 << low).saturating_mul(1 << low)
}

/// A metric from a positive number; infinite and absurd values are bounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on the line")]
fn bounded(metric: f64) -> u32 {
    step(metric.clamp(1.0, f64::from(UNMEASURED)) as u32)
}

/// The expected number of transmissions of a frame and its answer: 256 divided by the product of both
/// delivery ratios (De Couto et al., 2003; RFC 8966 appendix A.2.2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Etx;

impl Metric for Etx {
    fn name(&self) -> &'static str {
        "etx"
    }

    fn cost(&self, sample: &LinkSample) -> LinkCost {
        let (Some(receive), Some(send)) = (sample.receive_ratio, sample.send_ratio) else {
            return LinkCost::new(UNMEASURED);
        };
        LinkCost::new(bounded(f64::from(UNIT) / (receive * send).clamp(1e-6, 1.0)))
    }
}

/// A cost that rises with the round-trip time between two bounds (RFC 9616 §3.4): it is flat below the lower
/// one, where differences are noise, and above the upper one, where the link is a last resort anyway.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Rtt {
    /// Up to here a link costs 256. 1 ms unless set.
    pub rtt_min: Duration,
    /// From here on it costs `256 + penalty_max`. 200 ms unless set.
    pub rtt_max: Duration,
    /// What the round-trip time can add. 8192 unless set.
    pub penalty_max: u32,
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt { rtt_min: Duration::from_millis(1), rtt_max: Duration::from_millis(200), penalty_max: 32 * UNIT }
    }
}

impl Rtt {
    /// Sets [`Rtt::rtt_min`] and [`Rtt::rtt_max`].
    #[must_use]
    pub fn range(mut self, rtt_min: Duration, rtt_max: Duration) -> Rtt {
        self.rtt_min = rtt_min;
        self.rtt_max = rtt_max;
        self
    }
}

impl Metric for Rtt {
    fn name(&self) -> &'static str {
        "rtt"
    }

    fn cost(&self, sample: &LinkSample) -> LinkCost {
        let Some(rtt) = sample.rtt else { return LinkCost::new(UNMEASURED) };
        let span = self.rtt_max.saturating_sub(self.rtt_min).as_secs_f64().max(1e-9);
        let share = (rtt.saturating_sub(self.rtt_min).as_secs_f64() / span).min(1.0);
        LinkCost::new(bounded(f64::from(UNIT) + share * f64::from(self.penalty_max)))
    }
}

/// A reference throughput divided by that of the link, as OSPF and batman-adv V do.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Throughput {
    /// A link of this many bits per second, or more, costs 256. 10^9 unless set.
    pub reference: u64,
}

impl Default for Throughput {
    fn default() -> Throughput {
        Throughput { reference: 1_000_000_000 }
    }
}

impl Metric for Throughput {
    fn name(&self) -> &'static str {
        "throughput"
    }

    fn cost(&self, sample: &LinkSample) -> LinkCost {
        let Some(throughput) = sample.throughput else { return LinkCost::new(UNMEASURED) };
        let ratio = self.reference as f64 / throughput.max(1) as f64;
        LinkCost::new(bounded(f64::from(UNIT) * ratio.max(1.0)))
    }
}

/// A link that costs money, or that leads to another region or cloud: the cost of another metric, raised by
/// a preference and labelled with a price.
///
/// Each level of preference adds more than any path over links of the level below can cost (up to 255 links
/// of the highest measured metric), so that such a link is used only while no other path exists.
///
/// ```
/// use x0_mesh::router::{Cost, Etx, LinkSample, Metric};
///
/// let free = Etx;
/// let paid = Cost::new(Etx).preference(1).price(9);
/// let (bad, good) = (LinkSample::default().ratios(0.2, 0.2), LinkSample::default().ratios(1.0, 1.0));
/// assert!(paid.cost(&good).metric > 255 * free.cost(&bad).metric);
/// assert_eq!(paid.cost(&good).price, 9);
/// ```
#[derive(Debug)]
pub struct Cost {
    metric: Box<dyn Metric>,
    preference: u8,
    price: u16,
}

/// 256 links of [`UNMEASURED`].
const LEVEL: u32 = 256 * UNMEASURED;

impl Cost {
    /// The highest level of preference.
    pub const PREFERENCE_MAX: u8 = 3;

    /// The cost of `metric`, until a preference or a price is set.
    pub fn new(metric: impl Metric + 'static) -> Cost {
        Cost { metric: Box::new(metric), preference: 0, price: 0 }
    }

    /// Sets the level, from 0 (as good as a link without `Cost`) to [`Cost::PREFERENCE_MAX`]; a higher one
    /// counts as that.
    #[must_use]
    pub fn preference(mut self, level: u8) -> Cost {
        self.preference = level.min(Cost::PREFERENCE_MAX);
        self
    }

    /// Sets the price of a GB, in the smallest unit of the operator's currency.
    #[must_use]
    pub fn price(mut self, per_gb: u16) -> Cost {
        self.price = per_gb;
        self
    }
}

impl Metric for Cost {
    fn name(&self) -> &'static str {
        "cost"
    }

    fn cost(&self, sample: &LinkSample) -> LinkCost {
        let inner = self.metric.cost(sample);
        LinkCost {
            metric: inner.metric.saturating_add(u32::from(self.preference) * LEVEL),
            price: inner.price.saturating_add(self.price),
            mtu: inner.mtu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract for all metrics: at least 1, monotone, and in few steps.
    #[test]
    fn metrics_are_monotone_and_move_in_steps() {
        type Sampled<'a> = (&'a dyn Metric, fn(f64) -> LinkSample);
        let all: [Sampled<'_>; 4] = [
            (&Etx, |good| LinkSample::default().ratios(good, 1.0)),
            (&Rtt::default(), |good| LinkSample::default().rtt(Duration::from_secs_f64(1.0 - good))),
            (&Throughput::default(), |good| {
                let micros = Duration::from_secs_f64(good).as_micros();
                LinkSample::default().throughput(u64::try_from(micros).unwrap())
            }),
            (&Cost::new(Etx).preference(9).price(3), |good| LinkSample::default().ratios(good, good)),
        ];
        for (metric, sample) in all {
            let costs: Vec<u32> =
                (0..=1000).map(|good| metric.cost(&sample(f64::from(good) / 1000.0)).metric).collect();
            assert!(costs.iter().all(|cost| *cost >= 1));
            assert!(costs.is_sorted_by(|one, next| one >= next), "{}", metric.name());
            let steps = costs.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(steps < 90, "{} has {steps} steps", metric.name());
            assert!(metric.cost(&LinkSample::default()).metric >= UNMEASURED);
            assert!(!metric.name().is_empty());
        }
    }

    #[test]
    fn costs_of_known_links() {
        let etx = |receive, send| Etx.cost(&LinkSample::default().ratios(receive, send)).metric;
        assert_eq!([etx(1.0, 1.0), etx(0.5, 0.5), etx(0.0, 1.0)], [256, 1024, UNMEASURED]);
        assert_eq!(etx(f64::NAN, 1.0).max(1), etx(f64::NAN, 1.0));
        let rtt = |ms| {
            let metric = Rtt::default().range(Duration::from_millis(10), Duration::from_millis(110));
            metric.cost(&LinkSample::default().rtt(Duration::from_millis(ms))).metric
        };
        assert_eq!([rtt(1), rtt(10), rtt(500)], [256, 256, step(33 * 256)]);
        let fast = Throughput::default().cost(&LinkSample::default().throughput(u64::MAX));
        assert_eq!(fast.metric, 256);
    }

    #[test]
    fn levels_add_up_without_overflow() {
        let worst = Cost::new(Etx).preference(Cost::PREFERENCE_MAX).cost(&LinkSample::default());
        assert!(worst.metric.checked_mul(64).is_some());
    }
}
