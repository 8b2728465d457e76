//! Fences: requests that take effect only on the term and membership on which they were planned.

use raft::eraftpb::{Message, MessageType};
use x0_identity::NodeId;

use super::{DropReason, Output, Replica};
use crate::entry::Membership;
use crate::membership::MembershipChange;

/// The state on which a request was planned. Another node may plan on its own [`Status`](super::Status).
///
/// The membership itself is compared and not its index: the index of an old membership is lost when the log
/// is truncated, at another time on each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The term.
    pub term: u64,
    /// The membership.
    pub membership: Membership,
}

/// A request that takes effect only on its [`Fence`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FencedRequest {
    /// As [`Input::ChangeMembership`](super::Input::ChangeMembership).
    ChangeMembership(MembershipChange),
    /// As [`Input::TransferLeadership`](super::Input::TransferLeadership).
    TransferLeadership {
        /// The next leader.
        to: NodeId,
    },
    /// As [`Input::TakeOver`](super::Input::TakeOver).
    TakeOver,
}

impl Replica {
    /// The state on which a request may be planned now.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.status().fence()
    }

    pub(super) fn fenced(&mut self, token: u64, fence: &Fence, request: FencedRequest) {
        if self.fence() != *fence {
            self.outputs.push_back(Output::Dropped { token, reason: DropReason::Stale });
            return;
        }
        match request {
            FencedRequest::ChangeMembership(change) => self.change_membership(token, &change),
            FencedRequest::TransferLeadership { to } => self.transfer_leadership(to),
            FencedRequest::TakeOver => self.take_over(),
        }
    }

    pub(super) fn transfer_leadership(&mut self, to: NodeId) {
        // A follower of raft would forward the request, and the leader would transfer the leadership to the
        // forwarding follower.
        if self.is_leader() && self.is_counted(to) {
            self.node.transfer_leader(to.get());
        }
    }

    /// Campaigns at once, as after a `MsgTimeoutNow` of the leader: the voters grant their votes although
    /// they have a leader (Ongaro 2014, section 4.2.3). It needs no answer of that leader.
    pub(super) fn take_over(&mut self) {
        // raft calls a voter promotable.
        if self.is_leader() || !self.node.raft.promotable() || !self.may_campaign() {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgTimeoutNow);
        (message.from, message.to) = (self.options.id.get(), self.options.id.get());
        message.term = self.node.raft.term;
        // The only error is that of a message from a node that is no member.
        let _ = self.node.raft.step(message);
    }
}
