//! A ready healer for the process of the own node (feature `mesh`): it starts it again when nothing less
//! helps.
//!
//! A process that crashes or hangs is started again by its supervisor. Two sick states do not end a process:
//! memory that leaks, until the kernel kills it in the middle of its work, and connections that no new
//! attempt brings back. The healer asks the supervisor for an orderly restart:
//!
//! | action | on what | carried out by |
//! |---|---|---|
//! | [`Act::RestartProcess`] | [`MEMORY_SHARE`] of [`HealerOptions::memory_share`] or more, while [`MEMORY_RISE`] says that it rises | the supervisor of the process |
//! | [`Act::RestartProcess`] | [`ISOLATED`] of [`HealerOptions::isolated_after`] or more | the supervisor of the process |
//!
//! # Guards
//! - No supervisor, no restart: the process would stay dead.
//! - Memory that the process frees within [`FLOOR_WINDOW`] is no leak, and neither is a rise that has ended:
//!   the least and the highest share within that time must rise. So a leak that uses all memory up in less
//!   time is left to the kernel and the supervisor, and memory that rises for longer counts as a leak while
//!   it rises, also when it is freed later.
//! - A process that begins beyond the threshold needs that much: its memory leads to no restart until it has
//!   been below the threshold for [`FLOOR_WINDOW`].
//! - A peer that is down for a reason that no restart cures ([`cures`]) forbids it: this node, or the peer,
//!   has a wrong or expired identity, and a restart would end the connections that are left.
//! - After the restart of a voter the other voters that are reached must be a majority. A node that reaches
//!   no other member takes nothing away. Nothing is claimed: two voters that ask within the time in which a
//!   connection is noticed to end may stop together.
//! - The process forgets its attempts with its memory. Back-off and the cap of attempts across restarts are
//!   therefore those of the supervisor, which refuses: the action fails, and after three attempts of one
//!   process the loop escalates. A new process begins again, and the supervisor refuses it too.
//!
//! The threshold of the memory is higher by a share of [`HealerOptions::spread`] that the seed gives, so that
//! the nodes of a group with the same leak do not restart at one moment.
//!
//! # Use
//! The healer is a [`Loop`]. Its driver calls [`sample`] every second:
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_mapek::process::{Act, HealerOptions, Observation, sample};
//! use x0_mapek::Mode;
//!
//! let node = NodeId::new(1).ok_or("zero is no node")?;
//! let mut healer = HealerOptions::new().mode(Mode::Active).healer(node);
//! let mut asked = 0;
//! for second in 0..500_u32 {
//!     let mut observation = Observation::new();
//!     observation.is_supervised = true;
//!     // In a program: the resident memory, divided by its limit.
//!     observation.memory_share = Some(0.4 + 0.001 * f64::from(second));
//!     let now = Duration::from_secs(second.into());
//!     sample(&mut healer, now, &observation)?;
//!     let ask = |action: &Act| {
//!         let Act::RestartProcess { .. } = action else { return Err("unknown".into()) };
//!         // In a program: ask the supervisor, which stops the process.
//!         asked += 1;
//!         Ok(())
//!     };
//!     for record in healer.drain(now, ask)? {
//!         println!("{}", record.explain());
//!     }
//! }
//! assert_eq!(asked, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod rise;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::DownReason;

pub use self::rise::FLOOR_WINDOW;
use self::rise::Rise;
use crate::adapter::{Readings, candidate, spread_limit};
use crate::detect::ReadingError;
use crate::options::{healer_setters, loop_options};
use crate::{
    Action, Disruption, Evidence, Expectation, HandleError, Input, Knowledge, Loop, Mode, Plan, Policy,
    Reading,
};

/// Signal of the process: its memory, as a share of what it may use.
pub const MEMORY_SHARE: &str = "memory_share";
/// Signal of the process: the share of its memory by which its floor and its ceiling grow in an hour, the
/// slower of the two; 0 without a lasting trend. They are the least and the highest [`MEMORY_SHARE`] within
/// [`FLOOR_WINDOW`]. The healer computes all three.
pub const MEMORY_RISE: &str = "memory_rise_per_hour";
/// Signal of the process: how long it has not been connected to any other member.
pub const ISOLATED: &str = "isolated_seconds";

/// The signals, each with the largest value that is a measurement. A process may use more than it should.
const SIGNALS: [(&str, f64); 3] = [(MEMORY_SHARE, 1e3), (MEMORY_RISE, 1e9), (ISOLATED, 3.2e9)];
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(5);
/// A rise of the memory by less than this share in an hour is no leak.
const RISE_MIN: f64 = 0.01;
/// The time in which a process stops, starts, and serves again.
const WITHIN: Duration = Duration::from_secs(60);

/// The process of a node as a subject of the loop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(
    /// The node.
    pub NodeId,
);

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process of node {}", self.0)
    }
}

/// Whether a restart of the process can bring a connection back that ended for this reason. An identity that
/// is wrong, expired or not accepted is the same after it.
#[must_use]
pub fn cures(reason: &DownReason) -> bool {
    !matches!(
        reason,
        DownReason::Untrusted { .. }
            | DownReason::WrongIdentity { .. }
            | DownReason::Expired
            | DownReason::OwnIdentityExpired
            | DownReason::Refused { .. }
    )
}

/// The state of a node's process and its group at one time.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// Whether something starts the process again when it ends.
    pub is_supervised: bool,
    /// The memory of the process, as a share of what it may use; `None` without a limit.
    pub memory_share: Option<f64>,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// The other members that it is connected to.
    pub reached: BTreeSet<NodeId>,
    /// The other members that it is not connected to, and why.
    pub down: BTreeMap<NodeId, DownReason>,
}

impl Observation {
    /// An observation of a process that knows nothing, and that nobody would start again.
    #[must_use]
    pub fn new() -> Observation {
        Observation::default()
    }
}

/// The knowledge of a healer about its process.
#[derive(Debug)]
pub struct View {
    own: Process,
    memory_limit: f64,
    isolated_limit: Option<f64>,
    readings: Readings<Process>,
    rise: Rise,
    /// Whether the memory has not been below the threshold for [`FLOOR_WINDOW`] since the first share, which
    /// was beyond it; `None` before the first one.
    begins_beyond: Option<bool>,
    isolated_since: Option<Duration>,
    observation: Observation,
}

impl View {
    /// The readings that make the process unhealthy, the more severe cause first; empty if it is not.
    #[must_use]
    pub fn evidence(&self, now: Duration) -> Vec<Evidence> {
        self.cause(now).map(|(_, evidence)| evidence).unwrap_or_default()
    }

    fn cause(&self, now: Duration) -> Option<(Cause, Vec<Evidence>)> {
        let beyond = |signal, limit| self.readings.beyond(now, &self.own, signal, limit, STALE);
        if self.begins_beyond != Some(true)
            && let Some((share, rise)) =
                beyond(MEMORY_SHARE, self.memory_limit).zip(beyond(MEMORY_RISE, RISE_MIN))
        {
            return Some((Cause::Leak, vec![share, rise]));
        }
        Some((Cause::Isolated, vec![beyond(ISOLATED, self.isolated_limit?)?]))
    }
}

impl Knowledge for View {
    type Subject = Process;

    fn observe(&mut self, now: Duration, reading: &Reading<Process>) -> Result<(), ReadingError> {
        if reading.subject != self.own {
            return Err(ReadingError::Unknown);
        }
        self.readings.take(now, reading, &SIGNALS)
    }

    fn subject_count(&self) -> usize {
        1
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Process)) {
        if self.cause(now).is_some() {
            each(&self.own);
        }
    }
}

/// Passes what the node knows now.
///
/// # Errors
/// See [`HandleError`]: when the time runs backwards, which changes nothing, or the share of the memory is no
/// measurement.
pub fn sample(
    healer: &mut Loop<View, Act>,
    now: Duration,
    observation: &Observation,
) -> Result<(), HandleError> {
    let view = healer.knowledge_mut();
    let own = view.own;
    let before = std::mem::replace(&mut view.observation, observation.clone());
    let isolated_before = view.isolated_since;
    let has_others = !observation.reached.is_empty() || !observation.down.is_empty();
    let is_isolated = has_others && observation.reached.is_empty();
    view.isolated_since = is_isolated.then(|| view.isolated_since.unwrap_or(now));
    let isolated = view.isolated_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    let reading = |healer: &mut Loop<View, Act>, signal, value| {
        healer.handle(now, Input::Reading(Reading { subject: own, signal, value }))
    };
    if let Err(error) = reading(healer, ISOLATED, isolated.as_secs_f64()) {
        let view = healer.knowledge_mut();
        (view.observation, view.isolated_since) = (before, isolated_before);
        return Err(error);
    }
    if let Some(share) = observation.memory_share {
        reading(healer, MEMORY_SHARE, share)?;
        let view = healer.knowledge_mut();
        let (rise, ceiling) = view.rise.observe(now, share);
        view.begins_beyond = Some(view.begins_beyond != Some(false) && ceiling >= view.memory_limit);
        reading(healer, MEMORY_RISE, rise.min(1e9))?;
    }
    Ok(())
}

/// Why a process is to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Its memory rises towards the limit.
    Leak,
    /// The process has not been connected to any other member for long.
    Isolated,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Cause::Leak => "leak",
            Cause::Isolated => "isolated",
        }
    }

    /// The cause that is next likely: a restart does not help then.
    fn other(self) -> &'static str {
        match self {
            Cause::Leak => "more-data",
            Cause::Isolated => "cut-network",
        }
    }

    fn signal(self) -> &'static str {
        match self {
            Cause::Leak => MEMORY_SHARE,
            Cause::Isolated => ISOLATED,
        }
    }
}

/// What a healer does. The set is closed; an escalation is an output of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// `restart-process`: the supervisor stops the process in an orderly way, and starts it again.
    RestartProcess {
        /// The process.
        process: Process,
        /// Why.
        cause: Cause,
    },
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        "restart-process"
    }

    fn subject(&self) -> &Process {
        let Act::RestartProcess { process, .. } = self;
        process
    }

    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn accuses_other(&self) -> bool {
        false
    }

    fn precondition(&self, view: &View) -> Result<(), Cow<'static, str>> {
        if !view.observation.is_supervised {
            return Err("no supervisor would start the process again".into());
        }
        match view.observation.down.iter().find(|(_, reason)| !cures(reason)) {
            Some((node, reason)) => {
                Err(format!("no restart cures that node {node} is down: {reason}").into())
            }
            None => Ok(()),
        }
    }

    fn is_safe(&self, view: &View) -> Result<(), Cow<'static, str>> {
        let Observation { voters, reached, .. } = &view.observation;
        let own = view.own.0;
        if !voters.contains(&own) || reached.is_empty() {
            return Ok(());
        }
        let left = voters.iter().filter(|voter| **voter != own && reached.contains(voter)).count();
        if left * 2 > voters.len() {
            return Ok(());
        }
        Err(format!("{left} of {} voters would be left, which is no majority", voters.len()).into())
    }

    fn badness(&self, view: &View) -> Option<f64> {
        let Act::RestartProcess { process, cause } = self;
        view.readings.value(process, cause.signal())
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: WITHIN, improvement: 0.2 }
    }
}

/// Restarts the process when it leaks or is isolated.
#[derive(Debug)]
struct Restart;

impl Policy<View, Act> for Restart {
    fn name(&self) -> &'static str {
        "restart-own-process"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        if let Some((cause, evidence)) = view.cause(now) {
            let action = Act::RestartProcess { process: view.own, cause };
            plan.propose(candidate(action, cause.name(), cause.other(), evidence));
        }
    }
}

/// Settings of a healer of the own process.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// The share of the memory from which on a rise is a leak, from 0.1 to 1. 0.8 unless set.
    pub memory_share: f64,
    /// The largest share that the seed adds, from 0 to 1. 0.1 unless set.
    pub spread: f64,
    /// The seed of the spread: another one on each node, such as its number.
    pub seed: u64,
    /// A process that has not been connected to any other member for this long is started again. Unless set,
    /// none is: a cut network looks the same, and a restart does not mend it.
    pub isolated_after: Option<Duration>,
    /// The time after the first input in which nothing is done. 30 s unless set.
    pub grace: Duration,
    /// How long a cause must last before something is done about it. 3 s unless set.
    pub stability: Duration,
    /// The pause between two attempts; it doubles. 60 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            memory_share: 0.8,
            spread: 0.1,
            seed: 0,
            isolated_after: None,
            grace: Duration::from_secs(30),
            stability: Duration::from_secs(3),
            back_off: Duration::from_secs(60),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        memory_share: f64,
        spread: f64,
        seed: u64,
        isolated_after: Option<Duration>,
        grace: Duration,
        stability: Duration,
        back_off: Duration,
    }

    fn view(&self, node: NodeId) -> View {
        View {
            own: Process(node),
            memory_limit: spread_limit(self.memory_share, 0.1, self.spread, self.seed, "memory"),
            isolated_limit: self.isolated_after.map(|after| after.as_secs_f64()),
            readings: Readings::new(),
            rise: Rise::new(),
            begins_beyond: None,
            isolated_since: None,
            observation: Observation::new(),
        }
    }

    /// A healer of the process of this node that knows nothing yet.
    #[must_use]
    pub fn healer(&self, node: NodeId) -> Loop<View, Act> {
        let options = loop_options!(self, Duration::from_secs(1))
            // A leader hands over, and waits for the end of its writes.
            .execution_max(Duration::from_secs(30));
        Loop::new(self.view(node), Box::new(Restart), options)
    }
}
