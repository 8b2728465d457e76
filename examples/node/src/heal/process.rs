//! The driver of `x0_mapek::process`: the process asks its supervisor for a restart.

use std::sync::PoisonError;
use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::cluster::Node;
use x0_mapek::process::{Act, HealerOptions, Observation, Process, View, sample};
use x0_mapek::{Command, Evidence, Input, Loop, Mode, Output, Record};

use super::beside::map;
use crate::config::NodeConfig;
use crate::control::{self, Reply};
use crate::observe::process::resident;
use crate::run::Down;

/// The time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The healer of the process.
pub(super) struct OwnProcess {
    healer: Loop<View, Act>,
    is_supervised: bool,
    /// The memory that it may use, in bytes.
    memory_max: Option<f64>,
    down: Down,
    sampled: Option<Duration>,
    /// The restart that was asked for.
    asked: Option<u64>,
}

impl OwnProcess {
    /// `mode` is that of the healer of the group.
    pub(super) fn new(config: &NodeConfig, mode: Mode, is_supervised: bool, down: Down) -> OwnProcess {
        let options = HealerOptions::new()
            .mode(mode)
            .seed(config.node.get())
            .isolated_after(config.heal.restart_isolated_s.map(Duration::from_secs));
        OwnProcess {
            healer: options.healer(config.node),
            is_supervised,
            memory_max: config.heal.memory_max_mib.map(|mib| mib as f64 * f64::from(1 << 20)),
            down,
            sampled: None,
            asked: None,
        }
    }

    /// Passes an order of an operator on.
    pub(super) fn command(&mut self, now: Duration, own: NodeId, command: &Command<NodeId>) {
        if let Some(command) = map(command, |node| (*node == own).then_some(Process(own))) {
            // A pause, its end and an acknowledgement are never refused.
            let _ = self.healer.handle(now, Input::Command(command));
        }
    }

    /// Takes a sample when one is due, and asks the supervisor for the restart that the loop decides.
    pub(super) fn work(&mut self, now: Duration, node: &Node) -> Vec<Record> {
        if self.sampled.is_some_and(|sampled| now.saturating_sub(sampled) < SAMPLE_EVERY) {
            return Vec::new();
        }
        self.sampled = Some(now);
        let status = node.status();
        let mut observation = Observation::new();
        observation.is_supervised = self.is_supervised;
        observation.memory_share = self.memory_max.and_then(|max| Some(resident()? / max));
        let members = &status.membership;
        let is_member = |node: &NodeId| members.voters.contains(node) || members.learners.contains(node);
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        observation.down = down
            .iter()
            .filter(|(node, _)| is_member(node))
            .map(|(node, reason)| (*node, reason.clone()))
            .collect();
        drop(down);
        observation.reached = status.reached.iter().copied().filter(is_member).collect();
        observation.voters = status.membership.voters;
        self.take(now, &observation, |why| control::reply(&Reply::Restart { why }))
    }

    fn take(&mut self, now: Duration, observation: &Observation, ask: impl Fn(String)) -> Vec<Record> {
        // Time does not run backwards here, and a share that is no measurement is left out.
        let _ = sample(&mut self.healer, now, observation);
        let mut records = Vec::new();
        let mut begun = None;
        while let Some(output) = self.healer.poll_output() {
            match output {
                // The end of the process is the answer, or that the supervisor refuses.
                Output::Execute { id, .. } => begun = Some(id),
                Output::Record(record) => records.push(*record),
                // Nothing is claimed, approved or taken back, and the record has the escalation.
                _ => {}
            }
        }
        if let Some(id) = begun {
            self.asked = Some(id);
            let cause =
                records.iter().rev().find(|record| record.action == id).map(|record| record.cause.clone());
            ask(cause.unwrap_or_default());
        }
        records
    }

    /// The supervisor refuses a restart.
    pub(super) fn refused(&mut self, now: Duration, why: String) {
        if let Some(id) = self.asked.take() {
            // The loop may have given up on it.
            let _ = self.healer.handle(now, Input::Outcome { id, result: Err(why) });
        }
    }

    /// Whether the process was handed over to a person.
    pub(super) fn is_escalated(&self, now: Duration) -> bool {
        !self.healer.status(now).escalated.is_empty()
    }

    /// The readings that make the process unhealthy; empty if it is not.
    pub(super) fn evidence(&self, now: Duration) -> Vec<Evidence> {
        self.healer.knowledge().evidence(now)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_leak_is_reported_to_the_supervisor_and_its_refusal_to_the_loop() {
        let node = |number| NodeId::new(number).unwrap();
        let healer = HealerOptions::new().mode(Mode::Active).healer(node(1));
        let down = Down::default();
        let mut own =
            OwnProcess { healer, is_supervised: true, memory_max: None, down, sampled: None, asked: None };
        let (asked, mut events) = (RefCell::new(Vec::new()), Vec::new());
        for second in 0..2000_u32 {
            let now = Duration::from_secs(second.into());
            let mut observation = Observation::new();
            observation.is_supervised = true;
            observation.memory_share = Some(0.6 + f64::from(second) / 1000.0);
            let before = asked.borrow().len();
            let records = own.take(now, &observation, |why| asked.borrow_mut().push(why));
            events.extend(records.iter().map(|record| record.event.name().to_owned()));
            if asked.borrow().len() > before {
                own.refused(now, "too soon".into());
            }
        }
        assert_eq!(asked.into_inner(), ["leak"; 3]);
        let count = |name: &str| events.iter().filter(|event| *event == name).count();
        assert_eq!((count("executing"), count("failed"), count("escalated")), (3, 3, 1), "{events:?}");
        assert!(own.is_escalated(Duration::from_secs(2000)));
        // A refusal without a request changes nothing.
        own.refused(Duration::from_secs(2000), "x".into());
    }
}
