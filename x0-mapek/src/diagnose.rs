//! Diagnosis: one cause from what several observers see.
//!
//! Each observer (a member, or a client outside) writes a bounded [`Summary`]: how it sees the members, and
//! what a member knows of itself. A [`Board`] keeps the last summary of each observer and returns
//! [`Finding`]s: a typed [`Cause`] with its confidence, the next likely cause, and the members behind it.
//!
//! # Rules
//! - Many symptoms have one cause: members that fall silent at the same time are one cut, not several deaths,
//!   unless their hosts answer that nothing listens.
//! - A side with fewer than half of the members accuses nobody but itself.
//! - An observer whose own timers are late is no witness (Dadgar et al. 2017).
//! - A cause of one member needs more than half of the observers that see it, and at least two. What a member
//!   reports of itself counts as one. So one observer that is wrong, or lies, causes nothing.
//! - A member is judged by what its callers see, not by its heartbeats: those do not pass its disk (Huang et
//!   al. 2017, "Gray failure").
//! - If most members are slow, the cause is load.
//! - Symptoms without a rule, or with too little confidence, are [`Cause::Unknown`]: the loop calls a person.
//!
//! ```
//! use std::time::Duration;
//! use x0_mapek::diagnose::{Board, Cause, DiagnoseOptions, Observer, Sighting, Summary};
//!
//! let mut board = Board::new([1, 2, 3], DiagnoseOptions::new());
//! let now = Duration::from_secs(60);
//! for observer in [1, 2] {
//!     let silent = Sighting { silent: Duration::from_secs(2), ..Sighting::default() };
//!     let summary = Summary::new(Observer::Member(observer), 1).sighting(3 - observer, Sighting::default());
//!     board.observe(now, summary.sighting(3, silent))?;
//! }
//! let findings = board.diagnose(now);
//! assert_eq!((findings[0].cause, findings[0].members.as_slice()), (Cause::Hang, [3].as_slice()));
//! # Ok::<(), x0_mapek::diagnose::SummaryError>(())
//! ```

mod rules;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::summary::{Observer, OwnState, SIGHTINGS_MAX, Sighting, Summary};

use crate::plan::{Diagnosis, UNKNOWN_CAUSE};

/// The most clients whose summaries are kept.
pub const CLIENTS_MAX: usize = 256;
/// The most members of a board.
pub const MEMBERS_MAX: usize = SIGHTINGS_MAX;

/// The cause of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The process of the member has ended: its host answers that nothing listens.
    Crash,
    /// The member is silent for everybody: a hung process, or a host that is off.
    Hang,
    /// The members of the finding and the rest do not hear each other.
    Cut,
    /// Two members do not hear each other, and all others hear both.
    Link,
    /// The second member of the finding does not hear the first; the other direction works.
    OneWayCut,
    /// Clients cannot use the member, and the other members can.
    ClientCut,
    /// The disk of the member is slow: its writes wait to become durable.
    SlowDisk,
    /// The process of the member is not scheduled in time.
    Starved,
    /// Most members are slow: load, and not a sick member.
    Overload,
    /// The disk of the member is full.
    DiskFull,
    /// The identity of the member is not accepted. No restart cures it.
    Identity,
    /// Something is wrong, and no rule names the cause.
    Unknown,
}

impl Cause {
    /// The name of the cause, as in a [`Diagnosis`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::Crash => "crash",
            Cause::Hang => "hang",
            Cause::Cut => "cut",
            Cause::Link => "link",
            Cause::OneWayCut => "one-way-cut",
            Cause::ClientCut => "client-cut",
            Cause::SlowDisk => "slow-disk",
            Cause::Starved => "starved",
            Cause::Overload => "overload",
            Cause::DiskFull => "disk-full",
            Cause::Identity => "identity",
            Cause::Unknown => UNKNOWN_CAUSE,
        }
    }
}

/// A cause, and the members behind it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The cause.
    pub cause: Cause,
    /// The members, in order; for [`Cause::OneWayCut`] the unheard one first.
    pub members: Vec<u64>,
    /// The confidence in it, from 0 to 1.
    pub confidence: f64,
    /// The next likely cause, with its confidence.
    pub runner_up: Option<(Cause, f64)>,
    /// The observers that saw the symptoms.
    pub witnesses: usize,
    /// The observers that could have seen them.
    pub observers: usize,
}

impl Finding {
    /// The finding as the diagnosis of a [`Candidate`](crate::Candidate).
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        let runner_up = self.runner_up.map(|(cause, confidence)| (cause.name(), confidence));
        Diagnosis { cause: self.cause.name(), confidence: self.confidence, runner_up }
    }
}

/// The settings of a [`Board`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DiagnoseOptions {
    /// A member is silent after this time without a message: 1 s unless set.
    pub silent_after: Duration,
    /// A member is slow from this multiple of its usual latency on: 3 unless set.
    pub slow_from: f64,
    /// A disk is slow when a write waits this long to become durable: 300 ms unless set.
    pub durable_after: Duration,
    /// A summary says nothing after this time: 3 s unless set.
    pub stale_after: Duration,
    /// Silences that begin within this time have one cause: 1 s unless set.
    pub together: Duration,
    /// A finding with less confidence is [`Cause::Unknown`]: 0.6 unless set.
    pub confidence_min: f64,
}

impl Default for DiagnoseOptions {
    fn default() -> DiagnoseOptions {
        DiagnoseOptions {
            silent_after: Duration::from_secs(1),
            slow_from: 3.0,
            durable_after: Duration::from_millis(300),
            stale_after: Duration::from_secs(3),
            together: Duration::from_secs(1),
            confidence_min: 0.6,
        }
    }
}

impl DiagnoseOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> DiagnoseOptions {
        DiagnoseOptions::default()
    }

    /// Sets [`silent_after`](DiagnoseOptions::silent_after).
    #[must_use]
    pub fn silent_after(mut self, silent_after: Duration) -> DiagnoseOptions {
        self.silent_after = silent_after;
        self
    }

    /// Sets [`slow_from`](DiagnoseOptions::slow_from).
    #[must_use]
    pub fn slow_from(mut self, slow_from: f64) -> DiagnoseOptions {
        self.slow_from = slow_from;
        self
    }

    /// Sets [`durable_after`](DiagnoseOptions::durable_after).
    #[must_use]
    pub fn durable_after(mut self, durable_after: Duration) -> DiagnoseOptions {
        self.durable_after = durable_after;
        self
    }

    /// Sets [`stale_after`](DiagnoseOptions::stale_after).
    #[must_use]
    pub fn stale_after(mut self, stale_after: Duration) -> DiagnoseOptions {
        self.stale_after = stale_after;
        self
    }
}

/// A summary was not taken. The board is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SummaryError {
    /// The observer is not a member.
    #[error(
        "the summary is of {member}, which is not a member: add it with set_members, or drop the summary"
    )]
    NotMember {
        /// The observer.
        member: u64,
    },
    /// The summary is not newer than the last one of its observer.
    #[error(
        "the summary has the sequence {sequence}, not above the last one of {last}: drop it, it came late or twice"
    )]
    Old {
        /// Its sequence.
        sequence: u64,
        /// The last one.
        last: u64,
    },
    /// Too many clients have a summary.
    #[error("the board holds summaries of {CLIENTS_MAX} clients, which is the most: drop the summary")]
    TooManyClients,
}

/// A summary, and when it arrived.
#[derive(Debug, Clone, PartialEq)]
struct Posted {
    summary: Summary,
    at: Duration,
}

/// The last summary of each observer. Its size is bounded by [`MEMBERS_MAX`], [`CLIENTS_MAX`] and
/// [`SIGHTINGS_MAX`].
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    options: DiagnoseOptions,
    members: BTreeSet<u64>,
    posted: BTreeMap<Observer, Posted>,
}

impl Board {
    /// A board without summaries. Members beyond [`MEMBERS_MAX`] are left out.
    pub fn new(members: impl IntoIterator<Item = u64>, options: DiagnoseOptions) -> Board {
        let mut board = Board { options, members: BTreeSet::new(), posted: BTreeMap::new() };
        board.set_members(members);
        board
    }

    /// The membership has changed: summaries of former members are dropped.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = u64>) {
        self.members = members.into_iter().take(MEMBERS_MAX).collect();
        let members = &self.members;
        self.posted.retain(|observer, _| match observer {
            Observer::Member(member) => members.contains(member),
            Observer::Client(_) => true,
        });
    }

    /// The members.
    pub fn members(&self) -> impl ExactSizeIterator<Item = u64> {
        self.members.iter().copied()
    }

    /// Takes a summary that arrived at `now`. The caller knows that it comes from its observer.
    ///
    /// # Errors
    /// See [`SummaryError`]. Nothing has changed.
    pub fn observe(&mut self, now: Duration, summary: Summary) -> Result<(), SummaryError> {
        let observer = summary.observer;
        if let Some(Posted { summary: last, .. }) = self.posted.get(&observer) {
            if summary.sequence <= last.sequence {
                return Err(SummaryError::Old { sequence: summary.sequence, last: last.sequence });
            }
        } else if let Observer::Client(_) = observer {
            let stale_after = self.options.stale_after;
            let is_client = |observer: &&Observer| matches!(observer, Observer::Client(_));
            if self.posted.keys().filter(is_client).count() >= CLIENTS_MAX {
                self.posted.retain(|observer, posted| {
                    !is_client(&observer) || now.saturating_sub(posted.at) < stale_after
                });
            }
            if self.posted.keys().filter(is_client).count() >= CLIENTS_MAX {
                return Err(SummaryError::TooManyClients);
            }
        }
        match observer {
            Observer::Member(member) if !self.members.contains(&member) => {
                Err(SummaryError::NotMember { member })
            }
            _ => {
                self.posted.insert(observer, Posted { summary, at: now });
                Ok(())
            }
        }
    }

    /// What is wrong at `now`, by cause and member. Empty if nothing is, or nothing is known.
    #[must_use]
    pub fn diagnose(&self, now: Duration) -> Vec<Finding> {
        rules::diagnose(self, now)
    }
}

#[cfg(test)]
mod tests;
