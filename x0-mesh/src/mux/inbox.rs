//! Messages and events of one channel that its owner has not taken yet.

use std::collections::{BTreeMap, VecDeque};

use x0_identity::NodeId;

use super::options::ChannelOptions;
use crate::{DownReason, Lane, PeerEvent, PeerEventKind, Received};

/// An owner that does not receive gets no further session with a peer while so many wait in its inbox.
const SEGMENTS_MAX: usize = 4;
/// The same for events of one peer that were not polled.
const EVENTS_MAX: usize = 32;

/// The cost of a message, which counts against the budget of its lane.
pub(super) fn cost(len: usize) -> u64 {
    (len + ChannelOptions::MESSAGE_COST) as u64
}

#[derive(Debug)]
pub(super) struct Inbox {
    ordered_lanes: u8,
    lane_budget: u64,
    peers: BTreeMap<NodeId, PeerInbox>,
    /// Lanes that have messages, in the order of their turns.
    turns: VecDeque<(NodeId, usize)>,
    events: VecDeque<(PeerEvent, u16)>,
    last_epoch: u64,
}

/// One peer, by epoch. The messages of a later epoch, and its `Up`, wait for the last message of the one
/// before: that is the contract of `Transport` about epochs.
#[derive(Debug, Default)]
struct PeerInbox {
    segments: VecDeque<Segment>,
    /// Events that were not polled.
    unreported: usize,
    /// The version of the epoch whose `Up` was polled last, unless its `Down` was polled too.
    version: Option<u16>,
}

/// One epoch.
#[derive(Debug)]
struct Segment {
    epoch: u64,
    session: u32,
    /// The version agreed on; `None` while the peer has not accepted yet, and for an attempt that failed.
    version: Option<u16>,
    is_degraded: bool,
    down: Option<DownReason>,
    lanes: Vec<InLane>,
    /// How many messages the lanes hold.
    count: usize,
}

#[derive(Debug, Default)]
struct InLane {
    messages: VecDeque<Vec<u8>>,
    /// The costs that arrived, that the owner took, and of the latter those that the peer knows; each counted
    /// by [`cost`].
    received: u64,
    consumed: u64,
    reported: u64,
    /// Whether it is among the turns.
    is_listed: bool,
}

/// The fate of a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The owner can take it, and may not know of it yet.
    Ready,
    /// The message waits after others.
    Later,
    /// A datagram without room, or a message of a lane that the channel lacks.
    Dropped,
    /// The peer sent more than the budget of the lane.
    OverBudget,
}

/// A message that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) received: Received,
    pub(super) payload: Vec<u8>,
    /// The session, when the peer should learn how much was consumed.
    pub(super) credit: Option<u32>,
}

impl Inbox {
    pub(super) fn new(ordered_lanes: u8, lane_budget: u32) -> Inbox {
        Inbox {
            ordered_lanes,
            lane_budget: lane_budget.into(),
            peers: BTreeMap::new(),
            turns: VecDeque::new(),
            events: VecDeque::new(),
            last_epoch: 0,
        }
    }

    fn index(&self, lane: Lane) -> Option<usize> {
        match lane {
            Lane::Ordered(number) if number < self.ordered_lanes => Some(usize::from(number)),
            Lane::Ordered(_) => None,
            Lane::Bulk => Some(usize::from(self.ordered_lanes)),
            Lane::Datagram => Some(usize::from(self.ordered_lanes) + 1),
        }
    }

    fn lane(&self, index: usize) -> Lane {
        match u8::try_from(index) {
            Ok(number) if number < self.ordered_lanes => Lane::Ordered(number),
            Ok(number) if number == self.ordered_lanes => Lane::Bulk,
            _ => Lane::Datagram,
        }
    }

    /// Whether another session with this peer can begin.
    pub(super) fn has_room(&self, peer: NodeId) -> bool {
        self.peers
            .get(&peer)
            .is_none_or(|inbox| inbox.segments.len() < SEGMENTS_MAX && inbox.unreported < EVENTS_MAX)
    }

    /// Begins a session that the peer has not accepted: what arrives is kept until [`Inbox::up`].
    pub(super) fn begin(&mut self, peer: NodeId, session: u32) {
        // Also an attempt that fails takes a number: epochs rise strictly.
        self.last_epoch += 1;
        let lanes = (0..usize::from(self.ordered_lanes) + 2).map(|_| InLane::default()).collect();
        let segment = Segment {
            epoch: self.last_epoch,
            session,
            version: None,
            is_degraded: false,
            down: None,
            lanes,
            count: 0,
        };
        self.peers.entry(peer).or_default().segments.push_back(segment);
    }

    /// The session is agreed on.
    pub(super) fn up(&mut self, peer: NodeId, session: u32, version: u16) {
        let Some(inbox) = self.peers.get_mut(&peer) else { return };
        let is_front = inbox.segments.len() == 1;
        let Some(segment) = inbox.running(session) else { return };
        segment.version = Some(version);
        if is_front {
            self.start_front(peer);
        }
    }

    /// The session is over.
    pub(super) fn down(&mut self, peer: NodeId, session: u32, reason: DownReason) {
        let Some(inbox) = self.peers.get_mut(&peer) else { return };
        let Some(segment) = inbox.running(session) else { return };
        if segment.version.is_none() {
            // The epoch was never up, so nothing of it can be received.
            for lane in &mut segment.lanes {
                lane.messages.clear();
            }
            segment.count = 0;
        }
        segment.down = Some(reason);
        self.advance(peer);
    }

    /// An attempt to reach the channel of the peer failed.
    pub(super) fn failed(&mut self, peer: NodeId, reason: DownReason) {
        if !self.has_room(peer) {
            return;
        }
        self.begin(peer, 0);
        self.down(peer, 0, reason);
    }

    /// The peer does not answer, or answers again.
    pub(super) fn degraded(&mut self, peer: NodeId, is_degraded: bool) {
        let Some(inbox) = self.peers.get_mut(&peer) else { return };
        // Behind what waits to be received nothing is reported: that a peer is slow is news of this moment
        // only.
        if inbox.segments.len() != 1 {
            return;
        }
        let Some(segment) = inbox.segments.front_mut() else { return };
        let Some(version) = segment.version.filter(|_| segment.is_degraded != is_degraded) else { return };
        segment.is_degraded = is_degraded;
        let epoch = segment.epoch;
        let kind = if is_degraded { PeerEventKind::Degraded } else { PeerEventKind::Up { epoch } };
        // A change that was not polled and is undone is no news; this also bounds the queue.
        if !is_degraded
            && let Some(at) = self.events.iter().rposition(|(event, _)| event.peer == peer)
            && self.events.get(at).is_some_and(|(event, _)| event.kind == PeerEventKind::Degraded)
        {
            self.events.remove(at);
            inbox.unreported -= 1;
            return;
        }
        self.report(peer, kind, version);
    }

    /// Takes in a message of a session.
    pub(super) fn deliver(
        &mut self,
        peer: NodeId,
        session: u32,
        lane: Lane,
        message: Vec<u8>,
        len_max: usize,
    ) -> Delivered {
        let Some(index) = self.index(lane) else { return Delivered::Dropped };
        let budget = self.lane_budget;
        let Some(inbox) = self.peers.get_mut(&peer) else { return Delivered::Dropped };
        // Only the first epoch can be received from: the next one waits until the owner has taken the last
        // message of this one.
        let is_front = inbox.segments.len() == 1;
        let Some(segment) = inbox.running(session) else { return Delivered::Dropped };
        let is_up = segment.version.is_some();
        let Some(in_lane) = segment.lanes.get_mut(index) else { return Delivered::Dropped };
        let message_cost = cost(message.len());
        let waiting = in_lane.received + message_cost - in_lane.consumed;
        if lane == Lane::Datagram {
            // May be lost, and is when the owner does not keep up.
            if waiting > budget && waiting > message_cost {
                return Delivered::Dropped;
            }
        } else if in_lane.received + message_cost - in_lane.reported > budget + cost(len_max) {
            // The sender may exceed the budget by one message, so more is not an accident.
            return Delivered::OverBudget;
        }
        in_lane.received += message_cost;
        in_lane.messages.push_back(message);
        segment.count += 1;
        if !is_front || !is_up {
            return Delivered::Later;
        }
        if in_lane.is_listed {
            return Delivered::Later;
        }
        in_lane.is_listed = true;
        self.turns.push_back((peer, index));
        Delivered::Ready
    }

    /// Takes the message whose turn it is.
    pub(super) fn next_message(&mut self) -> Option<Taken> {
        let budget = self.lane_budget;
        loop {
            let (peer, index) = self.turns.pop_front()?;
            let lane = self.lane(index);
            let Some(segment) = self.peers.get_mut(&peer).and_then(|inbox| inbox.segments.front_mut()) else {
                continue;
            };
            let Some(in_lane) = segment.lanes.get_mut(index) else { continue };
            let Some(payload) = in_lane.messages.pop_front() else {
                in_lane.is_listed = false;
                continue;
            };
            in_lane.consumed += cost(payload.len());
            // A quarter: a sender is blocked when half of its budget is in use, so some of it is always under
            // way to be reported, and reports are rare.
            let is_due = lane != Lane::Datagram && in_lane.consumed - in_lane.reported >= budget / 4;
            let credit = (is_due && segment.down.is_none()).then_some(segment.session);
            in_lane.is_listed = !in_lane.messages.is_empty();
            if in_lane.is_listed {
                self.turns.push_back((peer, index));
            }
            segment.count -= 1;
            if segment.count == 0 && segment.down.is_some() {
                self.advance(peer);
            }
            return Some(Taken { received: Received { from: peer, lane }, payload, credit });
        }
    }

    /// How much of a lane was consumed, to be reported to the peer now.
    pub(super) fn credit(&mut self, peer: NodeId, session: u32, lane: Lane) -> Option<u64> {
        let index = self.index(lane)?;
        let in_lane = self.peers.get_mut(&peer)?.running(session)?.lanes.get_mut(index)?;
        in_lane.reported = in_lane.consumed;
        Some(in_lane.consumed)
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn next_event(&mut self) -> Option<PeerEvent> {
        let (event, version) = self.events.pop_front()?;
        if let Some(inbox) = self.peers.get_mut(&event.peer) {
            inbox.unreported -= 1;
            match event.kind {
                PeerEventKind::Up { .. } => inbox.version = Some(version),
                PeerEventKind::Down { .. } => inbox.version = None,
                PeerEventKind::Degraded => {}
            }
            if inbox.segments.is_empty() && inbox.unreported == 0 {
                self.peers.remove(&event.peer);
            }
        }
        Some(event)
    }

    pub(super) fn version(&self, peer: NodeId) -> Option<u16> {
        self.peers.get(&peer)?.version
    }

    /// Ends the epochs that were received as a whole, and begins the one that comes next.
    fn advance(&mut self, peer: NodeId) {
        while let Some(inbox) = self.peers.get_mut(&peer)
            && let Some(front) = inbox.segments.front_mut().filter(|front| front.count == 0)
            && let Some(reason) = front.down.take()
        {
            let epoch = front.epoch;
            inbox.segments.pop_front();
            self.report(peer, PeerEventKind::Down { epoch, reason }, 0);
            self.start_front(peer);
        }
    }

    /// Reports the first epoch of a peer, if it is agreed on, and lets its messages be received.
    fn start_front(&mut self, peer: NodeId) {
        let Some(inbox) = self.peers.get_mut(&peer) else { return };
        let Some(front) = inbox.segments.front_mut() else { return };
        let Some(version) = front.version else { return };
        let epoch = front.epoch;
        for (index, lane) in front.lanes.iter_mut().enumerate() {
            if !lane.messages.is_empty() && !lane.is_listed {
                lane.is_listed = true;
                self.turns.push_back((peer, index));
            }
        }
        self.report(peer, PeerEventKind::Up { epoch }, version);
    }

    fn report(&mut self, peer: NodeId, kind: PeerEventKind, version: u16) {
        if let Some(inbox) = self.peers.get_mut(&peer) {
            inbox.unreported += 1;
        }
        self.events.push_back((PeerEvent { peer, kind }, version));
    }
}

impl PeerInbox {
    fn running(&mut self, session: u32) -> Option<&mut Segment> {
        self.segments.back_mut().filter(|segment| segment.session == session && segment.down.is_none())
    }
}
