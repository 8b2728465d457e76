//! Guards: the checks that an action must pass before it is carried out.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The names of all guards, in the order in which the loop asks them.
pub const GUARDS: [&str; 17] = [
    "pause",
    "grace",
    "local-health",
    "storm",
    "planned",
    "utility",
    "escalated",
    "busy",
    "back-off",
    "stability",
    "diagnosis",
    "disruption",
    "budget",
    "blast-radius",
    "precondition",
    "safety",
    "approval",
];

/// The guards that judge only actions which disturb their subject.
pub const DISRUPTION_GUARDS: [&str; 3] = ["disruption", "budget", "blast-radius"];

/// The reason why a candidate was not carried out in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// An operator has paused the loop.
    Paused {
        /// Until when; `None`: until an operator resumes it.
        until: Option<Duration>,
    },
    /// The loop has started a moment ago.
    Grace {
        /// Until when.
        until: Duration,
    },
    /// The rounds of this loop are late: its own process or machine is slow, so that it accuses no other.
    LateTimers {
        /// The health score; 0 is healthy.
        score: u32,
    },
    /// Too many subjects are unhealthy at once: a common cause is likely, and actions would add to it.
    Storm {
        /// The unhealthy subjects.
        unhealthy: usize,
        /// The limit.
        limit: usize,
    },
    /// The owner changes the subject on purpose.
    Planned {
        /// Until when.
        until: Duration,
    },
    /// The candidate has not been proposed for long enough.
    Unstable {
        /// Since when it has been proposed.
        since: Duration,
    },
    /// The policy sees that something is wrong, and no cause: a person is called instead.
    UnknownCause,
    /// Its utility is not positive.
    Useless,
    /// Its precondition does not hold.
    Impossible {
        /// The reason.
        reason: Cow<'static, str>,
    },
    /// The system would not be safe after it.
    Unsafe {
        /// The reason.
        reason: Cow<'static, str>,
    },
    /// Another action on the subject is in flight.
    Busy {
        /// The other action.
        id: u64,
    },
    /// Another disruptive action is in flight.
    Disruptive {
        /// The other action.
        id: u64,
    },
    /// Other subjects are unhealthy or acted on, as many as the budget allows.
    Budget {
        /// The number of these subjects.
        others: usize,
        /// The budget.
        limit: usize,
    },
    /// The last action on the subject was a moment ago.
    BackOff {
        /// Until when.
        until: Duration,
    },
    /// The subject was handed over to a person, who has not acknowledged it.
    Escalated,
    /// As many subjects as allowed were acted on for this cause.
    BlastRadius {
        /// The limit.
        limit: usize,
    },
    /// A person must approve it.
    Approval,
}

impl Refusal {
    /// The name of the guard that refused.
    #[must_use]
    pub fn guard(&self) -> &'static str {
        match self {
            Refusal::Paused { .. } => "pause",
            Refusal::Grace { .. } => "grace",
            Refusal::LateTimers { .. } => "local-health",
            Refusal::Storm { .. } => "storm",
            Refusal::Planned { .. } => "planned",
            Refusal::Unstable { .. } => "stability",
            Refusal::UnknownCause => "diagnosis",
            Refusal::Useless => "utility",
            Refusal::Impossible { .. } => "precondition",
            Refusal::Unsafe { .. } => "safety",
            Refusal::Busy { .. } => "busy",
            Refusal::Disruptive { .. } => "disruption",
            Refusal::Budget { .. } => "budget",
            Refusal::BackOff { .. } => "back-off",
            Refusal::Escalated => "escalated",
            Refusal::BlastRadius { .. } => "blast-radius",
            Refusal::Approval => "approval",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Paused { until: Some(until) } => {
                write!(f, "an operator has paused the loop until {until:?}")
            }
            Refusal::Paused { until: None } => f.write_str("an operator has paused the loop"),
            Refusal::Grace { until } => write!(f, "the loop has just started and waits until {until:?}"),
            Refusal::LateTimers { score } => {
                write!(f, "the timers of this node are late (score {score}), so that it accuses no other")
            }
            Refusal::Storm { unhealthy, limit } => {
                write!(f, "{unhealthy} subjects are unhealthy at once, and from {limit} on the loop holds")
            }
            Refusal::Planned { until } => write!(f, "a planned change of the subject lasts until {until:?}"),
            Refusal::Unstable { since } => write!(f, "it has been proposed only since {since:?}"),
            Refusal::UnknownCause => f.write_str("the cause is not known, so that no action can be chosen"),
            Refusal::Useless => f.write_str("its utility is not positive"),
            Refusal::Impossible { reason } => write!(f, "it cannot be carried out: {reason}"),
            Refusal::Unsafe { reason } => write!(f, "the system would not be safe after it: {reason}"),
            Refusal::Busy { id } => write!(f, "action {id} on the subject is in flight"),
            Refusal::Disruptive { id } => write!(f, "the disruptive action {id} is in flight"),
            Refusal::Budget { others, limit } => {
                write!(f, "{others} other subjects are unhealthy or acted on, and the budget is {limit}")
            }
            Refusal::BackOff { until } => {
                write!(f, "the last action was a moment ago; the next is possible at {until:?}")
            }
            Refusal::Escalated => f.write_str("the subject was escalated, and nobody has acknowledged it"),
            Refusal::BlastRadius { limit } => {
                write!(f, "{limit} subjects were acted on for this cause, which is the most")
            }
            Refusal::Approval => f.write_str("a person must approve it"),
        }
    }
}
