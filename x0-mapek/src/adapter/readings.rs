//! The last readings of the subjects of an adapter.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::ReadingError;
use crate::{Evidence, Reading};

/// The last reading of each signal of each subject. The owner bounds the subjects.
#[derive(Debug)]
pub(crate) struct Readings<S>(BTreeMap<(S, &'static str), (f64, Duration)>);

impl<S: Clone + Ord> Readings<S> {
    pub(crate) fn new() -> Readings<S> {
        Readings(BTreeMap::new())
    }

    /// Takes a reading of one of these signals, each with the largest value that is a measurement.
    ///
    /// # Errors
    /// When the signal is not among them, or the value is out of its range. Nothing has changed.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        reading: &Reading<S>,
        signals: &[(&'static str, f64)],
    ) -> Result<(), ReadingError> {
        let known = signals.iter().find(|(signal, _)| *signal == reading.signal);
        let (signal, max) = *known.ok_or(ReadingError::Unknown)?;
        // A NaN is not in the range either.
        if !(0.0..=max).contains(&reading.value) {
            return Err(ReadingError::OutOfRange { value: reading.value });
        }
        self.0.insert((reading.subject.clone(), signal), (reading.value, now));
        Ok(())
    }

    /// The last value of a signal.
    pub(crate) fn value(&self, subject: &S, signal: &'static str) -> Option<f64> {
        self.0.get(&(subject.clone(), signal)).map(|(value, _)| *value)
    }

    /// The last value of a signal, if it is younger than `stale`.
    #[cfg(feature = "ebpf")]
    pub(crate) fn fresh(
        &self,
        now: Duration,
        subject: &S,
        signal: &'static str,
        stale: Duration,
    ) -> Option<f64> {
        let (value, at) = *self.0.get(&(subject.clone(), signal))?;
        (now.saturating_sub(at) < stale).then_some(value)
    }

    /// The signal, if it is at its threshold or above and younger than `stale`.
    pub(crate) fn beyond(
        &self,
        now: Duration,
        subject: &S,
        signal: &'static str,
        threshold: f64,
        stale: Duration,
    ) -> Option<Evidence> {
        let (value, at) = *self.0.get(&(subject.clone(), signal))?;
        let age = now.saturating_sub(at);
        (age < stale && value >= threshold).then_some(Evidence { signal, value, threshold, age })
    }

    /// Forgets the readings of subjects that are no longer known.
    #[cfg(any(feature = "mesh", feature = "ebpf"))]
    pub(crate) fn retain(&mut self, is_known: impl Fn(&S) -> bool) {
        self.0.retain(|(subject, _), _| is_known(subject));
    }
}
