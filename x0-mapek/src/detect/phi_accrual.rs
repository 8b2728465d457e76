//! The phi-accrual failure detector.

use std::f64::consts::LN_10;
use std::time::Duration;

use super::{Condition, LastTime, ReadingError, Verdict};
use crate::options::setters;

/// Heartbeats before the first judgement.
const FIRST: u32 = 8;

/// The settings of a [`PhiAccrual`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PhiAccrualOptions {
    /// The score at which the peer is suspect: 8 unless set, one wrong suspicion in 10^8 heartbeats of a
    /// normal distribution.
    pub threshold: f64,
    /// The least deviation of the distance of heartbeats: 10 % of their mean distance, and not less than
    /// this. 10 ms unless set. Even heartbeats have no deviation, and the smallest delay would look infinite.
    pub deviation_min: Duration,
    /// A silence of this length that is always tolerated, beyond the mean distance. Zero unless set.
    pub pause: Duration,
}

impl PhiAccrualOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> PhiAccrualOptions {
        PhiAccrualOptions::default()
    }

    setters! {
        PhiAccrualOptions:
        threshold: f64,
        deviation_min: Duration,
        pause: Duration,
    }
}

impl Default for PhiAccrualOptions {
    fn default() -> PhiAccrualOptions {
        PhiAccrualOptions { threshold: 8.0, deviation_min: Duration::from_millis(10), pause: Duration::ZERO }
    }
}

/// How unlikely the silence of a peer is, given its heartbeats so far (Hayashibara et al. 2004).
///
/// The score, phi, is the negative decimal logarithm of the probability that a heartbeat comes after this
/// much silence or more. It is computed as a logarithm throughout, so that it grows without bound and is
/// never infinite.
#[derive(Debug, Clone, PartialEq)]
pub struct PhiAccrual {
    options: PhiAccrualOptions,
    count: u32,
    mean: f64,
    variance: f64,
    last: LastTime,
}

impl PhiAccrual {
    /// A detector that has heard nothing. A threshold that is not positive counts as 8.
    #[must_use]
    pub fn new(options: PhiAccrualOptions) -> PhiAccrual {
        let threshold =
            if options.threshold > 0.0 && options.threshold.is_finite() { options.threshold } else { 8.0 };
        let options = PhiAccrualOptions { threshold, ..options };
        PhiAccrual { options, count: 0, mean: 0.0, variance: 0.0, last: LastTime::default() }
    }

    /// Takes a sign of life.
    ///
    /// # Errors
    /// [`ReadingError::TimeBackwards`]. Nothing has changed.
    pub fn heartbeat(&mut self, now: Duration) -> Result<(), ReadingError> {
        self.last.check(now)?;
        let Some(distance) = self.last.advance(now) else { return Ok(()) };
        self.count = self.count.saturating_add(1);
        // The first ones count alike, later ones by half in about 70 heartbeats.
        let weight = (1.0 / f64::from(self.count)).max(0.01);
        // The end of a long silence says little about the next distance.
        let distance =
            if self.count > FIRST { distance.min(self.mean + 8.0 * self.deviation()) } else { distance };
        let deviation = distance - self.mean;
        self.mean += weight * deviation;
        self.variance = (1.0 - weight) * (self.variance + weight * deviation * deviation);
        Ok(())
    }

    fn deviation(&self) -> f64 {
        self.variance.sqrt().max(self.mean * 0.1).max(self.options.deviation_min.as_secs_f64()).max(1e-9)
    }

    /// The judgement at `now`. [`Condition::Learning`] until there were nine heartbeats. A time before the
    /// last heartbeat counts as the time of that.
    #[must_use]
    pub fn judge(&self, now: Duration) -> Verdict {
        let threshold = self.options.threshold;
        let Some(last) = self.last.0.filter(|_| self.count >= FIRST) else {
            return Verdict { condition: Condition::Learning, score: 0.0, threshold };
        };
        let silence = now.saturating_sub(last).as_secs_f64() - self.options.pause.as_secs_f64();
        let score = -log_tail((silence - self.mean) / self.deviation()) / LN_10;
        let condition = if score >= threshold { Condition::Suspect } else { Condition::Normal };
        Verdict { condition, score, threshold }
    }
}

/// The natural logarithm of the probability that a standard normal variable exceeds `z`.
fn log_tail(z: f64) -> f64 {
    if z < -8.0 {
        return 0.0;
    }
    if z < 1.0 {
        // Logistic approximation of the distribution (Bowling et al. 2009); its error is below 2e-4.
        let y = 1.5976 * z + 0.070_566 * z * z * z;
        return -(1.0 + y.exp()).ln();
    }
    // The continued fraction of Mills' ratio (Laplace 1805), whose logarithm does not underflow.
    let mut fraction = z;
    for term in (1..=24_u32).rev() {
        fraction = z + f64::from(term) / fraction;
    }
    let log_density = -0.5 * z * z - 0.918_938_533_204_672_7;
    log_density - fraction.ln()
}
