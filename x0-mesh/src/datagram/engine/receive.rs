//! Frames from neighbours.

use alloc::vec::Vec;
use core::net::SocketAddr;

use x0_identity::NodeId;

use super::super::frame::{CONTROL_OVERHEAD, Flood, Header, control, decode_nodes, decode_outer, kind};
use super::super::protection::Refused;
use super::super::{Output, PortId};
use super::Datagrams;
use super::send::Dropped;
use crate::liveness::LivenessInput;
use crate::router::{self, LinkId};
use crate::traversal::decode_address;

impl Datagrams {
    /// Takes a frame: finds its keys, opens it, and does what it says.
    pub(super) fn frame(&mut self, port: PortId, from: SocketAddr, frame: &mut [u8]) {
        let Some((first, index, low)) = decode_outer(frame) else {
            self.stats.refused += 1;
            return;
        };
        let refused = match self.by_index.get(&index).map_or(&[][..], Vec::as_slice) {
            [] => Refused::Forged,
            [id] => match self.try_link(*id, port, from, (first, index, low), frame) {
                Ok(()) => return,
                Err(refused) => refused,
            },
            // Two links have the same index by chance. A failed attempt leaves the bytes unusable.
            several => {
                let mut refused = Refused::Forged;
                for id in Vec::from(several) {
                    match self.try_link(id, port, from, (first, index, low), &mut frame.to_vec()) {
                        Ok(()) => return,
                        Err(Refused::Replayed) => refused = Refused::Replayed,
                        Err(Refused::Forged) => {}
                    }
                }
                refused
            }
        };
        match refused {
            Refused::Replayed => self.stats.replayed += 1,
            Refused::Forged => self.stats.refused += 1,
        }
    }

    /// Opens a frame with the keys of a link, and does what it says.
    fn try_link(
        &mut self,
        id: LinkId,
        port: PortId,
        from: SocketAddr,
        outer: (u8, u32, u32),
        frame: &mut [u8],
    ) -> Result<(), Refused> {
        let (set, plain) = self.open(id, port, from, outer, frame)?;
        self.opened(id, outer.0, set, plain);
        // The frame may have come from another address than those before.
        self.notify(id);
        Ok(())
    }

    /// Opens a frame with the keys of a link: the position of the keys, and the content.
    fn open<'a>(
        &mut self,
        id: LinkId,
        port: PortId,
        from: SocketAddr,
        (first, index, low): (u8, u32, u32),
        frame: &'a mut [u8],
    ) -> Result<(usize, &'a [u8]), Refused> {
        let peer = self.links.get(id).filter(|link| link.port == port).ok_or(Refused::Forged)?.peer;
        let sessions = match first {
            kind::CONTROL => None,
            // The sender's comes first.
            _ => Some(
                self.routes.sessions(peer).map(|(local, remote)| (remote, local)).ok_or(Refused::Forged)?,
            ),
        };
        let link = self.links.get_mut(id).ok_or(Refused::Forged)?;
        let set =
            link.key_sets().iter().position(|set| set.protection.index() == index).ok_or(Refused::Forged)?;
        let protection = &mut link.key_sets()[set].protection;
        let number = protection.check(low)?;
        let len = frame.len();
        let (plain, is_newest) = protection.open(number, frame, sessions)?;
        link.heard_at = Some(self.now);
        link.received_frames += 1;
        link.received_bytes += len as u64;
        // The neighbour is where its newest authentic frame came from.
        if is_newest {
            link.address = from;
        }
        Ok((set, plain))
    }

    /// Does what an authentic frame says.
    pub(in crate::datagram) fn opened(&mut self, id: LinkId, first: u8, set: usize, plain: &[u8]) {
        let is_valid = match first {
            kind::CONTROL => self.control(id, set, plain),
            _ => self.datagram(id, first == kind::LONG, set, plain),
        };
        self.stats.malformed += u64::from(is_valid.is_none());
    }

    fn control(&mut self, id: LinkId, set: usize, plain: &[u8]) -> Option<()> {
        let now = self.now;
        let ([kind], content) = plain.split_first_chunk::<1>()?;
        let link = self.links.get_mut(id)?;
        let peer = link.peer;
        if *kind == control::ADDRESS {
            // Sent by the clock, and therefore no traffic that both ends should be attentive for.
            let address = decode_address(content.try_into().ok()?)?;
            if link.seen_as.replace(address) != Some(address) {
                self.outputs.push(Output::AddressSeen { link: id, address });
            }
            return Some(());
        }
        // No traffic either.
        if *kind == control::LENGTH {
            let (number, _) = content.split_first_chunk::<2>()?;
            let len = u16::try_from(plain.len() + CONTROL_OVERHEAD).ok()?.to_le_bytes();
            self.send_control(id, &[&[control::ARRIVED], number, &len]);
            return Some(());
        }
        if *kind == control::ARRIVED {
            let [n0, n1, l0, l1] = *content.first_chunk::<4>().filter(|_| content.len() == 4)?;
            let len = usize::from(u16::from_le_bytes([l0, l1]));
            self.examine(id, |link| link.lengths.answered(now, u16::from_le_bytes([n0, n1]), len));
            return Some(());
        }
        self.touched.push(id);
        if *kind == control::PROBE {
            link.detection.handle(now, LivenessInput::Probe(content));
            self.rate(id);
            return Some(());
        }
        link.detection.handle(now, LivenessInput::Received);
        match *kind {
            control::ROUTER => {
                // Detection may have brought the link up just now.
                self.settle();
                // A refused message is counted by the router, and has no effect.
                let _ =
                    self.routes.change().handle(now, router::Input::Message { link: id, message: content });
            }
            control::LABEL => {
                let label = u16::from_le_bytes(content.try_into().ok()?);
                link.key_sets().get_mut(set)?.labels.acknowledge(label);
                self.send_waiting(id);
            }
            control::FLOOD => {
                let (flood, payload) = Flood::decode(content)?;
                if flood.origin == self.local || !self.seen.insert(flood.origin, flood.number) {
                    self.stats.flood_duplicates += 1;
                    return Some(());
                }
                self.stats.floods += 1;
                self.outputs.push(Output::Flood { origin: flood.origin, payload: payload.to_vec() });
                // A node that offers no routes carries no messages of others.
                if flood.hop_limit > 1 && self.options.router.relay.is_some() {
                    self.spread(Flood { hop_limit: flood.hop_limit - 1, ..flood }, payload, Some(peer));
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn datagram(&mut self, id: LinkId, is_long: bool, set: usize, plain: &[u8]) -> Option<()> {
        let link = self.links.get_mut(id)?;
        let peer = link.peer;
        if link.detection.handle(self.now, LivenessInput::Received) {
            self.touched.push(id);
        }
        let (header, rest) = Header::decode(plain)?;
        let labels = &mut link.key_sets().get_mut(set)?.labels;
        let (nodes, payload) = if is_long {
            let (destination, source, payload) = decode_nodes(rest)?;
            let nodes = (destination, source);
            if header.label != 0 {
                if !labels.learn(header.label, nodes) {
                    return None;
                }
                let (port, to) = (link.port, link.address);
                if let Some(frame) = link.acknowledgement(set, header.label) {
                    self.outputs.control(port, to, frame);
                }
            }
            (nodes, payload)
        } else {
            (labels.nodes(header.label)?, rest)
        };
        if header.announces {
            return (is_long && payload.is_empty()).then_some(());
        }
        self.arrived(peer, nodes, header, payload);
        Some(())
    }

    /// A datagram is at this node: for it, or to be sent on.
    fn arrived(&mut self, peer: NodeId, nodes: (NodeId, NodeId), header: Header, payload: &[u8]) {
        let (destination, source) = nodes;
        let ecn = if self.is_late { header.ecn.behind_queue() } else { header.ecn };
        if destination == self.local {
            self.silence.heard(source);
            if header.is_message {
                self.outputs.push(Output::Message { source, payload: payload.to_vec() });
            } else {
                self.stats.received += 1;
                self.outputs.datagram(source, ecn, payload);
            }
            return;
        }
        if header.hop_limit <= 1 {
            self.stats.hop_limit += 1;
            return;
        }
        // Only a late datagram, or that of a misbehaving neighbour, comes to a node that offers no routes.
        if self.options.router.relay.is_none() {
            self.stats.relay_refused += 1;
            return;
        }
        let header = Header { hop_limit: header.hop_limit - 1, ecn, ..header };
        match self.forward(Some(peer), nodes, header, payload) {
            Ok(()) => {
                self.stats.relayed += 1;
                self.stats.relayed_bytes += payload.len() as u64;
            }
            Err(Dropped::NoRoute) => self.stats.no_route += 1,
            Err(Dropped::TooLong) => self.stats.too_long += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::super::{Batch, DatagramOptions, Ecn, FrameKeys, Input, PortOptions};
    use super::*;
    use crate::router::RouterOptions;

    /// A neighbour sends a datagram for another node, as if this one offered routes.
    #[test]
    fn a_node_that_does_not_relay_drops_and_counts_what_is_for_others() {
        let node = |number| NodeId::new(number).unwrap();
        let options = DatagramOptions::new(1).router(RouterOptions::new(1).relay(None));
        let mut end = Datagrams::new(node(1), options);
        let (port, address) = (PortId(0), SocketAddr::from(([10, 0, 0, 1], 2)));
        end.add_port(port, PortOptions::new(1232));
        let keys = FrameKeys::new(&[3; FrameKeys::MATERIAL_LEN], true);
        end.handle(Duration::ZERO, Input::Keyed { port, peer: node(2), number: 0, address, keys }).unwrap();
        let (is_message, ecn) = (false, Ecn::Ect0);
        let header = Header { hop_limit: 9, announces: false, is_message, ecn, label: 0, bound: None };
        for (destination, flag) in [(3, false), (1, false), (1, true)] {
            let header = Header { is_message: flag, ..header }.encode();
            let nodes = [node(destination), node(2)].map(|node| node.get().to_le_bytes()).concat();
            end.opened(LinkId(0), kind::LONG, 0, &[&header[..], &nodes, b"payload"].concat());
        }
        let outputs: Vec<Output> = core::iter::from_fn(|| end.poll_output()).collect();
        let (source, payload) = (node(2), b"payload".to_vec());
        let payloads = Batch::one(payload.clone());
        assert!(outputs.contains(&Output::Datagrams { source, ecn, payloads }));
        assert!(outputs.contains(&Output::Message { source, payload }));
        let stats = end.stats();
        assert_eq!((stats.relay_refused, stats.relayed, stats.no_route, stats.received), (1, 0, 0, 1));
        // An address of a neighbour is taken, and reported when it changes.
        for (port, is_new) in [(7001, true), (7001, false), (7002, true)] {
            let content =
                [&[control::ADDRESS][..], &crate::traversal::encode_address(([192, 0, 2, 1], port).into())];
            end.opened(LinkId(0), kind::CONTROL, 0, &content.concat());
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            let output = Output::AddressSeen { link: LinkId(0), address };
            assert_eq!(core::iter::from_fn(|| end.poll_output()).any(|next| next == output), is_new);
        }
        end.opened(LinkId(0), kind::CONTROL, 0, &[control::ADDRESS, 1, 2]);
        assert_eq!(end.stats().malformed, 1);
    }
}
