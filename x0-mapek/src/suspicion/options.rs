//! The settings of a detector.

use std::time::Duration;

use crate::detect::{LocalHealthOptions, PhiAccrualOptions};
use crate::options::setters;

/// The settings of a [`Detector`](super::Detector). All members of a group have the same ones. The defaults
/// tell a killed or hung member within a second, in a network whose messages take less than 100 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DetectorOptions {
    /// The time between two heartbeats to one neighbour. The two neighbours take turns, so that one of them
    /// has heard a member half of this time ago at most. 600 ms unless set, 1 ms at least.
    pub heartbeat: Duration,
    /// The time between two timers of the detector, by which it measures its own lateness. 50 ms unless set,
    /// 1 ms at least.
    pub tick: Duration,
    /// A silence of this length causes no doubt. 650 ms unless set.
    pub gap_min: Duration,
    /// A silence of this length causes a doubt whatever the arrivals before. 800 ms unless set.
    pub gap_max: Duration,
    /// The time in which a member answers a probe. 400 ms unless set.
    pub answer_within: Duration,
    /// The silence of a member that was never heard after which it is in doubt. 3 s unless set.
    pub start_grace: Duration,
    /// How silences are judged between the two gaps.
    pub arrivals: PhiAccrualOptions,
    /// How late timers are judged.
    pub health: LocalHealthOptions,
}

impl DetectorOptions {
    /// The default settings.
    #[must_use]
    pub fn new() -> DetectorOptions {
        DetectorOptions::default()
    }

    setters! {
        DetectorOptions:
        heartbeat: Duration,
        answer_within: Duration,
        start_grace: Duration,
        health: LocalHealthOptions,
    }

    /// Sets [`gap_min`](DetectorOptions::gap_min) and [`gap_max`](DetectorOptions::gap_max).
    #[must_use]
    pub fn gap(mut self, min: Duration, max: Duration) -> DetectorOptions {
        (self.gap_min, self.gap_max) = (min, max);
        self
    }
}

impl Default for DetectorOptions {
    fn default() -> DetectorOptions {
        DetectorOptions {
            heartbeat: Duration::from_millis(600),
            tick: Duration::from_millis(50),
            gap_min: Duration::from_millis(650),
            gap_max: Duration::from_millis(800),
            answer_within: Duration::from_millis(400),
            start_grace: Duration::from_secs(3),
            arrivals: PhiAccrualOptions::new(),
            health: LocalHealthOptions::new(),
        }
    }
}
