//! An exponentially weighted mean and deviation.

use std::time::Duration;

use super::{LastTime, ReadingError, finite};

/// The mean of a signal and the deviation from it, in which a reading loses half of its weight in each
/// half-life.
///
/// Readings may come at any distance: the weight follows the time between them, not their number. Many
/// readings at one moment share the weight of a thousandth of a half-life each.
///
/// ```
/// use std::time::Duration;
/// use x0_mapek::detect::Ewma;
///
/// let mut level = Ewma::new(Duration::from_secs(10));
/// for second in 0..100 {
///     level.observe(Duration::from_secs(second), 5.0)?;
/// }
/// assert!((level.mean() - 5.0).abs() < 1e-9);
/// # Ok::<(), x0_mapek::detect::ReadingError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ewma {
    half_life: f64,
    mean: f64,
    variance: f64,
    last: LastTime,
}

/// The least weight of a reading.
const WEIGHT_MIN: f64 = 0.0007;

impl Ewma {
    /// A mean without readings. A half-life below a microsecond counts as one.
    #[must_use]
    pub fn new(half_life: Duration) -> Ewma {
        Ewma {
            half_life: half_life.as_secs_f64().max(1e-6),
            mean: 0.0,
            variance: 0.0,
            last: LastTime::default(),
        }
    }

    /// Takes a reading.
    ///
    /// # Errors
    /// When the reading is not a finite number or older than the one before. Nothing has changed.
    pub fn observe(&mut self, now: Duration, value: f64) -> Result<(), ReadingError> {
        let value = finite(value)?;
        self.last.check(now)?;
        let Some(seconds) = self.last.advance(now) else {
            self.mean = value;
            return Ok(());
        };
        let weight = share_lost(seconds / self.half_life).max(WEIGHT_MIN);
        // West 1979: mean and variance in one pass, without the difference of two large squares.
        let distance = value - self.mean;
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
        Ok(())
    }

    /// The weighted mean; 0 before the first reading.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The weighted standard deviation.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.variance.sqrt()
    }
}

/// The share of its weight that a reading loses in this many half-lives.
fn share_lost(half_lives: f64) -> f64 {
    let exponent = half_lives * std::f64::consts::LN_2;
    if exponent >= 0.02 {
        return 1.0 - (-exponent).exp();
    }
    // The series of the exponential, which is exact to eight digits here: readings are close together.
    exponent * (1.0 - exponent / 2.0 * (1.0 - exponent / 3.0 * (1.0 - exponent / 4.0)))
}

#[cfg(test)]
mod tests {
    use super::share_lost;

    #[test]
    fn the_series_is_the_exponential() {
        for half_lives in [0.0_f64, 1e-9, 1e-4, 0.01, 0.028, 0.029, 0.5, 1.0, 60.0] {
            let exact = 1.0 - (-half_lives).exp2();
            assert!((share_lost(half_lives) - exact).abs() < 1e-9, "{half_lives}");
        }
    }
}
