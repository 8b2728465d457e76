//! Linearizable reads that share a round to the quorum.

use super::slab::Key;

/// Tokens of rounds have this bit, which tokens of the slab have not.
const ROUND: u64 = 1 << 63;

/// The reads that wait for the next round, and the rounds under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<Key>,
    rounds: Vec<(u64, Vec<Key>)>,
    rounds_begun: u64,
    spare: Vec<Vec<Key>>,
}

impl Reads {
    pub(super) fn wait(&mut self, key: Key) {
        self.waiting.push(key);
    }

    /// Begins a round for all that wait, unless nothing does or enough rounds are under way. Answers its
    /// token.
    pub(super) fn begin(&mut self, rounds_max: usize) -> Option<u64> {
        if self.waiting.is_empty() || self.rounds.len() >= rounds_max {
            return None;
        }
        self.rounds_begun = (self.rounds_begun + 1) & !(0b11 << 62);
        let token = ROUND | self.rounds_begun;
        let next = self.spare.pop().unwrap_or_default();
        self.rounds.push((token, std::mem::replace(&mut self.waiting, next)));
        Some(token)
    }

    /// The reads of a round that has ended. Give the list back with [`recycle`](Reads::recycle).
    pub(super) fn end(&mut self, token: u64) -> Option<Vec<Key>> {
        let place = self.rounds.iter().position(|(round, _)| *round == token)?;
        Some(self.rounds.remove(place).1)
    }

    /// The reads that wait for a round and need wait no more.
    pub(super) fn take_waiting(&mut self) -> Vec<Key> {
        let next = self.spare.pop().unwrap_or_default();
        std::mem::replace(&mut self.waiting, next)
    }

    pub(super) fn recycle(&mut self, mut list: Vec<Key>) {
        list.clear();
        self.spare.push(list);
    }

    pub(super) fn is_round(token: u64) -> bool {
        token & ROUND != 0
    }
}
