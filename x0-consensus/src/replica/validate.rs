//! Checks of messages that `raft` does not make: it would panic.

use raft::eraftpb::{Message, MessageType};

use super::{FailReason, HandleError, Replica};
use crate::codec::Envelope;

/// The most terms that a message may be ahead. Raft adopts every higher term (Ongaro 2014, section 3.3), and
/// one message with the highest possible term would end all elections.
const TERMS_AHEAD_MAX: u64 = 1 << 40;

fn refused<T>(reason: &'static str) -> Result<T, HandleError> {
    Err(HandleError::Refused { reason })
}

impl Replica {
    /// Whether `raft` may see the message, whose sender was checked. `Ok(false)`: the message is stale and is
    /// dropped.
    pub(super) fn validate(&self, message: &Message, envelope: &Envelope) -> Result<bool, HandleError> {
        let raft = &self.node.raft;
        let is_led_by_us = self.is_leader() && message.term == raft.term;
        match message.msg_type {
            MessageType::MsgHeartbeat | MessageType::MsgAppend if is_led_by_us => {
                refused("two leaders claim the same term")
            }
            MessageType::MsgHeartbeat => self.validate_heartbeat(message, envelope),
            MessageType::MsgAppend => self.validate_append(message, envelope),
            MessageType::MsgAppendResponse if is_led_by_us => self.validate_response(message),
            // raft campaigns at once on this message, also when it must not.
            MessageType::MsgTimeoutNow => Ok(self.may_campaign()),
            _ => Ok(true),
        }
    }

    /// A message has a plausible term and does not come from this replica itself.
    pub(super) fn check_sender(&self, from: u64, term: u64) -> Result<(), HandleError> {
        if from == self.options.id.get() {
            return refused("the sender has the id of this replica");
        }
        if term == 0 || term > self.node.raft.term.saturating_add(TERMS_AHEAD_MAX) {
            return refused("the term is 0 or implausibly high");
        }
        Ok(())
    }

    /// Ends the replica, but only for a message of a member: a stranger must not be able to. A sender that
    /// names the incarnation of this log was a member after that was registered, also if this log was rolled
    /// back to a time before the sender became one: the number is random, and only the membership holds it.
    pub(super) fn fail<T>(
        &self,
        from: u64,
        envelope: &Envelope,
        reason: FailReason,
    ) -> Result<T, HandleError> {
        let own = self.options.incarnation;
        let names_this_log = own != 0 && envelope.registered.incarnation == own;
        let membership = self.memberships.back().map(|(_, membership)| membership);
        let is_unknown = membership
            .is_some_and(|known| !known.is_empty() && !known.nodes().any(|node| node.get() == from));
        if is_unknown && !names_this_log {
            refused("a node that is not a member contradicts the log")
        } else {
            Err(HandleError::Failed(reason))
        }
    }

    /// A leader sends no commit index beyond the entries that this member has acknowledged (`raft` sends
    /// `min(matched, committed)`). A greater one means that this log has lost acknowledged entries.
    fn validate_heartbeat(&self, message: &Message, envelope: &Envelope) -> Result<bool, HandleError> {
        let raft = &self.node.raft;
        if message.term >= raft.term && message.commit > raft.raft_log.last_index() {
            return self.fail(message.from, envelope, FailReason::LogLost);
        }
        Ok(true)
    }

    fn validate_append(&self, message: &Message, envelope: &Envelope) -> Result<bool, HandleError> {
        // raft treats an index that it does not hold as one of term 0, and would append with a gap.
        if (message.index == 0) != (message.log_term == 0) {
            return refused("index and term of the position contradict each other");
        }
        if message.entries.first().is_some_and(|entry| entry.term == 0) {
            return refused("an entry has term 0");
        }
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        // Committed entries never change (Ongaro 2014, section 3.6, leader completeness). raft answers stale
        // messages by itself; before the base there are no terms to compare.
        let contradicts = |index: u64, term: u64| {
            index <= log.committed && log.term(index).is_ok_and(|held| held != 0 && held != term)
        };
        if message.term >= raft.term
            && (contradicts(message.index, message.log_term)
                || message.entries.iter().any(|entry| contradicts(entry.index, entry.term)))
        {
            return self.fail(message.from, envelope, FailReason::Diverged);
        }
        Ok(true)
    }

    fn validate_response(&self, message: &Message) -> Result<bool, HandleError> {
        let log = &self.node.raft.raft_log;
        let Some(progress) = self.node.raft.prs().get(message.from) else { return Ok(false) };
        if !message.reject {
            if message.index > log.last_index() {
                return refused("the acknowledged index is after the end of the log");
            }
            return Ok(true);
        }
        if message.request_snapshot != 0 {
            return Ok(true);
        }
        if message.index > log.last_index() || message.reject_hint > message.index {
            return refused("the rejected index was never sent");
        }
        // raft-rs issue 557: a late rejection must not move the next index to or below the index that is
        // known to match.
        let hint = match message.log_term {
            0 => message.reject_hint,
            term => log.find_conflict_by_term(message.reject_hint, term).0,
        };
        Ok(message.index > progress.matched && hint >= progress.matched)
    }
}
