//! Counts of a mux.

/// Counts of a [`Mux`](super::Mux) since it was made. The counts never fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MuxStats {
    /// Channels that a peer offered and that this node had not registered. The peer gets
    /// [`SendError::NoChannel`](crate::SendError::NoChannel).
    pub unknown_channels: u64,
    /// Messages of sessions that had ended when they arrived. Their senders get a `Down` for that epoch.
    pub stale_messages: u64,
    /// Datagrams that found no room, and messages on lanes that the channel lacks.
    pub dropped_messages: u64,
    /// How often a peer broke the protocol of the mux. Its channels stay down until it connects again.
    pub violations: u64,
}
