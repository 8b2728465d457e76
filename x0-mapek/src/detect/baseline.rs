//! The normal level of a signal: a robust location, scale and autocorrelation.

use super::ReadingError;

/// Readings of the first estimate.
const FIRST: usize = 64;
/// The standardised reading beyond which more distance has no more influence (Huber 1964).
const CLIP: f64 = 2.0;
/// The mean of the square of a standard normal variable that is clipped to [`CLIP`].
const CLIPPED_SQUARE: f64 = 0.920_537;
/// The median absolute deviation of a standard normal variable.
const MAD_OF_NORMAL: f64 = 0.674_489_750_196;

/// The scale on which a signal is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// The values themselves: differences count.
    Linear,
    /// Their logarithms: ratios count. For latencies and sizes, which are positive and skewed. The default.
    #[default]
    Log,
}

impl Scale {
    /// The value on this scale.
    ///
    /// # Errors
    /// When the value is not finite, or not positive on a logarithmic scale.
    pub fn of(self, value: f64) -> Result<f64, ReadingError> {
        let value = super::finite(value)?;
        match self {
            Scale::Linear => Ok(value),
            Scale::Log if value > 0.0 => Ok(value.ln()),
            Scale::Log => Err(ReadingError::NotPositive { value }),
        }
    }
}

/// Robust estimates of what is normal for a signal.
///
/// The first 64 readings give median and median absolute deviation. From then on location and scale follow
/// by stochastic approximation of Huber's estimates (Huber 1964, "proposal 2"): a reading far away moves them
/// no further than one at two deviations, so that spikes do not matter. The weight of a reading falls to one
/// in `memory` and stays there.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    first: [f32; FIRST],
    count: u32,
    memory: u32,
    location: f64,
    scale: f64,
    correlation: f64,
    previous: f64,
    scale_min: f64,
}

impl Baseline {
    /// A baseline without readings. `memory` is the number of readings that it follows, at least 64;
    /// `scale_min` the least scale that it reports, so that a constant signal does not make the smallest
    /// change look infinite.
    #[must_use]
    pub fn new(memory: u32, scale_min: f64) -> Baseline {
        Baseline {
            first: [0.0; FIRST],
            count: 0,
            memory: memory.max(64),
            location: 0.0,
            scale: 0.0,
            correlation: 0.0,
            previous: 0.0,
            scale_min: if scale_min > 0.0 && scale_min.is_finite() { scale_min } else { 1e-9 },
        }
    }

    /// Forgets everything: the signal is expected to have another level from now on.
    pub fn relearn(&mut self) {
        *self = Baseline::new(self.memory, self.scale_min);
    }

    /// Whether there are enough readings for a first estimate.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.count as usize >= FIRST
    }

    /// How many readings it has taken, at most `memory`.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The normal level.
    #[must_use]
    pub fn location(&self) -> f64 {
        self.location
    }

    /// The normal spread: the standard deviation, for a normal distribution.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale.max(self.scale_min)
    }

    /// The correlation of each reading with the one before, from 0 to 0.9.
    #[must_use]
    pub fn correlation(&self) -> f64 {
        self.correlation.clamp(0.0, 0.9)
    }

    /// The distance of a value from the level, in spreads.
    #[must_use]
    pub fn standardised(&self, value: f64) -> f64 {
        (value - self.location) / self.scale()
    }

    /// Learns from a reading, which the caller has found to be normal. `value` is finite and on the scale of
    /// the baseline.
    pub fn learn(&mut self, value: f64) {
        if !self.is_ready() {
            // A reading takes four bytes until the first estimate, which needs no more digits.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounds; the range is that of a median's input"
            )]
            let short = value.clamp(-1e30, 1e30) as f32;
            if let Some(place) = self.first.get_mut(self.count as usize) {
                *place = short;
            }
            self.count += 1;
            if self.is_ready() {
                self.estimate();
            }
            return;
        }
        self.count = (self.count + 1).min(self.memory);
        let weight = 1.0 / f64::from(self.count);
        let clipped = self.standardised(value).clamp(-CLIP, CLIP);
        let scale = self.scale();
        self.location += weight * scale * clipped * 1.05;
        // In logarithms, so that it stays positive. The step is at most 0.05, for which the series of the
        // exponential is exact to eight digits.
        let surprise = clipped * clipped / CLIPPED_SQUARE - 1.0;
        let step = weight * surprise * 0.8;
        self.scale = scale * (1.0 + step * (1.0 + step / 2.0 * (1.0 + step / 3.0 * (1.0 + step / 4.0))));
        self.correlation += weight * (clipped * self.previous / CLIPPED_SQUARE - self.correlation);
        self.previous = clipped;
    }

    fn estimate(&mut self) {
        let mut values = self.first.map(f64::from);
        self.location = super::median(&mut values);
        let mut distances = self.first.map(|value| (f64::from(value) - self.location).abs());
        self.scale = super::median(&mut distances) / MAD_OF_NORMAL;
    }
}
