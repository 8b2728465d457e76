//! Errors of membership changes.

use x0_identity::NodeId;

fn remedy(leader: Option<NodeId>) -> String {
    leader.map_or_else(|| "ask again when there is one".into(), |leader| format!("ask node {leader}"))
}

/// Why the membership was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node is not the leader. The membership is as it was.
    #[error("cannot change the membership: this node is not the leader; {}", remedy(*.leader))]
    NotLeader {
        /// The leader, if this node knows one.
        leader: Option<NodeId>,
    },
    /// Another change is in progress, or this leader was elected a moment ago. The membership is as it was.
    #[error("cannot change the membership: another change is in progress; try again in a moment")]
    InProgress,
    /// The members already are as the change would make them, or no voter would remain. The membership is as
    /// it was.
    #[error(
        "cannot change the membership: the members already have these roles, no voter would remain, or the leader has never heard of a \
         new voter, which must be a learner first; compare with `Node::status`"
    )]
    Invalid,
    /// Another leader took over. The change may or may not have been made.
    #[error(
        "the leader changed before the membership change was confirmed; look in `Node::status` whether it was made"
    )]
    Unknown,
    /// The node has stopped. The change may or may not have been made.
    #[error(
        "the node stopped before the membership change was confirmed; look in the status of another node whether it was made"
    )]
    Closed,
}
