//! What raft takes for granted about messages, and would end the process over.

use raft::eraftpb::{Message, MessageType};

use super::{FailReason, HandleError, Replica};

impl Replica {
    /// Whether raft may see the message. `Ok(false)` says that it is stale and of no use.
    pub(super) fn validate(&self, message: &Message) -> Result<bool, HandleError> {
        let refused = |reason| Err(HandleError::Refused { reason });
        let log = &self.node.raft.raft_log;
        // No term comes without a node that began it, and one that is far ahead would push every other out for good.
        if message.term == 0 || message.term > self.node.raft.term.saturating_add(1 << 40) {
            return refused("its term is not plausible");
        }
        let from_current_leader = message.term >= self.node.raft.term;
        match message.msg_type {
            MessageType::MsgHeartbeat if from_current_leader && message.commit > log.last_index() => {
                // A leader names no commit beyond what this member has acknowledged (raft: `min(matched, committed)`).
                Err(HandleError::Failed(FailReason::LogLost))
            }
            MessageType::MsgAppend if from_current_leader => {
                if self.is_leader() && message.term == self.node.raft.term {
                    return refused("there are two leaders of one term");
                }
                for entry in &message.entries {
                    if entry.index > log.committed {
                        break;
                    }
                    // Behind the base nothing can be compared.
                    let held = log.term(entry.index).unwrap_or(entry.term);
                    if held != 0 && held != entry.term && message.index >= log.committed {
                        return Err(HandleError::Failed(FailReason::Diverged));
                    }
                }
                Ok(true)
            }
            MessageType::MsgAppendResponse if self.is_leader() => {
                if !message.reject && message.index > log.last_index() {
                    return refused("it acknowledges entries that do not exist");
                }
                let Some(progress) = self.node.raft.prs().get(message.from) else { return Ok(false) };
                // raft-rs #557: a late rejection must not move the next index to or below what is known to match.
                Ok(!(message.reject && message.request_snapshot == 0 && message.index <= progress.matched))
            }
            MessageType::MsgHeartbeatResponse if self.is_leader() => {
                if message.commit > log.last_index() {
                    return refused("it claims a commit that does not exist");
                }
                Ok(self.node.raft.prs().get(message.from).is_some())
            }
            _ => Ok(true),
        }
    }
}
