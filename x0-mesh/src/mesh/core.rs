//! The state of the driver, and one round of its work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use x0_identity::NodeId;

use super::address::address;
use super::packets::Packets;
use super::port_socket::PortSocket;
use crate::datagram::{
    DatagramError, Datagrams, FrameKeys, HandleError, Input, LinkFacts, Output, PortId, is_frame,
};
use crate::link::{Link, LinkEvent};
use crate::liveness::LivenessState;
use crate::router::LinkId;
use crate::trace;
use crate::traversal::TraversalStats;

/// Frames that wait for one busy port. Above it the sockets of this node are not writable; above twice as
/// many, frames are lost.
const OUTGOING_MAX: usize = 512;
/// Frames of one port that one round takes, so that ports and timers have their turns.
const FRAMES_PER_ROUND: usize = 64;
/// How long a change of the system's clock may go unnoticed.
const CLOCK_CHECK: Duration = Duration::from_secs(10);
/// Datagrams without a route that are kept for one destination, the newest; and for how many destinations.
const KEPT_MAX: usize = 8;
const KEPT_DESTINATIONS_MAX: usize = 256;
/// Messages of the mesh itself that wait for their driver, and nodes that are sent to over a relay.
const MESSAGES_MAX: usize = 64;
/// Flooded messages that wait to be taken.
const FLOODS_MAX: usize = 1024;

pub(super) struct Port {
    pub(super) link: Box<dyn Link>,
    outgoing: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(super) socket: Arc<PortSocket>,
    is_over: bool,
}

impl Port {
    pub(super) fn new(link: Box<dyn Link>, socket: Arc<PortSocket>) -> Port {
        Port { link, outgoing: VecDeque::new(), socket, is_over: false }
    }

    /// Sends what waits, as far as the link takes it.
    fn flush(&mut self, cx: &mut Context<'_>) {
        while let Some((to, frame)) = self.outgoing.front() {
            match self.link.poll_send(cx, *to, frame) {
                // A frame that was refused is lost; detection judges the link.
                Poll::Ready(_) => self.outgoing.pop_front(),
                Poll::Pending => return,
            };
        }
    }
}

/// What has changed since the driver's last look.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Changes {
    pub(super) links: bool,
    pub(super) routes: bool,
    /// Messages of the mesh itself, or nodes that are sent to over a relay.
    pub(super) messages: bool,
}

/// The state of the driver. Its methods never wait.
pub(super) struct Core {
    pub(super) engine: Datagrams,
    ports: Vec<Port>,
    /// When the SVID of each link's peer expires.
    expiries: BTreeMap<LinkId, SystemTime>,
    clock_check: Duration,
    /// Links that want new keys.
    pub(super) renewals: BTreeSet<LinkId>,
    pub(super) changes: Changes,
    kept: BTreeMap<NodeId, VecDeque<Vec<u8>>>,
    /// Whether direct paths are sought; else the next two remain empty.
    pub(super) traverses: bool,
    pub(super) messages: VecDeque<(NodeId, Vec<u8>)>,
    pub(super) traversal: Option<TraversalStats>,
    /// Nodes that this node has sent to over a relay since the last look.
    pub(super) relayed: BTreeSet<NodeId>,
    pub(super) floods: VecDeque<(NodeId, Vec<u8>)>,
    pub(super) flood_waker: Option<Waker>,
    /// The driver's task, and when it wakes up by itself.
    waker: Option<Waker>,
    armed: Option<Duration>,
    /// Senders that wait for room.
    senders: Vec<Waker>,
    datagrams: Arc<Packets>,
    frame: Vec<u8>,
}

impl Core {
    pub(super) fn new(engine: Datagrams, ports: Vec<Port>, datagrams: Arc<Packets>) -> Core {
        Core {
            engine,
            ports,
            expiries: BTreeMap::new(),
            clock_check: Duration::ZERO,
            renewals: BTreeSet::new(),
            changes: Changes::default(),
            kept: BTreeMap::new(),
            traverses: false,
            messages: VecDeque::new(),
            traversal: None,
            relayed: BTreeSet::new(),
            floods: VecDeque::new(),
            flood_waker: None,
            waker: None,
            armed: None,
            senders: Vec::new(),
            datagrams,
            frame: Vec::new(),
        }
    }

    /// One round of work: when the next is due, and whether it is due at once.
    pub(super) fn round(&mut self, now: Duration, cx: &mut Context<'_>) -> (Option<Duration>, bool) {
        match self.waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        let mut is_more = false;
        for number in 0..self.ports.len() {
            is_more |= self.receive(number, now, cx);
        }
        // After the frames that were waiting: they are the better evidence.
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            // A timeout is never refused.
            let _ = self.engine.handle(now, Input::Timeout);
        }
        self.expire(now);
        self.drain(now);
        for port in &mut self.ports {
            port.flush(cx);
        }
        if !self.is_congested() {
            self.senders.drain(..).for_each(Waker::wake);
        }
        let timeout = self.engine.poll_timeout();
        self.armed =
            timeout.into_iter().chain(self.expiries.first_key_value().map(|_| self.clock_check)).min();
        (self.armed, is_more)
    }

    /// Takes frames and packets of a port: whether more may be waiting.
    fn receive(&mut self, number: usize, now: Duration, cx: &mut Context<'_>) -> bool {
        let Some(port) = self.ports.get_mut(number) else { return false };
        // Ports are numbered by this driver, from 0.
        let id = PortId(u32::try_from(number).unwrap_or(u32::MAX));
        while let Poll::Ready(event) = port.link.poll_event(cx) {
            if let LinkEvent::MtuChanged { mtu } = event {
                // The port exists.
                let _ = self.engine.handle(now, Input::MtuChanged { port: id, mtu });
            }
        }
        for _ in 0..FRAMES_PER_ROUND {
            if port.is_over {
                return false;
            }
            match port.link.poll_recv(cx, &mut self.frame) {
                Poll::Ready(Ok(from)) if is_frame(&self.frame) => {
                    // A frame is never refused with an error.
                    let _ = self.engine.handle(now, Input::Frame { port: id, from, frame: &mut self.frame });
                }
                Poll::Ready(Ok(from)) => port.socket.incoming.push(from, self.frame.clone()),
                Poll::Ready(Err(_)) => port.is_over = true,
                Poll::Pending => {
                    port.socket.set_driver(cx.waker());
                    while let Some(packet) = port.socket.outgoing.pop() {
                        port.outgoing.push_back(packet);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Ends links whose peer's SVID has expired. TLS checks validity during the handshake only (RFC 5280
    /// §6.1.3).
    fn expire(&mut self, now: Duration) {
        if now < self.clock_check {
            return;
        }
        let clock = SystemTime::now();
        let over: Vec<LinkId> =
            self.expiries.iter().filter(|(_, at)| **at <= clock).map(|(link, _)| *link).collect();
        for link in over {
            self.expiries.remove(&link);
            // The link may have ended already.
            let _ = self.engine.handle(now, Input::Ended { link });
            self.changes.links = true;
        }
        let next = self.expiries.values().filter_map(|at| at.duration_since(clock).ok()).min();
        self.clock_check = now + next.unwrap_or(CLOCK_CHECK).clamp(Duration::from_millis(1), CLOCK_CHECK);
    }

    /// Does what the engine wants.
    fn drain(&mut self, now: Duration) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { port, to, frame } => {
                    let port = usize::try_from(port.0).ok().and_then(|number| self.ports.get_mut(number));
                    if let Some(port) = port.filter(|port| port.outgoing.len() < OUTGOING_MAX * 2) {
                        port.outgoing.push_back((to, frame));
                    }
                }
                Output::Datagram { source, payload } => self.datagrams.push(address(source), payload),
                Output::Flood { origin, payload } => {
                    if self.floods.len() < FLOODS_MAX {
                        self.floods.push_back((origin, payload));
                    }
                    if let Some(waker) = self.flood_waker.take() {
                        waker.wake();
                    }
                }
                Output::Message { source, payload } => {
                    if self.traverses && self.messages.len() < MESSAGES_MAX {
                        self.messages.push_back((source, payload));
                        self.changes.messages = true;
                    }
                }
                Output::LinkChanged { .. } | Output::AddressSeen { .. } => self.changes.links = true,
                Output::RenewKeys { link } => {
                    self.renewals.insert(link);
                    self.changes.links = true;
                }
                Output::RouteChanged { destination, next } => {
                    self.changes.routes = true;
                    trace::adapt(destination, next, || {
                        let kept = if next.is_some() { self.kept.remove(&destination) } else { None };
                        for payload in kept.unwrap_or_default() {
                            self.send(now, destination, &payload);
                        }
                    });
                }
                // Findings are counted by the router.
                Output::Report(_) => {}
            }
        }
    }

    /// Sends a datagram, or keeps it while there is no route. One that is too long is lost, as QUIC's search
    /// for the MTU expects.
    pub(super) fn send(&mut self, now: Duration, to: NodeId, payload: &[u8]) {
        let result = self.engine.send(now, to, payload);
        self.sent(to);
        let Err(DatagramError::NoRoute { .. }) = result else { return };
        if self.kept.len() >= KEPT_DESTINATIONS_MAX && !self.kept.contains_key(&to) {
            self.kept.pop_first();
        }
        let kept = self.kept.entry(to).or_default();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(payload.to_vec());
    }

    /// Notes a node that was sent to, if it is reached over a relay.
    pub(super) fn sent(&mut self, to: NodeId) {
        if !self.traverses || self.relayed.len() >= MESSAGES_MAX || self.relayed.contains(&to) {
            return;
        }
        if self.engine.router().route(to).is_some_and(|route| route.next != to) {
            self.relayed.insert(to);
            self.changes.messages = true;
        }
    }

    /// Sends a message of the mesh itself; without a route it is lost.
    pub(super) fn send_message(&mut self, now: Duration, to: NodeId, bytes: &[u8]) {
        let _ = self.engine.send_message(now, to, bytes);
        self.flush(now);
    }

    /// The neighbours on these ports whose links are not down.
    pub(super) fn neighbours(&self, ports: &[PortId]) -> BTreeSet<NodeId> {
        let links = self.engine.links();
        let is_used = |link: &LinkFacts| ports.contains(&link.port) && link.state != LivenessState::Down;
        links.filter(is_used).map(|link| link.peer).collect()
    }

    /// Sends what the engine wants at once, as far as ports take it; the driver does the rest.
    pub(super) fn flush(&mut self, now: Duration) {
        self.drain(now);
        let Some(waker) = self.waker.clone() else { return };
        // The driver's waker: a port that is busy wakes the driver.
        let mut cx = Context::from_waker(&waker);
        for port in &mut self.ports {
            port.flush(&mut cx);
        }
        let is_sooner =
            self.engine.poll_timeout().is_some_and(|at| self.armed.is_none_or(|armed| at < armed));
        if is_sooner || self.changes.links || self.changes.routes || self.changes.messages {
            waker.wake();
        }
    }

    pub(super) fn is_congested(&self) -> bool {
        self.ports.iter().any(|port| port.outgoing.len() >= OUTGOING_MAX)
    }

    /// Registers a sender for the time when there is room.
    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.senders.iter().any(|sender| sender.will_wake(waker)) {
            self.senders.push(waker.clone());
        }
    }

    /// The neighbours have keys, until the peer's SVID expires.
    ///
    /// # Errors
    /// [`HandleError`]; nothing changed.
    pub(super) fn keyed(
        &mut self,
        now: Duration,
        (port, peer, address): (PortId, NodeId, SocketAddr),
        keys: FrameKeys,
        expiry: SystemTime,
    ) -> Result<LinkId, HandleError> {
        self.engine.handle(now, Input::Keyed { port, peer, address, keys })?;
        let id = self.engine.link(port, peer).ok_or(HandleError::UnknownPort { port })?;
        self.renewals.remove(&id);
        self.expiries.insert(id, expiry);
        self.clock_check = now;
        self.flush(now);
        self.wake();
        Ok(id)
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
