//! The protocol engine of a mux: offers, sessions and credit. It does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

use super::error::RegisterError;
use super::frame::{CloseCode, Frame, Frames, Offer, Trailer, VERSION};
use super::id::ChannelId;
use super::inbox::{Delivered, Inbox, Taken, cost};
use super::stats::MuxStats;
use crate::random::SplitMix64;
use crate::{DownReason, Lane, PeerEvent, PeerEventKind, SendError, Violation};

/// Channels of one mux, and offers of one peer.
pub(super) const CHANNELS_MAX: usize = 256;
/// A control message is not made longer than this, in bytes, so that it fits every transport.
const CONTROL_LEN_MAX: usize = 8 << 10;
/// Frames that wait for the control lane to one peer. Only a peer that asks without end can cause more.
const FRAMES_MAX: usize = 8 * CHANNELS_MAX;

/// The protocol engine of a mux.
///
/// # Drain contract
/// After each call of [`handle`](Engine::handle) or of a method that changes it, take outputs until there are
/// none. An error of `handle` ends the sessions with that peer and leaves everything else as it was; outputs
/// are to be taken all the same. There is no `poll_timeout`: nothing here waits for time to pass.
#[derive(Debug)]
pub(super) struct Engine {
    local: NodeId,
    random: SplitMix64,
    channels: Vec<Option<Registered>>,
    names: BTreeMap<ChannelId, usize>,
    peers: BTreeMap<NodeId, Peer>,
    /// Peers for which there are control frames.
    dirty: BTreeSet<NodeId>,
    wakes: VecDeque<(usize, Wake)>,
    pub(super) stats: MuxStats,
}

/// An input of a mux.
#[derive(Debug)]
pub(super) enum Input {
    /// The transport reports an event.
    Event(PeerEvent),
    /// The transport received a message.
    Message { from: NodeId, lane: Lane, message: Vec<u8> },
}

/// An output of a mux, for its driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Send this control message.
    Control { to: NodeId, body: Vec<u8> },
    /// Wake the owner of a channel.
    Wake { slot: usize, wake: Wake },
}

/// An event that the owner of a channel may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Receiver,
    Event,
    Senders,
}

/// The input was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandleError {
    /// The peer broke the protocol; its sessions are over until it connects again.
    #[error("{peer} broke the protocol of the mux: {violation}")]
    Violation { peer: NodeId, violation: Violation },
}

/// Why a message cannot be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// The transport has not reported the peer as up.
    NotUp,
    /// The session is not agreed on yet, or the budget is used up.
    Wait,
    Refused(SendError),
}

#[derive(Debug)]
struct Registered {
    offer: Offer,
    inbox: Inbox,
    links: BTreeMap<NodeId, Link>,
}

/// A channel and one peer.
#[derive(Debug)]
struct Link {
    state: LinkState,
    /// The peer's offer, while a session is open: what every message is checked against.
    offer: Option<Offer>,
    /// The ordered lanes, then bulk.
    lanes: Vec<OutLane>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    /// Nothing is agreed on.
    Idle,
    /// We sent an `OPEN`.
    Opening {
        session: u32,
    },
    /// We got an `OPEN`, and the inbox has no room for another epoch.
    Deferred {
        session: u32,
    },
    Open {
        session: u32,
        version: u16,
    },
    Refused(SendError),
}

#[derive(Debug, Clone, Copy, Default)]
struct OutLane {
    sent: u64,
    /// The state that the peer reported.
    consumed: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// A peer that broke the protocol stays ignored until it connects again.
    is_ignored: bool,
    /// Drawn when the peer came up, and sent in each `HELLO` since then.
    instance: u32,
    /// The instance of the peer's last `HELLO`.
    peer_instance: Option<u32>,
    /// Whether the offers are all that it has.
    is_complete: bool,
    offers: BTreeMap<ChannelId, Offer>,
    sessions: BTreeMap<u32, usize>,
    frames: VecDeque<Frame>,
    credits: BTreeMap<(u32, Lane), usize>,
    /// The driver has a control message that the lane did not take.
    is_held: bool,
}

impl LinkState {
    fn session(self) -> Option<u32> {
        match self {
            LinkState::Opening { session }
            | LinkState::Deferred { session }
            | LinkState::Open { session, .. } => Some(session),
            LinkState::Idle | LinkState::Refused(_) => None,
        }
    }
}

impl Engine {
    pub(super) fn new(local: NodeId, seed: u64) -> Engine {
        Engine {
            local,
            // Nodes that were given one seed do not draw the same numbers.
            random: SplitMix64::new(seed ^ local.get().rotate_left(29)),
            channels: Vec::new(),
            names: BTreeMap::new(),
            peers: BTreeMap::new(),
            dirty: BTreeSet::new(),
            wakes: VecDeque::new(),
            stats: MuxStats::default(),
        }
    }

    /// Registers a channel and offers it to every peer that is up.
    pub(super) fn register(&mut self, offer: Offer) -> Result<usize, RegisterError> {
        let channel = offer.channel;
        if self.names.contains_key(&channel) {
            return Err(RegisterError::Taken { channel });
        }
        // A slot of a channel that was withdrawn is used again: sessions of the old one were removed with it.
        let free = self.channels.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.channels.len());
        if slot >= CHANNELS_MAX {
            return Err(RegisterError::Full { channel, channels_max: CHANNELS_MAX });
        }
        let inbox = Inbox::new(offer.ordered_lanes, offer.lane_budget);
        let registered = Some(Registered { offer, inbox, links: BTreeMap::new() });
        match self.channels.get_mut(slot) {
            Some(entry) => *entry = registered,
            None => self.channels.push(registered),
        }
        self.names.insert(channel, slot);
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.set(peer, slot, LinkState::Idle);
            self.push(peer, Frame::Offer(offer));
            self.consider(peer, slot);
        }
        Ok(slot)
    }

    /// Forgets a channel, and withdraws it from every peer that is up.
    pub(super) fn unregister(&mut self, slot: usize) {
        let Some(registered) = self.channels.get_mut(slot).and_then(Option::take) else { return };
        let channel = registered.offer.channel;
        self.names.remove(&channel);
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in peers {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.sessions.retain(|_, of| *of != slot);
                peer.credits.retain(|_, of| *of != slot);
            }
            self.push(id, Frame::Withdraw { channel });
        }
    }

    /// Takes what happened.
    pub(super) fn handle(&mut self, _now: Duration, input: Input) -> Result<(), HandleError> {
        match input {
            Input::Event(event) => {
                self.event(event);
                Ok(())
            }
            Input::Message { from, lane, message } => {
                self.message(from, lane, message).map_err(|violation| {
                    self.ignore(from, violation);
                    HandleError::Violation { peer: from, violation }
                })
            }
        }
    }

    /// The next output; `None` when everything is done.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        if let Some((slot, wake)) = self.wakes.pop_front() {
            return Some(Output::Wake { slot, wake });
        }
        while let Some(to) = self.dirty.pop_first() {
            let Some(peer) = self.peers.get_mut(&to).filter(|peer| !peer.is_held) else { continue };
            let mut body = Vec::new();
            while body.len() < CONTROL_LEN_MAX
                && let Some(frame) = peer.frames.pop_front()
            {
                frame.encode(&mut body);
            }
            // After the frames: credit of a session that a frame opened means nothing before it. Only the
            // latest count of a lane is kept, so credit never piles up, however long the control lane is
            // full.
            while body.len() < CONTROL_LEN_MAX
                && let Some(((session, lane), slot)) = peer.credits.pop_first()
            {
                let registered = self.channels.get_mut(slot).and_then(Option::as_mut);
                if let Some(consumed) = registered.and_then(|of| of.inbox.credit(to, session, lane)) {
                    Frame::Credit { session, lane, consumed }.encode(&mut body);
                }
            }
            if !peer.frames.is_empty() || !peer.credits.is_empty() {
                self.dirty.insert(to);
            }
            if !body.is_empty() {
                return Some(Output::Control { to, body });
            }
        }
        None
    }

    /// The control lane to this peer is full, or is not any more. While it is full, no control message for it
    /// is given out.
    pub(super) fn hold(&mut self, peer: NodeId, is_held: bool) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.is_held = is_held;
            self.dirty.insert(peer);
        }
    }

    /// The trailer for a message that may be sent now. [`Engine::sent`] follows if it was.
    pub(super) fn reserve(&self, slot: usize, to: NodeId, lane: Lane, len: usize) -> Result<Trailer, NotNow> {
        let registered = self.channels.get(slot).and_then(Option::as_ref).ok_or(NotNow::Wait)?;
        // There is a link to each peer that is up.
        let link = registered.links.get(&to).ok_or(NotNow::NotUp)?;
        let (session, offer) = match (link.state, &link.offer) {
            (LinkState::Open { session, .. }, Some(offer)) => (session, offer),
            (LinkState::Refused(error), _) => return Err(NotNow::Refused(error)),
            _ => return Err(NotNow::Wait),
        };
        let len_max = offer.len_max(lane);
        if len > len_max {
            return Err(NotNow::Refused(SendError::TooLong { len, len_max }));
        }
        if len_max == 0 {
            return Err(NotNow::Refused(SendError::NoLane { lane }));
        }
        if let Some(out) = index(&registered.offer, lane).and_then(|index| link.lanes.get(index)) {
            let budget = u64::from(offer.lane_budget.min(registered.offer.lane_budget));
            let outstanding = out.sent - out.consumed;
            // One message of any length goes while half of the budget is free; see `Inbox::next_message` for
            // why that cannot stall.
            if outstanding >= budget / 2 && outstanding + cost(len) > budget {
                return Err(NotNow::Wait);
            }
        }
        Ok(Trailer { session, lane })
    }

    /// A message was sent.
    pub(super) fn sent(&mut self, slot: usize, to: NodeId, lane: Lane, len: usize) {
        let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) else { return };
        let index = index(&registered.offer, lane);
        if let Some(out) = registered.links.get_mut(&to).and_then(|link| link.lanes.get_mut(index?)) {
            out.sent += cost(len);
        }
    }

    pub(super) fn next_event(&mut self, slot: usize) -> Option<PeerEvent> {
        let registered = self.channels.get_mut(slot)?.as_mut()?;
        if !registered.inbox.has_events() {
            return None;
        }
        let event = registered.inbox.next_event()?;
        self.resume(event.peer, slot);
        Some(event)
    }

    pub(super) fn next_message(&mut self, slot: usize) -> Option<Taken> {
        let inbox = &mut self.channels.get_mut(slot)?.as_mut()?.inbox;
        let has_events = inbox.has_events();
        let taken = inbox.next_message()?;
        let from = taken.received.from;
        if let Some(session) = taken.credit
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.credits.insert((session, taken.received.lane), slot);
            self.dirty.insert(from);
        }
        // The message was the last of an epoch that is over: its `Down` can be polled now.
        if !has_events && self.inbox(slot).is_some_and(Inbox::has_events) {
            self.wakes.push_back((slot, Wake::Event));
            self.resume(from, slot);
        }
        Some(taken)
    }

    pub(super) fn version(&self, slot: usize, peer: NodeId) -> Option<u16> {
        self.inbox(slot)?.version(peer)
    }

    fn inbox(&self, slot: usize) -> Option<&Inbox> {
        Some(&self.channels.get(slot)?.as_ref()?.inbox)
    }

    fn slots(&self) -> Vec<usize> {
        self.names.values().copied().collect()
    }

    fn push(&mut self, to: NodeId, frame: Frame) {
        let Some(peer) = self.peers.get_mut(&to).filter(|peer| !peer.is_ignored) else { return };
        // Every frame answers something, so only a peer that asks faster than it reads gets here.
        if peer.frames.len() >= FRAMES_MAX {
            self.ignore(to, Violation::ControlFlood);
            return;
        }
        peer.frames.push_back(frame);
        self.dirty.insert(to);
    }

    fn event(&mut self, event: PeerEvent) {
        let id = event.peer;
        match event.kind {
            PeerEventKind::Up { .. } if self.peers.contains_key(&id) => self.degraded(id, false),
            PeerEventKind::Up { .. } => {
                let instance = (self.random.next() >> 32) as u32;
                self.peers.insert(id, Peer { instance, ..Peer::default() });
                self.greet(id);
                for slot in self.slots() {
                    self.set(id, slot, LinkState::Idle);
                }
            }
            PeerEventKind::Degraded => self.degraded(id, true),
            PeerEventKind::Down { reason, .. } => {
                self.peers.remove(&id);
                self.dirty.remove(&id);
                for slot in self.slots() {
                    self.end(id, slot, &reason, LinkState::Idle);
                    if let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) {
                        registered.links.remove(&id);
                    }
                }
            }
        }
    }

    /// Says what this node has. To say it again changes nothing for a peer that knows it.
    fn greet(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let instance = peer.instance;
        self.push(id, Frame::Hello { version_min: VERSION, version_max: VERSION, instance });
        let registered = self.channels.iter().flatten();
        let offers: Vec<Offer> = registered.map(|registered| registered.offer).collect();
        for offer in offers {
            self.push(id, Frame::Offer(offer));
        }
        self.push(id, Frame::OffersEnd);
    }

    fn degraded(&mut self, peer: NodeId, is_degraded: bool) {
        for slot in self.slots() {
            if let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) {
                registered.inbox.degraded(peer, is_degraded);
                self.wakes.push_back((slot, Wake::Event));
            }
        }
    }

    fn message(&mut self, from: NodeId, lane: Lane, mut message: Vec<u8>) -> Result<(), Violation> {
        let Some(peer) = self.peers.get(&from).filter(|peer| !peer.is_ignored) else {
            self.stats.stale_messages += 1;
            return Ok(());
        };
        let Some((trailer, len)) = Trailer::split(&message) else {
            return Err(Violation::Trailer);
        };
        if trailer == Trailer::CONTROL && matches!(lane, Lane::Ordered(_)) {
            return self.control(from, message.get(..len).unwrap_or_default());
        }
        // A transport may deliver in any order between lanes, but never changes the lane of a message.
        let is_of_lane = match (trailer.lane, lane) {
            (Lane::Ordered(_), Lane::Ordered(_)) => true,
            (inner, outer) => inner == outer,
        };
        if !is_of_lane {
            return Err(Violation::Trailer);
        }
        let slot = peer.sessions.get(&trailer.session).copied();
        let Some(slot) = slot else {
            // The message belongs to a session that has ended: both sides know, or are about to.
            self.stats.stale_messages += 1;
            return Ok(());
        };
        let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        message.truncate(len);
        let len_max = registered.offer.len_max(trailer.lane);
        if len > len_max {
            return Err(Violation::MessageLength { len: len as u64, len_max: len_max as u64 });
        }
        match registered.inbox.deliver(from, trailer.session, trailer.lane, message, len_max) {
            Delivered::Ready => self.wakes.push_back((slot, Wake::Receiver)),
            Delivered::Later => {}
            Delivered::Dropped => self.stats.dropped_messages += 1,
            // Only this session ends: other channels of the peer kept to their budgets.
            Delivered::OverBudget => {
                let session = trailer.session;
                let reason = DownReason::Malformed { violation: Violation::ChannelBudget };
                self.end(from, slot, &reason, LinkState::Refused(SendError::Unreachable { peer: from }));
                self.push(from, Frame::Close { session, code: CloseCode::Budget });
            }
        }
        Ok(())
    }

    fn control(&mut self, from: NodeId, body: &[u8]) -> Result<(), Violation> {
        let mut frames = Frames::new(body);
        while let Some(frame) = frames.next()? {
            let Some(peer) = self.peers.get_mut(&from).filter(|peer| !peer.is_ignored) else { return Ok(()) };
            match frame {
                Frame::Hello { version_min, version_max, instance } => {
                    if !(version_min..=version_max).contains(&VERSION) {
                        return Err(Violation::MuxVersion { version_min, version_max });
                    }
                    let before = peer.peer_instance.replace(instance);
                    if before == Some(instance) {
                        continue;
                    }
                    // The peer begins from nothing, and so does what is known of it.
                    peer.is_complete = false;
                    peer.offers.clear();
                    if before.is_some() {
                        // The peer does not know the earlier messages: its connection ended and began without
                        // an event on this side.
                        for slot in self.slots() {
                            self.end(from, slot, &DownReason::Replaced, LinkState::Idle);
                        }
                        self.greet(from);
                    }
                }
                // Sent before the peer knew of this connection, and about what came before it.
                _ if peer.peer_instance.is_none() => {}
                Frame::Offer(offer) => self.offered(from, offer)?,
                Frame::OffersEnd => {
                    peer.is_complete = true;
                    for slot in self.slots() {
                        self.consider(from, slot);
                    }
                }
                Frame::Withdraw { channel } => {
                    peer.offers.remove(&channel);
                    if let Some(slot) = self.names.get(&channel).copied() {
                        self.refuse(from, slot, channel);
                    }
                }
                Frame::Open { session, channel } => self.opened(from, session, channel)?,
                Frame::Accept { session } => self.accepted(from, session),
                Frame::Close { session, code } => {
                    let Some(slot) = peer.sessions.get(&session).copied() else { continue };
                    let Some(registered) = self.channels.get(slot).and_then(Option::as_ref) else { continue };
                    let channel = registered.offer.channel;
                    match code {
                        CloseCode::NoChannel => self.refuse(from, slot, channel),
                        CloseCode::Budget => {
                            let detail =
                                "this node sent more than the budget of a channel's lane allows".into();
                            let refused = LinkState::Refused(SendError::Unreachable { peer: from });
                            self.end(from, slot, &DownReason::Refused { detail }, refused);
                        }
                    }
                }
                Frame::Credit { session, lane, consumed } => {
                    let Some(slot) = peer.sessions.get(&session).copied() else { continue };
                    let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) else {
                        continue;
                    };
                    let index = index(&registered.offer, lane);
                    let out = registered.links.get_mut(&from).and_then(|link| link.lanes.get_mut(index?));
                    let Some(out) = out else { return Err(Violation::Credit) };
                    if consumed > out.sent {
                        return Err(Violation::Credit);
                    }
                    // A count, not a difference: a credit that is repeated or overtaken does no harm.
                    out.consumed = out.consumed.max(consumed);
                    self.wakes.push_back((slot, Wake::Senders));
                }
            }
        }
        Ok(())
    }

    /// A channel that the peer has, from now on.
    fn offered(&mut self, from: NodeId, offer: Offer) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if peer.offers.len() >= CHANNELS_MAX && !peer.offers.contains_key(&offer.channel) {
            return Err(Violation::ControlFlood);
        }
        // The same offer again changes nothing: a peer repeats its offers when this side began again.
        let before = peer.offers.insert(offer.channel, offer);
        let Some(slot) = self.names.get(&offer.channel).copied() else {
            self.stats.unknown_channels += u64::from(before.is_none());
            return Ok(());
        };
        if before != Some(offer) {
            // A session, or a refusal, under other terms.
            self.end(from, slot, &DownReason::Replaced, LinkState::Idle);
        }
        self.consider(from, slot);
        Ok(())
    }

    /// Opens a session if both sides have the channel and it is ours to open, or notices that there will be
    /// none.
    fn consider(&mut self, id: NodeId, slot: usize) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.peer_instance.is_some() && !peer.is_ignored)
        else {
            return;
        };
        let Some(registered) = self.channels.get(slot).and_then(Option::as_ref) else { return };
        let ours = registered.offer;
        if registered.links.get(&id).is_some_and(|link| link.state != LinkState::Idle) {
            return;
        }
        let Some(theirs) = peer.offers.get(&ours.channel).copied() else {
            if peer.is_complete {
                self.refuse(id, slot, ours.channel);
            }
            return;
        };
        if ours.agree(&theirs).is_none() {
            let channel = ours.channel;
            let reason = DownReason::ChannelVersion {
                channel,
                local: (ours.version_min, ours.version_max),
                peer: (theirs.version_min, theirs.version_max),
            };
            self.set(id, slot, LinkState::Refused(SendError::ChannelVersion { peer: id, channel }));
            self.fail(id, slot, reason);
            return;
        }
        // The node with the lower id opens the session, so that a channel has one. An inbox without room
        // postpones it: `resume` tries again.
        if self.local > id || !registered.inbox.has_room(id) {
            self.set(id, slot, LinkState::Idle);
            return;
        }
        let session = self.draw(id);
        self.set(id, slot, LinkState::Opening { session });
        self.begin(id, slot, session);
        self.push(id, Frame::Open { session, channel: ours.channel });
    }

    /// A number that no session with the peer has. Drawn, not counted: a message that a transport carried
    /// from one connection to the next must not match a session of the latter.
    fn draw(&mut self, id: NodeId) -> u32 {
        loop {
            let session = (self.random.next() >> 32) as u32;
            let is_taken = self.peers.get(&id).is_some_and(|peer| peer.sessions.contains_key(&session));
            if session != super::frame::CONTROL && !is_taken {
                return session;
            }
        }
    }

    fn begin(&mut self, id: NodeId, slot: usize, session: u32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.sessions.insert(session, slot);
        }
        if let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) {
            registered.inbox.begin(id, session);
        }
    }

    fn opened(&mut self, from: NodeId, session: u32, channel: ChannelId) -> Result<(), Violation> {
        if self.local < from {
            return Err(Violation::Open);
        }
        let Some(peer) = self.peers.get(&from) else { return Ok(()) };
        if peer.sessions.contains_key(&session) {
            return Err(Violation::Open);
        }
        let theirs = peer.offers.get(&channel).copied();
        let slot = self.names.get(&channel).copied();
        let registered = slot.and_then(|slot| Some((slot, self.channels.get(slot)?.as_ref()?)));
        let Some((slot, registered)) = registered else {
            self.push(from, Frame::Close { session, code: CloseCode::NoChannel });
            return Ok(());
        };
        let Some(version) = theirs.and_then(|theirs| registered.offer.agree(&theirs)) else {
            self.push(from, Frame::Close { session, code: CloseCode::NoChannel });
            return Ok(());
        };
        // The peer opens a second session when it withdrew the channel and registered it again while the
        // first was being accepted.
        self.end(from, slot, &DownReason::Replaced, LinkState::Idle);
        self.accept(from, slot, session, version);
        Ok(())
    }

    fn accept(&mut self, from: NodeId, slot: usize, session: u32, version: u16) {
        if !self.inbox(slot).is_some_and(|inbox| inbox.has_room(from)) {
            self.set(from, slot, LinkState::Deferred { session });
            return;
        }
        // `ACCEPT` and the first messages travel on different lanes. The side that opened keeps messages that
        // overtake.
        self.begin(from, slot, session);
        self.up(from, slot, session, version);
        self.push(from, Frame::Accept { session });
    }

    fn accepted(&mut self, from: NodeId, session: u32) {
        let Some(slot) = self.peers.get(&from).and_then(|peer| peer.sessions.get(&session)).copied() else {
            return;
        };
        let Some(registered) = self.channels.get(slot).and_then(Option::as_ref) else { return };
        let is_opening =
            registered.links.get(&from).is_some_and(|link| link.state == LinkState::Opening { session });
        let theirs = self.peers.get(&from).and_then(|peer| peer.offers.get(&registered.offer.channel));
        if let Some(version) = theirs.and_then(|theirs| registered.offer.agree(theirs)).filter(|_| is_opening)
        {
            self.up(from, slot, session, version);
        }
    }

    fn up(&mut self, id: NodeId, slot: usize, session: u32, version: u16) {
        self.set(id, slot, LinkState::Open { session, version });
        if let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) {
            if let (Some(link), Some(peer)) = (registered.links.get_mut(&id), self.peers.get(&id)) {
                link.offer = peer.offers.get(&registered.offer.channel).copied();
            }
            registered.inbox.up(id, session, version);
        }
        for wake in [Wake::Event, Wake::Receiver, Wake::Senders] {
            self.wakes.push_back((slot, wake));
        }
    }

    /// The owner took something, so that another epoch may have room.
    fn resume(&mut self, id: NodeId, slot: usize) {
        let Some(registered) = self.channels.get(slot).and_then(Option::as_ref) else { return };
        match registered.links.get(&id).map(|link| link.state) {
            Some(LinkState::Deferred { session }) => {
                let theirs = self.peers.get(&id).and_then(|peer| peer.offers.get(&registered.offer.channel));
                if let Some(version) = theirs.and_then(|theirs| registered.offer.agree(theirs)) {
                    self.accept(id, slot, session, version);
                }
            }
            Some(LinkState::Idle) => self.consider(id, slot),
            _ => {}
        }
    }

    /// The peer does not have the channel.
    fn refuse(&mut self, id: NodeId, slot: usize, channel: ChannelId) {
        let refused = LinkState::Refused(SendError::NoChannel { peer: id, channel });
        self.end(id, slot, &DownReason::NoChannel { channel }, refused);
    }

    /// Ends the session, or the attempt at one, and reports it.
    fn end(&mut self, id: NodeId, slot: usize, reason: &DownReason, after: LinkState) {
        let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) else { return };
        let state = registered.links.get(&id).map_or(LinkState::Idle, |link| link.state);
        match state.session() {
            Some(session) => {
                // Messages that arrived can still be received; later ones of this session are stale.
                registered.inbox.down(id, session, reason.clone());
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.sessions.remove(&session);
                    peer.credits.retain(|(of, _), _| *of != session);
                }
            }
            // To begin again is no event where nothing had begun.
            None if *reason == DownReason::Replaced => {}
            None => registered.inbox.failed(id, reason.clone()),
        }
        self.set(id, slot, after);
        self.wakes.push_back((slot, Wake::Event));
        self.wakes.push_back((slot, Wake::Senders));
    }

    fn fail(&mut self, id: NodeId, slot: usize, reason: DownReason) {
        if let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) {
            registered.inbox.failed(id, reason);
        }
        self.wakes.push_back((slot, Wake::Event));
        self.wakes.push_back((slot, Wake::Senders));
    }

    fn set(&mut self, id: NodeId, slot: usize, state: LinkState) {
        let Some(registered) = self.channels.get_mut(slot).and_then(Option::as_mut) else { return };
        if !self.peers.contains_key(&id) {
            return;
        }
        let lanes = vec![OutLane::default(); usize::from(registered.offer.ordered_lanes) + 1];
        match registered.links.get_mut(&id) {
            Some(link) if link.state.session() == state.session() && state.session().is_some() => {
                link.state = state;
            }
            Some(link) => *link = Link { state, offer: None, lanes },
            None => {
                registered.links.insert(id, Link { state, offer: None, lanes });
            }
        }
    }

    /// Ignores a peer that broke the protocol until it connects again, and ends its sessions.
    fn ignore(&mut self, id: NodeId, violation: Violation) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.is_ignored) else { return };
        peer.is_ignored = true;
        peer.frames.clear();
        peer.offers.clear();
        self.stats.violations += 1;
        for slot in self.slots() {
            let refused = LinkState::Refused(SendError::Unreachable { peer: id });
            self.end(id, slot, &DownReason::Malformed { violation }, refused);
        }
    }
}

/// The place of a lane among those that have a budget.
fn index(offer: &Offer, lane: Lane) -> Option<usize> {
    match lane {
        Lane::Ordered(number) if number < offer.ordered_lanes => Some(usize::from(number)),
        Lane::Bulk => Some(usize::from(offer.ordered_lanes)),
        Lane::Ordered(_) | Lane::Datagram => None,
    }
}

#[cfg(test)]
mod tests;
