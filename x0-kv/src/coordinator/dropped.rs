//! Reasons why the replica drops a request.

use x0_identity::NodeId;

/// The reason why a proposal or a read was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// This node is not the leader (any more). Nothing was appended and never will be; ask the leader.
    NotLeader {
        /// The leader, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Too many entries wait already. Nothing was appended; try again later.
    Full,
    /// The disk of this node, or of most members, has no space. Nothing was appended; free some space.
    NoSpace,
    /// The payload is too long, or empty. Nothing was appended.
    Length,
    /// The leadership is being transferred. Nothing was appended; try again in a moment, at the next leader.
    Transferring,
    /// The entry of another leader was committed at its index: the proposal has no effect and never will
    /// have.
    Superseded,
    /// A snapshot replaced the log before the fate was known: the proposal may or may not have taken effect.
    Unknown,
}
