//! The router of a node, with what it answered last.

use core::time::Duration;

use x0_identity::NodeId;

use crate::router::{NextHop, Output, Packet, Router};

/// The sessions with a neighbour: this node's, then the neighbour's.
pub(super) type Sessions = (u32, u32);

/// The router of a node. The next hop of a datagram and the sessions with a neighbour are kept for the next
/// datagram, which mostly goes the same way. Only this module reaches the router to change it, by
/// [`Routes::change`], which forgets both: no caller has to.
#[derive(Debug)]
pub(super) struct Routes {
    router: Router,
    way: Option<(Packet, NextHop, Sessions)>,
    sessions: Option<(NodeId, Sessions)>,
    /// Whether there may be outputs.
    is_changed: bool,
    timeout: Option<Duration>,
}

impl Routes {
    pub(super) fn new(router: Router) -> Routes {
        let timeout = router.poll_timeout();
        Routes { router, way: None, sessions: None, is_changed: true, timeout }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// The router, for what may change it.
    pub(super) fn change(&mut self) -> &mut Router {
        self.forget();
        self.is_changed = true;
        &mut self.router
    }

    fn forget(&mut self) {
        self.way = None;
        self.sessions = None;
    }

    /// The next output of the router. To be taken until there is none: then a datagram that changes nothing
    /// does not make it look at all of its neighbours.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        if !self.is_changed {
            return None;
        }
        let output = self.router.poll_output();
        self.forget();
        if output.is_none() {
            self.is_changed = false;
            self.timeout = self.router.poll_timeout();
        }
        output
    }

    /// When the router wants to be woken, as long as there are no outputs.
    pub(super) fn timeout(&self) -> Option<Duration> {
        debug_assert!(
            self.is_changed || self.timeout == self.router.poll_timeout(),
            "the router has changed without a note"
        );
        self.timeout
    }

    /// Where a packet goes, and the sessions with that neighbour; `None` if it is to be dropped. Without a
    /// session the neighbour would refuse it.
    pub(super) fn next_hop(&mut self, packet: &Packet) -> Option<(NextHop, Sessions)> {
        if let Some((_, hop, sessions)) = self.way.filter(|(known, ..)| known == packet) {
            return Some((hop, sessions));
        }
        let hop = self.router.forward(packet).ok()?;
        let sessions = self.ask_sessions(hop.peer)?;
        self.way = Some((*packet, hop, sessions));
        Some((hop, sessions))
    }

    fn ask_sessions(&self, peer: NodeId) -> Option<Sessions> {
        self.router.session(peer).map(|session| (session.local, session.remote))
    }

    /// The sessions with a neighbour, once both ends agree on them.
    pub(super) fn sessions(&mut self, peer: NodeId) -> Option<Sessions> {
        if let Some((_, sessions)) = self.sessions.filter(|(known, _)| *known == peer) {
            return Some(sessions);
        }
        let sessions = self.ask_sessions(peer)?;
        self.sessions = Some((peer, sessions));
        Some(sessions)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, VecDeque};
    use alloc::vec::Vec;
    use core::net::SocketAddr;
    use core::time::Duration;

    use super::super::super::{DatagramOptions, Datagrams, FrameKeys, Input, Output, PortId, PortOptions};
    use super::*;
    use crate::router::{self, LinkCost, LinkId, RouterOptions, Session};

    const PORT: PortId = PortId(0);

    fn node(at: usize) -> NodeId {
        NodeId::new(at as u64 + 1).unwrap()
    }

    fn address(at: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], u16::try_from(at).unwrap()))
    }

    /// Two neighbours, and frames of the first one that have not arrived.
    struct Pair {
        now: Duration,
        ends: [Datagrams; 2],
        flying: VecDeque<Vec<u8>>,
    }

    impl Pair {
        fn new() -> Pair {
            let mut ends = [0, 1].map(|at| Datagrams::new(node(at), DatagramOptions::new(at as u64 + 1)));
            for (at, end) in ends.iter_mut().enumerate() {
                end.add_port(PORT, PortOptions::new(1232));
                let (peer, address) = (node(1 - at), address(1 - at));
                let keys = FrameKeys::new(&[5; FrameKeys::MATERIAL_LEN], at == 0);
                end.handle(Duration::ZERO, Input::Keyed { port: PORT, peer, number: 0, address, keys })
                    .unwrap();
            }
            let mut pair = Pair { now: Duration::ZERO, ends, flying: VecDeque::new() };
            // The label of a datagram becomes known on the way.
            while pair.ends[1].stats().received == 0 || pair.now < Duration::from_secs(2) {
                if pair.ends[1].stats().received == 0 {
                    let _ = pair.ends[0].send(pair.now, node(1), b"label");
                }
                pair.step();
                while let Some(mut frame) = pair.flying.pop_front() {
                    pair.arrive(&mut frame);
                }
            }
            pair
        }

        fn collect(&mut self) -> Vec<Vec<u8>> {
            let mut sent = Vec::new();
            while let Some(output) = self.ends[0].poll_output() {
                if let Output::Transmit { frames, .. } = output {
                    sent.extend(frames.items().map(<[u8]>::to_vec));
                }
            }
            sent
        }

        /// Time passes until something is due. Frames of the second one arrive at once.
        fn step(&mut self) {
            self.now = self.ends.iter().filter_map(Datagrams::poll_timeout).min().unwrap().max(self.now);
            for end in &mut self.ends {
                end.handle(self.now, Input::Timeout).unwrap();
            }
            self.answer();
        }

        fn answer(&mut self) {
            while let Some(output) = self.ends[1].poll_output() {
                let Output::Transmit { mut frames, .. } = output else { continue };
                for frame in frames.items_mut() {
                    self.ends[0]
                        .handle(self.now, Input::Frame { port: PORT, from: address(1), frame })
                        .unwrap();
                }
            }
            let sent = self.collect();
            self.flying.extend(sent);
        }

        fn arrive(&mut self, frames: &mut [u8]) {
            let (port, from, frame_len) = (PORT, address(0), frames.len());
            self.ends[1]
                .handle(self.now, Input::Frames { port, from, frames, frame_len, is_late: false })
                .unwrap();
            self.answer();
        }

        fn session(&self) -> Option<Session> {
            self.ends[1].router().session(node(0))
        }
    }

    /// The router of a neighbour begins another session over the same link. Each of its messages arrives once
    /// between two datagrams of the old session: what comes after the session has changed is refused, because
    /// the sender may hold routes that its neighbour has forgotten.
    #[test]
    fn a_session_that_changes_within_a_batch_holds_for_the_rest_of_it() {
        let mut changed = 0;
        for number in 0.. {
            let mut pair = Pair::new();
            let old = pair.session();
            assert!(old.is_some());
            let mut datagrams: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
            for len in 0..400 {
                for _ in 0..2 {
                    pair.ends[0].send(pair.now, node(1), &alloc::vec![7; len]).unwrap();
                }
            }
            for frame in pair.collect() {
                datagrams.entry(frame.len()).or_default().push(frame);
            }
            let mut router = Router::new(node(0), RouterOptions::new(99));
            let (link, peer, cost) = (LinkId(0), node(1), LinkCost::new(256));
            router.handle(pair.now, router::Input::LinkUp { link, peer, cost }).unwrap();
            pair.ends[0].routes = Routes::new(router);
            let until = pair.now + Duration::from_secs(1);
            let mut arrived = 0;
            let frame = 'frame: loop {
                while let Some(mut frame) = pair.flying.pop_front() {
                    if arrived == number {
                        break 'frame Some(frame);
                    }
                    arrived += 1;
                    pair.arrive(&mut frame);
                }
                if pair.now > until {
                    break None;
                }
                pair.step();
            };
            let Some(frame) = frame else { break };
            // Some frames are shorter than any datagram.
            let Some([first, second]) = datagrams.get(&frame.len()).map(Vec::as_slice) else { continue };
            let (before, counts) = (pair.session(), pair.ends[1].stats());
            let mut frames = [&first[..], &frame, second].concat();
            let (port, from, frame_len) = (PORT, address(0), frame.len());
            let input = Input::Frames { port, from, frames: &mut frames, frame_len, is_late: false };
            pair.ends[1].handle(pair.now, input).unwrap();
            let (after, stats) = (pair.session(), pair.ends[1].stats());
            let taken = u64::from(before == old) + u64::from(after == old);
            let found = (stats.received - counts.received, stats.refused - counts.refused);
            assert_eq!(found, (taken, 2 - taken), "frame {number}: from {before:?} to {after:?}");
            changed += usize::from(before == old && after.is_some_and(|after| Some(after) != old));
        }
        assert_eq!(changed, 1);
    }
}
