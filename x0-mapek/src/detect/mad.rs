//! An outlier test by the median absolute deviation of the last readings.

use std::time::Duration;

use super::{Condition, LastTime, ReadingError, Verdict, finite, median};

/// Readings of the window.
pub const MAD_WINDOW: usize = 63;
/// Readings before the first judgement.
const FIRST: usize = 15;
/// A normal distribution's standard deviation, in median absolute deviations.
const DEVIATIONS: f64 = 1.482_602_218_505_602;

/// Finds single readings that are far from the last ones (Hampel 1974).
///
/// The score is the distance from the median of the window, in robust standard deviations. Up to half of the
/// window may be outliers without any effect on the judgement of the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Mad {
    window: [f64; MAD_WINDOW],
    count: usize,
    next: usize,
    threshold: f64,
    deviation_min: f64,
    last: LastTime,
}

impl Mad {
    /// A test that is suspect of readings `threshold` deviations away from the median; 6 if it is not
    /// positive. `deviation_min` is the least deviation, in the unit of the signal.
    #[must_use]
    pub fn new(threshold: f64, deviation_min: f64) -> Mad {
        Mad {
            window: [0.0; MAD_WINDOW],
            count: 0,
            next: 0,
            threshold: if threshold > 0.0 && threshold.is_finite() { threshold } else { 6.0 },
            deviation_min: if deviation_min > 0.0 && deviation_min.is_finite() {
                deviation_min
            } else {
                1e-9
            },
            last: LastTime::default(),
        }
    }

    /// Judges a reading by those before it, and adds it to them.
    ///
    /// # Errors
    /// When the reading is not a finite number or older than the one before. Nothing has changed.
    pub fn observe(&mut self, now: Duration, value: f64) -> Result<Verdict, ReadingError> {
        let value = finite(value)?;
        self.last.check(now)?;
        self.last.advance(now);
        let verdict = self.judge(value);
        if let Some(place) = self.window.get_mut(self.next) {
            *place = value;
        }
        self.next = (self.next + 1) % MAD_WINDOW;
        self.count = (self.count + 1).min(MAD_WINDOW);
        Ok(verdict)
    }

    fn judge(&self, value: f64) -> Verdict {
        let threshold = self.threshold;
        if self.count < FIRST {
            return Verdict { condition: Condition::Learning, score: 0.0, threshold };
        }
        let mut values = self.window;
        let values = values.get_mut(..self.count).unwrap_or_default();
        let middle = median(values);
        values.iter_mut().for_each(|value| *value = (*value - middle).abs());
        let deviation = (median(values) * DEVIATIONS).max(self.deviation_min);
        let score = (value - middle).abs() / deviation;
        let condition = if score >= threshold { Condition::Suspect } else { Condition::Normal };
        Verdict { condition, score, threshold }
    }
}
