//! Changing who takes part.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use x0_consensus::{DropReason, MembershipChange};
use x0_identity::NodeId;

/// Tokens with this bit are ours: the coordinator never uses it.
const CHANGE_TOKEN: u64 = 1 << 62;

/// Why a change of the membership was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not lead. Nothing was done.
    #[error("this node does not lead{}: ask the leader", .leader.map(|leader| format!(", node {leader} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Another change is under way, or this leader has only just begun. Nothing was done.
    #[error("another change is under way: try again in a moment")]
    InProgress,
    /// It changes nothing, or would leave no voter. Nothing was done.
    #[error("the change is none, or would leave no voter: look at the membership as it is")]
    Invalid,
    /// Another leader took over. The change may or may not have been made.
    #[error("the leader changed meanwhile: look whether the change was made")]
    Unknown,
    /// The node has stopped. The change may or may not have been made.
    #[error("the node has stopped: look whether the change was made")]
    Closed,
}

/// A change to be made, and who waits for it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) change: MembershipChange,
    pub(super) answer: oneshot::Sender<Result<(), ChangeError>>,
}

/// Changes under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: BTreeMap<u64, oneshot::Sender<Result<(), ChangeError>>>,
    made: u64,
}

impl Changes {
    /// The token for a change.
    pub(super) fn insert(&mut self, answer: oneshot::Sender<Result<(), ChangeError>>) -> u64 {
        self.made += 1;
        let token = CHANGE_TOKEN | self.made;
        self.waiting.insert(token, answer);
        token
    }

    /// Answers a change.
    pub(super) fn made(&mut self, token: u64) {
        self.answer(token, Ok(()));
    }

    /// Whether the token is that of a change, which is answered then.
    pub(super) fn dropped(&mut self, token: u64, reason: DropReason) -> bool {
        if token & CHANGE_TOKEN == 0 {
            return false;
        }
        let error = match reason {
            DropReason::NotLeader { leader } => ChangeError::NotLeader { leader },
            DropReason::ChangeInProgress | DropReason::Full | DropReason::Transferring => {
                ChangeError::InProgress
            }
            DropReason::ChangeInvalid | DropReason::Length => ChangeError::Invalid,
            _ => ChangeError::Unknown,
        };
        self.answer(token, Err(error));
        true
    }

    fn answer(&mut self, token: u64, result: Result<(), ChangeError>) {
        if let Some(answer) = self.waiting.remove(&token) {
            // Who no longer waits is not disappointed.
            let _ = answer.send(result);
        }
    }
}
