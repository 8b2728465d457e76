//! Guests: peers without a node id of their own.

use core::num::NonZeroU64;

use x0_identity::NodeId;

/// Ids from here on are those of guests.
const GUEST: NonZeroU64 = match NonZeroU64::new(1 << 63) {
    Some(bit) => bit,
    None => NonZeroU64::MIN,
};

/// Whether the peer of this id is a guest: its identity is that of a workload which is not a node, such as a
/// client. A transport gives each connection of a guest an id that no node can have, so that any number of
/// processes may share one identity. The id means nothing to other nodes.
#[must_use]
pub fn is_guest(peer: NodeId) -> bool {
    peer.get() >= GUEST.get()
}

/// The id of a guest. Only the lower 63 bits of `number` count.
#[cfg(feature = "quic")]
pub(crate) fn guest(number: u64) -> NodeId {
    NodeId::from(GUEST | number)
}
