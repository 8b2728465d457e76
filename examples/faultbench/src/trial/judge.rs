//! Judging what a healer did: an action is right only on a node that the fault concerns, after its injection.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that a healer found or did. Nodes count from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Milliseconds from the begin of the load.
    pub(crate) at_ms: f64,
    /// The node whose healer it was.
    pub(crate) by: u64,
    /// The node that it concerns.
    pub(crate) subject: u64,
    pub(crate) stage: Stage,
    /// The kind of action, such as `restart` or `transfer-leadership`.
    pub(crate) kind: String,
    /// The reason, in the words of the healer.
    pub(crate) text: String,
}

/// How far the healing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The healer has noticed something.
    Detected,
    /// An action begins, or has been seen from outside.
    Action,
    /// The healer has measured that the action helped.
    Proof,
    /// The action did not help, or was not carried out.
    Failure,
}

/// What was really wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    /// The nodes that the fault concerns; none for load, planned work and no fault at all.
    pub(crate) faulty: BTreeSet<u64>,
    /// The injection, from the begin of the load.
    pub(crate) injected: Duration,
}

impl Truth {
    /// Whether an event is an action on a node that the fault does not concern, or on no fault.
    pub(crate) fn is_wrong(&self, event: &Event) -> bool {
        let is_early = event.at_ms < self.injected.as_secs_f64() * 1000.0;
        event.stage == Stage::Action && (is_early || !self.faulty.contains(&event.subject))
    }

    /// The number of wrong actions.
    pub(crate) fn wrong(&self, events: &[Event]) -> usize {
        events.iter().filter(|event| self.is_wrong(event)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(at_ms: f64, subject: u64) -> Event {
        Event { at_ms, by: 9, subject, stage: Stage::Action, kind: "restart".into(), text: String::new() }
    }

    #[test]
    fn an_action_is_right_on_a_faulty_node_after_the_injection_only() {
        let truth = Truth { faulty: [2].into(), injected: Duration::from_secs(5) };
        assert!(!truth.is_wrong(&action(5000.0, 2)));
        assert!(truth.is_wrong(&action(4999.0, 2)), "nothing was wrong yet");
        assert!(truth.is_wrong(&action(6000.0, 1)), "another node");
        let seen = Event { stage: Stage::Detected, ..action(6000.0, 1) };
        assert!(!truth.is_wrong(&seen), "to notice is not to act");
        assert_eq!(truth.wrong(&[action(1.0, 2), action(6000.0, 2), action(6000.0, 3), seen]), 2);
    }

    #[test]
    fn every_action_on_no_fault_is_wrong() {
        assert_eq!(Truth::default().wrong(&[action(1.0, 1), action(2.0, 2)]), 2);
        assert_eq!(Truth::default().wrong(&[]), 0);
    }
}
