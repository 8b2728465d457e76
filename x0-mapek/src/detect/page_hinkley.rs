//! The Page-Hinkley test: a drift of the mean, at any pace.

use std::time::Duration;

use super::{Condition, Hysteresis, LastTime, ReadingError, Verdict, finite};

/// Readings before the first judgement.
const FIRST: u32 = 32;

/// Finds an increase of the mean that comes slowly, for which a [`Cusum`](super::Cusum) would need the size.
///
/// The score is the distance of the cumulative deviation from its minimum (Hinkley 1971). Deviations below
/// `tolerance` cancel out.
#[derive(Debug, Clone, PartialEq)]
pub struct PageHinkley {
    tolerance: f64,
    threshold: f64,
    count: u32,
    mean: f64,
    sum: f64,
    least: f64,
    hysteresis: Hysteresis,
    last: LastTime,
}

impl PageHinkley {
    /// A test that ignores deviations of up to `tolerance`, and is suspect at `threshold`; both in the unit
    /// of the signal. Values that are negative or not finite count as zero.
    #[must_use]
    pub fn new(tolerance: f64, threshold: f64) -> PageHinkley {
        let usable = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        PageHinkley {
            tolerance: usable(tolerance),
            threshold: usable(threshold),
            count: 0,
            mean: 0.0,
            sum: 0.0,
            least: 0.0,
            hysteresis: Hysteresis::NEW,
            last: LastTime::default(),
        }
    }

    /// Takes a reading.
    ///
    /// # Errors
    /// When the reading is not a finite number or older than the one before. Nothing has changed.
    pub fn observe(&mut self, now: Duration, value: f64) -> Result<Verdict, ReadingError> {
        let value = finite(value)?;
        self.last.check(now)?;
        self.last.advance(now);
        if !self.hysteresis.is_suspect {
            // Frozen while suspect; the mean of all readings until then.
            self.count = self.count.saturating_add(1);
            self.mean += (value - self.mean) / f64::from(self.count);
        }
        let limit = self.threshold * 2.0 + self.tolerance;
        self.sum += (value - self.mean - self.tolerance).clamp(-limit, limit);
        self.least = self.least.min(self.sum);
        // The evidence is bounded, so that the condition ends soon after the fault; and both sums stay near
        // zero, where they lose no digits.
        let score = (self.sum - self.least).min(self.threshold * 1.5);
        (self.sum, self.least) = (score, 0.0);
        if self.count < FIRST {
            return Ok(Verdict { condition: Condition::Learning, score, threshold: self.threshold });
        }
        Ok(self.hysteresis.judge(score, self.threshold, self.threshold * 0.25))
    }

    /// Forgets everything, after a planned change of the signal.
    pub fn relearn(&mut self) {
        *self = PageHinkley::new(self.tolerance, self.threshold);
    }
}
