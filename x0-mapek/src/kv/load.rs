//! A ready healer for a node that cannot serve all that the others ask of it: it sheds load.
//!
//! Operations of other nodes and of clients wait at a node, up to its [`RequestLimits`]. When the queue is
//! full for a while, everything in it is old: callers have given up, and ask again. A shorter queue refuses
//! more at once, and answers what it takes in time.
//!
//! | action | on what | effect |
//! |---|---|---|
//! | [`Act::ShedLoad`] | [`QUEUE_SHARE`] of 0.9 or more | half of the limits; an eighth of the usual ones at least |
//! | [`Act::RestoreLoad`] | [`CALM`] of [`HealerOptions::calm`] or more | twice the limits, up to the usual ones |
//!
//! The usual limits are those that the node had first, and those that an operator sets later. An action of
//! this healer concerns its own node alone. [`Act::ShedLoad`] is taken back when it made things worse.
//!
//! # Use
//! The healer is a [`Loop`]. Its driver passes a [`sample`] every [`SAMPLE_EVERY`] and carries out the
//! actions:
//!
//! ```
//! use std::time::Duration;
//! use x0_kv::coordinator::RequestLimits;
//! use x0_mapek::Mode;
//! use x0_mapek::kv::load::{HealerOptions, SAMPLE_EVERY, sample};
//!
//! let mut healer = HealerOptions::new().mode(Mode::Active).healer();
//! let mut limits = RequestLimits::new(1000, 100)?;
//! for step in 0..60 {
//!     let now = SAMPLE_EVERY * step;
//!     // In a program: `waiting` of the status of the node.
//!     sample(&mut healer, now, limits.requests_max() as u64, limits)?;
//!     // In a program: `Node::set_request_limits`.
//!     let carry_out = |act: &x0_mapek::kv::load::Act| {
//!         limits = act.limits();
//!         Ok(())
//!     };
//!     for record in healer.drain(now, carry_out)? {
//!         println!("{}", record.explain());
//!     }
//! }
//! assert!(limits.requests_max() <= 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use x0_kv::coordinator::RequestLimits;

use crate::adapter::{Readings, candidate};
use crate::detect::ReadingError;
use crate::options::{healer_setters, loop_options};
use crate::{
    Action, Disruption, Evidence, Expectation, HandleError, Input, Knowledge, Loop, Mode, Plan, Policy,
    Reading,
};

/// Signal: how many operations of other nodes wait, as a share of the present limit.
pub const QUEUE_SHARE: &str = "queue_share";
/// Signal: how many operations of other nodes wait.
pub const QUEUE: &str = "queue_operations";
/// Signal: for how long, in seconds, at most a quarter of the limit has been in use.
pub const CALM: &str = "calm_seconds";
/// The time between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// The signals, each with the largest value that is a measurement.
const SIGNALS: [(&str, f64); 3] = [(QUEUE_SHARE, 1e9), (QUEUE, 1e12), (CALM, 3.2e9)];
/// A queue is full from this share on, and idle below that one.
const FULL: f64 = 0.9;
const IDLE: f64 = 0.25;
/// The smallest limit, as a divisor of the usual one.
const SMALLEST: usize = 8;
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(5);

/// The queue of the node as the subject of the loop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue;

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("own queue")
    }
}

/// The knowledge of a healer: the queue of its node, and the limits.
#[derive(Debug)]
pub struct View {
    calm: Duration,
    /// The usual limits, and the present ones.
    limits: Option<(RequestLimits, RequestLimits)>,
    /// The limits before and after the action that was in flight at the last sample.
    last: Option<(RequestLimits, RequestLimits)>,
    /// Since when little has waited.
    idle_since: Option<Duration>,
    readings: Readings<Queue>,
}

impl View {
    fn new(calm: Duration) -> View {
        View { calm, limits: None, last: None, idle_since: None, readings: Readings::new() }
    }

    fn beyond(&self, now: Duration, signal: &'static str, threshold: f64) -> Option<Evidence> {
        self.readings.beyond(now, &Queue, signal, threshold, STALE)
    }

    /// The readings that make the node overloaded; empty if it is not.
    #[must_use]
    pub fn evidence(&self, now: Duration) -> Vec<Evidence> {
        self.beyond(now, QUEUE_SHARE, FULL).into_iter().collect()
    }

    /// The action that is due now, its cause and the reading.
    fn due(&self, now: Duration) -> Option<(Act, &'static str, Evidence)> {
        let (usual, from) = self.limits?;
        if let Some(full) = self.beyond(now, QUEUE_SHARE, FULL) {
            let to = scaled(usual, (from.requests_max() / 2).max(usual.requests_max() / SMALLEST).max(1))?;
            // At the lowest limit, the queue is as short as this healer makes it.
            return (to.requests_max() < from.requests_max()).then_some((
                Act::ShedLoad { from, to },
                "overload",
                full,
            ));
        }
        // The reading may be that of a calm which has just ended.
        self.idle_since?;
        let calm = self.beyond(now, CALM, self.calm.as_secs_f64())?;
        let to = scaled(usual, from.requests_max().saturating_mul(2).min(usual.requests_max()))?;
        (from != usual).then_some((Act::RestoreLoad { from, to }, "calm", calm))
    }
}

/// The usual limits with another sum: the share of one peer falls with it.
fn scaled(usual: RequestLimits, requests_max: usize) -> Option<RequestLimits> {
    if requests_max >= usual.requests_max() {
        return Some(usual);
    }
    let share = usual.requests_per_peer_max().saturating_mul(requests_max) / usual.requests_max();
    RequestLimits::new(requests_max, share.max(1)).ok()
}

/// Passes the number of operations that wait at the node, and the limits that hold.
///
/// # Errors
/// See [`HandleError`]: when the time runs backwards. Nothing was changed.
pub fn sample(
    healer: &mut Loop<View, Act>,
    now: Duration,
    waiting: u64,
    limits: RequestLimits,
) -> Result<(), HandleError> {
    let in_flight = healer.in_flight().last().map(|(_, act)| (act.from(), act.limits()));
    let view = healer.knowledge_mut();
    let before = (view.last, view.limits, view.idle_since);
    // An action ends between two samples, done or taken back. After the first sample that shows it, the
    // same limits can only be an operator's.
    let own = in_flight.or(view.last);
    view.last = in_flight;
    let is_own = own.is_some_and(|(from, to)| [from, to].contains(&limits));
    view.limits = Some(match view.limits {
        Some((usual, before)) if is_own || before == limits => (usual, limits),
        // The first, or those of an operator.
        _ => (limits, limits),
    });
    let share = waiting as f64 / limits.requests_max() as f64;
    view.idle_since = (share < IDLE).then(|| view.idle_since.unwrap_or(now));
    let calm = view.idle_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    // A round that is due runs with the first reading. It decides by the share, of the limits that hold now,
    // and by whether the calm lasts.
    for (signal, value) in [(QUEUE_SHARE, share), (CALM, calm.as_secs_f64()), (QUEUE, waiting as f64)] {
        if let Err(error) = healer.handle(now, Input::Reading(Reading { subject: Queue, signal, value })) {
            // The first one alone can be refused.
            let view = healer.knowledge_mut();
            (view.last, view.limits, view.idle_since) = before;
            return Err(error);
        }
    }
    Ok(())
}

impl Knowledge for View {
    type Subject = Queue;

    fn observe(&mut self, now: Duration, reading: &Reading<Queue>) -> Result<(), ReadingError> {
        self.readings.take(now, reading, &SIGNALS)
    }

    fn subject_count(&self) -> usize {
        1
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Queue)) {
        if self.beyond(now, QUEUE_SHARE, FULL).is_some() {
            each(&Queue);
        }
    }
}

/// The actions of a healer. The set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// `shed-load`: fewer operations of other nodes may wait.
    ShedLoad {
        /// The limits before.
        from: RequestLimits,
        /// The limits after.
        to: RequestLimits,
    },
    /// `restore-load`: more of them may wait again.
    RestoreLoad {
        /// The limits before.
        from: RequestLimits,
        /// The limits after.
        to: RequestLimits,
    },
}

impl Act {
    /// The limits to set.
    #[must_use]
    pub fn limits(&self) -> RequestLimits {
        let (Act::ShedLoad { to, .. } | Act::RestoreLoad { to, .. }) = *self;
        to
    }

    fn from(&self) -> RequestLimits {
        let (Act::ShedLoad { from, .. } | Act::RestoreLoad { from, .. }) = *self;
        from
    }
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        match self {
            Act::ShedLoad { .. } => "shed-load",
            Act::RestoreLoad { .. } => "restore-load",
        }
    }

    fn subject(&self) -> &Queue {
        &Queue
    }

    fn disruption(&self) -> Disruption {
        match self {
            Act::ShedLoad { .. } => Disruption::Brief,
            Act::RestoreLoad { .. } => Disruption::None,
        }
    }

    fn accuses_other(&self) -> bool {
        false
    }

    fn precondition(&self, view: &View) -> Result<(), Cow<'static, str>> {
        match view.limits {
            Some((_, now)) if now == self.from() => Ok(()),
            _ => Err("the limits have changed since the action was planned".into()),
        }
    }

    /// The operations that wait beyond the new limit, or the gap of the limit below the usual one.
    ///
    /// A lower limit removes no operation that waits already: it keeps new ones out while the queue drains.
    fn badness(&self, view: &View) -> Option<f64> {
        match self {
            Act::ShedLoad { to, .. } => {
                let waiting = view.readings.value(&Queue, QUEUE)?;
                Some((waiting - to.requests_max() as f64).max(0.0))
            }
            Act::RestoreLoad { .. } => {
                let (usual, now) = view.limits?;
                Some(usual.requests_max().saturating_sub(now.requests_max()) as f64)
            }
        }
    }

    fn expectation(&self) -> Expectation {
        let (seconds, improvement) = match self {
            // A queue that drains at a fortieth of its excess in a second is served.
            Act::ShedLoad { .. } => (10, 0.25),
            // From an eighth to a quarter, the gap falls from seven eighths to six.
            Act::RestoreLoad { .. } => (3, 0.1),
        };
        Expectation { within: Duration::from_secs(seconds), improvement }
    }

    /// A person who does not acknowledge a stalled queue does not keep the limits low.
    fn takes_back(&self) -> bool {
        matches!(self, Act::RestoreLoad { .. })
    }

    fn undo(&self) -> Option<Act> {
        match *self {
            Act::ShedLoad { from, to } => Some(Act::RestoreLoad { from: to, to: from }),
            Act::RestoreLoad { .. } => None,
        }
    }
}

/// Sheds load while the queue is full, and takes it back when little waits.
#[derive(Debug)]
struct Shed;

impl Policy<View, Act> for Shed {
    fn name(&self) -> &'static str {
        "shed-load"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        if let Some((act, cause, evidence)) = view.due(now) {
            plan.propose(candidate(act, cause, "burst", vec![evidence]));
        }
    }
}

/// Settings of a healer that sheds load.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// The time after the first input in which nothing is done. 10 s unless set.
    pub grace: Duration,
    /// How long a queue must be full before load is shed. 2 s unless set.
    pub stability: Duration,
    /// How long a queue must be almost empty before the limits rise again. 10 s unless set, 1 s at least.
    pub calm: Duration,
    /// The pause between two actions; it doubles while they do not help. 5 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            grace: Duration::from_secs(10),
            stability: Duration::from_secs(2),
            calm: Duration::from_secs(10),
            back_off: Duration::from_secs(5),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        grace: Duration,
        stability: Duration,
        calm: Duration,
        back_off: Duration,
    }

    /// A healer that knows nothing yet.
    #[must_use]
    pub fn healer(&self) -> Loop<View, Act> {
        let options = loop_options!(self, SAMPLE_EVERY).storm(1.0);
        Loop::new(View::new(self.calm.max(Duration::from_secs(1))), Box::new(Shed), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(all: usize, one: usize) -> RequestLimits {
        RequestLimits::new(all, one).unwrap()
    }

    struct Played {
        healer: Loop<View, Act>,
        limits: RequestLimits,
        steps: u32,
        acts: Vec<(&'static str, usize)>,
        records: Vec<Record>,
    }

    impl Played {
        fn new(mode: Mode) -> Played {
            let healer = HealerOptions::new().mode(mode).healer();
            Played { healer, limits: limits(800, 80), steps: 0, acts: Vec::new(), records: Vec::new() }
        }

        /// Plays seconds; `waiting` is given the time in seconds and the limit.
        fn run(&mut self, seconds: u32, waiting: impl Fn(f64, u64) -> u64) {
            for _ in 0..seconds * 2 {
                let now = (SAMPLE_EVERY * self.steps).as_secs_f64();
                self.step(waiting(now, self.limits.requests_max() as u64));
            }
        }

        /// Plays one sample.
        fn step(&mut self, waits: u64) {
            let now = SAMPLE_EVERY * self.steps;
            self.steps += 1;
            sample(&mut self.healer, now, waits, self.limits).unwrap();
            let (present, acts) = (&mut self.limits, &mut self.acts);
            let records = self.healer.drain(now, |act| {
                *present = act.limits();
                acts.push((act.kind(), present.requests_max()));
                Ok(())
            });
            self.records.extend(records.unwrap());
        }
    }

    #[test]
    fn a_full_queue_is_made_shorter_and_restored_after_a_calm() {
        let mut played = Played::new(Mode::Active);
        played.run(20, |_, _| 100);
        assert_eq!((played.acts.len(), played.records.len()), (0, 0));
        played.run(60, |_, limit| limit);
        assert_eq!(played.acts, [("shed-load", 400), ("shed-load", 200), ("shed-load", 100)]);
        assert_eq!(played.limits, limits(100, 10));
        played.acts.clear();
        // A quarter in use is no calm.
        played.run(30, |_, limit| limit / 3);
        assert_eq!(played.acts, []);
        played.run(60, |_, _| 5);
        assert_eq!(played.acts, [("restore-load", 200), ("restore-load", 400), ("restore-load", 800)]);
        assert_eq!(played.limits, limits(800, 80));
        played.run(60, |_, _| 5);
        assert_eq!(played.acts.len(), 3);
        for record in &played.records {
            record.recompute().unwrap();
            assert!(!matches!(record.event.name(), "escalated" | "worse"), "{}", record.explain());
        }
        assert!(played.records.iter().filter(|record| record.event.name() == "improved").count() >= 6);
    }

    #[test]
    fn a_burst_and_a_dry_run_change_nothing() {
        let mut played = Played::new(Mode::Active);
        played.run(60, |at, limit| if at % 4.0 < 1.5 { limit } else { 0 });
        assert_eq!(played.acts, []);
        let mut played = Played::new(Mode::DryRun);
        played.run(60, |_, limit| limit);
        assert_eq!(played.acts, []);
        assert!(played.records.iter().any(|record| record.event.name() == "would-execute"));
    }

    /// An operator raises the limits while an action is due: the round decides by them, and the queue is not
    /// full.
    #[test]
    fn limits_that_were_raised_are_not_lowered_by_a_queue_that_was_full() {
        let full = |steps: u32| {
            let mut played = Played::new(Mode::Active);
            played.run(20, |_, _| 100);
            for _ in 0..steps {
                played.step(800);
            }
            played
        };
        let due = (1..20).find(|steps| !full(*steps).acts.is_empty()).unwrap();
        let mut played = full(due - 1);
        played.limits = limits(2000, 200);
        played.step(800);
        assert_eq!((&played.acts[..], played.limits), (&[][..], limits(2000, 200)), "after {due} samples");
        // A sample of an earlier time changes nothing.
        let before = format!("{:?}", played.healer.knowledge());
        assert!(sample(&mut played.healer, SECOND, 5, limits(9, 9)).is_err());
        assert_eq!(format!("{:?}", played.healer.knowledge()), before);
    }

    /// The queue is in use again at the sample whose round would raise the limits.
    #[test]
    fn a_calm_that_has_just_ended_raises_no_limits() {
        let idle = |steps: u32| {
            let mut played = Played::new(Mode::Active);
            played.run(13, |_, limit| limit);
            assert_eq!(played.acts, [("shed-load", 400)]);
            for _ in 0..steps {
                played.step(0);
            }
            played
        };
        let due = (1..60).find(|steps| idle(*steps).acts.len() > 1).unwrap();
        let mut played = idle(due - 1);
        played.step(200);
        assert_eq!(played.acts.len(), 1, "after {due} samples: {:?}", played.acts);
    }

    #[test]
    fn what_made_it_worse_is_taken_back() {
        let mut played = Played::new(Mode::Active);
        // The shorter the queue, the more waits: callers that are refused ask again at once.
        played.run(24, |_, limit| if limit == 800 { 800 } else { 2000 });
        assert_eq!(played.acts, [("shed-load", 400), ("restore-load", 800)]);
        assert!(played.records.iter().any(|record| record.event.name() == "worse"));
        played.run(1, |_, _| 0);
        assert_eq!(played.healer.knowledge().limits, Some((limits(800, 80), limits(800, 80))));
    }

    /// Lower limits remove nothing that waits already.
    #[test]
    fn a_queue_that_drains_slowly_is_no_failure() {
        let mut played = Played::new(Mode::Active);
        let mut waits = 800_i64;
        let waiting = std::cell::RefCell::new(&mut waits);
        // 30 operations in a second are served, and callers fill what the limit leaves.
        played.run(60, |_, limit| {
            let mut waits = waiting.borrow_mut();
            **waits = (**waits - 15).max(i64::try_from(limit).unwrap());
            u64::try_from(**waits).unwrap()
        });
        assert!(played.acts.len() >= 2, "{:?}", played.acts);
        for record in &played.records {
            let name = record.event.name();
            assert!(!matches!(name, "escalated" | "worse" | "no-effect"), "{}", record.explain());
        }
    }

    /// The queue does not move at all, as with a disk that answers nothing, and is calm afterwards.
    #[test]
    fn the_limits_rise_again_although_nobody_acknowledges() {
        let mut played = Played::new(Mode::Active);
        played.run(120, |_, _| 800);
        assert!(played.records.iter().any(|record| record.event.name() == "escalated"));
        assert!(played.limits.requests_max() < 800);
        let shed = played.acts.len();
        played.run(600, |_, _| 0);
        assert_eq!(played.limits, limits(800, 80));
        // A person has not looked at it: no load is shed again.
        let acts = played.acts.len();
        played.run(120, |_, limit| limit);
        assert_eq!((played.acts.len(), acts > shed), (acts, true));
    }

    #[test]
    fn an_operator_may_set_limits_that_were_once_the_healers() {
        let mut played = Played::new(Mode::Active);
        played.run(13, |_, limit| limit);
        assert_eq!(played.limits, limits(400, 40));
        played.run(60, |_, _| 0);
        assert_eq!(played.limits, limits(800, 80));
        played.limits = limits(400, 40);
        played.run(60, |_, _| 0);
        assert_eq!(played.limits, limits(400, 40));
    }

    #[test]
    fn what_was_taken_back_is_not_the_usual_limit() {
        let mut played = Played::new(Mode::Active);
        played.run(33, |_, limit| if limit == 200 { 900 } else { limit });
        assert_eq!(played.acts, [("shed-load", 400), ("shed-load", 200), ("restore-load", 400)]);
        played.run(60, |_, _| 0);
        assert_eq!(played.limits, limits(800, 80));
    }

    #[test]
    fn the_limits_of_an_operator_are_the_usual_ones() {
        let mut played = Played::new(Mode::Active);
        played.run(14, |_, limit| limit);
        assert_eq!(played.limits, limits(400, 40));
        played.run(10, |_, _| 0);
        played.limits = limits(600, 600);
        played.run(60, |_, _| 0);
        assert_eq!(played.limits, limits(600, 600));
        played.acts.clear();
        played.run(60, |_, limit| limit);
        assert_eq!(played.acts.last(), Some(&("shed-load", 75)));
        assert_eq!(played.limits, limits(75, 75));
    }

    #[test]
    fn small_limits_stay_above_zero_and_absurd_readings_are_refused() {
        assert_eq!(scaled(limits(3, 1), 1), Some(limits(1, 1)));
        let mut played = Played::new(Mode::Active);
        played.limits = limits(2, 1);
        played.run(120, |_, limit| limit);
        assert_eq!(played.limits, limits(1, 1));
        let mut view = View::new(SECOND);
        for (signal, value) in [(QUEUE_SHARE, f64::NAN), (QUEUE, -1.0), (CALM, f64::INFINITY), ("other", 1.0)]
        {
            let before = format!("{view:?}");
            assert!(view.observe(SECOND, &Reading { subject: Queue, signal, value }).is_err());
            assert_eq!(format!("{view:?}"), before);
        }
        assert_eq!(view.due(SECOND), None);
    }

    #[cfg(feature = "conformance")]
    #[test]
    fn the_policy_keeps_the_contract() {
        use crate::conformance::{Situation, check};
        let view = || {
            let mut view = View::new(10 * SECOND);
            view.limits = Some((limits(800, 80), limits(400, 40)));
            view.idle_since = Some(Duration::ZERO);
            view
        };
        let situation = |signal, value, is_healed| Situation {
            readings: vec![(SECOND, Reading { subject: Queue, signal, value })],
            stale_after: STALE,
            is_healed,
        };
        let situations = [
            situation(QUEUE_SHARE, 0.5, false),
            situation(QUEUE_SHARE, 1.0, true),
            situation(CALM, 5.0, false),
            situation(CALM, 60.0, true),
        ];
        check(view, || Shed, &situations).unwrap();
    }
}
