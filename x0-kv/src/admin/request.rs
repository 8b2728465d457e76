//! Requests of operators, their answers and errors.

use std::collections::BTreeSet;
use std::time::Duration;

use x0_identity::NodeId;

use crate::request::limits::{LimitError, MEMBERS_MAX};
use crate::request::member::check_addresses;

/// The most log entries by which a learner may lag when it becomes a voter.
pub const PROMOTE_LAG_MAX: u64 = 1024;
/// A member counts as reached if the leader received a message of it within this time.
pub const REACHED_LIMIT: Duration = Duration::from_secs(2);

/// A request of an operator. Each is one step: repeated after an unknown result, it does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminRequest {
    /// List the members and the leader.
    Members,
    /// Add a learner.
    Add {
        /// The new member.
        node: NodeId,
        /// The addresses at which its peers reach it.
        addresses: Vec<String>,
    },
    /// Make a learner that has caught up a voter.
    Promote {
        /// The learner.
        node: NodeId,
    },
    /// Make a voter a learner: it stays a member and has no vote. A leader hands the leadership over before.
    Demote {
        /// The voter.
        node: NodeId,
    },
    /// Remove a member. A leader hands the leadership over before it is removed.
    Remove {
        /// The member.
        node: NodeId,
    },
    /// Make a learner that has caught up a voter and remove another member, in one change.
    Replace {
        /// The member that leaves.
        old: NodeId,
        /// The learner that takes its place.
        new: NodeId,
    },
    /// Hand the leadership over.
    Transfer {
        /// The next leader; the voter with the longest log if `None`.
        to: Option<NodeId>,
    },
    /// Carry out a request that was planned on these voters. If they are others now, it is refused, unless
    /// what remains of it changes no voter. A healer plans on what its node knows, which may be old when the
    /// request reaches the leader.
    Planned {
        /// The voters on which the request was planned.
        voters: BTreeSet<NodeId>,
        /// The request, which is not a planned one itself.
        request: Box<AdminRequest>,
    },
    /// Set the addresses of a member. A member sends this for itself when the member table lacks them.
    SetAddresses {
        /// The member.
        node: NodeId,
        /// The addresses of the member.
        addresses: Vec<String>,
    },
}

impl AdminRequest {
    /// The request itself, without the voters on which it was planned.
    pub(crate) fn plain(&self) -> &AdminRequest {
        match self {
            AdminRequest::Planned { request, .. } => request,
            request => request,
        }
    }

    /// Checks that some group can carry it out: its addresses are within the limits, a plan has one level,
    /// and no group has more voters than members. The wire has no form for another request, so that it is
    /// refused where it begins.
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        if let AdminRequest::Add { addresses, .. } | AdminRequest::SetAddresses { addresses, .. } =
            self.plain()
        {
            check_addresses(addresses).map_err(AdminError::Limit)?;
        }
        match self {
            AdminRequest::Planned { request, .. } if matches!(**request, AdminRequest::Planned { .. }) => {
                Err(AdminError::NestedPlan)
            }
            AdminRequest::Planned { voters, .. } if voters.len() > MEMBERS_MAX => {
                Err(AdminError::PlanTooLarge { voters: voters.len() })
            }
            _ => Ok(()),
        }
    }
}

/// The answer to an [`AdminRequest`] that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminReply {
    /// The members, to [`AdminRequest::Members`].
    Members(MemberList),
    /// The change is made, or was made before.
    Done,
}

/// The members as the leader knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    /// The leader.
    pub leader: NodeId,
    /// The term of the leader.
    pub term: u64,
    /// The last committed index.
    pub committed: u64,
    /// The members, ascending by id.
    pub members: Vec<MemberInfo>,
}

/// One member as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// The member.
    pub node: NodeId,
    /// The part of the member in the membership.
    pub role: MemberRole,
    /// The addresses at which its peers reach it.
    pub addresses: Vec<String>,
    /// The registered incarnation of its data folder; 0 if none is.
    pub incarnation: u64,
    /// The last log index that is known to be on its disk.
    pub matched: u64,
    /// Whether it receives a snapshot at the moment.
    pub is_receiving_snapshot: bool,
    /// Whether the leader received a message of it within [`REACHED_LIMIT`].
    pub is_reached: bool,
}

/// The part of a member in the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberRole {
    /// The member votes.
    Voter,
    /// The member receives the log and has no vote.
    Learner,
    /// The member votes until the change in progress ends.
    Leaving,
}

/// An [`AdminRequest`] was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The identity of the caller is not that of an operator. Nothing was changed.
    #[error(
        "the identity of the caller is not an operator of this cluster: use the operator's SVID, or name the caller's SPIFFE ID in `operators` of each node's configuration; nothing was changed"
    )]
    NotAnOperator,
    /// No leader was elected in time. Nothing was changed.
    #[error("the cluster has no leader: check that a majority of its voters runs; nothing was changed")]
    NoLeader,
    /// Too many requests wait. Nothing was changed.
    #[error("too many requests of operators wait: try again in a moment; nothing was changed")]
    Overloaded,
    /// Another change is in progress. Nothing was changed.
    #[error("another change of the membership is in progress: try again in a moment; nothing was changed")]
    InProgress,
    /// The voters are not those on which the request was planned. Nothing was changed.
    #[error(
        "the voters have changed since the request was planned: compare with `member list` and plan again; nothing was changed"
    )]
    Stale,
    /// A planned request is a plan itself. Nothing was changed.
    #[error(
        "the planned request is itself a planned one, which no cluster carries out: name the voters once, around the request itself; nothing was changed"
    )]
    NestedPlan,
    /// The plan names more voters than a cluster has members. Nothing was changed.
    #[error(
        "the plan of the request names {voters} voters, and a cluster has at most {MEMBERS_MAX} members: plan on the voters that `member list` shows; nothing was changed"
    )]
    PlanTooLarge {
        /// The voters of the plan.
        voters: usize,
    },
    /// The change would leave a majority of voters that the leader does not reach. Nothing was changed.
    #[error(
        "the change would lose the quorum: of the {voters} voters that it leaves the leader reaches {reached}, and {needed} are needed; start or replace the voters that are down first; nothing was changed"
    )]
    QuorumLost {
        /// The voters after the change.
        voters: u64,
        /// The voters among them that the leader reaches.
        reached: u64,
        /// The majority of them.
        needed: u64,
    },
    /// The learner has not caught up. Nothing was changed.
    #[error(
        "node {node} lags {lag} log entries behind the leader, at most {PROMOTE_LAG_MAX} are allowed: wait until `member list` shows that it has caught up; nothing was changed"
    )]
    Lagging {
        /// The learner.
        node: NodeId,
        /// How many entries it lags.
        lag: u64,
    },
    /// The leader does not reach the member. Nothing was changed.
    #[error(
        "the leader does not reach node {node}: check that it runs, and its addresses; nothing was changed"
    )]
    Unreached {
        /// The member.
        node: NodeId,
    },
    /// The node is not a member. Nothing was changed.
    #[error("node {node} is not a member: compare with `member list`; nothing was changed")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// The node has another part in the membership than the request needs. Nothing was changed.
    #[error("node {node} is not a {}: compare with `member list`; nothing was changed", .expected.name())]
    WrongRole {
        /// The node.
        node: NodeId,
        /// The part that it must have.
        expected: MemberRole,
    },
    /// The node is a member already. Nothing was changed.
    #[error("node {node} is already a member: compare with `member list`; nothing was changed")]
    AlreadyAMember {
        /// The node.
        node: NodeId,
    },
    /// There are as many members as are allowed. Nothing was changed.
    #[error("the cluster has as many members as are allowed: remove one first; nothing was changed")]
    Full,
    /// An address breaks a limit. Nothing was changed.
    #[error("an address of the request is not valid; nothing was changed")]
    Limit(#[source] LimitError),
    /// The member that was asked does not understand the request. Nothing was changed.
    #[error("the member does not understand the request: run compatible releases; nothing was changed")]
    NotUnderstood,
    /// The leader changed, or a connection was lost, before the result was known.
    #[error(
        "the result is not known: compare with `member list` and repeat the request if it was not carried out"
    )]
    Unknown,
    /// The client reaches no member. Nothing was changed.
    #[error(
        "no member is reached: check that the members run, and their addresses in the configuration; nothing was changed"
    )]
    NoMember,
    /// The node or client has stopped before the result was known.
    #[error("the node or client stopped before the result was known: compare with `member list`")]
    Closed,
}

impl MemberRole {
    /// The name of the role in messages and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemberRole::Voter => "voter",
            MemberRole::Learner => "learner",
            MemberRole::Leaving => "leaving voter",
        }
    }
}
