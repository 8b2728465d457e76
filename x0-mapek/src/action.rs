//! Actions: what the loop may do to a subject.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::knowledge::Knowledge;

/// How much an action disturbs its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disruption {
    /// Nobody notices it: a renewed identity, a route that is already used by others.
    None,
    /// The subject is not available for a moment: a restart, a transfer of the leadership.
    Brief,
    /// The action cannot be undone: a member is replaced, data is removed.
    Irreversible,
}

/// What is to be better after an action, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// The time from the end of the execution to the judgement.
    pub within: Duration,
    /// The share by which [`Action::badness`] must fall to count as an improvement, from 0 to 1. If it rises
    /// by this share, the action has made it worse.
    pub improvement: f64,
}

/// An action on one subject. The user of the loop defines it, together with the [`Knowledge`] `K`.
pub trait Action<K: Knowledge + ?Sized>: Clone + fmt::Debug {
    /// The kind of the action, such as `restart`. Back-off, penalties and approval go by subject and kind.
    fn kind(&self) -> &'static str;

    /// The subject.
    fn subject(&self) -> &K::Subject;

    /// How much the action disturbs its subject.
    fn disruption(&self) -> Disruption;

    /// Whether the action follows from a judgement on something other than the process of the loop itself. A
    /// process whose timers are late accuses no other, and the guard `local-health` refuses such actions. An
    /// action of a process on itself returns `false`: that its timers are late may be the very reason for it.
    fn accuses_other(&self) -> bool {
        true
    }

    /// Whether the action takes back what an earlier action of the loop did, such as a limit or a quarantine.
    /// The action is possible on a subject that is escalated, too: otherwise the earlier action would stay in
    /// force until a person acknowledges, long after its cause has gone.
    fn takes_back(&self) -> bool {
        false
    }

    /// Whether the action can be carried out as things are.
    ///
    /// # Errors
    /// The reason why it cannot.
    fn precondition(&self, knowledge: &K) -> Result<(), Cow<'static, str>> {
        let _ = knowledge;
        Ok(())
    }

    /// Whether the system is safe *after* the action: that a quorum remains, for example.
    ///
    /// The knowledge may be old. An executor that changes a membership checks it again on the leader's state,
    /// in the same step as the fence: the model check in this crate finds the harm without it.
    ///
    /// # Errors
    /// The reason why it would not be.
    fn is_safe(&self, knowledge: &K) -> Result<(), Cow<'static, str>> {
        let _ = knowledge;
        Ok(())
    }

    /// How bad the state is that the action is to improve: a latency, a number of errors. `None` while it is
    /// not known.
    fn badness(&self, knowledge: &K) -> Option<f64>;

    /// What is expected of the action.
    fn expectation(&self) -> Expectation;

    /// How long the action must be proposed before it is carried out, if not for
    /// [`LoopOptions::stability`](crate::LoopOptions::stability): an action whose evidence has lasted for a
    /// while already need not wait again.
    fn stability(&self) -> Option<Duration> {
        None
    }

    /// The action that takes this one back, if there is one.
    fn undo(&self) -> Option<Self> {
        None
    }
}
