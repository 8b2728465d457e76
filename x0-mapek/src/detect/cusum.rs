//! A cumulative sum: the quickest detector of a shift of known size.

use std::time::Duration;

use super::baseline::{Baseline, Scale};
use super::{Condition, Hysteresis, LastTime, ReadingError, Verdict};

/// The evidence of one reading, in nats, is limited to this: one spike, however high, is not a shift.
const EVIDENCE_MAX: f64 = 4.5;
/// A condition ends when the evidence has fallen to this share of the threshold.
const CLEAR: f64 = 0.25;
/// The evidence stops growing at this multiple of the threshold, so that the condition ends soon after the
/// fault.
const SCORE_MAX: f64 = 1.5;

/// The settings of a [`Cusum`].
///
/// ```
/// use x0_mapek::detect::{CusumOptions, Scale};
///
/// // A threefold latency, and a false alarm in ten million readings.
/// let options = CusumOptions::new().scale(Scale::Log).shift(3.0_f64.ln()).readings_per_false_alarm(1e7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CusumOptions {
    /// The scale of the signal: [`Scale::Log`] unless set.
    pub scale: Scale,
    /// The shift to be found, on the scale: a difference, or the logarithm of a factor. Upwards if positive,
    /// downwards if negative. The logarithm of 3 unless set.
    pub shift: f64,
    /// Readings between two false alarms, as Lorden's bound has them: 10^7 unless set.
    pub readings_per_false_alarm: f64,
    /// Readings that the baseline follows: 4,096 unless set.
    pub memory: u32,
    /// The least spread of the baseline, on the scale: 0.05 unless set.
    pub scale_min: f64,
}

impl CusumOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> CusumOptions {
        CusumOptions::default()
    }

    /// Sets [`scale`](CusumOptions::scale).
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> CusumOptions {
        self.scale = scale;
        self
    }

    /// Sets [`shift`](CusumOptions::shift).
    #[must_use]
    pub fn shift(mut self, shift: f64) -> CusumOptions {
        self.shift = shift;
        self
    }

    /// Sets [`readings_per_false_alarm`](CusumOptions::readings_per_false_alarm).
    #[must_use]
    pub fn readings_per_false_alarm(mut self, readings: f64) -> CusumOptions {
        self.readings_per_false_alarm = readings;
        self
    }

    /// Sets [`memory`](CusumOptions::memory).
    #[must_use]
    pub fn memory(mut self, memory: u32) -> CusumOptions {
        self.memory = memory;
        self
    }

    /// Sets [`scale_min`](CusumOptions::scale_min).
    #[must_use]
    pub fn scale_min(mut self, scale_min: f64) -> CusumOptions {
        self.scale_min = scale_min;
        self
    }
}

impl Default for CusumOptions {
    fn default() -> CusumOptions {
        CusumOptions {
            scale: Scale::Log,
            shift: 3.0_f64.ln(),
            readings_per_false_alarm: 1e7,
            memory: 4096,
            scale_min: 0.05,
        }
    }
}

/// Finds a shift of the level by at least [`CusumOptions::shift`].
///
/// The score is the largest sum of log-likelihood ratios, of a shifted against an unshifted normal
/// distribution, over all recent runs of readings (Page 1954). With a known baseline no detector with as few
/// false alarms finds the shift in fewer readings in the worst case (Lorden 1971, Moustakides 1986): about
/// ln(readings per false alarm) divided by the divergence of the two distributions. The baseline is learned.
/// Correlated readings carry less evidence, and the threshold grows with the correlation that was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Cusum {
    options: CusumOptions,
    /// The threshold for independent readings: the logarithm of the readings per false alarm.
    threshold: f64,
    baseline: Baseline,
    score: f64,
    hysteresis: Hysteresis,
    last: LastTime,
}

impl Cusum {
    /// A detector without readings. Settings that are not finite or not positive count as the default ones.
    #[must_use]
    pub fn new(options: CusumOptions) -> Cusum {
        let defaults = CusumOptions::default();
        let is_usable = |value: f64| value.is_finite() && value > 0.0;
        let shift = if is_usable(options.shift.abs()) { options.shift } else { defaults.shift };
        let readings =
            if options.readings_per_false_alarm > 1.0 && options.readings_per_false_alarm.is_finite() {
                options.readings_per_false_alarm
            } else {
                defaults.readings_per_false_alarm
            };
        let scale_min = if is_usable(options.scale_min) { options.scale_min } else { defaults.scale_min };
        let options = CusumOptions { shift, readings_per_false_alarm: readings, scale_min, ..options };
        Cusum {
            baseline: Baseline::new(options.memory, scale_min),
            threshold: options.readings_per_false_alarm.ln(),
            options,
            score: 0.0,
            hysteresis: Hysteresis::NEW,
            last: LastTime::default(),
        }
    }

    /// Takes a reading.
    ///
    /// # Errors
    /// When the reading is not a finite number, not positive on a logarithmic scale, or older than the one
    /// before. Nothing has changed.
    pub fn observe(&mut self, now: Duration, value: f64) -> Result<Verdict, ReadingError> {
        let value = self.options.scale.of(value)?;
        self.last.check(now)?;
        self.last.advance(now);
        if !self.baseline.is_ready() {
            self.baseline.learn(value);
            return Ok(Verdict { condition: Condition::Learning, score: 0.0, threshold: self.threshold() });
        }
        let threshold = self.threshold();
        let evidence = self.evidence(value);
        self.score = (self.score + evidence).clamp(0.0, threshold * SCORE_MAX);
        // What looks like the begin of a shift is not learned, or a slow detector would get used to it.
        if self.score < threshold * CLEAR && !self.hysteresis.is_suspect {
            self.baseline.learn(value);
        }
        Ok(self.hysteresis.judge(self.score, threshold, threshold * CLEAR))
    }

    /// The log-likelihood ratio of one reading, in nats, limited.
    fn evidence(&self, value: f64) -> f64 {
        let shift = self.options.shift / self.baseline.scale();
        let distance = self.baseline.standardised(value);
        (shift * (distance - shift / 2.0)).clamp(-EVIDENCE_MAX, EVIDENCE_MAX)
    }

    /// The score at which the verdict becomes suspect.
    ///
    /// For independent readings `ln(n)` gives at least `n` readings per false alarm (Lorden 1971). The
    /// variance of a sum of readings with correlation `r` is larger by (1 + r) / (1 - r), and so must the
    /// threshold be. While the baseline is young its estimates are uncertain, which counts like additional
    /// variance.
    fn threshold(&self) -> f64 {
        let correlation = self.baseline.correlation();
        let young = 1.0 + 16.0 / f64::from(self.baseline.count().max(16));
        self.threshold * (1.0 + correlation) / (1.0 - correlation) * young
    }

    /// Forgets the baseline, after a planned change of the signal.
    pub fn relearn(&mut self) {
        self.baseline.relearn();
        self.score = 0.0;
        self.hysteresis = Hysteresis::NEW;
    }

    /// The baseline.
    #[must_use]
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }
}
