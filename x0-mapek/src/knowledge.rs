//! Knowledge: the readings and derived facts that the loop shares with its policy.

use std::fmt;
use std::time::Duration;

use crate::detect::ReadingError;

/// A value of a signal of a subject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<S> {
    /// The subject.
    pub subject: S,
    /// The signal, such as `put_seconds`.
    pub signal: &'static str,
    /// The value, in the unit of the signal.
    pub value: f64,
}

/// The monitor and analyzer of the loop: it keeps readings, feeds detectors and knows which subjects are
/// unhealthy. The user of the loop defines it.
///
/// The loop calls it from one thread, with times that never run backwards. An implementation must have a
/// bounded size, whatever the subjects of the readings are.
pub trait Knowledge {
    /// Names a thing that can be healthy or not.
    type Subject: Clone + Ord + fmt::Debug;

    /// Takes a reading.
    ///
    /// # Errors
    /// When the value is not usable, or the subject is not known. Nothing has changed.
    fn observe(&mut self, now: Duration, reading: &Reading<Self::Subject>) -> Result<(), ReadingError>;

    /// How many subjects there are. Budgets are shares of it.
    fn subject_count(&self) -> usize;

    /// Calls `each` with every subject that is unhealthy at `now`.
    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Self::Subject));

    /// The owner changes a subject on purpose until `until`: its baselines are to be learned again.
    fn planned(&mut self, now: Duration, subject: &Self::Subject, until: Duration) {
        let _ = (now, subject, until);
    }
}
