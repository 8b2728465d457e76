//! Detectors: they turn the readings of a signal into a verdict.
//!
//! A detector has a fixed size, allocates nothing after it was made, and is deterministic: the same readings
//! give the same verdicts. It has no clock; the caller passes `now`, a time since any origin. A refused
//! reading (not a number, infinite, or older than the one before) leaves the detector as it was.
//!
//! | detector | answers | source |
//! |---|---|---|
//! | [`Ewma`] | What is the level and the spread of the signal? | Roberts 1959 |
//! | [`Cusum`] | Has the level shifted by at least this much? | Page 1954; Lorden 1971 |
//! | [`PageHinkley`] | Has the mean drifted, at any pace? | Hinkley 1971 |
//! | [`Mad`] | Is this reading an outlier among the last ones? | Hampel 1974 |
//! | [`PhiAccrual`] | How unlikely is it that the peer is alive and silent for so long? | Hayashibara et al. 2004 |
//! | [`LocalHealth`] | May this node accuse others, or is it slow itself? | Dadgar et al. 2017 (Lifeguard) |
//! | [`Peers`] | Is one subject different from others of its kind, or are all alike? | Huang et al. 2017 (gray failure) |
//! | [`Trend`] | Is a resource leaking, and when is it used up? | Theil 1950; Sen 1968 |
//!
//! # Hysteresis and frozen baselines
//! A verdict becomes [`Condition::Suspect`] at a threshold and returns to [`Condition::Normal`] at a lower
//! one, so that a signal at the threshold does not flap. While a signal is suspect its baseline does not
//! learn: a fault that lasts would become the normal case. After a planned change the owner calls `relearn`.

mod baseline;
mod cusum;
mod ewma;
mod local_health;
mod mad;
mod page_hinkley;
mod peers;
mod phi_accrual;
mod trend;

use std::time::Duration;

pub use self::baseline::{Baseline, Scale};
pub use self::cusum::{Cusum, CusumOptions};
pub use self::ewma::Ewma;
pub use self::local_health::{LocalHealth, LocalHealthOptions};
pub use self::mad::{MAD_WINDOW, Mad};
pub use self::page_hinkley::PageHinkley;
pub use self::peers::{PEERS_MAX, Peers, PeersVerdict};
pub use self::phi_accrual::{PhiAccrual, PhiAccrualOptions};
pub use self::trend::{TREND_WINDOW, Trend, TrendVerdict};

/// The largest magnitude of a reading. Sums of its squares are finite.
pub const VALUE_MAX: f64 = 1e100;

/// A reading was refused. The detector is as it was.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadingError {
    /// The value is infinite, not a number, or larger than [`VALUE_MAX`].
    #[error("the reading is {value}, not a number of at most {VALUE_MAX:e}: drop it, and repair its source")]
    OutOfRange {
        /// The value.
        value: f64,
    },
    /// The value is not positive, and the detector works with logarithms.
    #[error(
        "the reading is {value}, and a logarithmic scale takes positive values: use Scale::Linear for this signal"
    )]
    NotPositive {
        /// The value.
        value: f64,
    },
    /// The reading is of a subject or signal that the knowledge does not have.
    #[error(
        "the reading is of a subject or signal that is not known: add it to the knowledge, or drop the reading"
    )]
    Unknown,
    /// The reading is older than the one before.
    #[error(
        "the reading is of {now:?}, before the last one of {last:?}: use one clock that never runs backwards"
    )]
    TimeBackwards {
        /// The time of the reading.
        now: Duration,
        /// The time of the last reading.
        last: Duration,
    },
}

/// Whether a signal is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// Too few readings for a judgement.
    Learning,
    /// The signal is as before.
    Normal,
    /// The signal has changed.
    Suspect,
}

/// The judgement of a detector after a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The condition, with hysteresis.
    pub condition: Condition,
    /// The evidence for a change, in the unit of the detector.
    pub score: f64,
    /// The score at which the condition becomes [`Condition::Suspect`].
    pub threshold: f64,
}

impl Verdict {
    /// Whether the signal has changed.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.condition == Condition::Suspect
    }
}

/// Refuses infinities, what is not a number, and values whose squares would not be finite.
fn finite(value: f64) -> Result<f64, ReadingError> {
    if value.abs() <= VALUE_MAX { Ok(value) } else { Err(ReadingError::OutOfRange { value }) }
}

/// The time of the last reading, which never runs backwards.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct LastTime(Option<Duration>);

impl LastTime {
    fn check(self, now: Duration) -> Result<(), ReadingError> {
        match self.0 {
            Some(last) if now < last => Err(ReadingError::TimeBackwards { now, last }),
            _ => Ok(()),
        }
    }

    /// Seconds since the last reading; `None` for the first one.
    fn advance(&mut self, now: Duration) -> Option<f64> {
        let since = self.0.map(|last| (now - last).as_secs_f64());
        self.0 = Some(now);
        since
    }
}

/// A condition that changes at two thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Hysteresis {
    is_suspect: bool,
}

impl Hysteresis {
    const NEW: Hysteresis = Hysteresis { is_suspect: false };

    fn judge(&mut self, score: f64, threshold: f64, clear: f64) -> Verdict {
        self.is_suspect = if self.is_suspect { score > clear } else { score >= threshold };
        let condition = if self.is_suspect { Condition::Suspect } else { Condition::Normal };
        Verdict { condition, score, threshold }
    }
}

/// The median of a few values, which are reordered. Zero of none.
fn median(values: &mut [f64]) -> f64 {
    let len = values.len();
    if len == 0 {
        return 0.0;
    }
    let (below, upper, _) = values.select_nth_unstable_by(len / 2, f64::total_cmp);
    if len % 2 == 1 {
        return *upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(*upper);
    lower / 2.0 + *upper / 2.0
}

#[cfg(test)]
mod tests;
