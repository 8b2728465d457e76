//! The state of the driver, and one round of its work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use x0_identity::NodeId;

use super::address::address;
use super::findings::Findings;
use super::packets::Packets;
use super::port::{Port, PortFacts};
use super::senders::{Sender, Senders};
use crate::datagram::{
    Batch, DatagramError, Datagrams, Ecn, FrameKeys, HandleError, Input, LinkFacts, Output, PortId, is_frame,
};
use crate::link::{LinkEvent, ReceivedFrames};
use crate::liveness::LivenessState;
use crate::router::{LinkId, Report};
use crate::trace;
use crate::traversal::TraversalStats;

#[cfg(test)]
mod tests;

/// A port from which so many frames were received without a pause, for so long, has a queue that lasts.
/// Datagrams are marked then, so that senders slow down long before frames are lost, and ordered messages do
/// not wait behind a transfer. The count excuses a process that was not scheduled, the time a fast burst.
const QUEUE_FRAMES: usize = 128;
const QUEUE_TIME: Duration = Duration::from_micros(500);
/// Bytes of datagrams that wait for more: a batch for each of two calls of quinn, or less.
const DEFERRED_LEN_MAX: usize = 48 << 10;
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

/// What has changed since the driver's last look.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Changes {
    pub(super) links: bool,
    pub(super) routes: bool,
    /// Messages of the mesh itself, or nodes that are sent to over a relay.
    pub(super) messages: bool,
}

/// The keys of a connection are not used. Nothing changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyedError {
    /// This node has dialled, and links to other addresses of the peer have all numbers.
    NoNumber,
    Refused(HandleError),
}

/// The state of the driver. Its methods never wait.
pub(super) struct Core {
    pub(super) engine: Datagrams,
    ports: Vec<Port>,
    /// When the SVID of each link's peer expires.
    expiries: BTreeMap<LinkId, SystemTime>,
    /// The address that each link was last dialled at. A link that is down may lead to another one.
    dialled: BTreeMap<LinkId, SocketAddr>,
    clock_check: Duration,
    /// Links that want new keys.
    pub(super) renewals: BTreeSet<LinkId>,
    pub(super) changes: Changes,
    kept: BTreeMap<NodeId, VecDeque<(Ecn, Vec<u8>)>>,
    /// Whether direct paths are sought; else the next two remain empty.
    pub(super) traverses: bool,
    pub(super) messages: VecDeque<(NodeId, Vec<u8>)>,
    pub(super) traversal: Option<TraversalStats>,
    /// Nodes that this node has sent to over a relay since the last look.
    pub(super) relayed: BTreeSet<NodeId>,
    pub(super) findings: Findings,
    pub(super) floods: VecDeque<(NodeId, Vec<u8>)>,
    pub(super) flood_waker: Option<Waker>,
    /// The driver's task, and when it wakes up by itself.
    waker: Option<Waker>,
    armed: Option<Duration>,
    senders: Senders,
    /// Bytes of datagrams that the engine holds until the driver runs.
    deferred_len: usize,
    datagrams: Arc<Packets>,
    buffer: Vec<u8>,
}

impl Core {
    pub(super) fn new(engine: Datagrams, ports: Vec<Port>, datagrams: Arc<Packets>) -> Core {
        Core {
            engine,
            ports,
            expiries: BTreeMap::new(),
            dialled: BTreeMap::new(),
            clock_check: Duration::ZERO,
            renewals: BTreeSet::new(),
            changes: Changes::default(),
            kept: BTreeMap::new(),
            traverses: false,
            messages: VecDeque::new(),
            traversal: None,
            relayed: BTreeSet::new(),
            findings: Findings::default(),
            floods: VecDeque::new(),
            flood_waker: None,
            waker: None,
            armed: None,
            senders: Senders::default(),
            deferred_len: 0,
            datagrams,
            buffer: Vec::new(),
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
            port.flush(cx, &mut self.engine);
        }
        self.judge_ports(now);
        let timeout = self.engine.poll_timeout();
        let ports = self.ports.iter().filter_map(Port::timeout);
        let expiry = self.expiries.first_key_value().map(|_| self.clock_check);
        self.armed = timeout.into_iter().chain(expiry).chain(ports).min();
        (self.armed, is_more)
    }

    /// Takes frames and packets of a port: whether more may be waiting.
    fn receive(&mut self, number: usize, now: Duration, cx: &mut Context<'_>) -> bool {
        let Some(port) = self.ports.get_mut(number) else { return false };
        // Ports are numbered by this driver, from 0.
        let id = PortId(u32::try_from(number).unwrap_or(u32::MAX));
        if port.reopen(now)
            && let Some(link) = &port.link
        {
            let (mtu, address) = (link.mtu(), link.local());
            // The port exists.
            let _ = self.engine.handle(now, Input::MtuChanged { port: id, mtu });
            let _ = self.engine.handle(now, Input::AddressChanged { port: id });
            port.socket.set_local(address);
            self.changes.links = true;
        }
        if port.link.is_some() {
            // Before the frames: packets of handshakes leave also while there are always more frames.
            port.socket.set_driver(cx.waker());
            while let Some((to, packet)) = port.socket.outgoing.pop() {
                port.push(to, packet);
            }
        }
        let Some(link) = &mut port.link else { return false };
        while let Poll::Ready(event) = link.poll_event(cx) {
            // The port exists.
            let _ = match event {
                LinkEvent::MtuChanged { mtu } => self.engine.handle(now, Input::MtuChanged { port: id, mtu }),
                LinkEvent::AddressChanged { address } => {
                    port.socket.set_local(address);
                    self.changes.links = true;
                    self.engine.handle(now, Input::AddressChanged { port: id })
                }
            };
        }
        let (since, taken_since) = *port.busy.get_or_insert((now, 0));
        let is_late = taken_since >= QUEUE_FRAMES && now >= since + QUEUE_TIME;
        let mut taken = 0;
        while taken < FRAMES_PER_ROUND {
            match link.poll_recv_many(cx, &mut self.buffer) {
                Poll::Ready(Ok(ReceivedFrames { from, frames, frame_len })) => {
                    let frame_len = frame_len.max(1);
                    taken += frames.len().div_ceil(frame_len);
                    // Neither input is refused with an error.
                    if frames.chunks(frame_len).all(is_frame) {
                        let input = Input::Frames { port: id, from, frames, frame_len, is_late };
                        let _ = self.engine.handle(now, input);
                        continue;
                    }
                    // Packets of the neighbours' QUIC connection, and frames among them.
                    for frame in frames.chunks_mut(frame_len) {
                        if is_frame(frame) {
                            let _ = self.engine.handle(now, Input::Frame { port: id, from, frame });
                        } else {
                            port.socket.incoming.push(from, Ecn::NotCapable, Batch::from(&*frame));
                        }
                    }
                }
                Poll::Ready(Err(error)) => {
                    port.fail(now, &error);
                    self.changes.links = true;
                    return false;
                }
                Poll::Pending => {
                    port.busy = None;
                    return false;
                }
            }
        }
        if let Some((_, taken_since)) = &mut port.busy {
            *taken_since += taken;
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
        self.deferred_len = 0;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { port, to, frames } => {
                    let port = usize::try_from(port.0).ok().and_then(|number| self.ports.get_mut(number));
                    if let Some(handled) = port.and_then(|port| port.push(to, frames)) {
                        self.engine.reuse(handled);
                    }
                }
                Output::Datagrams { source, ecn, payloads } => {
                    if let Some(handled) = self.datagrams.push(address(source), ecn, payloads) {
                        self.engine.reuse(handled);
                    }
                }
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
                Output::LinkChanged { link, reason: None, .. } => {
                    self.expiries.remove(&link);
                    self.dialled.remove(&link);
                    self.renewals.remove(&link);
                    self.changes.links = true;
                    self.senders.wake_all();
                }
                Output::LinkChanged { .. } => {
                    self.changes.links = true;
                    // Another link to the same neighbour may be in use now, without a change of the route.
                    self.senders.wake_all();
                }
                Output::AddressSeen { .. } => self.changes.links = true,
                Output::RenewKeys { link } => {
                    self.renewals.insert(link);
                    self.changes.links = true;
                }
                Output::RouteChanged { destination, next } => {
                    self.changes.routes = true;
                    // The path of a sender that waits may lead over another port now.
                    self.senders.wake_all();
                    trace::adapt(destination, next, || {
                        let kept = if next.is_some() { self.kept.remove(&destination) } else { None };
                        for (ecn, payload) in kept.unwrap_or_default() {
                            self.send(now, destination, ecn, &payload, payload.len());
                        }
                    });
                }
                Output::Report(report) => self.findings.add(now, report),
            }
        }
    }

    /// Sends datagrams as [`Datagrams::send_many`] does, or keeps them while there is no route. What is too
    /// long is lost, as QUIC's search for the MTU expects.
    pub(super) fn send(&mut self, now: Duration, to: NodeId, ecn: Ecn, payloads: &[u8], payload_len: usize) {
        let result = self.engine.send_many(now, to, ecn, payloads, payload_len);
        self.sent(to);
        let Err(DatagramError::NoRoute { .. }) = result else { return };
        if self.kept.len() >= KEPT_DESTINATIONS_MAX && !self.kept.contains_key(&to) {
            self.kept.pop_first();
        }
        let kept = self.kept.entry(to).or_default();
        for payload in payloads.chunks(payload_len.max(1)) {
            if kept.len() == KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back((ecn, payload.to_vec()));
        }
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

    /// As [`Core::flush`], but by the driver's task, after the caller's next datagrams if those come at once.
    /// `len` is the length of the new ones, in bytes.
    pub(super) fn flush_soon(&mut self, now: Duration, len: usize) {
        let is_first = self.deferred_len == 0;
        self.deferred_len += len;
        if self.deferred_len >= DEFERRED_LEN_MAX {
            self.flush(now);
        } else if is_first {
            self.wake();
        }
    }

    /// Sends what the engine wants at once, as far as ports take it; the driver does the rest.
    pub(super) fn flush(&mut self, now: Duration) {
        self.drain(now);
        let Some(waker) = self.waker.clone() else { return };
        // The driver's waker: a port that is busy wakes the driver.
        let mut cx = Context::from_waker(&waker);
        for port in &mut self.ports {
            port.flush(&mut cx, &mut self.engine);
        }
        self.judge_ports(now);
        let is_sooner =
            self.engine.poll_timeout().is_some_and(|at| self.armed.is_none_or(|armed| at < armed));
        if is_sooner || self.changes.links || self.changes.routes || self.changes.messages {
            waker.wake();
        }
    }

    /// Notes which ports have a queue. The others, and their senders, do not wait for them.
    fn judge_ports(&mut self, now: Duration) {
        for (number, port) in (0..).zip(&mut self.ports) {
            let is_busy = port.has_queue();
            if std::mem::replace(&mut port.is_congested, is_busy) != is_busy {
                let port = PortId(number);
                // The port exists.
                let _ = self.engine.handle(now, Input::PortBusy { port, is_busy });
                if !is_busy {
                    self.senders.wake(port);
                }
            }
        }
    }

    /// The ports at this moment.
    pub(super) fn ports(&self) -> Vec<PortFacts> {
        (0..).zip(&self.ports).map(|(number, port)| port.facts(PortId(number))).collect()
    }

    fn is_congested(&self, port: PortId) -> bool {
        let port = usize::try_from(port.0).ok().and_then(|number| self.ports.get(number));
        port.is_some_and(|port| port.is_congested)
    }

    /// Whether a sender may try to send.
    pub(super) fn poll_writable(&mut self, sender: &Arc<Sender>, waker: &Waker) -> Poll<()> {
        if let Some(port) = self.senders.blocked(sender)
            && self.is_congested(port)
        {
            self.senders.wait(port, waker);
            return Poll::Pending;
        }
        self.senders.admit(sender);
        Poll::Ready(())
    }

    /// Whether the port towards a node takes packets; if not, the sender that was admitted last on this
    /// thread has to wait.
    pub(super) fn takes(&mut self, to: NodeId) -> bool {
        let busy = if self.ports.iter().any(|port| port.is_congested) {
            self.engine.port_to(to).filter(|port| self.is_congested(*port))
        } else {
            None
        };
        self.senders.tries(busy);
        busy.is_none()
    }

    /// The sender that was admitted last on this thread sends past the mesh: it waits for no port.
    pub(super) fn passes(&mut self) {
        self.senders.tries(None);
    }

    /// The neighbours have keys, until the peer's SVID expires: the link, and its number. Without a number
    /// this node has dialled, and chooses one.
    ///
    /// # Errors
    /// [`KeyedError`]; nothing changed.
    pub(super) fn keyed(
        &mut self,
        now: Duration,
        (port, peer, address): (PortId, NodeId, SocketAddr),
        number: Option<u8>,
        keys: FrameKeys,
        expiry: SystemTime,
    ) -> Result<(LinkId, u8), KeyedError> {
        let Some(chosen) = number.or_else(|| self.engine.link_number(port, peer, address)) else {
            self.findings.add(now, Report::AddressUnused { neighbour: peer, address });
            return Err(KeyedError::NoNumber);
        };
        let input = Input::Keyed { port, peer, number: chosen, address, keys };
        self.engine.handle(now, input).map_err(KeyedError::Refused)?;
        let unknown = KeyedError::Refused(HandleError::UnknownPort { port });
        let id = self.engine.link(port, peer, chosen).ok_or(unknown)?;
        self.renewals.remove(&id);
        self.expiries.insert(id, expiry);
        if number.is_none() {
            self.dialled.insert(id, address);
            self.changes.links = true;
        } else if !self.leads_to(id, address) && self.dialled.remove(&id).is_some() {
            // The peer leads the link to another address. That which this node has dialled needs a link of
            // its own.
            self.changes.links = true;
        }
        self.clock_check = now;
        self.flush(now);
        self.wake();
        Ok((id, chosen))
    }

    /// Whether a link leads to an address that it was dialled at, and not to another one since.
    pub(super) fn leads_to(&self, link: LinkId, address: SocketAddr) -> bool {
        self.dialled.get(&link).is_some_and(|dialled| *dialled == address)
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
