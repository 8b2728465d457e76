//! The model of several keys and of operations that touch more than one at once.
//!
//! Linearizability is local: a history holds if the part of each object holds. With transactions the object
//! is not the key but a set of keys that transactions connect. [`partition`] splits a history into these
//! sets, so that each is searched by itself: keys that no transaction ever named together stay apart, and
//! cost no more than with [`Register`].

use std::collections::BTreeMap;

use super::register::{Call, Register, Swapped};
use super::{Interval, Model};

/// Several keys, each a [`Register`]. All are without a value at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Registers;

/// An operation on one key or several, with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// On one key.
    One {
        /// The key.
        key: u64,
        /// The operation.
        call: Call,
    },
    /// All at once: if every condition holds, `actions` in their order, else `alternatives`.
    Together {
        /// Keys and what each must hold.
        conditions: Vec<(u64, Option<u64>)>,
        /// Taken when every condition holds. What an unanswered one would have read is left open by
        /// [`Part::Look`].
        actions: Vec<Part>,
        /// Taken otherwise.
        alternatives: Vec<Part>,
        /// Whether the conditions held; `None` if no answer came.
        held: Option<bool>,
    },
}

/// One step of an [`Access::Together`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A step with its answer.
    Call {
        /// The key.
        key: u64,
        /// The operation.
        call: Call,
    },
    /// A read without an answer.
    Look {
        /// The key.
        key: u64,
    },
}

impl Part {
    fn key(&self) -> u64 {
        match self {
            Part::Call { key, .. } | Part::Look { key } => *key,
        }
    }
}

impl Access {
    /// The keys that it names, some perhaps more than once.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let (one, conditions, parts) = match self {
            Access::One { key, .. } => (Some(*key), [].as_slice(), [[].as_slice(), [].as_slice()]),
            Access::Together { conditions, actions, alternatives, .. } => {
                (None, conditions.as_slice(), [actions.as_slice(), alternatives.as_slice()])
            }
        };
        let parts = parts.into_iter().flatten().map(Part::key);
        one.into_iter().chain(conditions.iter().map(|(key, _)| *key)).chain(parts)
    }
}

impl Access {
    /// The same without its answer; `None` for a read, which says nothing then.
    #[must_use]
    pub fn unanswered(&self) -> Option<Access> {
        let forget = |call: &Call| match *call {
            Call::Put { value } => Some(Call::Put { value }),
            Call::Delete { .. } => Some(Call::Delete { existed: None }),
            Call::Get { .. } => None,
            Call::CompareAndSwap { expect, value, .. } => {
                Some(Call::CompareAndSwap { expect, value, answer: None })
            }
        };
        match self {
            Access::One { key, call } => forget(call).map(|call| Access::One { key: *key, call }),
            Access::Together { conditions, actions, alternatives, .. } => {
                let forget = |parts: &[Part]| -> Vec<Part> {
                    let parts = parts.iter().map(|part| match part {
                        Part::Call { key, call } => forget(call)
                            .map_or(Part::Look { key: *key }, |call| Part::Call { key: *key, call }),
                        look @ Part::Look { .. } => *look,
                    });
                    parts.collect()
                };
                let (actions, alternatives) = (forget(actions), forget(alternatives));
                let writes =
                    actions.iter().chain(&alternatives).any(|part| matches!(part, Part::Call { .. }));
                let conditions = conditions.clone();
                writes.then_some(Access::Together { conditions, actions, alternatives, held: None })
            }
        }
    }

    /// The values that it writes, or may write.
    pub fn written(&self) -> impl Iterator<Item = u64> {
        self.calls().filter_map(|call| match call {
            Call::Put { value } | Call::CompareAndSwap { value, .. } => Some(*value),
            Call::Delete { .. } | Call::Get { .. } => None,
        })
    }

    /// The values that it names without writing them: read or expected.
    pub fn named(&self) -> impl Iterator<Item = u64> {
        let conditions = match self {
            Access::One { .. } => [].as_slice(),
            Access::Together { conditions, .. } => conditions.as_slice(),
        };
        let calls = self.calls().flat_map(|call| match call {
            Call::Get { answer } => [*answer, None],
            Call::CompareAndSwap { expect, answer: Some(Swapped::No { current }), .. } => [*expect, *current],
            Call::CompareAndSwap { expect, .. } => [*expect, None],
            Call::Put { .. } | Call::Delete { .. } => [None, None],
        });
        conditions.iter().map(|(_, value)| *value).chain(calls).flatten()
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        let (one, parts) = match self {
            Access::One { call, .. } => (Some(call), [[].as_slice(), [].as_slice()]),
            Access::Together { actions, alternatives, .. } => {
                (None, [actions.as_slice(), alternatives.as_slice()])
            }
        };
        let parts = parts.into_iter().flatten().filter_map(|part| match part {
            Part::Call { call, .. } => Some(call),
            Part::Look { .. } => None,
        });
        one.into_iter().chain(parts)
    }
}

/// The part of a history that shows its fault: see [`super::minimal`]. Writes of values that another
/// operation names are kept.
#[must_use]
pub fn minimal(history: Vec<Interval<Access>>, steps_max: u64) -> Vec<Interval<Access>> {
    let is_needed = |history: &[Interval<Access>], index: usize| {
        let others = || (0..history.len()).filter(|other| *other != index);
        history[index]
            .operation
            .written()
            .any(|value| others().any(|other| history[other].operation.named().any(|named| named == value)))
    };
    super::minimal::minimal(&Registers, history, steps_max, Access::unanswered, is_needed)
}

fn apply(state: &mut BTreeMap<u64, u64>, key: u64, call: &Call) -> Option<()> {
    match Register.step(&state.get(&key).copied(), call)? {
        Some(value) => state.insert(key, value),
        None => state.remove(&key),
    };
    Some(())
}

impl Model for Registers {
    type Operation = Access;
    type State = BTreeMap<u64, u64>;

    fn initial(&self) -> BTreeMap<u64, u64> {
        BTreeMap::new()
    }

    fn step(&self, state: &BTreeMap<u64, u64>, access: &Access) -> Option<BTreeMap<u64, u64>> {
        let mut state = state.clone();
        match access {
            Access::One { key, call } => apply(&mut state, *key, call)?,
            Access::Together { conditions, actions, alternatives, held } => {
                let holds = conditions.iter().all(|(key, expected)| state.get(key) == expected.as_ref());
                if held.is_some_and(|held| held != holds) {
                    return None;
                }
                for part in if holds { actions } else { alternatives } {
                    match part {
                        Part::Call { key, call } => apply(&mut state, *key, call)?,
                        Part::Look { .. } => {}
                    }
                }
            }
        }
        Some(state)
    }

    fn is_read(&self, access: &Access) -> bool {
        let reads = |part: &Part| match part {
            Part::Call { call, .. } => Register.is_read(call),
            Part::Look { .. } => true,
        };
        match access {
            Access::One { call, .. } => Register.is_read(call),
            Access::Together { actions, held: Some(true), .. } => actions.iter().all(reads),
            Access::Together { alternatives, held: Some(false), .. } => alternatives.iter().all(reads),
            Access::Together { held: None, .. } => false,
        }
    }
}

/// Splits a history by the sets of keys that its operations connect. The sets come in the order of their
/// least keys, the operations of each in the order they had.
#[must_use]
pub fn partition(history: Vec<Interval<Access>>) -> Vec<Vec<Interval<Access>>> {
    let mut parents: BTreeMap<u64, u64> = BTreeMap::new();
    for interval in &history {
        let mut first = None;
        for key in interval.operation.keys() {
            let root = root(&parents, key);
            parents.entry(root).or_insert(root);
            let first = *first.get_or_insert(root);
            let (low, high) = (first.min(root), first.max(root));
            let low = self::root(&parents, low);
            parents.insert(high, low);
        }
    }
    let mut parts: BTreeMap<u64, Vec<Interval<Access>>> = BTreeMap::new();
    for interval in history {
        let key = interval.operation.keys().next().unwrap_or_default();
        parts.entry(root(&parents, key)).or_default().push(interval);
    }
    parts.into_values().collect()
}

/// The least key that is known to be connected with `key`.
fn root(parents: &BTreeMap<u64, u64>, mut key: u64) -> u64 {
    while let Some(parent) = parents.get(&key).copied().filter(|parent| *parent != key) {
        key = parent;
    }
    key
}
