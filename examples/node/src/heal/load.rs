//! The driver of `x0_mapek::kv::load`: the limits of waiting operations follow what the node can serve.

use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::cluster::Node;
use x0_kv::coordinator::RequestLimits;
use x0_mapek::kv::load::{Act, HealerOptions, Queue, SAMPLE_EVERY, View, sample};
use x0_mapek::{Command, Evidence, Input, Loop, Mode, Record};

use super::beside::map;

/// The healer of the queue of the node.
pub(super) struct Load {
    healer: Loop<View, Act>,
    sampled: Option<Duration>,
}

impl Load {
    /// `mode` is that of the healer of the group.
    pub(super) fn new(mode: Mode) -> Load {
        Load { healer: HealerOptions::new().mode(mode).healer(), sampled: None }
    }

    /// Passes an order of an operator on.
    pub(super) fn command(&mut self, now: Duration, own: NodeId, command: &Command<NodeId>) {
        if let Some(command) = map(command, |node| (*node == own).then_some(Queue)) {
            // A pause, its end and an acknowledgement are never refused.
            let _ = self.healer.handle(now, Input::Command(command));
        }
    }

    /// Takes a sample when one is due, and sets the limits that the loop decides.
    pub(super) fn work(&mut self, now: Duration, node: &Node) -> Vec<Record> {
        if self.sampled.is_some_and(|sampled| now.saturating_sub(sampled) < SAMPLE_EVERY) {
            return Vec::new();
        }
        self.sampled = Some(now);
        let waiting = node.status().waiting;
        let number = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = RequestLimits::new(number(waiting.requests_max), number(waiting.requests_per_peer_max));
        // Before its first turn the service reports no limits.
        let Ok(limits) = limits else { return Vec::new() };
        // Time does not run backwards here.
        let _ = sample(&mut self.healer, now, waiting.requests, limits);
        let set = |action: &Act| {
            node.set_request_limits(action.limits());
            Ok(())
        };
        self.healer.drain(now, set).unwrap_or_default()
    }

    /// Whether the queue was handed over to a person.
    pub(super) fn is_escalated(&self, now: Duration) -> bool {
        !self.healer.status(now).escalated.is_empty()
    }

    /// The readings by which the node is overloaded; empty if it is not.
    pub(super) fn evidence(&self, now: Duration) -> Vec<Evidence> {
        self.healer.knowledge().evidence(now)
    }
}
