//! The status of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use x0_consensus::{Membership, Standing};
use x0_identity::NodeId;

use super::peers::Peers;
use super::services::consensus::ReplicaStatus;
use super::waiting::WaitingStatus;
use crate::request::member::Members;
use crate::scrub::ScrubStatus;
use crate::space::{Space, SpaceStatus};

/// The status of a node, as the node itself reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Which node.
    pub node: NodeId,
    /// The leader, as far as the node knows; the node itself if it is the leader.
    pub leader: Option<NodeId>,
    /// The term it is in.
    pub term: u64,
    /// The last log index that it knows to be on a majority's disks.
    pub committed: u64,
    /// The last log index whose effects its reads show.
    pub applied: u64,
    /// The membership, as far as the node knows.
    pub membership: Membership,
    /// Addresses and incarnation of each member, as of `applied`.
    pub members: Arc<Members>,
    /// The other nodes, and clients, that it reaches now.
    pub reached: BTreeSet<NodeId>,
    /// Whether it may vote and acknowledge.
    pub standing: Standing,
    /// The highest index that each other member was seen to have acknowledged, by this node as a leader.
    pub acknowledged: BTreeMap<NodeId, u64>,
    /// How many messages it could not read since it started: of another version, or damaged.
    pub decode_errors: u64,
    /// The space on its disk.
    pub space: SpaceStatus,
    /// How many messages it refused since it started because of the role of their sender.
    pub refused_messages: u64,
    /// The totals of the scrub since the node started.
    pub scrub: ScrubStatus,
    /// How often its files were set aside because of damage, as far as the folders `damaged-N` are still
    /// there.
    pub set_aside: u64,
    /// The index of the log entry that made the membership. Two nodes with one index have one membership.
    pub membership_index: u64,
    /// The time from the last message of each other member to the last turn of the event loop, leader or not;
    /// see [`x0_consensus::Status::last_messages`].
    pub last_message_ages: BTreeMap<NodeId, Duration>,
    /// The age of the oldest write of the log that is not yet on the disk; zero without one.
    pub write_age: Duration,
    /// How long the last write of the log took until it was on the disk.
    pub write_latency: Option<Duration>,
    /// How long the last batch of entries took until it was applied.
    pub apply_latency: Option<Duration>,
    /// The operations that wait at the node.
    pub waiting: WaitingStatus,
    /// How many clients have reported in the last 10 s that attempts at this member had no answer in time.
    /// The members may reach each other, and a member that serves no client does not know it.
    pub reported: BTreeMap<NodeId, u64>,
}

/// Reads the status of a node from any thread, also when the event loop of the node does not run. It keeps
/// nothing of the node running.
#[derive(Debug, Clone)]
pub struct StatusHandle {
    pub(super) id: NodeId,
    pub(super) replica: ReplicaStatus,
    pub(super) peers: Arc<Peers>,
    pub(super) space: Space,
}

impl StatusHandle {
    /// The status, as of the last turn of the event loop.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus::new(self.id, &self.replica, &self.peers, self.space.status())
    }
}

impl NodeStatus {
    pub(super) fn new(node: NodeId, status: &ReplicaStatus, peers: &Peers, space: SpaceStatus) -> NodeStatus {
        let (replica, now) = status.get_as_of();
        let age = |(node, at): (&NodeId, &Duration)| (*node, now.saturating_sub(*at));
        NodeStatus {
            node,
            leader: replica.leader,
            term: replica.term,
            committed: replica.commit_index,
            applied: replica.applied_index,
            last_message_ages: replica.last_messages.iter().map(age).collect(),
            write_age: replica.write_age(now),
            membership: replica.membership,
            members: status.members(),
            reached: peers.reached(),
            standing: replica.standing.clone(),
            acknowledged: replica.acknowledged.iter().map(|(node, seen)| (*node, seen.index)).collect(),
            decode_errors: peers.decode_error_count(),
            space,
            refused_messages: peers.refused_count(),
            scrub: peers.scrub(),
            set_aside: peers.set_aside_count(),
            membership_index: replica.membership_index,
            write_latency: replica.write_latency,
            apply_latency: replica.apply_latency,
            waiting: peers.waiting().get(),
            reported: peers.reports().counts(now),
        }
    }

    /// Whether it leads, by its own account.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.node)
    }
}
