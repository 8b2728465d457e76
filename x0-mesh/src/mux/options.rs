//! Settings of a mux and of its channels.

use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;

use super::error::RegisterError;
use super::id::ChannelId;

/// Settings of a [`Mux`](super::Mux).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MuxOptions {
    /// Session numbers are drawn from it. A simulation sets it, so that a run can be repeated; in production
    /// it must differ each time that a node starts. Drawn from the system's randomness unless set.
    pub seed: u64,
}

impl Default for MuxOptions {
    fn default() -> MuxOptions {
        MuxOptions { seed: RandomState::new().hash_one("x0-mesh mux") }
    }
}

impl MuxOptions {
    /// Sets [`MuxOptions::seed`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> MuxOptions {
        self.seed = seed;
        self
    }
}

/// Settings of a [`Channel`](super::Channel). Lengths are in bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// The name under which both nodes register the channel; see [`ChannelId`] for what a name may be.
    pub name: String,
    /// The versions of the service's protocol that this node speaks. The highest one that both nodes speak is
    /// agreed on, per peer and epoch; see [`Channel::version`](super::Channel::version). `1..=1` unless set.
    pub versions: RangeInclusive<u16>,
    /// How many ordered lanes the channel has, numbered from 0: at most
    /// [`ChannelOptions::ORDERED_LANES_MAX`]. 1 unless set.
    pub ordered_lanes: u8,
    /// Whether the channel has a bulk lane. `true` unless set; without effect where the transport has none.
    pub bulk: bool,
    /// Whether the channel has a datagram lane. `true` unless set; without effect where the transport has
    /// none.
    pub datagram: bool,
    /// The byte budget of one lane with one peer: how many bytes may be on the way or wait to be received, in
    /// either direction, before the lane is full. One message may exceed it. Each message counts
    /// [`ChannelOptions::MESSAGE_COST`] bytes besides its own. From [`ChannelOptions::BUDGET_MIN`] to 1 GiB;
    /// 16 MiB unless set.
    pub lane_budget: u32,
}

impl ChannelOptions {
    /// The most ordered lanes that a channel may have.
    pub const ORDERED_LANES_MAX: u8 = 64;
    /// The smallest [`ChannelOptions::lane_budget`], in bytes.
    pub const BUDGET_MIN: u32 = 4096;
    const BUDGET_MAX: u32 = 1 << 30;
    /// How many bytes of the budget a message takes besides its own, so that empty messages are bounded too.
    pub const MESSAGE_COST: usize = 64;

    /// A channel of this name with one ordered lane, a bulk lane and a datagram lane.
    pub fn new(name: impl Into<String>) -> ChannelOptions {
        ChannelOptions {
            name: name.into(),
            versions: 1..=1,
            ordered_lanes: 1,
            bulk: true,
            datagram: true,
            lane_budget: 16 << 20,
        }
    }

    /// Sets [`ChannelOptions::versions`].
    #[must_use]
    pub fn versions(mut self, versions: RangeInclusive<u16>) -> ChannelOptions {
        self.versions = versions;
        self
    }

    /// Sets [`ChannelOptions::ordered_lanes`].
    #[must_use]
    pub fn ordered_lanes(mut self, ordered_lanes: u8) -> ChannelOptions {
        self.ordered_lanes = ordered_lanes;
        self
    }

    /// Sets [`ChannelOptions::bulk`].
    #[must_use]
    pub fn bulk(mut self, bulk: bool) -> ChannelOptions {
        self.bulk = bulk;
        self
    }

    /// Sets [`ChannelOptions::datagram`].
    #[must_use]
    pub fn datagram(mut self, datagram: bool) -> ChannelOptions {
        self.datagram = datagram;
        self
    }

    /// Sets [`ChannelOptions::lane_budget`].
    #[must_use]
    pub fn lane_budget(mut self, lane_budget: u32) -> ChannelOptions {
        self.lane_budget = lane_budget;
        self
    }

    pub(super) fn check(&self) -> Result<ChannelId, RegisterError> {
        let Some(channel) = ChannelId::new(&self.name) else {
            return Err(RegisterError::Name { name: self.name.clone() });
        };
        let refuse = |field, rule| Err(RegisterError::Limit { channel, field, rule });
        if self.versions.is_empty() {
            return refuse("versions", "hold at least one version");
        }
        if self.ordered_lanes > Self::ORDERED_LANES_MAX {
            return refuse("ordered_lanes", "be at most 64");
        }
        if !(Self::BUDGET_MIN..=Self::BUDGET_MAX).contains(&self.lane_budget) {
            return refuse("lane_budget", "be from 4096 to 1073741824 bytes");
        }
        Ok(channel)
    }
}
