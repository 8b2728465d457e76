//! Why the log did not take something.

use x0_identity::NodeId;

/// Why a proposal or a read was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// This node does not lead (any more). Nothing was appended and never will be; ask the leader.
    NotLeader {
        /// Who does, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Too much is waiting already. Nothing was appended; try again later.
    Full,
    /// The disk has no space for it, here or on most members. Nothing was appended; free some space.
    NoSpace,
    /// Too long, or empty. Nothing was appended.
    Length,
    /// The leadership is being handed over. Nothing was appended; try again in a moment, at the next leader.
    Transferring,
    /// Another leader's entry was committed in its place: it has no effect and never will have.
    Superseded,
    /// A snapshot took the place of the log before its fate was seen: it may or may not have taken effect.
    Unknown,
}
