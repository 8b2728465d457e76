//! A trend: leaks, and the time until a resource is used up.

use std::time::Duration;

use super::{LastTime, ReadingError, finite, median};

/// Readings of the window.
pub const TREND_WINDOW: usize = 32;
/// Readings before the first judgement.
const FIRST: usize = 16;

/// What a trend leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum TrendVerdict {
    /// Too few readings.
    Learning,
    /// There is no lasting trend towards the limit.
    Steady,
    /// The signal moves towards the limit and reaches it after `exhausted_in` if nothing changes.
    Exhausting {
        /// The slope, per second.
        slope: f64,
        /// The time from the last reading to the limit; at most [`Duration::MAX`].
        exhausted_in: Duration,
    },
}

/// The slope of a signal over its last readings, and the time until it reaches a limit.
///
/// The slope is the median of the slopes of all pairs (Theil 1950, Sen 1968): up to 29 % of the readings may
/// be arbitrary. A trend counts if nine of ten pairs go the same way, so that a sawtooth, as of a garbage
/// collector, is steady. To see a leak of hours, observe a reading every few minutes.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    limit: f64,
    readings: [(f64, f64); TREND_WINDOW],
    count: usize,
    next: usize,
    last: LastTime,
}

impl Trend {
    /// A trend towards `limit`, in the unit of the signal: upwards or downwards, as the readings lie.
    #[must_use]
    pub fn new(limit: f64) -> Trend {
        let limit = finite(limit).unwrap_or_default();
        Trend { limit, readings: [(0.0, 0.0); TREND_WINDOW], count: 0, next: 0, last: LastTime::default() }
    }

    /// Takes a reading.
    ///
    /// # Errors
    /// When the reading is not a finite number or older than the one before. Nothing has changed.
    pub fn observe(&mut self, now: Duration, value: f64) -> Result<TrendVerdict, ReadingError> {
        let value = finite(value)?;
        self.last.check(now)?;
        self.last.advance(now);
        if let Some(place) = self.readings.get_mut(self.next) {
            *place = (now.as_secs_f64(), value);
        }
        self.next = (self.next + 1) % TREND_WINDOW;
        self.count = (self.count + 1).min(TREND_WINDOW);
        Ok(self.judge(value))
    }

    fn judge(&self, value: f64) -> TrendVerdict {
        if self.count < FIRST {
            return TrendVerdict::Learning;
        }
        let mut slopes = [0.0; TREND_WINDOW * (TREND_WINDOW - 1) / 2];
        let mut pairs = 0;
        let readings = self.readings.get(..self.count).unwrap_or_default();
        for (place, (time, value)) in readings.iter().enumerate() {
            for (other_time, other) in readings.iter().skip(place + 1) {
                let seconds = other_time - time;
                // Readings of one moment have no slope.
                if seconds != 0.0
                    && let Some(slot) = slopes.get_mut(pairs)
                {
                    *slot = (other - value) / seconds;
                    pairs += 1;
                }
            }
        }
        let slopes = slopes.get_mut(..pairs).unwrap_or_default();
        if pairs < FIRST {
            return TrendVerdict::Learning;
        }
        let rising = slopes.iter().filter(|slope| **slope > 0.0).count();
        let falling = slopes.iter().filter(|slope| **slope < 0.0).count();
        let slope = median(slopes);
        let distance = self.limit - value;
        let along = if distance >= 0.0 { rising } else { falling };
        let seconds = distance / slope;
        if along * 10 < pairs * 9 || !seconds.is_finite() || seconds < 0.0 {
            return TrendVerdict::Steady;
        }
        let exhausted_in = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        TrendVerdict::Exhausting { slope, exhausted_in }
    }
}
