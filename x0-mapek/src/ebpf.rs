//! A ready healer for links that `x0_ebpf::Steering` steers (feature `ebpf`).
//!
//! Routes name one interface, and the kernel sends its frames along the path that was chosen for it. When
//! that path loses frames, the healer chooses another one: from one frame to the next, without a change of
//! routes.
//!
//! | action | on what | needs |
//! |---|---|---|
//! | [`Act::FlipLink`] | the loss or the silence of the path in use | another path of the interface, with a fresh reading, that loses less than half as much as is allowed |
//!
//! A flip that made it worse is taken back. When half of several interfaces lose frames at once, the cause is
//! not a link, and the loop holds.
//!
//! # Use
//! The healer is a [`Loop`]. Its driver measures all paths, those that are not in use too, and passes an
//! [`Observation`] every 100 ms. Paths are numbered in the order in which they were added to the `Steering`:
//!
//! ```
//! use std::time::Duration;
//! use x0_mapek::Mode;
//! use x0_mapek::ebpf::{Act, HealerOptions, Observation, Quality, observe};
//!
//! let mut healer = HealerOptions::new().mode(Mode::Active).healer();
//! let (mut used, good, bad) = (0, Quality::new(0.0), Quality::new(0.9));
//! for step in 0..200 {
//!     let now = Duration::from_millis(100) * step;
//!     // In a program: the share of probes that did not arrive, on each path of `eth0`.
//!     let paths = [(0, if step < 100 { good } else { bad }), (1, good)];
//!     observe(&mut healer, now, &[Observation::new("eth0", used, paths)]);
//!     let carry_out = |action: &Act| {
//!         // In a program: x0_mapek::ebpf::carry_out(&mut steering, &paths, action)
//!         let Act::FlipLink { to, .. } = action else { return Err("unknown".into()) };
//!         used = *to;
//!         Ok(())
//!     };
//!     for record in healer.drain(now, carry_out)? {
//!         println!("{}", record.explain());
//!     }
//! }
//! assert_eq!(used, 1);
//! # Ok::<(), x0_mapek::HandleError>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::adapter::{Readings, candidate};
use crate::codec::cut;
use crate::detect::ReadingError;
use crate::options::{healer_setters, loop_options};
use crate::{Action, Disruption, Evidence, Expectation, Input, Knowledge, Loop, Mode, Plan, Policy, Reading};

/// Signal of a path: the share of recent probes that were lost.
pub const LOSS_SHARE: &str = "loss_share";
/// Signal of a path: the time since the last probe arrived.
pub const SILENCE: &str = "silent_seconds";
/// The most steered interfaces; those beyond it are left out.
pub const INTERFACES_MAX: usize = x0_ebpf::STEERED_MAX;
/// The most paths of an interface; those beyond it are left out.
pub const PATHS_MAX: usize = 16;

/// The signals, each with the largest value that is a measurement. The longest silence is 100 years.
const SIGNALS: [(&str, f64); 2] = [(LOSS_SHARE, 1.0), (SILENCE, 3.2e9)];
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(1);

/// A path of a steered interface, as a subject of the loop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The interface that the routes name.
    pub interface: String,
    /// The number of the path.
    pub number: u32,
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {} of {}", self.number, self.interface)
    }
}

/// How well a path carries frames.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// The share of recent probes that were lost.
    pub loss_share: f64,
    /// The time since the last probe arrived; `None` if that is not measured.
    pub silent: Option<Duration>,
}

impl Quality {
    /// A path that loses this share of the probes.
    #[must_use]
    pub fn new(loss_share: f64) -> Quality {
        Quality { loss_share, silent: None }
    }

    /// Sets [`Quality::silent`].
    #[must_use]
    pub fn silent(mut self, silent: Duration) -> Quality {
        self.silent = Some(silent);
        self
    }
}

/// The paths of a steered interface, as measured now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The interface.
    pub interface: String,
    /// The path in use.
    pub used: u32,
    /// All its paths with their qualities.
    pub paths: BTreeMap<u32, Quality>,
}

impl Observation {
    /// An observation. A name longer than [`TEXT_LEN_MAX`](crate::TEXT_LEN_MAX) is cut.
    #[must_use]
    pub fn new(interface: &str, used: u32, paths: impl IntoIterator<Item = (u32, Quality)>) -> Observation {
        let paths = paths.into_iter().take(PATHS_MAX).collect();
        Observation { interface: cut(interface), used, paths }
    }
}

/// Passes what was measured now to a healer. Values that are no measurements are refused and counted by the
/// loop.
pub fn observe(healer: &mut Loop<View, Act>, now: Duration, observations: &[Observation]) {
    healer.knowledge_mut().set(now, observations);
    let readings: Vec<_> = observations.iter().take(INTERFACES_MAX).flat_map(readings).collect();
    for reading in readings {
        let _ = healer.handle(now, Input::Reading(reading));
    }
    // A round is due even if nothing was measured.
    let _ = healer.handle(now, Input::Timeout);
}

fn readings(observation: &Observation) -> Vec<Reading<Path>> {
    let mut readings = Vec::new();
    for (number, quality) in &observation.paths {
        let subject = Path { interface: observation.interface.clone(), number: *number };
        if let Some(silent) = quality.silent {
            let value = silent.as_secs_f64();
            readings.push(Reading { subject: subject.clone(), signal: SILENCE, value });
        }
        readings.push(Reading { subject, signal: LOSS_SHARE, value: quality.loss_share });
    }
    readings
}

/// Carries out an action: the driver of [`Act`]. `paths` are the paths of the interface by number.
///
/// # Errors
/// Why frames keep their path.
pub fn carry_out(
    steering: &mut x0_ebpf::Steering,
    paths: &BTreeMap<u32, x0_ebpf::PathId>,
    action: &Act,
) -> Result<(), String> {
    let Act::FlipLink { from, to } = action;
    let path = paths.get(to).ok_or_else(|| format!("`{}` has no path {to}", from.interface))?;
    steering.flip(&from.interface, *path).map_err(|error| error.to_string())
}

/// What a healer knows of the paths.
#[derive(Debug)]
pub struct View {
    loss_max: f64,
    silent_max: f64,
    /// The path in use of each interface, and the numbers of all.
    interfaces: BTreeMap<String, (u32, Vec<u32>)>,
    readings: Readings<Path>,
    observed: Duration,
}

impl View {
    fn set(&mut self, now: Duration, observations: &[Observation]) {
        self.observed = now;
        let known = observations.iter().take(INTERFACES_MAX);
        let paths = |one: &Observation| one.paths.keys().copied().take(PATHS_MAX).collect();
        self.interfaces = known.map(|one| (one.interface.clone(), (one.used, paths(one)))).collect();
        let interfaces = &self.interfaces;
        self.readings.retain(|path| knows(interfaces, path));
    }

    /// The paths in use that lose frames, with the readings that say so.
    fn bad(&self, now: Duration) -> impl Iterator<Item = (Path, Vec<Evidence>)> {
        self.interfaces.iter().filter_map(move |(interface, (used, _))| {
            let path = Path { interface: interface.clone(), number: *used };
            let evidence = self.evidence(now, &path);
            (!evidence.is_empty()).then_some((path, evidence))
        })
    }

    fn evidence(&self, now: Duration, path: &Path) -> Vec<Evidence> {
        let limits = [(SILENCE, self.silent_max), (LOSS_SHARE, self.loss_max)];
        let beyond = |(signal, limit)| self.readings.beyond(now, path, signal, limit, STALE);
        limits.into_iter().filter_map(beyond).collect()
    }

    /// Whether a path is measured, and loses less than half as much as is allowed.
    fn is_well(&self, now: Duration, path: &Path) -> bool {
        let loss = self.readings.fresh(now, path, LOSS_SHARE, STALE);
        loss.is_some_and(|loss| loss * 2.0 < self.loss_max) && self.evidence(now, path).is_empty()
    }

    /// The path that carries the frames best beside the one in use.
    fn best(&self, now: Duration, used: &Path) -> Option<u32> {
        let (_, paths) = self.interfaces.get(&used.interface)?;
        let others = paths.iter().filter(|number| **number != used.number);
        let well = others.filter_map(|number| {
            let path = Path { interface: used.interface.clone(), number: *number };
            let loss = self.readings.value(&path, LOSS_SHARE)?;
            self.is_well(now, &path).then_some((loss, *number))
        });
        well.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, number)| number)
    }
}

fn knows(interfaces: &BTreeMap<String, (u32, Vec<u32>)>, path: &Path) -> bool {
    interfaces.get(&path.interface).is_some_and(|(_, paths)| paths.contains(&path.number))
}

impl Knowledge for View {
    type Subject = Path;

    fn observe(&mut self, now: Duration, reading: &Reading<Path>) -> Result<(), ReadingError> {
        if !knows(&self.interfaces, &reading.subject) {
            return Err(ReadingError::Unknown);
        }
        self.readings.take(now, reading, &SIGNALS)
    }

    /// The paths in use.
    fn subject_count(&self) -> usize {
        self.interfaces.len()
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Path)) {
        self.bad(now).for_each(|(path, _)| each(&path));
    }
}

/// What a healer does. The set is closed; an escalation is an output of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// `flip-link`: sends the frames of an interface along another path.
    FlipLink {
        /// The path in use.
        from: Path,
        /// The number of the next one.
        to: u32,
    },
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        "flip-link"
    }

    fn subject(&self) -> &Path {
        let Act::FlipLink { from, .. } = self;
        from
    }

    /// Frames in the queues of the old path may be lost.
    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn precondition(&self, view: &View) -> Result<(), Cow<'static, str>> {
        let Act::FlipLink { from, to } = self;
        match view.interfaces.get(&from.interface) {
            Some((used, _)) if *used != from.number => Err("another path is in use".into()),
            Some((_, paths)) if paths.contains(to) => Ok(()),
            _ => Err("the next path is gone".into()),
        }
    }

    fn is_safe(&self, view: &View) -> Result<(), Cow<'static, str>> {
        let Act::FlipLink { from, to } = self;
        let next = Path { number: *to, ..from.clone() };
        match view.is_well(view.observed, &next) {
            true => Ok(()),
            false => Err("the next path loses frames, or is not measured".into()),
        }
    }

    /// The share of frames that the interface loses, whatever its path is.
    fn badness(&self, view: &View) -> Option<f64> {
        let Act::FlipLink { from, .. } = self;
        let (used, _) = view.interfaces.get(&from.interface)?;
        let used = Path { number: *used, ..from.clone() };
        let silent = view.readings.value(&used, SILENCE).is_some_and(|silent| silent >= view.silent_max);
        if silent { Some(1.0) } else { view.readings.value(&used, LOSS_SHARE) }
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_secs(2), improvement: 0.5 }
    }

    fn undo(&self) -> Option<Act> {
        let Act::FlipLink { from, to } = self;
        Some(Act::FlipLink { from: Path { number: *to, ..from.clone() }, to: from.number })
    }
}

/// Leaves a path that loses frames.
#[derive(Debug)]
struct Flip;

impl Policy<View, Act> for Flip {
    fn name(&self) -> &'static str {
        "leave-bad-links"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        for (from, evidence) in view.bad(now) {
            if let Some(to) = view.best(now, &from) {
                plan.propose(candidate(Act::FlipLink { from, to }, "bad-link", "overload", evidence));
            }
        }
    }
}

/// Settings of a healer of links.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// A path that loses this share of the probes is bad, from 0.001 to 1. 0.1 unless set.
    pub loss_max: f64,
    /// A path whose probes do not arrive for this long is bad. 300 ms unless set.
    pub silent_max: Duration,
    /// The time after the first input in which nothing is done. 5 s unless set.
    pub grace: Duration,
    /// How long a path must be bad before it is left. 200 ms unless set.
    pub stability: Duration,
    /// The pause between two flips of one path; it doubles. 5 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            loss_max: 0.1,
            silent_max: Duration::from_millis(300),
            grace: Duration::from_secs(5),
            stability: Duration::from_millis(200),
            back_off: Duration::from_secs(5),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        loss_max: f64,
        silent_max: Duration,
        grace: Duration,
        stability: Duration,
        back_off: Duration,
    }

    fn view(&self) -> View {
        let loss_max = if self.loss_max.is_finite() { self.loss_max.clamp(0.001, 1.0) } else { 1.0 };
        // A silence of zero would accuse every path.
        let silent_max = self.silent_max.as_secs_f64().max(0.001);
        let interfaces = BTreeMap::new();
        View { loss_max, silent_max, interfaces, readings: Readings::new(), observed: Duration::ZERO }
    }

    /// A healer that knows nothing yet.
    #[must_use]
    pub fn healer(&self) -> Loop<View, Act> {
        let options = loop_options!(self, Duration::from_millis(100));
        Loop::new(self.view(), Box::new(Flip), options)
    }
}

#[cfg(test)]
mod tests;
