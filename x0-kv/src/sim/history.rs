//! The operations of the clients and their answers.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use super::context::Answer;
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{
    Action, Consistency, Expect, Mutation, Operation, Query, RangeQuery, Transaction,
};
use crate::request::outcome::{ActionResult, Outcome, Page, Swap, Versioned};
use crate::request::revision::Revision;
use crate::sim::linearizability::register::{Call, Swapped};
use crate::sim::linearizability::registers::{Access, Part, Registers, minimal, partition};
use crate::sim::linearizability::{Interval, Verdict, check};

/// Steps of the search for an order, for each set of connected keys.
const STEPS_MAX: u64 = 5_000_000;
/// Steps of each search while a fault is cut down to what a person can read.
const MINIMAL_STEPS_MAX: u64 = 200_000;

/// The operation of a worker: keys and values are numbers here.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Get {
        key: u64,
    },
    Range,
    Put {
        key: u64,
        value: u64,
    },
    Delete {
        key: u64,
    },
    /// The keyspace of the round does not exist.
    CreateKeyspace,
    /// Drops the keyspace of the round: deletes all keys at once.
    DropKeyspace,
    Swap {
        key: u64,
        expect: Option<Seen>,
        value: u64,
    },
    Transact {
        conditions: Vec<(u64, Option<Seen>)>,
        actions: Vec<Step>,
        alternatives: Vec<Step>,
    },
}

/// A step of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Get { key: u64 },
    Put { key: u64, value: u64 },
    Delete { key: u64 },
}

/// A value that a worker saw, and at which revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) value: u64,
    /// Whether the revision is expected, and not the value.
    pub(super) by_revision: Option<Revision>,
}

/// An operation that was not answered yet, or never will be.
#[derive(Debug)]
struct Open {
    asked: Asked,
    round: u64,
    invoked: u64,
}

/// The operations of one round.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The number of the round: it has its own keys.
    pub(super) round: u64,
    /// How many keys the round has.
    pub(super) keys: u64,
    /// An operation found no keyspace: the next one creates it.
    pub(super) is_keyspace_missing: bool,
    /// The moment of the next invocation or return.
    moment: u64,
    open: BTreeMap<u64, Open>,
    closed: Vec<Interval<Access>>,
    /// The revision at which each value was seen.
    revisions: HashMap<u64, Revision>,
}

/// The fate of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Acknowledged,
    Failed,
    Unknown,
}

/// A value of many lengths, which contains its number.
pub(super) fn value_of(number: u64) -> Bytes {
    let len = usize::try_from(number.wrapping_mul(0x9e37_79b9) >> 7 & 0xff).unwrap_or(0);
    let mut value = BytesMut::with_capacity(8 + len);
    value.put_u64(number);
    value.put_bytes(b'.', len);
    value.freeze()
}

fn number_of(value: &[u8]) -> Result<u64, String> {
    let number = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    number
        .filter(|number| value_of(*number) == value)
        .ok_or_else(|| format!("a value nobody wrote: {value:?}"))
}

impl History {
    /// Begins a round.
    pub(super) fn begin(&mut self, round: u64, keys: u64) {
        *self = History { round, keys, ..History::default() };
    }

    /// Two rounds in turn have the same keys, in two keyspaces: a value of the other one would be seen.
    fn prefix(&self) -> String {
        format!("{:06}/", self.round / 2)
    }

    /// The keyspace of the round.
    pub(super) fn keyspace(&self) -> KeyspaceName {
        match self.round % 2 {
            0 => KeyspaceName::DEFAULT,
            _ => KeyspaceName::new("sim").unwrap_or_default(),
        }
    }

    fn key(&self, key: u64) -> Bytes {
        format!("{}{key}", self.prefix()).into()
    }

    fn number_of_key(&self, key: &[u8]) -> Result<u64, String> {
        let number =
            key.strip_prefix(self.prefix().as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
        number.and_then(|rest| rest.parse().ok()).ok_or_else(|| format!("a key nobody wrote: {key:?}"))
    }

    fn expected(seen: Option<Seen>) -> Expect {
        match seen {
            None => Expect::Absent,
            Some(Seen { by_revision: Some(revision), .. }) => Expect::Revision(revision),
            Some(Seen { value, by_revision: None }) => Expect::Value(value_of(value)),
        }
    }

    /// The operation as the store receives it.
    pub(super) fn operation(&self, asked: &Asked) -> Operation {
        let keyspace = self.keyspace();
        let read = |query| {
            let keyspace = self.keyspace();
            Operation::Read { keyspace, query, consistency: Consistency::Linearizable }
        };
        let write = |mutation| Operation::Write { keyspace, mutation };
        let actions = |steps: &[Step]| {
            let action = |step: &Step| match *step {
                Step::Get { key } => Action::Get { key: self.key(key) },
                Step::Put { key, value } => Action::Put { key: self.key(key), value: value_of(value) },
                Step::Delete { key } => Action::Delete { key: self.key(key) },
            };
            steps.iter().map(action).collect()
        };
        match asked {
            Asked::Get { key } => read(Query::Get { key: self.key(*key) }),
            Asked::Range => read(Query::Range(RangeQuery::prefix(self.prefix()))),
            Asked::Put { key, value } => {
                write(Mutation::Put { key: self.key(*key), value: value_of(*value) })
            }
            Asked::Delete { key } => write(Mutation::Delete { key: self.key(*key) }),
            Asked::CreateKeyspace => write(Mutation::CreateKeyspace),
            Asked::DropKeyspace => write(Mutation::DropKeyspace),
            Asked::Swap { key, expect, value } => write(Mutation::CompareAndSwap {
                key: self.key(*key),
                expect: History::expected(*expect),
                value: value_of(*value),
            }),
            Asked::Transact { conditions, actions: then, alternatives } => {
                let conditions =
                    conditions.iter().map(|(key, expect)| crate::request::operation::Condition {
                        key: self.key(*key),
                        expect: History::expected(*expect),
                    });
                write(Mutation::Transaction(Transaction {
                    conditions: conditions.collect(),
                    actions: actions(then),
                    alternatives: actions(alternatives),
                }))
            }
        }
    }

    fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// An operation is asked for.
    pub(super) fn ask(&mut self, number: u64, asked: Asked) {
        let invoked = self.now();
        self.open.insert(number, Open { asked, round: self.round, invoked });
    }

    /// The process that asked is no more.
    pub(super) fn forget(&mut self, number: u64) -> Result<Ending, String> {
        let Some(open) = self.open.remove(&number) else { return Ok(Ending::Failed) };
        self.leave_open(&open)
    }

    fn leave_open(&mut self, open: &Open) -> Result<Ending, String> {
        // An operation without an answer has its access without an answer.
        let operation = match open.asked {
            Asked::DropKeyspace => self.deletes(true),
            _ => match unanswered(&open.asked) {
                Some(operation) => operation,
                None => return Ok(Ending::Failed),
            },
        };
        self.closed.push(Interval { invoked: open.invoked, returned: None, operation });
        Ok(Ending::Unknown)
    }

    /// An answer has come. What the worker sees by it is put into `seen`.
    ///
    /// # Errors
    /// When the answer is not one to what was asked.
    pub(super) fn answer(
        &mut self,
        (number, result): &Answer,
        seen: &mut BTreeMap<u64, Option<Versioned>>,
    ) -> Result<Ending, String> {
        let Some(open) = self.open.remove(number) else {
            return Err(format!("operation {number} is answered twice, or was never asked for"));
        };
        if open.round != self.round {
            return Err(format!("operation {number} is answered after its round"));
        }
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) if error.is_ambiguous() => return self.leave_open(&open),
            // To a read, a keyspace that does not exist is an empty one.
            Err(OperationError::KeyspaceMissing) => {
                self.is_keyspace_missing = true;
                match open.asked {
                    Asked::Get { .. } => &Outcome::Value(None),
                    Asked::Range => &Outcome::Page(Page::default()),
                    _ => return Ok(Ending::Failed),
                }
            }
            Err(_) => return Ok(Ending::Failed),
        };
        let operation = self.access(&open.asked, outcome, seen)?;
        let returned = Some(self.now());
        self.closed.push(Interval { invoked: open.invoked, returned, operation });
        Ok(Ending::Acknowledged)
    }

    /// A value was seen at this revision: each is written once.
    fn observe(&mut self, value: u64, revision: Revision) -> Result<(), String> {
        match self.revisions.insert(value, revision) {
            Some(before) if before != revision => {
                Err(format!("value {value} was written twice, at revisions {before} and {revision}"))
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, found: Option<&Versioned>) -> Result<Option<u64>, String> {
        let Some(found) = found else { return Ok(None) };
        let number = number_of(&found.value)?;
        self.observe(number, found.revision)?;
        Ok(Some(number))
    }

    fn access(
        &mut self,
        asked: &Asked,
        outcome: &Outcome,
        seen: &mut BTreeMap<u64, Option<Versioned>>,
    ) -> Result<Access, String> {
        let one = |key, call| Ok(Access::One { key, call });
        match (asked, outcome) {
            (Asked::Get { key }, Outcome::Value(found)) => {
                seen.insert(*key, found.clone());
                one(*key, Call::Get { answer: self.read(found.as_ref())? })
            }
            (Asked::Range, Outcome::Page(page)) => {
                if page.continuation.is_some() {
                    return Err("a range of few keys has more than one page".to_owned());
                }
                let mut found = BTreeMap::new();
                for entry in &page.entries {
                    let versioned = Versioned { value: entry.value.clone(), revision: entry.revision };
                    let value = self.read(Some(&versioned))?;
                    found.insert(self.number_of_key(&entry.key)?, value);
                }
                let part = |key| {
                    let answer = found.get(&key).copied().flatten();
                    Part::Call { key, call: Call::Get { answer } }
                };
                let actions = (0..self.keys).map(part).collect();
                Ok(Access::Together {
                    conditions: Vec::new(),
                    actions,
                    alternatives: Vec::new(),
                    held: Some(true),
                })
            }
            (Asked::Put { key, value }, Outcome::Put { revision }) => {
                self.observe(*value, *revision)?;
                one(*key, Call::Put { value: *value })
            }
            (Asked::Delete { key }, Outcome::Delete { existed }) => {
                one(*key, Call::Delete { existed: Some(*existed) })
            }
            // Dropping the keyspace changes no key: operations before it find no keyspace, those after it
            // find an empty one.
            (Asked::CreateKeyspace, Outcome::KeyspaceCreated { .. }) => Ok(self.deletes(false)),
            (Asked::DropKeyspace, Outcome::KeyspaceDropped { .. }) => Ok(self.deletes(true)),
            (Asked::Swap { key, expect, value }, Outcome::CompareAndSwap(swap)) => {
                let answer = match swap {
                    Swap::Swapped { revision } => {
                        self.observe(*value, *revision)?;
                        Swapped::Yes
                    }
                    Swap::Kept { current } => {
                        seen.insert(*key, current.clone());
                        Swapped::No { current: self.read(current.as_ref())? }
                    }
                };
                let expect = expect.map(|seen| seen.value);
                one(*key, Call::CompareAndSwap { expect, value: *value, answer: Some(answer) })
            }
            (Asked::Transact { conditions, actions, alternatives }, Outcome::Transaction(done)) => {
                let (taken, left) = if done.held { (actions, alternatives) } else { (alternatives, actions) };
                if taken.len() != done.results.len() {
                    return Err("a transaction has not one result for each action".to_owned());
                }
                let mut parts = Vec::new();
                for (step, result) in taken.iter().zip(&done.results) {
                    parts.push(match (*step, result) {
                        (Step::Get { key }, ActionResult::Value(found)) => {
                            let answer = match found {
                                Some(found) => {
                                    let number = number_of(&found.value)?;
                                    // A value that the transaction wrote itself has its revision as well.
                                    self.observe(number, found.revision)?;
                                    Some(number)
                                }
                                None => None,
                            };
                            Part::Call { key, call: Call::Get { answer } }
                        }
                        (Step::Put { key, value }, ActionResult::Put) => {
                            self.observe(value, done.revision)?;
                            Part::Call { key, call: Call::Put { value } }
                        }
                        (Step::Delete { key }, ActionResult::Delete { existed }) => {
                            Part::Call { key, call: Call::Delete { existed: Some(*existed) } }
                        }
                        _ => return Err(format!("{step:?} is answered {result:?}")),
                    });
                }
                let left = left.iter().map(unanswered_part).collect();
                let (actions, alternatives) = if done.held { (parts, left) } else { (left, parts) };
                let conditions = expected(conditions);
                Ok(Access::Together { conditions, actions, alternatives, held: Some(done.held) })
            }
            _ => Err(format!("{asked:?} is answered {outcome:?}")),
        }
    }

    /// An access that deletes all keys of the round, or none.
    fn deletes(&self, all: bool) -> Access {
        let delete = |key| Part::Call { key, call: Call::Delete { existed: None } };
        let actions = if all { (0..self.keys).map(delete).collect() } else { Vec::new() };
        Access::Together { conditions: Vec::new(), actions, alternatives: Vec::new(), held: Some(true) }
    }

    /// How many operations wait for an answer.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Checks the round: the shortest history that shows a fault, if there is one. How many sets of keys
    /// could not be decided is counted.
    pub(super) fn check(&mut self, undecided: &mut u64) -> Result<(), Vec<Interval<Access>>> {
        for part in partition(std::mem::take(&mut self.closed)) {
            match check(&Registers, &part, STEPS_MAX) {
                Verdict::Linearizable { .. } => {}
                Verdict::NotLinearizable { .. } => return Err(minimal(part, MINIMAL_STEPS_MAX)),
                Verdict::Undecided { .. } => *undecided += 1,
            }
        }
        Ok(())
    }
}

fn expected(conditions: &[(u64, Option<Seen>)]) -> Vec<(u64, Option<u64>)> {
    conditions.iter().map(|(key, seen)| (*key, seen.map(|seen| seen.value))).collect()
}

fn unanswered_part(step: &Step) -> Part {
    match *step {
        Step::Get { key } => Part::Look { key },
        Step::Put { key, value } => Part::Call { key, call: Call::Put { value } },
        Step::Delete { key } => Part::Call { key, call: Call::Delete { existed: None } },
    }
}

/// The access of a write without an answer. A read without an answer says nothing.
fn unanswered(asked: &Asked) -> Option<Access> {
    match asked {
        Asked::Get { .. } | Asked::Range | Asked::CreateKeyspace | Asked::DropKeyspace => None,
        Asked::Put { key, value } => Some(Access::One { key: *key, call: Call::Put { value: *value } }),
        Asked::Delete { key } => Some(Access::One { key: *key, call: Call::Delete { existed: None } }),
        Asked::Swap { key, expect, value } => {
            let expect = expect.map(|seen| seen.value);
            let call = Call::CompareAndSwap { expect, value: *value, answer: None };
            Some(Access::One { key: *key, call })
        }
        Asked::Transact { conditions, actions, alternatives } => {
            let writes = actions.iter().chain(alternatives).any(|step| !matches!(step, Step::Get { .. }));
            writes.then(|| Access::Together {
                conditions: expected(conditions),
                actions: actions.iter().map(unanswered_part).collect(),
                alternatives: alternatives.iter().map(unanswered_part).collect(),
                held: None,
            })
        }
    }
}
