//! The workers: each calls one operation after the other.

use std::collections::BTreeMap;

use super::history::{Asked, Seen, Step};
use super::random::Random;
use super::schedule::{Place, Time};
use crate::request::outcome::Versioned;

/// The process through which a worker calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// A node of the cluster.
    Node(Place),
    /// A client outside, by its number.
    Outside(usize),
}

/// A caller of one operation after the other.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) host: Host,
    /// The number of the operation it waits for.
    pub(super) asked: Option<u64>,
    /// The time of the next call.
    pub(super) ask_at: Time,
    /// The last observation of each key.
    pub(super) seen: BTreeMap<u64, Option<Versioned>>,
}

impl Worker {
    pub(super) fn new(host: Host) -> Worker {
        Worker { host, asked: None, ask_at: Time::MAX, seen: BTreeMap::new() }
    }

    /// The expectation of a conditional write: the last observation of the key, or at times none.
    fn expect(&self, random: &mut Random, key: u64) -> Option<Seen> {
        let versioned = self.seen.get(&key).cloned().flatten()?;
        let value = u64::from_be_bytes(*versioned.value.first_chunk()?);
        let by_revision = random.chance(500).then_some(versioned.revision);
        (!random.chance(100)).then_some(Seen { value, by_revision })
    }

    /// The next operation. Its writes carry `value` and the values after it.
    pub(super) fn think(&self, random: &mut Random, keys: u64, value: u64, is_named: bool) -> Asked {
        let key = random.below(keys);
        // The default keyspace cannot be dropped.
        if is_named && random.chance(10) {
            return Asked::DropKeyspace;
        }
        match random.below(100) {
            0..35 => Asked::Get { key },
            35..41 => Asked::Range,
            41..70 => Asked::Put { key, value },
            70..75 => Asked::Delete { key },
            75..90 => Asked::Swap { key, expect: self.expect(random, key), value },
            _ => {
                let conditions = (0..random.below(3)).map(|_| {
                    let key = random.below(keys);
                    (key, self.expect(random, key))
                });
                let conditions: Vec<_> = conditions.collect();
                let mut value = value;
                let mut steps = |random: &mut Random, count| {
                    let mut steps = Vec::new();
                    for _ in 0..count {
                        let key = random.below(keys);
                        steps.push(match random.below(5) {
                            0 | 1 => Step::Get { key },
                            2 | 3 => Step::Put { key, value },
                            _ => Step::Delete { key },
                        });
                        value += 1;
                    }
                    steps
                };
                let (count, count_else) = (random.between(1, 4), random.below(3));
                let actions = steps(random, count);
                let alternatives = steps(random, count_else);
                Asked::Transact { conditions, actions, alternatives }
            }
        }
    }
}
