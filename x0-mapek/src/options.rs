//! The settings of a loop.

use std::collections::BTreeSet;
use std::time::Duration;

/// What a loop does with an action that passed every guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Readings are taken; no policy is asked.
    Observe,
    /// Everything but the execution: the record says what would have been done. The default.
    #[default]
    DryRun,
    /// Actions are carried out.
    Active,
}

/// The settings of a [`Loop`](crate::Loop).
///
/// ```
/// use std::time::Duration;
/// use x0_mapek::{LoopOptions, Mode};
///
/// let options = LoopOptions::new().mode(Mode::Active).grace(Duration::from_secs(5)).approve("replace");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoopOptions {
    /// What is done with actions that pass: [`Mode::DryRun`] unless set.
    pub mode: Mode,
    /// The distance of two rounds of planning: 500 ms unless set, at least 1 ms.
    pub period: Duration,
    /// The time after the start in which nothing is done, because baselines are still learned: 30 s unless
    /// set.
    pub grace: Duration,
    /// How long a candidate must be proposed, round after round, before it is carried out: 2 s unless set.
    pub stability: Duration,
    /// The share of subjects that may be unhealthy or acted on at the same time, from 0 to 1, and never less
    /// than one subject: 0.1 unless set.
    pub budget: f64,
    /// The share of unhealthy subjects from which on the loop holds, and never less than two subjects: 0.5
    /// unless set.
    pub storm: f64,
    /// The time below the storm's share after which the loop goes on: 30 s unless set.
    pub calm: Duration,
    /// The wait after the first action on a subject; it doubles with each further one: 10 s unless set.
    pub back_off: Duration,
    /// The longest of these waits: 10 min unless set.
    pub back_off_max: Duration,
    /// Actions on one subject without an improvement before the loop escalates: 3 unless set.
    pub attempts_max: u32,
    /// Subjects that may be acted on for one cause within `back_off_max`: 3 unless set.
    pub blast_radius: usize,
    /// The time in which the penalty of an action that did not help halves: 10 min unless set.
    pub penalty_half_life: Duration,
    /// The longest execution; one without an outcome until then counts as failed: 30 s unless set.
    pub execution_max: Duration,
    /// Whether an action is claimed before it is carried out, so that of several healers one acts: not unless
    /// set.
    pub claims: bool,
    /// Kinds of actions that a person approves.
    pub approve: BTreeSet<&'static str>,
}

impl Default for LoopOptions {
    fn default() -> LoopOptions {
        LoopOptions {
            mode: Mode::DryRun,
            period: Duration::from_millis(500),
            grace: Duration::from_secs(30),
            stability: Duration::from_secs(2),
            budget: 0.1,
            storm: 0.5,
            calm: Duration::from_secs(30),
            back_off: Duration::from_secs(10),
            back_off_max: Duration::from_secs(600),
            attempts_max: 3,
            blast_radius: 3,
            penalty_half_life: Duration::from_secs(600),
            execution_max: Duration::from_secs(30),
            claims: false,
            approve: BTreeSet::new(),
        }
    }
}

/// The builder methods of a settings type: each sets the field of its name.
macro_rules! setters {
    ($options:ident: $($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($name), "`](", stringify!($options), "::", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> $options {
                self.$name = $name;
                self
            }
        )*
    };
}
pub(crate) use setters;

/// The constructor and the builder methods of the settings of a healer.
#[cfg(any(feature = "ebpf", feature = "identity", feature = "kv", feature = "mesh"))]
macro_rules! healer_setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// The usual settings.
        #[must_use]
        pub fn new() -> HealerOptions {
            HealerOptions::default()
        }

        crate::options::setters! { HealerOptions: $($name: $type),* }
    };
}
#[cfg(any(feature = "ebpf", feature = "identity", feature = "kv", feature = "mesh"))]
pub(crate) use healer_setters;

/// The settings of the loop of a healer with this period. The others have the same name in the settings of
/// both.
#[cfg(any(feature = "ebpf", feature = "kv", feature = "mesh"))]
macro_rules! loop_options {
    ($options:expr, $period:expr) => {
        crate::LoopOptions::new()
            .mode($options.mode)
            .period($period)
            .grace($options.grace)
            .stability($options.stability)
            .back_off($options.back_off)
    };
}
#[cfg(any(feature = "ebpf", feature = "kv", feature = "mesh"))]
pub(crate) use loop_options;

impl LoopOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> LoopOptions {
        LoopOptions::default()
    }

    setters! {
        LoopOptions:
        mode: Mode,
        period: Duration,
        grace: Duration,
        stability: Duration,
        budget: f64,
        storm: f64,
        calm: Duration,
        back_off: Duration,
        back_off_max: Duration,
        attempts_max: u32,
        blast_radius: usize,
        penalty_half_life: Duration,
        execution_max: Duration,
        claims: bool,
    }

    /// Adds a kind to [`approve`](LoopOptions::approve).
    #[must_use]
    pub fn approve(mut self, kind: &'static str) -> LoopOptions {
        self.approve.insert(kind);
        self
    }

    /// How many subjects a share is, of `count`, and at least `least`.
    pub(crate) fn share(share: f64, count: usize, least: usize) -> usize {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        // A count of subjects is far below 2^52, and the product is not negative.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let subjects = (share * count as f64).floor() as usize;
        subjects.max(least)
    }
}
