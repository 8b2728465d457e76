//! Errors of registering a channel.

use super::id::ChannelId;

/// A channel was not registered. The mux and its other channels are as they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name cannot be a [`ChannelId`].
    #[error("cannot register a channel under the name {name:?}: use 1 to 47 visible ASCII characters")]
    Name {
        /// The name.
        name: String,
    },
    /// The mux already has a channel of this name.
    #[error(
        "cannot register channel {channel}: this mux already has it; drop the other channel or choose another name"
    )]
    Taken {
        /// The name.
        channel: ChannelId,
    },
    /// A setting is out of its range.
    #[error("cannot register channel {channel}: {field} must {rule}; change ChannelOptions")]
    Limit {
        /// The channel.
        channel: ChannelId,
        /// The field of [`ChannelOptions`](super::ChannelOptions).
        field: &'static str,
        /// The fault.
        rule: &'static str,
    },
    /// The mux has as many channels as it can have.
    #[error("cannot register channel {channel}: the mux has {channels_max} channels already; drop one")]
    Full {
        /// The channel.
        channel: ChannelId,
        /// How many channels a mux can have.
        channels_max: usize,
    },
}
