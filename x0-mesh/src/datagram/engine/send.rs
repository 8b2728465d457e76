//! Datagrams on their way.

use core::time::Duration;

use x0_identity::NodeId;

use super::super::frame::Header;
use super::super::link::Sent;
use super::super::{DatagramError, Ecn, Output};
use super::Datagrams;
use crate::liveness::LivenessInput;
use crate::router::{LinkId, Packet};

/// A datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    NoRoute,
    TooLong,
}

impl Datagrams {
    /// Sends a datagram. It may be lost, repeated or overtaken.
    ///
    /// # Errors
    /// [`DatagramError`]; it was not sent.
    pub fn send(&mut self, now: Duration, to: NodeId, payload: &[u8]) -> Result<(), DatagramError> {
        self.send_many(now, to, Ecn::NotCapable, payload, payload.len())
    }

    /// Sends datagrams that are next to each other: each has `payload_len` bytes, but the last one may be
    /// shorter. Each may be lost, repeated or overtaken. They leave as one batch where that is possible.
    /// `ecn` is [`Ecn::Ect0`] if the sender slows down when datagrams arrive as [`Ecn::Congested`].
    ///
    /// # Errors
    /// [`DatagramError`]; none of them was sent, or not all of them if the path has changed in between.
    pub fn send_many(
        &mut self,
        now: Duration,
        to: NodeId,
        ecn: Ecn,
        payloads: &[u8],
        payload_len: usize,
    ) -> Result<(), DatagramError> {
        self.send_as(now, to, (payloads, payload_len), Some(ecn))
    }

    /// Sends a message of the mesh itself, which the other node receives as [`Output::Message`]. It may be
    /// lost, repeated or overtaken.
    ///
    /// # Errors
    /// [`DatagramError`]; it was not sent.
    pub fn send_message(&mut self, now: Duration, to: NodeId, payload: &[u8]) -> Result<(), DatagramError> {
        self.send_as(now, to, (payload, payload.len()), None)
    }

    /// Without a mark, they are messages of the mesh itself.
    fn send_as(
        &mut self,
        now: Duration,
        to: NodeId,
        (payloads, payload_len): (&[u8], usize),
        ecn: Option<Ecn>,
    ) -> Result<(), DatagramError> {
        self.now = self.now.max(now);
        if to == self.local {
            return Err(DatagramError::ToSelf { to });
        }
        let len = payload_len.min(payloads.len());
        let route = self.routes.router().route(to).ok_or(DatagramError::NoRoute { to })?;
        let mtu = usize::from(route.mtu);
        if len > mtu {
            return Err(DatagramError::TooLong { len, mtu });
        }
        let hop_limit = self.options.hop_limit;
        let (is_message, ecn) = (ecn.is_none(), ecn.unwrap_or_default());
        let header = Header { hop_limit, announces: false, is_message, ecn, label: 0, bound: None };
        // A single datagram without bytes is one.
        let empty = payloads.is_empty().then_some(payloads);
        self.outputs.expected = payloads.len().div_ceil(len.max(1));
        let mut result = Ok(());
        for payload in empty.into_iter().chain(payloads.chunks(len.max(1))) {
            result = self.forward(None, (to, self.local), header, payload);
            if result.is_err() {
                break;
            }
            self.stats.sent += 1;
        }
        self.outputs.expected = 1;
        // A neighbour that does not answer has a link that is down.
        if result.is_ok()
            && route.next != to
            && let Some(report) = self.silence.sent(self.now, to, route.next)
        {
            self.stats.unanswered += 1;
            self.outputs.push(Output::Report(report));
        }
        self.settle();
        result.map_err(|dropped| match dropped {
            Dropped::NoRoute => DatagramError::NoRoute { to },
            Dropped::TooLong => DatagramError::TooLong { len, mtu },
        })
    }

    /// Sends a datagram to the next hop. `nodes` are its destination and its source.
    pub(super) fn forward(
        &mut self,
        from: Option<NodeId>,
        nodes: (NodeId, NodeId),
        header: Header,
        payload: &[u8],
    ) -> Result<(), Dropped> {
        let packet = Packet { destination: nodes.0, from, bound: header.bound };
        let (hop, sessions) = self.routes.next_hop(&packet).ok_or(Dropped::NoRoute)?;
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
    ) -> Result<(), Dropped> {
        let now = self.now;
        let link = self.links.get_mut(id).ok_or(Dropped::NoRoute)?;
        let (port, to) = (link.port, link.address);
        let ecn = if self.busy.contains(&port) { header.ecn.behind_queue() } else { header.ecn };
        let header = Header { ecn, ..header };
        let frame = match link.datagram(now, nodes, header, payload, sessions, &mut self.outputs) {
            Sent::Now => None,
            Sent::Waits(announcement, is_dropped) => {
                self.stats.unlabelled += u64::from(is_dropped);
                announcement
            }
            Sent::TooLong => return Err(Dropped::TooLong),
        };
        if let Some(frame) = frame {
            self.outputs.control(port, to, frame);
        }
        if link.detection.handle(now, LivenessInput::Sent) {
            self.touched.push(id);
        }
        if link.takes_renewal() {
            self.outputs.push(Output::RenewKeys { link: id });
        }
        Ok(())
    }

    /// Sends what waited for a label of a link. What still has none waits again.
    pub(super) fn send_waiting(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else { return };
        let peer = link.peer;
        let waiting = link.take_waiting();
        let Some(sessions) = self.routes.sessions(peer) else {
            self.stats.no_route += waiting.len() as u64;
            return;
        };
        for (nodes, header, payload) in waiting {
            if self.transmit(id, nodes, header, &payload, sessions).is_err() {
                self.stats.too_long += 1;
            }
        }
    }
}
