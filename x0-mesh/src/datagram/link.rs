//! One link: a neighbour on a port, with its keys and its detection.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::detection::Detection;
use super::frame::{CONTROL_OVERHEAD, Header, NODES_LEN, OVERHEAD, control, kind};
use super::label::{Form, Labels, Nodes};
use super::length::Lengths;
use super::outputs::Outputs;
use super::protection::Protection;
use super::{Ecn, FrameKeys, PortId};
use crate::liveness::{LivenessOptions, LivenessReason, LivenessState};
use crate::router::{LinkCost, LinkId};

/// Sets of keys that are accepted: two connections may be made at once, and the older keys are in use until
/// the newer ones are confirmed.
const KEYS_MAX: usize = 3;
/// Between two notifications of an address that is new: one may be lost.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(10);
/// Between two notifications of an address after that. It bounds for how long a neighbour that has restarted
/// within the detection time does not know its address.
const NOTIFY_INTERVAL_STABLE: Duration = Duration::from_secs(60);
/// How often an address is notified before it is stable.
const NOTIFICATIONS_NEW: u8 = 3;
/// Datagrams that wait until their label is acknowledged.
const WAITING_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) protection: Protection,
    pub(super) labels: Labels,
    is_renewal_reported: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) port: PortId,
    pub(super) peer: NodeId,
    /// Among the links to the peer on the port.
    pub(super) number: u8,
    pub(super) address: SocketAddr,
    /// The newest last. Never empty.
    keys: Vec<KeySet>,
    pub(super) detection: Detection,
    pub(super) reason: Option<LivenessReason>,
    /// Where the neighbour sees this node.
    pub(super) seen_as: Option<SocketAddr>,
    notified: Option<Notified>,
    /// Since when the link is down, or has the keys of a new connection and is not up yet.
    pub(super) down_since: Option<Duration>,
    /// Since when the link is up or degraded.
    pub(super) up_since: Option<Duration>,
    /// When the last authentic frame arrived.
    pub(super) heard_at: Option<Duration>,
    /// The timeout of the link, as [`Links`](super::links::Links) knows it.
    pub(super) due: Option<Duration>,
    /// As the router knows it; `None` while it is down.
    pub(super) cost: Option<LinkCost>,
    /// The longest frame of the port, and of the path to the neighbour.
    pub(super) lengths: Lengths,
    /// Datagrams without an acknowledged label, whose long form does not fit.
    waiting: VecDeque<(Nodes, Header, Vec<u8>)>,
    pub(super) sent_frames: u64,
    pub(super) sent_bytes: u64,
    pub(super) control_bytes: u64,
    pub(super) received_frames: u64,
    pub(super) received_bytes: u64,
}

/// The address that the neighbour was notified of, how often, and when it is notified again.
#[derive(Debug, Clone, Copy)]
struct Notified {
    address: SocketAddr,
    count: u8,
    next: Duration,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Now,
    /// The datagram waits; an announcement of its label may be due. True: an older datagram was dropped for
    /// it.
    Waits(Option<Vec<u8>>, bool),
    TooLong,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        (port, peer, number): (PortId, NodeId, u8),
        address: SocketAddr,
        frame_len_max: usize,
        liveness: LivenessOptions,
    ) -> Link {
        Link {
            id,
            port,
            peer,
            number,
            address,
            keys: Vec::new(),
            detection: Detection::new(liveness),
            reason: None,
            seen_as: None,
            notified: None,
            down_since: None,
            up_since: None,
            heard_at: None,
            due: None,
            cost: None,
            lengths: Lengths::new(frame_len_max),
            waiting: VecDeque::new(),
            sent_frames: 0,
            sent_bytes: 0,
            control_bytes: 0,
            received_frames: 0,
            received_bytes: 0,
        }
    }

    /// Adds keys, and returns the index of those that are dropped for them.
    pub(super) fn add_keys(&mut self, keys: FrameKeys) -> Option<u32> {
        let dropped = (self.keys.len() == KEYS_MAX).then(|| self.keys.remove(0).protection.index());
        let protection = Protection::new(keys);
        self.keys.push(KeySet { protection, labels: Labels::default(), is_renewal_reported: false });
        // A neighbour that has restarted within the detection time does not know its address.
        self.notified = None;
        dropped
    }

    /// Drops all keys, and returns their indices. The caller adds others.
    pub(super) fn take_keys(&mut self) -> Vec<u32> {
        self.keys.drain(..).map(|set| set.protection.index()).collect()
    }

    pub(super) fn key_sets(&mut self) -> &mut [KeySet] {
        &mut self.keys
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|set| set.protection.index())
    }

    /// The newest keys that the peer certainly has: the server of a connection has completed the handshake
    /// after its client, and a frame of the peer shows that it has the keys. Else the newest.
    fn current(&mut self) -> Option<&mut KeySet> {
        let position = self.current_position()?;
        self.keys.get_mut(position)
    }

    fn current_position(&self) -> Option<usize> {
        let is_usable = |set: &KeySet| !set.protection.is_client() || set.protection.is_confirmed();
        self.keys.iter().rposition(is_usable).or(self.keys.len().checked_sub(1))
    }

    /// The longest datagram.
    pub(super) fn mtu(&self) -> usize {
        self.lengths.limit().saturating_sub(OVERHEAD)
    }

    /// The quality of the link. A link that loses long frames is degraded.
    pub(super) fn state(&self) -> LivenessState {
        match self.detection.liveness().state() {
            LivenessState::Up if !self.lengths.is_usable() => LivenessState::Degraded,
            state => state,
        }
    }

    /// A control frame; `None` when it does not fit, or the keys are used up.
    pub(super) fn control(&mut self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>() + CONTROL_OVERHEAD;
        if len > self.lengths.max() {
            return None;
        }
        let frame = self.current()?.protection.protect(kind::CONTROL, parts, None)?;
        self.control_bytes += frame.len() as u64;
        self.count_sent(frame.len());
        Some(frame)
    }

    /// The acknowledgement of a label, under the keys that the label belongs to: each end has an opinion of
    /// its own about the newest ones, for as long as both dial.
    pub(super) fn acknowledgement(&mut self, set: usize, label: u16) -> Option<Vec<u8>> {
        let parts: [&[u8]; 2] = [&[control::LABEL], &label.to_le_bytes()];
        let frame = self.keys.get_mut(set)?.protection.protect(kind::CONTROL, &parts, None)?;
        self.control_bytes += frame.len() as u64;
        self.count_sent(frame.len());
        Some(frame)
    }

    /// A request to the peer whether a frame of some length arrives, if it is due.
    pub(super) fn length_request(&mut self, now: Duration) -> Option<Vec<u8>> {
        let (number, len) = self.lengths.poll_request(now, self.detection.liveness().sample().rtt)?;
        let padding = len.saturating_sub(CONTROL_OVERHEAD + 3);
        self.control(&[&[control::LENGTH], &number.to_le_bytes(), &alloc::vec![0; padding]])
    }

    fn count_sent(&mut self, len: usize) {
        self.sent_frames += 1;
        self.sent_bytes += len as u64;
    }

    /// Sends a datagram in the shortest form that the peer understands.
    pub(super) fn datagram(
        &mut self,
        now: Duration,
        nodes: Nodes,
        header: Header,
        payload: &[u8],
        sessions: (u32, u32),
        outputs: &mut Outputs,
    ) -> Sent {
        if payload.len() > self.mtu() {
            return Sent::TooLong;
        }
        let frame_len_max = self.lengths.limit();
        let place = (self.port, self.address);
        let Some(set) = self.current() else { return Sent::TooLong };
        let sessions = Some(sessions);
        let short_len = OVERHEAD + payload.len();
        let (len, is_sent) = match set.labels.form(nodes) {
            Form::Short { label } => {
                let header = Header { label, ..header }.encode();
                let parts: [&[u8]; 2] = [&header, payload];
                let is_sent = outputs.frame(place, short_len, |frames| {
                    set.protection.protect_into(frames, kind::SHORT, &parts, sessions)
                });
                (short_len, is_sent)
            }
            Form::Long { label } => {
                let len = short_len + NODES_LEN;
                if len > frame_len_max {
                    if label == 0 {
                        return Sent::TooLong;
                    }
                    let announcement = self.announce(now, nodes, sessions);
                    let is_dropped = self.waiting.len() == WAITING_MAX && self.waiting.pop_front().is_some();
                    self.waiting.push_back((nodes, header, payload.to_vec()));
                    return Sent::Waits(announcement, is_dropped);
                }
                let header = Header { label, ..header }.encode();
                let (destination, source) = (nodes.0.get().to_le_bytes(), nodes.1.get().to_le_bytes());
                let parts: [&[u8]; 4] = [&header, &destination, &source, payload];
                let is_sent = outputs.frame(place, len, |frames| {
                    set.protection.protect_into(frames, kind::LONG, &parts, sessions)
                });
                (len, is_sent)
            }
        };
        if !is_sent {
            return Sent::TooLong;
        }
        self.count_sent(len);
        self.lengths.sent(len);
        Sent::Now
    }

    /// A frame that announces the label of these nodes, if it is due.
    pub(super) fn announce(
        &mut self,
        now: Duration,
        nodes: Nodes,
        sessions: Option<(u32, u32)>,
    ) -> Option<Vec<u8>> {
        let set = self.current()?;
        let Form::Long { label } = set.labels.form(nodes) else { return None };
        if !set.labels.announce(nodes, now) {
            return None;
        }
        let header = Header {
            hop_limit: 1,
            announces: true,
            is_message: false,
            ecn: Ecn::NotCapable,
            label,
            bound: None,
        };
        let header = header.encode();
        let (destination, source) = (nodes.0.get().to_le_bytes(), nodes.1.get().to_le_bytes());
        let frame = set.protection.protect(kind::LONG, &[&header, &destination, &source], sessions)?;
        self.control_bytes += frame.len() as u64;
        self.count_sent(frame.len());
        Some(frame)
    }

    /// The pairs of nodes whose label has to be announced again.
    pub(super) fn announcements_due(&mut self, now: Duration) -> Vec<Nodes> {
        self.current().map_or_else(Vec::new, |set| set.labels.due(now))
    }

    /// Gives up the announcements that are due: the neighbour has no session, and would refuse them.
    pub(super) fn give_up_announcements(&mut self, now: Duration) {
        if let Some(set) = self.current() {
            set.labels.give_up(now);
        }
    }

    /// The datagrams that can be sent now, because their labels are known.
    pub(super) fn take_waiting(&mut self) -> Vec<(Nodes, Header, Vec<u8>)> {
        self.waiting.drain(..).collect()
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        // Labels under other keys are not announced any more.
        let labels = self.current_position().and_then(|position| self.keys.get(position)?.labels.timeout());
        let notification = self.notified.filter(|_| self.cost.is_some()).map(|notified| notified.next);
        let lengths = self.lengths.timeout();
        self.detection
            .liveness()
            .poll_timeout()
            .into_iter()
            .chain(labels)
            .chain(notification)
            .chain(lengths)
            .min()
    }

    /// The address that the neighbour should be notified of: when it has changed, and from time to time,
    /// because a notification may be lost.
    pub(super) fn takes_notification(&mut self, now: Duration) -> Option<SocketAddr> {
        let address = self.address;
        let known = self.notified.filter(|notified| notified.address == address);
        if self.cost.is_none() || known.is_some_and(|notified| now < notified.next) {
            return None;
        }
        let count = known.map_or(0, |notified| notified.count).saturating_add(1);
        let interval = if count < NOTIFICATIONS_NEW { NOTIFY_INTERVAL } else { NOTIFY_INTERVAL_STABLE };
        self.notified = Some(Notified { address, count, next: now + interval });
        Some(address)
    }

    /// Whether new keys are wanted: true once for each set.
    pub(super) fn takes_renewal(&mut self) -> bool {
        let Some(set) = self.current() else { return false };
        set.protection.wants_renewal() && !core::mem::replace(&mut set.is_renewal_reported, true)
    }
}
