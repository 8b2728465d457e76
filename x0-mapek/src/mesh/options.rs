//! Settings of a healer of connections.

use std::time::Duration;

use super::view::View;
use super::{Act, Heal};
use crate::options::{healer_setters, loop_options};
use crate::{Loop, Mode};

/// Settings of a [`Healer`](super::Healer).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// A connection that is up carries nothing when the peer owes messages and sends none for this long. 4 s
    /// unless set: the transport loses the connection to a peer that hangs before that.
    pub silent_max: Duration,
    /// A peer with so many new connections within [`FLAP_WINDOW`](super::FLAP_WINDOW) is flapping. 6 unless
    /// set, and at least 2.
    pub flaps_max: u32,
    /// How long a quarantine lasts, and the longest that a peer may ask for. 60 s unless set.
    pub quarantine: Duration,
    /// The time after the first input in which nothing is done. 10 s unless set.
    pub grace: Duration,
    /// How long a cause must last before something is done about it. 1 s unless set.
    pub stability: Duration,
    /// The pause between two actions on one peer; it doubles. 30 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            silent_max: Duration::from_secs(4),
            flaps_max: 6,
            quarantine: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            stability: Duration::from_secs(1),
            back_off: Duration::from_secs(30),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        silent_max: Duration,
        flaps_max: u32,
        quarantine: Duration,
        grace: Duration,
        stability: Duration,
        back_off: Duration,
    }

    pub(super) fn view(&self) -> View {
        // A silence of less than a second is none.
        View::new(self.silent_max.max(Duration::from_secs(1)), self.flaps_max.max(2))
    }

    pub(super) fn engine(&self) -> Loop<View, Act> {
        let options = loop_options!(self, Duration::from_millis(200));
        Loop::new(self.view(), Box::new(Heal), options)
    }
}
