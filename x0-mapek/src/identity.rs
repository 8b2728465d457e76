//! A ready healer for X.509-SVIDs whose renewal is late (feature `identity`).
//!
//! An SVID is renewed by a process of its own: an issuer's client, a file that a deployment replaces. When
//! that fails, nothing is wrong for hours, and then all peers refuse the node at one moment. The healer
//! watches the share of the lifetime that has passed, and asks for a renewal well before the end:
//!
//! | action | on what | carried out by |
//! |---|---|---|
//! | [`Act::RenewIdentity`] | [`AGE_SHARE`] of [`HealerOptions::late_share`] or more | a command or source that the driver was configured with |
//!
//! The threshold of each SVID is higher by a share of [`HealerOptions::spread`] that the seed gives, so that
//! the nodes of a group do not ask their issuer at one moment. A renewal that does not help is tried again
//! after a back-off that doubles; then the loop escalates, while the old SVID is still valid.
//!
//! # Use
//! The healer is a [`Loop`]. Its driver passes a [`reading`] of each SVID every few seconds:
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use x0_mapek::identity::{Act, HealerOptions, Svid, reading};
//! use x0_mapek::{Input, Mode};
//!
//! let own = Svid::new("spiffe://example.org/node/1");
//! let mut healer = HealerOptions::new().mode(Mode::Active).seed(7).healer([own.clone()]);
//! // In a program: the validity of the X509Svid, and the time of day.
//! let (hour, begin) = (Duration::from_secs(3600), SystemTime::UNIX_EPOCH);
//! let mut renewed = 0;
//! for seconds in 0..120 {
//!     let now = Duration::from_secs(seconds);
//!     let wall = begin + hour * 9 / 10 + now;
//!     let lifetime = if renewed == 0 { (begin, begin + hour) } else { (wall, wall + hour) };
//!     if let Some(reading) = reading(&own, lifetime.0, lifetime.1, wall) {
//!         healer.handle(now, Input::Reading(reading))?;
//!     }
//!     let carry_out = |action: &Act| {
//!         let Act::RenewIdentity { .. } = action else { return Err("unknown".into()) };
//!         renewed += 1;
//!         Ok(())
//!     };
//!     for record in healer.drain(now, carry_out)? {
//!         println!("{}", record.explain());
//!     }
//! }
//! assert_eq!(renewed, 1);
//! # Ok::<(), x0_mapek::HandleError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::adapter::{Readings, candidate, spread_limit};
use crate::codec::cut;
use crate::detect::ReadingError;
use crate::options::healer_setters;
use crate::{
    Action, Disruption, Evidence, Expectation, Knowledge, Loop, LoopOptions, Mode, Plan, Policy, Reading,
};

/// Signal of an SVID: the share of its lifetime that has passed; 1 when it expires.
pub const AGE_SHARE: &str = "svid_age_share";
/// The most SVIDs that a healer watches; those beyond it are left out.
pub const SVIDS_MAX: usize = 64;

/// The signals, each with the largest value that is a measurement. A node may be off for long.
const SIGNALS: [(&str, f64); 1] = [(AGE_SHARE, 1e6)];
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(60);
/// The time in which an issuer answers, and the new SVID is in use.
const WITHIN: Duration = Duration::from_secs(30);

/// An SVID as a subject of the loop: records name it by its SPIFFE ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Svid(String);

impl Svid {
    /// The SVID with this SPIFFE ID, or another name; longer than [`TEXT_LEN_MAX`](crate::TEXT_LEN_MAX) it is
    /// cut.
    #[must_use]
    pub fn new(spiffe_id: &str) -> Svid {
        Svid(cut(spiffe_id))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The reading of an SVID with this validity at this time of day. `None` if it was never valid.
#[must_use]
pub fn reading(
    svid: &Svid,
    not_before: SystemTime,
    not_after: SystemTime,
    wall: SystemTime,
) -> Option<Reading<Svid>> {
    let lifetime = not_after.duration_since(not_before).ok().filter(|lifetime| !lifetime.is_zero())?;
    // The clock of the issuer may be ahead.
    let passed = wall.duration_since(not_before).unwrap_or_default();
    let value = passed.as_secs_f64() / lifetime.as_secs_f64();
    Some(Reading { subject: svid.clone(), signal: AGE_SHARE, value })
}

/// The reading of an SVID of x0-identity.
#[must_use]
pub fn reading_of(svid: &x0_identity::X509Svid, wall: SystemTime) -> Option<Reading<Svid>> {
    let subject = Svid::new(&svid.spiffe_id().to_string());
    reading(&subject, svid.not_before(), svid.not_after(), wall)
}

/// What a healer knows of its SVIDs.
#[derive(Debug)]
pub struct View {
    /// The share of each from which on its renewal is late.
    limits: BTreeMap<Svid, f64>,
    readings: Readings<Svid>,
}

impl View {
    /// The readings that make an SVID unhealthy; empty if it is not.
    #[must_use]
    pub fn evidence(&self, now: Duration, svid: &Svid) -> Vec<Evidence> {
        let limit = self.limits.get(svid);
        limit
            .and_then(|limit| self.readings.beyond(now, svid, AGE_SHARE, *limit, STALE))
            .into_iter()
            .collect()
    }

    fn late(&self, now: Duration) -> impl Iterator<Item = (&Svid, Evidence)> {
        let late = move |svid, limit: f64| self.readings.beyond(now, svid, AGE_SHARE, limit, STALE);
        self.limits.iter().filter_map(move |(svid, limit)| Some((svid, late(svid, *limit)?)))
    }
}

impl Knowledge for View {
    type Subject = Svid;

    fn observe(&mut self, now: Duration, reading: &Reading<Svid>) -> Result<(), ReadingError> {
        if !self.limits.contains_key(&reading.subject) {
            return Err(ReadingError::Unknown);
        }
        self.readings.take(now, reading, &SIGNALS)
    }

    fn subject_count(&self) -> usize {
        self.limits.len()
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Svid)) {
        self.late(now).for_each(|(svid, _)| each(svid));
    }
}

/// What a healer does. The set is closed; an escalation is an output of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// `renew-identity`: gets a new SVID from the configured command or source.
    RenewIdentity {
        /// The SVID.
        svid: Svid,
    },
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        "renew-identity"
    }

    fn subject(&self) -> &Svid {
        let Act::RenewIdentity { svid } = self;
        svid
    }

    fn disruption(&self) -> Disruption {
        Disruption::None
    }

    fn accuses_other(&self) -> bool {
        false
    }

    fn badness(&self, view: &View) -> Option<f64> {
        view.readings.value(self.subject(), AGE_SHARE)
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: WITHIN, improvement: 0.5 }
    }
}

/// Renews every SVID whose renewal is late.
#[derive(Debug)]
struct Renew;

impl Policy<View, Act> for Renew {
    fn name(&self) -> &'static str {
        "renew-late-identities"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        for (svid, evidence) in view.late(now) {
            let action = Act::RenewIdentity { svid: svid.clone() };
            plan.propose(candidate(action, "late-renewal", "wrong-clock", vec![evidence]));
        }
    }
}

/// Settings of a healer of SVIDs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// The share of the lifetime from which on a renewal is late, from 0.01 to 1. 0.75 unless set: renewals
    /// are usually due at half.
    pub late_share: f64,
    /// The largest share that the seed adds, from 0 to 1. 0.1 unless set.
    pub spread: f64,
    /// The seed of the spread: another one on each node.
    pub seed: u64,
    /// The time after the first input in which nothing is done. 10 s unless set.
    pub grace: Duration,
    /// The pause between two renewals of one SVID; it doubles. 60 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            late_share: 0.75,
            spread: 0.1,
            seed: 0,
            grace: Duration::from_secs(10),
            back_off: Duration::from_secs(60),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        late_share: f64,
        spread: f64,
        seed: u64,
        grace: Duration,
        back_off: Duration,
    }

    fn view(&self, svids: impl IntoIterator<Item = Svid>) -> View {
        // An SVID that expires is late in any case.
        let limit = |svid: Svid| {
            let share = spread_limit(self.late_share, 0.01, self.spread, self.seed, svid.as_str());
            (svid, share)
        };
        View { limits: svids.into_iter().take(SVIDS_MAX).map(limit).collect(), readings: Readings::new() }
    }

    /// A healer of these SVIDs that knows nothing yet.
    #[must_use]
    pub fn healer(&self, svids: impl IntoIterator<Item = Svid>) -> Loop<View, Act> {
        let options = LoopOptions::new()
            .mode(self.mode)
            .period(Duration::from_secs(1))
            .grace(self.grace)
            .stability(Duration::from_secs(2))
            .back_off(self.back_off)
            .execution_max(Duration::from_secs(60));
        Loop::new(self.view(svids), Box::new(Renew), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Input, Record};

    const SECOND: Duration = Duration::from_secs(1);

    fn own() -> Svid {
        Svid::new("spiffe://example.org/node/1")
    }

    /// An hour of readings every five seconds of an SVID of ten minutes, which the renewals replace if they
    /// work. The seconds of the renewals, and the records.
    fn hour(mode: Mode, seed: u64, works: impl Fn(usize) -> bool) -> (Vec<u64>, Vec<Record>) {
        let mut healer = HealerOptions::new().mode(mode).seed(seed).healer([own()]);
        let (wall, lifetime) = (|at: u64| SystemTime::UNIX_EPOCH + SECOND * u32::try_from(at).unwrap(), 600);
        let (mut issued, mut renewals, mut records) = (0, Vec::new(), Vec::new());
        for at in (0..3600).step_by(5) {
            let now = Duration::from_secs(at);
            let reading = reading(&own(), wall(issued), wall(issued + lifetime), wall(at)).unwrap();
            healer.handle(now, Input::Reading(reading)).unwrap();
            let decided = healer.drain(now, |_| {
                if works(renewals.len()) {
                    issued = at;
                }
                renewals.push(at);
                Ok(())
            });
            records.extend(decided.unwrap());
        }
        (renewals, records)
    }

    #[test]
    fn a_late_renewal_is_asked_for_well_before_the_end() {
        let (renewals, records) = hour(Mode::Active, 1, |_| true);
        assert!(renewals.len() >= 6, "{renewals:?}");
        let lifetimes = [0].iter().chain(&renewals).zip(&renewals).map(|(issued, at)| at - issued);
        assert!(
            lifetimes.clone().all(|age| (450..530).contains(&age)),
            "{:?}",
            lifetimes.collect::<Vec<_>>()
        );
        assert!(records.iter().any(|record| record.event.name() == "improved"));
        for record in &records {
            assert_eq!(record.cause, "late-renewal");
            record.recompute().unwrap();
        }
    }

    #[test]
    fn nodes_ask_at_different_times() {
        let first = |seed| hour(Mode::Active, seed, |_| true).0[0];
        let times: std::collections::BTreeSet<u64> = (0..20).map(first).collect();
        assert!(times.len() > 5, "{times:?}");
        assert!(times.iter().all(|at| (450..530).contains(at)), "{times:?}");
    }

    #[test]
    fn a_renewal_that_does_not_help_ends_with_a_person_before_the_svid_does() {
        let (renewals, records) = hour(Mode::Active, 1, |_| false);
        assert_eq!(renewals.len(), 3, "{renewals:?}");
        assert!(renewals[1] - renewals[0] >= 60 && renewals[2] - renewals[1] >= 120, "{renewals:?}");
        let escalated =
            records.iter().find(|record| matches!(record.event, Event::Escalated { .. })).unwrap();
        assert!(escalated.at > Duration::from_secs(renewals[2]), "{:?}", escalated.at);
        // Once more works: nobody is called.
        let (renewals, records) = hour(Mode::Active, 1, |attempt| attempt == 1);
        assert!(renewals.len() >= 3);
        assert!(!records.iter().take(6).any(|record| record.event.name() == "escalated"));
    }

    #[test]
    fn nothing_is_done_in_a_dry_run_or_on_readings_that_say_nothing() {
        let (renewals, records) = hour(Mode::DryRun, 1, |_| true);
        assert!(renewals.is_empty());
        assert!(records.iter().any(|record| record.event.name() == "would-execute"));
        let (at, epoch) = (|seconds| SystemTime::UNIX_EPOCH + SECOND * seconds, SystemTime::UNIX_EPOCH);
        // Never valid, and not valid yet.
        assert_eq!(reading(&own(), at(5), at(5), at(9)), None);
        assert_eq!(reading(&own(), at(5), epoch, at(9)), None);
        assert_eq!(reading(&own(), at(5), at(9), epoch).unwrap().value, 0.0);
        let mut view = HealerOptions::new().view([own()]);
        let mut refuse = |subject, signal, value| {
            let before = format!("{view:?}");
            assert!(view.observe(SECOND, &Reading { subject, signal, value }).is_err());
            assert_eq!(format!("{view:?}"), before);
        };
        refuse(Svid::new("other"), AGE_SHARE, 0.9);
        refuse(own(), "other", 0.9);
        for value in [f64::NAN, f64::INFINITY, -0.1, 1e7] {
            refuse(own(), AGE_SHARE, value);
        }
    }

    #[test]
    fn a_view_is_bounded_and_its_limits_are_usable_whatever_the_settings_are() {
        let many = (0..1000).map(|number| Svid::new(&format!("{number}")));
        for share in [f64::NAN, f64::INFINITY, -1.0, 0.0, 9.0] {
            let view = HealerOptions::new().late_share(share).spread(share).view(many.clone());
            assert_eq!(view.subject_count(), SVIDS_MAX);
            assert!(view.limits.values().all(|limit| (0.01..=1.0).contains(limit)), "{share}");
        }
        assert_eq!(Svid::new(&"x".repeat(999)).as_str().len(), crate::TEXT_LEN_MAX);
    }

    #[cfg(feature = "conformance")]
    #[test]
    fn the_policy_keeps_the_contract() {
        use crate::conformance::{Situation, check};
        let situation = |value, is_healed| Situation {
            readings: vec![(SECOND, Reading { subject: own(), signal: AGE_SHARE, value })],
            stale_after: STALE,
            is_healed,
        };
        let situations = [situation(0.5, false), situation(0.9, true), situation(1.5, true)];
        check(|| HealerOptions::new().view([own()]), || Renew, &situations).unwrap();
    }
}
