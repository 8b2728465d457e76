//! Datagrams on their way.

use core::time::Duration;

use x0_identity::NodeId;

use super::super::frame::Header;
use super::super::link::Sent;
use super::super::{DatagramError, Output};
use super::Datagrams;
use crate::liveness::LivenessInput;
use crate::router::{LinkId, Packet};

/// A datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    NoRoute,
    TooLong,
}

impl Datagrams {
    /// Sends a datagram. It may be lost, repeated or overtaken.
    ///
    /// # Errors
    /// [`DatagramError`]; it was not sent.
    pub fn send(&mut self, now: Duration, to: NodeId, payload: &[u8]) -> Result<(), DatagramError> {
        self.send_as(now, to, payload, false)
    }

    /// Sends a message of the mesh itself, which the other node receives as [`Output::Message`]. It may be
    /// lost, repeated or overtaken.
    ///
    /// # Errors
    /// [`DatagramError`]; it was not sent.
    pub fn send_message(&mut self, now: Duration, to: NodeId, payload: &[u8]) -> Result<(), DatagramError> {
        self.send_as(now, to, payload, true)
    }

    fn send_as(
        &mut self,
        now: Duration,
        to: NodeId,
        payload: &[u8],
        is_message: bool,
    ) -> Result<(), DatagramError> {
        self.now = self.now.max(now);
        if to == self.local {
            return Err(DatagramError::ToSelf { to });
        }
        let mtu = self.mtu(to).ok_or(DatagramError::NoRoute { to })?;
        if payload.len() > mtu {
            return Err(DatagramError::TooLong { len: payload.len(), mtu });
        }
        let hop_limit = self.options.hop_limit;
        let header = Header { hop_limit, announces: false, is_message, label: 0, bound: None };
        let result = self.forward(None, (to, self.local), header, payload);
        self.settle();
        match result {
            Ok(()) => {
                self.stats.sent += 1;
                Ok(())
            }
            Err(Drop::NoRoute) => Err(DatagramError::NoRoute { to }),
            Err(Drop::TooLong) => Err(DatagramError::TooLong { len: payload.len(), mtu }),
        }
    }

    /// Sends a datagram to the next hop. `nodes` are its destination and its source.
    pub(super) fn forward(
        &mut self,
        from: Option<NodeId>,
        nodes: (NodeId, NodeId),
        header: Header,
        payload: &[u8],
    ) -> Result<(), Drop> {
        let packet = Packet { destination: nodes.0, from, bound: header.bound };
        let hop = self.router.forward(&packet).map_err(|_| Drop::NoRoute)?;
        // Without a session the neighbour would refuse it.
        let sessions = self.sessions(hop.peer).ok_or(Drop::NoRoute)?;
        let header = Header { bound: hop.bound, ..header };
        self.transmit(hop.link, nodes, header, payload, sessions)
    }

    fn transmit(
        &mut self,
        id: LinkId,
        nodes: (NodeId, NodeId),
        header: Header,
        payload: &[u8],
        sessions: (u32, u32),
    ) -> Result<(), Drop> {
        let now = self.now;
        let link = self.links.get_mut(&id).ok_or(Drop::NoRoute)?;
        let (port, to) = (link.port, link.address);
        let frame = match link.datagram(now, nodes, header, payload, sessions) {
            Sent::Frame(frame) => Some(frame),
            Sent::Waits(announcement, is_dropped) => {
                self.stats.unlabelled += u64::from(is_dropped);
                announcement
            }
            Sent::TooLong => return Err(Drop::TooLong),
        };
        if let Some(frame) = frame {
            self.outputs.push_back(Output::Transmit { port, to, frame });
        }
        link.detect(now, LivenessInput::Sent);
        self.touched.push(id);
        if link.takes_renewal() {
            self.outputs.push_back(Output::RenewKeys { link: id });
        }
        Ok(())
    }

    /// Sends what waited for a label of a link. What still has none waits again.
    pub(super) fn send_waiting(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        let waiting = link.take_waiting();
        let Some(sessions) = self.sessions(peer) else { return };
        for (nodes, header, payload) in waiting {
            if self.transmit(id, nodes, header, &payload, sessions).is_err() {
                self.stats.too_long += 1;
            }
        }
    }
}
