//! Local health: a node that is slow itself accuses no other.

use std::time::Duration;

use crate::options::setters;

/// The settings of a [`LocalHealth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalHealthOptions {
    /// The worst health score: 8 unless set, at least 1.
    pub score_max: u32,
    /// A timer that fires this much late counts against the node. 100 ms unless set.
    pub lateness: Duration,
    /// The shortest suspicion timeout, which holds when enough witnesses agree. 1 s unless set.
    pub suspicion_min: Duration,
    /// The longest one, for a suspicion without a witness. 6 s unless set.
    pub suspicion_max: Duration,
    /// How many independent witnesses lead to the shortest timeout. 3 unless set.
    pub witnesses: u32,
}

impl LocalHealthOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> LocalHealthOptions {
        LocalHealthOptions::default()
    }

    setters! {
        LocalHealthOptions:
        score_max: u32,
        lateness: Duration,
        witnesses: u32,
    }

    /// Sets [`suspicion_min`](LocalHealthOptions::suspicion_min) and
    /// [`suspicion_max`](LocalHealthOptions::suspicion_max).
    #[must_use]
    pub fn suspicion(mut self, min: Duration, max: Duration) -> LocalHealthOptions {
        (self.suspicion_min, self.suspicion_max) = (min, max);
        self
    }
}

impl Default for LocalHealthOptions {
    fn default() -> LocalHealthOptions {
        LocalHealthOptions {
            score_max: 8,
            lateness: Duration::from_millis(100),
            suspicion_min: Duration::from_secs(1),
            suspicion_max: Duration::from_secs(6),
            witnesses: 3,
        }
    }
}

/// The health of the node on which the loop runs (Dadgar, Phillips and Currey 2017, "Lifeguard").
///
/// Each late timer raises the score, each punctual one lowers it. A node with a score accuses nobody;
/// timeouts grow with the score. A suspicion that independent witnesses share ends sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalHealth {
    options: LocalHealthOptions,
    score: u32,
}

impl LocalHealth {
    /// A healthy node.
    #[must_use]
    pub fn new(options: LocalHealthOptions) -> LocalHealth {
        LocalHealth { options, score: 0 }
    }

    /// A timer that was due at `due` fired at `now`.
    ///
    /// A lateness of many times the limit counts as many late timers: a process that was stopped for seconds
    /// is not healthy again after one punctual timer.
    pub fn timer(&mut self, due: Duration, now: Duration) {
        let late = now.saturating_sub(due);
        let limit = self.options.lateness.max(Duration::from_micros(1));
        if late < limit {
            self.score = self.score.saturating_sub(1);
        } else {
            let steps = u32::try_from(late.as_nanos() / limit.as_nanos()).unwrap_or(u32::MAX);
            self.score = self.score.saturating_add(steps).min(self.options.score_max.max(1));
        }
    }

    /// 0 for a healthy node, up to [`LocalHealthOptions::score_max`].
    #[must_use]
    pub fn score(&self) -> u32 {
        self.score
    }

    /// Whether the node may accuse others.
    #[must_use]
    pub fn may_accuse(&self) -> bool {
        self.score == 0
    }

    /// A timeout of a healthy node, as it is to be applied now.
    #[must_use]
    pub fn stretch(&self, timeout: Duration) -> Duration {
        timeout.saturating_mul(self.score + 1)
    }

    /// How long a suspicion must last before it is acted on, with this many independent witnesses beside
    /// this node (section IV of the paper): from the longest timeout it falls with the logarithm of their
    /// number.
    #[must_use]
    pub fn suspicion_timeout(&self, witnesses: u32) -> Duration {
        let LocalHealthOptions { suspicion_min, suspicion_max, witnesses: enough, .. } = self.options;
        let range = suspicion_max.saturating_sub(suspicion_min);
        let share =
            f64::from(witnesses.saturating_add(1)).ln() / f64::from(enough.max(1).saturating_add(1)).ln();
        let timeout = suspicion_min + range.mul_f64(1.0 - share.clamp(0.0, 1.0));
        self.stretch(timeout)
    }
}
