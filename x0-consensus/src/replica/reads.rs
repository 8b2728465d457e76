//! Linearizable reads by the read index (Ongaro 2014, section 6.4).

use std::collections::VecDeque;

use raft::ReadState;
use x0_identity::NodeId;

use super::{DropReason, Output, Replica};

/// The ticks after which a round is started again: its messages may have been lost in a way that heartbeats
/// do not repair.
const ROUND_TICKS_MAX: u32 = 20;

/// Reads in progress. One round of heartbeats at a time confirms the leadership; reads that arrive meanwhile
/// share the next round, which amortises its cost (section 6.4).
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Reads that are not in a round.
    waiting: Vec<u64>,
    /// The current round: its number and its reads.
    round: Option<(u64, Vec<u64>)>,
    rounds: u64,
    ticks: u32,
    /// Reads of confirmed rounds whose index is not applied. Ascending.
    confirmed: VecDeque<(u64, Vec<u64>)>,
}

impl Reads {
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
    }
}

impl Replica {
    pub(super) fn read_index(&mut self, token: u64) {
        let reason = if !self.is_leader() {
            DropReason::NotLeader { leader: self.leader_hint() }
        } else if self.reads.waiting.len() >= self.options.waiting_max {
            DropReason::Full
        } else {
            return self.reads.waiting.push(token);
        };
        self.outputs.push_back(Output::Dropped { token, reason });
    }

    /// Starts a round for the reads that wait. A leader that has not committed an entry of its term does not
    /// know the newest committed index (section 6.4, step 1), so that the reads wait until it has.
    pub(super) fn start_reads(&mut self) {
        if let Some((_, tokens)) = &mut self.reads.round {
            // One round at a time: raft keeps a queue of rounds, and confirming a later one confirms all
            // before it.
            if self.reads.ticks < ROUND_TICKS_MAX {
                return;
            }
            let tokens = std::mem::take(tokens);
            self.reads.round = None;
            self.reads.waiting.extend(tokens);
        }
        if self.reads.waiting.is_empty() || !self.is_leader() || !self.node.raft.commit_to_current_term() {
            return;
        }
        // The context of a round is its number, which raft returns with the read index.
        self.reads.rounds += 1;
        self.reads.ticks = 0;
        self.reads.round = Some((self.reads.rounds, std::mem::take(&mut self.reads.waiting)));
        self.node.read_index(self.reads.rounds.to_be_bytes().to_vec());
    }

    pub(super) fn note_reads(&mut self, states: Vec<ReadState>) {
        for state in states {
            let Ok(round) = state.request_ctx.try_into().map(u64::from_be_bytes) else { continue };
            if let Some((_, tokens)) = self.reads.round.take_if(|(number, _)| *number == round) {
                self.reads.confirmed.push_back((state.index, tokens));
            }
        }
        self.release_reads();
        self.start_reads();
    }

    /// Releases the reads whose index is applied (section 6.4, step 4).
    pub(super) fn release_reads(&mut self) {
        while self.reads.confirmed.front().is_some_and(|(index, _)| *index <= self.applied)
            && let Some((_, tokens)) = self.reads.confirmed.pop_front()
        {
            self.outputs.push_back(Output::ReadReady { tokens, index: self.applied });
        }
    }

    /// The leadership is lost. A read whose round no majority has confirmed is dropped; a confirmed one is
    /// still valid, because the majority answered after the read had arrived.
    pub(super) fn drop_reads(&mut self, leader: Option<NodeId>) {
        let round = self.reads.round.take().map(|(_, tokens)| tokens).unwrap_or_default();
        let reason = DropReason::NotLeader { leader: leader.filter(|leader| *leader != self.options.id) };
        for token in round.into_iter().chain(std::mem::take(&mut self.reads.waiting)) {
            self.outputs.push_back(Output::Dropped { token, reason });
        }
    }
}
