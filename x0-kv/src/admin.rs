//! The administration of a cluster: members, roles and the leader.
//!
//! An [`AdminEngine`] runs beside each replica. A request of an operator may arrive at any member. A member
//! that is not the leader forwards it; the leader decides by what it knows of the group: a change that would
//! lose the quorum, or promote a learner that lags, is refused with the reason. The change of the membership
//! carries the term and the membership on which the leader decided ([`Fence`](x0_consensus::Fence)): if they
//! have changed meanwhile, the leader decides again. A change of the membership and of the member table is
//! made step by step, in an order in which each step can be repeated, so that a request whose result is not
//! known may be sent again.
//!
//! | request | steps |
//! |---|---|
//! | add | addresses into the member table, then the learner into the membership |
//! | promote | the learner becomes a voter |
//! | demote | the voter becomes a learner; a leader hands over first |
//! | remove | out of the membership, then out of the member table; a leader hands over first |
//! | replace | the learner becomes a voter and the other member leaves, in one joint change; then the table |
//! | transfer | the leadership goes to a voter that the leader reaches |
//!
//! A request may be planned on a set of voters (`Planned`), and is refused when the voters are others.
//!
//! A member also sends its own addresses to the leader when the member table lacks them.
//!
//! # Roles
//! The role of an identity ([`PeerRole`]) decides which messages of a peer are accepted. Requests are
//! accepted of operators, and of members that forward them. The engine owns no replica, socket or clock: a
//! driver carries its [`Output`]s out.

mod decision;
mod engine;
pub(crate) mod message;
mod request;
mod role;
#[cfg(test)]
mod tests;

pub use self::decision::{Group, Progress};
pub use self::engine::{AdminEngine, HandleError, Input, Output, StepError};
pub use self::request::{
    AdminError, AdminReply, AdminRequest, MemberInfo, MemberList, MemberRole, PROMOTE_LAG_MAX, REACHED_LIMIT,
};
pub use self::role::{PeerRole, PeerRoles};
