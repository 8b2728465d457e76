//! Channels of the cluster on a mux.

use std::ops::RangeInclusive;

use x0_identity::NodeId;
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Transport};

use super::StartError;
use super::outbox::{Access, Outbox};

/// The channel of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelSpec {
    /// The name, the same on all nodes.
    pub(crate) name: &'static str,
    /// The lane that its messages use.
    pub(crate) lane: Lane,
    /// The shortest limit for messages that the service can work with, in bytes.
    pub(crate) message_len_min: usize,
    /// The most bytes that wait for a peer that accepts none.
    pub(crate) waiting_len_max: usize,
}

/// A transport with a version for each peer.
pub(crate) trait Versioned: Transport {
    /// The version that was agreed on with a peer, for the epoch whose `Up` was polled last.
    fn version(&self, peer: NodeId) -> Option<u16>;
}

impl Versioned for Channel {
    fn version(&self, peer: NodeId) -> Option<u16> {
        Channel::version(self, peer)
    }
}

impl ChannelSpec {
    /// As [`open`](ChannelSpec::open), for messages of members: those of other roles are refused.
    pub(crate) fn open_for_members(&self, mux: &Mux, access: &Access) -> Result<Outbox, StartError> {
        Ok(self.open(mux)?.for_members(self.name, access.clone()))
    }

    /// Registers the channel, with version 1 of its messages.
    ///
    /// # Errors
    /// When the mux has the channel already, or its messages are too short.
    pub(crate) fn open(&self, mux: &Mux) -> Result<Outbox, StartError> {
        self.open_versions(mux, 1..=1)
    }

    /// As [`open_for_members`](ChannelSpec::open_for_members), with these versions of its messages.
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "only this service needs it"))]
    pub(crate) fn open_versions_for_members(
        &self,
        mux: &Mux,
        versions: RangeInclusive<u16>,
        access: &Access,
    ) -> Result<Outbox, StartError> {
        Ok(self.open_versions(mux, versions)?.for_members(self.name, access.clone()))
    }

    /// As [`open`](ChannelSpec::open), with these versions of its messages.
    pub(crate) fn open_versions(
        &self,
        mux: &Mux,
        versions: RangeInclusive<u16>,
    ) -> Result<Outbox, StartError> {
        let options = ChannelOptions::new(self.name)
            .versions(versions)
            .ordered_lanes(u8::from(matches!(self.lane, Lane::Ordered(_))))
            .bulk(self.lane == Lane::Bulk)
            .datagram(self.lane == Lane::Datagram);
        let channel = mux.channel(options)?;
        let (len_max, needed) = (channel.message_len_max(self.lane), self.message_len_min);
        if len_max < needed {
            return Err(StartError::MessageLength { channel: self.name, len_max, needed });
        }
        Ok(Outbox::new(Box::new(channel), self.waiting_len_max))
    }
}
