//! Violations of the invariants.

use std::fmt;
use std::time::Duration;

use super::{Report, Scenario};
use crate::sim::linearizability::Interval;
use crate::sim::linearizability::register::{Call, Swapped};
use crate::sim::linearizability::registers::{Access, Part};

/// An invariant was broken. [`run`](super::run) with the same scenario breaks it again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Violation {
    /// The scenario.
    pub scenario: Scenario,
    /// When in virtual time.
    pub at: Duration,
    /// The observation.
    pub cause: Cause,
    /// The counts until then.
    pub report: Report,
}

/// The kind of a [`Violation`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Cause {
    /// The answers of a round could not have come from one store: the shortest part that shows it.
    History(Vec<Interval<Access>>),
    /// An invariant of every moment did not hold.
    Invariant(String),
    /// All faults ended, and the cluster did not recover.
    Stuck {
        /// The condition that was not reached.
        what: &'static str,
        /// The replicas.
        nodes: String,
    },
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.scenario.seed;
        writeln!(formatter, "seed {seed}, after {:.3} s of virtual time:", self.at.as_secs_f64())?;
        match &self.cause {
            Cause::History(history) => {
                writeln!(formatter, "no order of these operations gives these answers:")?;
                for interval in history {
                    let until = interval.returned.map_or("never".to_owned(), |moment| moment.to_string());
                    writeln!(formatter, "  {} to {until}: {}", interval.invoked, Words(&interval.operation))?;
                }
            }
            Cause::Invariant(what) => writeln!(formatter, "{what}")?,
            Cause::Stuck { what, nodes } => {
                writeln!(formatter, "all was mended, and still it did not come that {what}:\n{nodes}")?;
            }
        }
        write!(formatter, "to see it again: x0_kv::sim::run(&{:?})", self.scenario)
    }
}

/// An access in words.
struct Words<'a>(&'a Access);

struct Value(Option<u64>);

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(formatter, "{value}"),
            None => write!(formatter, "nothing"),
        }
    }
}

fn tell_call(formatter: &mut fmt::Formatter<'_>, key: u64, call: &Call) -> fmt::Result {
    match *call {
        Call::Put { value } => write!(formatter, "key {key} = {value}"),
        Call::Delete { existed: None } => write!(formatter, "delete key {key}"),
        Call::Delete { existed: Some(true) } => write!(formatter, "delete key {key}, which existed"),
        Call::Delete { existed: Some(false) } => write!(formatter, "delete key {key}, which did not exist"),
        Call::Get { answer } => write!(formatter, "key {key} is {}", Value(answer)),
        Call::CompareAndSwap { expect, value, answer } => {
            write!(formatter, "key {key} from {} to {value}", Value(expect))?;
            match answer {
                None => Ok(()),
                Some(Swapped::Yes) => write!(formatter, ", done"),
                Some(Swapped::No { current }) => write!(formatter, ", but it is {}", Value(current)),
            }
        }
    }
}

fn tell_parts(formatter: &mut fmt::Formatter<'_>, parts: &[Part]) -> fmt::Result {
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            write!(formatter, "; ")?;
        }
        match part {
            Part::Call { key, call } => tell_call(formatter, *key, call)?,
            Part::Look { key } => write!(formatter, "look at key {key}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Access::One { key, call } => tell_call(formatter, *key, call),
            Access::Together { conditions, actions, alternatives, held } => {
                write!(formatter, "at once [")?;
                for (key, expected) in conditions {
                    write!(formatter, "if key {key} is {}: ", Value(*expected))?;
                }
                tell_parts(formatter, actions)?;
                if !alternatives.is_empty() {
                    write!(formatter, "] or else [")?;
                    tell_parts(formatter, alternatives)?;
                }
                write!(formatter, "]")?;
                match held {
                    Some(true) if !conditions.is_empty() => write!(formatter, ", the conditions held"),
                    Some(false) => write!(formatter, ", the conditions did not hold"),
                    _ => Ok(()),
                }
            }
        }
    }
}
