//! What a client's series of requests says about the service: pure arithmetic on samples.
//!
//! A request is *good* if its answer came within the deadline of the service-level indicator (SLI), counted
//! from the moment at which it was to be sent. The SLI *holds* in a window if at least 99 % of the requests
//! of the window are good. A window without requests does not hold: nothing shows that the service was there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A request of the open-loop load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When it was to be sent, in microseconds from the begin of the load.
    pub(crate) at_us: u64,
    /// The time from then until its answer, in microseconds; `None` if it failed or had none.
    pub(crate) latency_us: Option<u64>,
}

/// The service-level indicator of a client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sli {
    /// The latest good answer.
    pub(crate) deadline: Duration,
    /// The length of a window.
    pub(crate) window: Duration,
    /// The share of good requests, in percent, from which on the indicator holds.
    pub(crate) percent: u32,
    /// The time for which every window must hold until the service counts as back.
    pub(crate) hold: Duration,
}

impl Default for Sli {
    fn default() -> Sli {
        Sli {
            deadline: Duration::from_millis(250),
            window: Duration::from_millis(500),
            percent: 99,
            hold: Duration::from_secs(3),
        }
    }
}

/// The distance between the begins of two windows.
const STEP: Duration = Duration::from_millis(100);

impl Sli {
    /// Whether the answer came in time.
    pub(crate) fn is_good(&self, sample: &Sample) -> bool {
        sample.latency_us.is_some_and(|latency| u128::from(latency) <= self.deadline.as_micros())
    }

    /// Whether the indicator holds for the requests of this part of a series.
    fn holds(&self, samples: &[Sample]) -> bool {
        let good = samples.iter().filter(|sample| self.is_good(sample)).count();
        !samples.is_empty() && good * 100 >= samples.len() * self.percent as usize
    }

    /// The time from `from` until the begin of the first stretch of [`hold`](Sli::hold) in which every window
    /// holds. Zero if the service was never gone; `None` if no such stretch ends before `to`. The samples are
    /// in order.
    pub(crate) fn time_to_repair(
        &self,
        samples: &[Sample],
        from: Duration,
        to: Duration,
    ) -> Option<Duration> {
        let mut windows = Vec::new();
        let mut begin = from;
        while begin + self.window <= to {
            windows.push(self.holds(between(samples, begin, begin + self.window)));
            begin += STEP;
        }
        let steps = self.hold.saturating_sub(self.window).as_micros() / STEP.as_micros();
        let len = usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1);
        let first = windows.windows(len).position(|stretch| stretch.iter().all(|holds| *holds))?;
        Some(STEP * u32::try_from(first).unwrap_or(u32::MAX))
    }

    /// The share of requests between `from` and `to` that were not good, times the time: a second without any
    /// service is one error-second, and so are two seconds with every other request lost.
    pub(crate) fn error_seconds(&self, samples: &[Sample], from: Duration, to: Duration) -> f64 {
        let part = between(samples, from, to);
        let bad = part.iter().filter(|sample| !self.is_good(sample)).count();
        let span = to.saturating_sub(from).as_secs_f64();
        match part.len() {
            // Nothing was asked, so nothing is known to have worked.
            0 => span,
            len => as_f64(bad) / as_f64(len) * span,
        }
    }
}

/// The longest time between `from` and `to` in which no answer arrived.
pub(crate) fn gap(samples: &[Sample], from: Duration, to: Duration) -> Duration {
    let answered =
        samples.iter().filter_map(|sample| Some(Duration::from_micros(sample.at_us + sample.latency_us?)));
    let mut arrivals: Vec<Duration> = answered.filter(|at| (from..to).contains(at)).collect();
    arrivals.push(from);
    arrivals.push(to);
    arrivals.sort_unstable();
    arrivals.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

/// The samples that were to be sent from `from` on and before `to`.
pub(crate) fn between(samples: &[Sample], from: Duration, to: Duration) -> &[Sample] {
    let place = |at: Duration| samples.partition_point(|sample| u128::from(sample.at_us) < at.as_micros());
    let (begin, end) = (place(from), place(to));
    samples.get(begin..end).unwrap_or_default()
}

/// The middle value; the upper one of two. `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Counts are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// 200 requests a second for `seconds`, with the latency in milliseconds that the function gives for a
    /// time.
    fn series(seconds: u64, latency_ms: impl Fn(u64) -> Option<u64>) -> Vec<Sample> {
        let sample = |n: u64| Sample { at_us: n * 5000, latency_us: latency_ms(n * 5).map(|ms| ms * 1000) };
        (0..seconds * 200).map(sample).collect()
    }

    #[test]
    fn a_service_that_was_never_gone_needs_no_repair() {
        let samples = series(10, |_| Some(3));
        let sli = Sli::default();
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(10_000)), Some(ms(0)));
        assert_eq!(sli.error_seconds(&samples, ms(2000), ms(10_000)), 0.0);
        assert!(gap(&samples, ms(2000), ms(10_000)) <= ms(5));
    }

    #[test]
    fn an_outage_lasts_until_every_window_holds_for_three_seconds() {
        // Nothing from 2.0 to 3.4 s.
        let samples = series(10, |at| (!(2000..3400).contains(&at)).then_some(3));
        let sli = Sli::default();
        // A window that begins at 3.4 s is the first in which nothing is missing: one lost request is 1
        // of 100.
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(10_000)), Some(ms(1400)));
        assert!((sli.error_seconds(&samples, ms(2000), ms(10_000)) - 1.4).abs() < 1e-9);
        assert_eq!(gap(&samples, ms(2000), ms(10_000)), ms(1403));
        // The hold does not end before the end of the series.
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(6300)), None);
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(6400)), Some(ms(1400)));
    }

    #[test]
    fn a_relapse_within_three_seconds_is_the_same_outage() {
        let is_gone = |at: u64| (2000..2500).contains(&at) || (5000..5500).contains(&at);
        let samples = series(12, |at| (!is_gone(at)).then_some(3));
        assert_eq!(Sli::default().time_to_repair(&samples, ms(2000), ms(12_000)), Some(ms(3500)));
        // After three good seconds it would be another one, which only the error-seconds count.
        let is_gone = |at: u64| (2000..2500).contains(&at) || (5600..6100).contains(&at);
        let samples = series(12, |at| (!is_gone(at)).then_some(3));
        assert_eq!(Sli::default().time_to_repair(&samples, ms(2000), ms(12_000)), Some(ms(500)));
        assert!((Sli::default().error_seconds(&samples, ms(2000), ms(12_000)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn late_answers_are_errors_and_no_gap() {
        let samples = series(8, |at| Some(if at < 2000 { 3 } else { 400 }));
        let sli = Sli::default();
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(8000)), None);
        assert!((sli.error_seconds(&samples, ms(2000), ms(8000)) - 6.0).abs() < 1e-9);
        assert_eq!(gap(&samples, ms(2000), ms(8000)), ms(400));
        // Exactly at the deadline is in time.
        assert_eq!(sli.time_to_repair(&series(8, |_| Some(250)), ms(2000), ms(8000)), Some(ms(0)));
    }

    #[test]
    fn one_of_a_hundred_may_be_late_and_two_may_not() {
        let every = |n: u64| series(10, move |at| (at % (n * 5) != 0).then_some(1));
        let sli = Sli::default();
        assert_eq!(sli.time_to_repair(&every(100), ms(0), ms(10_000)), Some(ms(0)));
        assert_eq!(sli.time_to_repair(&every(50), ms(0), ms(10_000)), None);
    }

    #[test]
    fn no_requests_are_no_service() {
        let sli = Sli::default();
        assert_eq!(sli.time_to_repair(&[], ms(0), ms(10_000)), None);
        assert_eq!(sli.error_seconds(&[], ms(1000), ms(3000)), 2.0);
        assert_eq!(gap(&[], ms(1000), ms(3000)), ms(2000));
        // The client itself was silent for two seconds: those windows do not hold.
        let samples: Vec<Sample> = series(10, |_| Some(1))
            .into_iter()
            .filter(|s| !(2_000_000..4_000_000).contains(&s.at_us))
            .collect();
        assert_eq!(sli.time_to_repair(&samples, ms(2000), ms(10_000)), Some(ms(2000 - 400)));
    }

    #[test]
    fn the_median_of_an_even_count_is_the_upper_one() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(4.0));
    }
}
