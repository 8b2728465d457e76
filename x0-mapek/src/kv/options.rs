//! Settings of a healer.

use std::time::Duration;

use x0_identity::NodeId;

use super::action::{Act, ActionKind, Heal};
use super::view::View;
use crate::options::{healer_setters, loop_options};
use crate::{Loop, Mode};

/// Settings of a [`Healer`](super::Healer).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealerOptions {
    /// Whether it acts. [`Mode::DryRun`] unless set: everything is recorded, nothing is done.
    pub mode: Mode,
    /// A disk is slow when a write of the log waits this long for it. 300 ms unless set.
    pub slow_disk: Duration,
    /// A voter that is silent for this long is replaced by a learner that has caught up. Unless set, no voter
    /// is replaced. A window shorter than a reboot replaces members that come back.
    pub replace_after: Option<Duration>,
    /// How many voters there should be: a spare becomes one when there are fewer, and one of more becomes a
    /// learner. Unless set, their number stays as it is. 1 at least.
    pub voters: Option<usize>,
    /// The kinds of action that wait for a person. None unless set.
    pub approve: Vec<ActionKind>,
    /// The time after the first input in which nothing is done. 10 s unless set.
    pub grace: Duration,
    /// How long a cause must last before something is done about it. 1 s unless set.
    pub stability: Duration,
    /// The pause between two actions of one kind on one node; it doubles. 30 s unless set.
    pub back_off: Duration,
}

impl Default for HealerOptions {
    fn default() -> HealerOptions {
        HealerOptions {
            mode: Mode::DryRun,
            slow_disk: Duration::from_millis(300),
            replace_after: None,
            voters: None,
            approve: Vec::new(),
            grace: Duration::from_secs(10),
            stability: Duration::from_secs(1),
            back_off: Duration::from_secs(30),
        }
    }
}

impl HealerOptions {
    healer_setters! {
        mode: Mode,
        slow_disk: Duration,
        replace_after: Option<Duration>,
        grace: Duration,
        stability: Duration,
        back_off: Duration,
    }

    /// Sets [`HealerOptions::voters`].
    #[must_use]
    pub fn voters(mut self, voters: Option<usize>) -> HealerOptions {
        self.voters = voters.map(|voters| voters.max(1));
        self
    }

    /// Adds a kind of action that waits for a person.
    #[must_use]
    pub fn approve(mut self, kind: ActionKind) -> HealerOptions {
        self.approve.push(kind);
        self
    }

    /// The loop, which claims its actions or not.
    pub(super) fn engine(&self, node: NodeId, claims: bool) -> Loop<View, Act> {
        // A starved process takes a sample every few hundred milliseconds, and each must be a round.
        let options = loop_options!(self, Duration::from_millis(200)).claims(claims);
        let options = self.approve.iter().fold(options, |options, kind| options.approve(kind.name()));
        let view = View::new(node, self.slow_disk, self.replace_after).voters(self.voters);
        Loop::new(view, Box::new(Heal), options)
    }
}
