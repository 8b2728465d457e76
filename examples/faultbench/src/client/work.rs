//! Random operations of one client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use x0_kv::{Expect, OperationError, Store, Swap, Versioned};

use super::value::{number_of, value_of};
use super::{accounts, added_prefix};
use crate::history::{Answer, Asked, Recorder};
use crate::random::Random;

/// The pause between two operations of one task, in milliseconds.
const PAUSE_MS: (u64, u64) = (5, 60);

/// The state that the tasks of a client share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) store: Store,
    pub(super) recorder: Recorder,
    pub(super) number: u64,
    pub(super) round: u64,
}

impl Worker {
    /// Works on registers, accounts and the CRDT keyspace at the same time.
    pub(super) async fn storm(&self, seed: u64, keys: u64, lasts: Duration) -> Result<()> {
        let until = Instant::now() + lasts;
        let lane =
            |lane: u64| Lane { worker: self, lane, written: 0, until, random: Random::new(seed ^ lane) };
        let (mut one, mut two, mut three, mut four) = (lane(1), lane(2), lane(3), lane(4));
        let done = tokio::join!(one.registers(keys), two.registers(keys), three.bank(), four.adds());
        done.0.and(done.1).and(done.2).and(done.3)
    }

    /// Carries out one operation and records it.
    pub(super) async fn ask(&self, asked: Asked) -> Result<Answer> {
        let id = self.recorder.asked(asked)?;
        let answer = self.carry_out(asked).await.unwrap_or_else(|error| {
            let reads = matches!(asked, Asked::Get { .. } | Asked::Sum);
            match error.is_ambiguous() && !reads {
                true => Answer::Unknown(error.to_string()),
                false => Answer::Refused(error.to_string()),
            }
        });
        self.recorder.answered(id, answer.clone())?;
        Ok(answer)
    }

    fn register(&self, key: u64) -> String {
        format!("register/{:06}/{key}", self.round)
    }

    async fn carry_out(&self, asked: Asked) -> Result<Answer, OperationError> {
        let store = &self.store;
        Ok(match asked {
            Asked::Get { key } => read(store.get(self.register(key)).await?.as_ref(), Answer::Value),
            Asked::Put { key, value } => {
                store.put(self.register(key), value_of(value)).await?;
                Answer::Done
            }
            Asked::Delete { key } => Answer::Existed(store.delete(self.register(key)).await?),
            Asked::Swap { key, expect, value } => {
                let expect = expect.map_or(Expect::Absent, |expect| Expect::Value(value_of(expect)));
                match store.compare_and_swap(self.register(key), expect, value_of(value)).await? {
                    Swap::Swapped { .. } => Answer::Swapped,
                    Swap::Kept { current } => read(current.as_ref(), Answer::Kept),
                }
            }
            Asked::Transfer { from, to, amount } => accounts::transfer(store, from, to, amount).await?,
            Asked::Sum => accounts::sum(store).await?,
            Asked::Add { key, value } => {
                let unsupported = |_| OperationError::Unsupported { what: "a CRDT operation" };
                let crdt = store.crdt().map_err(unsupported)?;
                crdt.put(format!("{}{key}", added_prefix(self.round)), value_of(value)).await?;
                Answer::Done
            }
        })
    }
}

fn read(held: Option<&Versioned>, answer: fn(Option<u64>) -> Answer) -> Answer {
    match held.map(|held| number_of(&held.value)) {
        None => answer(None),
        Some(Some(number)) => answer(Some(number)),
        Some(None) => Answer::Wrong("a value that nobody wrote".to_owned()),
    }
}

/// One operation after the other.
struct Lane<'a> {
    worker: &'a Worker,
    lane: u64,
    written: u64,
    until: Instant,
    random: Random,
}

impl Lane<'_> {
    /// A number that no other write of the run has.
    fn unique(&mut self) -> u64 {
        self.written += 1;
        self.worker.round << 44 | (self.worker.number * 8 + self.lane) << 32 | self.written
    }

    /// Waits before the next operation. Whether there is one.
    async fn pause(&mut self) -> bool {
        tokio::time::sleep(self.random.milliseconds(PAUSE_MS.0, PAUSE_MS.1)).await;
        Instant::now() < self.until
    }

    async fn registers(&mut self, keys: u64) -> Result<()> {
        let mut seen: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        while self.pause().await {
            let key = self.random.below(keys);
            let value = self.unique();
            let asked = match self.random.below(10) {
                0..4 => Asked::Get { key },
                4..7 => Asked::Put { key, value },
                7 => Asked::Delete { key },
                _ => Asked::Swap { key, expect: seen.get(&key).copied().flatten(), value },
            };
            match self.worker.ask(asked).await? {
                Answer::Value(value) | Answer::Kept(value) => drop(seen.insert(key, value)),
                Answer::Done | Answer::Swapped => drop(seen.insert(key, Some(value))),
                _ => {}
            }
        }
        Ok(())
    }

    async fn bank(&mut self) -> Result<()> {
        while self.pause().await {
            let from = self.random.below(accounts::ACCOUNTS);
            let to = (from + 1 + self.random.below(accounts::ACCOUNTS - 1)) % accounts::ACCOUNTS;
            let asked = match self.random.chance(30) {
                true => Asked::Sum,
                false => Asked::Transfer { from, to, amount: self.random.between(1, 20) },
            };
            self.worker.ask(asked).await?;
        }
        Ok(())
    }

    async fn adds(&mut self) -> Result<()> {
        while self.pause().await {
            let key = self.unique();
            self.worker.ask(Asked::Add { key, value: key }).await?;
        }
        Ok(())
    }
}
