//! What raft takes for granted about messages, and would end the process over.

use raft::eraftpb::{Message, MessageType};

use super::{FailReason, HandleError, Replica};

/// How far a term may be ahead. One that is far ahead would push every other out for good.
const TERMS_AHEAD_MAX: u64 = 1 << 40;

fn refused<T>(reason: &'static str) -> Result<T, HandleError> {
    Err(HandleError::Refused { reason })
}

impl Replica {
    /// Whether raft may see the message. `Ok(false)` says that it is stale and of no use.
    pub(super) fn validate(&self, message: &Message) -> Result<bool, HandleError> {
        self.check_sender(message.from, message.term)?;
        let raft = &self.node.raft;
        let is_led_by_us = self.is_leader() && message.term == raft.term;
        match message.msg_type {
            MessageType::MsgHeartbeat | MessageType::MsgAppend if is_led_by_us => {
                refused("there are two leaders of one term")
            }
            MessageType::MsgHeartbeat => self.validate_heartbeat(message),
            MessageType::MsgAppend => self.validate_append(message),
            MessageType::MsgAppendResponse if is_led_by_us => self.validate_response(message),
            // Raft would campaign at once.
            MessageType::MsgTimeoutNow => Ok(self.may_campaign()),
            _ => Ok(true),
        }
    }

    /// No term comes without a node that began it, and no message from oneself.
    pub(super) fn check_sender(&self, from: u64, term: u64) -> Result<(), HandleError> {
        if from == self.config.id.get() {
            return refused("it claims to come from this replica");
        }
        if term == 0 || term > self.node.raft.term.saturating_add(TERMS_AHEAD_MAX) {
            return refused("its term is not plausible");
        }
        Ok(())
    }

    /// What a leader says can only end this replica if it is one of the group.
    fn fail<T>(&self, from: u64, reason: FailReason) -> Result<T, HandleError> {
        let membership = self.memberships.back().map(|(_, membership)| membership);
        let is_stranger = membership
            .is_some_and(|known| !known.is_empty() && !known.nodes().any(|node| node.get() == from));
        if is_stranger { refused("a stranger contradicts the log") } else { Err(HandleError::Failed(reason)) }
    }

    /// A leader names no commit beyond what this member has acknowledged (raft: `min(matched, committed)`).
    fn validate_heartbeat(&self, message: &Message) -> Result<bool, HandleError> {
        let raft = &self.node.raft;
        if message.term >= raft.term && message.commit > raft.raft_log.last_index() {
            return self.fail(message.from, FailReason::LogLost);
        }
        Ok(true)
    }

    fn validate_append(&self, message: &Message) -> Result<bool, HandleError> {
        // Raft takes an index it does not hold for one of term 0, and would append with a gap.
        if (message.index == 0) != (message.log_term == 0) {
            return refused("its position is not one of a log");
        }
        if message.entries.first().is_some_and(|entry| entry.term == 0) {
            return refused("no entry is of term 0");
        }
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        // Stale ones are answered by raft. Behind the base nothing can be compared.
        let contradicts = |index: u64, term: u64| {
            index <= log.committed && log.term(index).is_ok_and(|held| held != 0 && held != term)
        };
        if message.term >= raft.term
            && (contradicts(message.index, message.log_term)
                || message.entries.iter().any(|entry| contradicts(entry.index, entry.term)))
        {
            return self.fail(message.from, FailReason::Diverged);
        }
        Ok(true)
    }

    fn validate_response(&self, message: &Message) -> Result<bool, HandleError> {
        let log = &self.node.raft.raft_log;
        let Some(progress) = self.node.raft.prs().get(message.from) else { return Ok(false) };
        if !message.reject {
            if message.index > log.last_index() {
                return refused("it acknowledges entries that do not exist");
            }
            return Ok(true);
        }
        if message.request_snapshot != 0 {
            return Ok(true);
        }
        if message.index > log.last_index() || message.reject_hint > message.index {
            return refused("it rejects what was never sent");
        }
        // raft-rs #557: a late rejection must not move the next index to or below what is known to match.
        let hint = match message.log_term {
            0 => message.reject_hint,
            term => log.find_conflict_by_term(message.reject_hint, term).0,
        };
        Ok(message.index > progress.matched && hint >= progress.matched)
    }
}
