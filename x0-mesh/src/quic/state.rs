//! The state that the transport and its tasks share, behind one lock that is held briefly. No I/O happens
//! here.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use quinn::{Connection, Side};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use x0_identity::NodeId;

use super::close::{Failure, code};
use super::guests::Guests;
use super::handshake::Handshake;
use super::inbox::{Inbox, Segment};
use super::outbox::Outbox;
use crate::telemetry::QuicTelemetry;
use crate::{DownReason, PeerEvent, PeerEventKind, RecvError};

/// While the owner does not receive, a peer may begin this many epochs: what waits is bounded by it.
const SEGMENTS_MAX: usize = 4;
/// The same for events of one peer that were not polled.
const EVENTS_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct State {
    local: NodeId,
    instance: u64,
    ordered_lanes: u8,
    pub(super) receive_queue_len_max: usize,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) guests: Guests,
    pub(super) events: VecDeque<PeerEvent>,
    /// Lanes that have messages, in the order of their turns: each gives one message, so that none starves.
    turns: VecDeque<(NodeId, usize)>,
    pub(super) recv_waker: Option<Waker>,
    pub(super) event_waker: Option<Waker>,
    /// Serves as the sequence number of connections too.
    last_epoch: u64,
    /// The reason for which the transport is over.
    pub(super) over: Option<RecvError>,
    pub(super) telemetry: QuicTelemetry,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    pub(super) dialer: Option<AbortHandle>,
    pub(super) link: Option<Link>,
    /// Whether it is being reached for the first time since it got an address.
    pub(super) is_reaching: bool,
    /// The reason of the last event of a failed attempt: more attempts that fail for the same reason are not
    /// events.
    last_failure: Option<DownReason>,
    /// The peer's instance, and the last sequence number it sent.
    last: (u64, u64),
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// When its last message arrived.
    pub(super) heard_at: Option<Instant>,
    /// Events that the owner has not polled.
    unreported: usize,
    /// Whether the last event of the running epoch was `Degraded`.
    is_degraded: bool,
    /// Notified when the link comes or goes.
    pub(super) changed: Arc<Notify>,
    /// Notified when the dialler need not wait longer.
    pub(super) retry: Arc<Notify>,
}

/// The connection in use.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) epoch: u64,
    pub(super) connection: Connection,
    /// When the epoch began.
    pub(super) begun: Instant,
    /// The packets of the handshake, sent and lost. It may have begun while there was no path to the peer.
    pub(super) handshake_packets: (u64, u64),
    instance: u64,
    sequence: u64,
}

/// A connection that became the one in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adopted {
    pub(super) epoch: u64,
    /// The handshake to send, if this node decides.
    pub(super) handshake: Option<Handshake>,
}

impl Peer {
    fn new(ordered_lanes: u8) -> Peer {
        Peer {
            address: None,
            dialer: None,
            link: None,
            is_reaching: false,
            last_failure: None,
            last: (0, 0),
            outbox: Outbox::new(ordered_lanes),
            inbox: Inbox::default(),
            heard_at: None,
            unreported: 0,
            is_degraded: false,
            changed: Arc::default(),
            retry: Arc::default(),
        }
    }
}

impl State {
    pub(super) fn new(
        local: NodeId,
        instance: u64,
        ordered_lanes: u8,
        receive_queue_len_max: usize,
    ) -> State {
        State {
            local,
            instance,
            ordered_lanes,
            receive_queue_len_max,
            peers: BTreeMap::new(),
            guests: Guests::default(),
            events: VecDeque::new(),
            turns: VecDeque::new(),
            recv_waker: None,
            event_waker: None,
            last_epoch: 0,
            over: None,
            telemetry: QuicTelemetry::new(),
        }
    }

    pub(super) fn datagram(&self) -> usize {
        usize::from(self.ordered_lanes) + 1
    }

    /// The entry of a peer, made if there is none.
    pub(super) fn peer(&mut self, peer: NodeId) -> &mut Peer {
        let ordered_lanes = self.ordered_lanes;
        self.peers.entry(peer).or_insert_with(|| Peer::new(ordered_lanes))
    }

    /// The node with the lower id decides which connection is used: two that dial each other at once must
    /// agree.
    pub(super) fn decides(&self, peer: NodeId) -> bool {
        self.local < peer
    }

    /// The handshake that a node sends first which does not decide. `None` if this node dialled, and the
    /// peer's connection came up meanwhile: the handshake would name that one, and the peer would take it for
    /// lost.
    pub(super) fn handshake_for(&self, peer: NodeId, side: Side) -> Option<Handshake> {
        let found = self.peers.get(&peer);
        if side == Side::Client && found.is_some_and(|peer| peer.link.is_some()) {
            return None;
        }
        let last = found.map_or((0, 0), |peer| peer.last);
        Some(Handshake { instance: self.instance, known_instance: last.0, sequence: last.1 })
    }

    /// Puts a connection to use on which the peer has sent its handshake, or says why not.
    pub(super) fn adopt(
        &mut self,
        id: NodeId,
        connection: &Connection,
        handshake: &Handshake,
        wakers: &mut Vec<Waker>,
    ) -> Result<Adopted, Failure> {
        // A handshake may finish after the owner closed the transport: no owner would ever receive from it.
        if self.over.is_some() {
            return Err(Failure::Quiet);
        }
        let decides = self.decides(id);
        let instance = self.instance;
        let lanes = self.datagram() + 1;
        let peer = self.peer(id);
        if let Some(link) = &peer.link {
            // Both nodes may dial at the same time, or again before one of them has noticed a loss. A
            // duplicate is one that is not newer than the link; another instance means that the peer
            // restarted, and its old connection is dead.
            let is_duplicate = link.instance == handshake.instance
                && link.connection.close_reason().is_none()
                && if decides {
                    // A peer that knew of the link when it sent its handshake has lost it since, or it would
                    // not have dialled.
                    handshake.known_instance != instance || handshake.sequence < link.sequence
                } else {
                    // The deciding node numbers connections upwards, so a lower number is an older decision
                    // that arrived late.
                    handshake.sequence <= link.sequence
                };
            if is_duplicate {
                connection.close(code::DUPLICATE, b"another connection is used");
                return Err(Failure::Quiet);
            }
        }
        // An owner that does not receive must not make epochs pile up: the peer tries again with its
        // back-off.
        if peer.inbox.segments.len() >= SEGMENTS_MAX || peer.unreported >= EVENTS_MAX {
            connection.close(code::BUSY, b"earlier messages were not received yet");
            return Err(Failure::Quiet);
        }
        if let Some(link) = &peer.link {
            let epoch = link.epoch;
            link.connection.close(code::REPLACED, b"another connection is used from now on");
            // Before the new epoch begins: the contract has `Down` of the old one before `Up` of the new one.
            self.end(id, epoch, DownReason::Replaced, wakers);
        }
        // One counter for all peers: epochs rise per peer as they must, also for a peer that was removed and
        // came back.
        self.last_epoch += 1;
        self.telemetry.up();
        let epoch = self.last_epoch;
        let sequence = if decides { epoch } else { handshake.sequence };
        if self.peers.get(&id).is_some_and(|peer| peer.last != (0, 0)) {
            self.telemetry.reconnected();
        }
        let peer = self.peer(id);
        peer.last = (handshake.instance, sequence);
        peer.is_reaching = false;
        peer.last_failure = None;
        let path = connection.stats().path;
        peer.link = Some(Link {
            epoch,
            connection: connection.clone(),
            begun: Instant::now(),
            handshake_packets: (path.sent_packets, path.lost_packets),
            instance: handshake.instance,
            sequence,
        });
        peer.inbox.segments.push_back(Segment::up(epoch, lanes));
        let datagrams = peer.outbox.take_datagrams();
        let datagrams_count = datagrams.len();
        for datagram in datagrams {
            // A datagram may be lost.
            let _ = connection.send_datagram(datagram);
        }
        peer.changed.notify_waiters();
        let is_next = peer.inbox.segments.len() == 1;
        self.telemetry.datagrams_sent(datagrams_count);
        // Otherwise messages of the epoch before wait to be received, and `advance` reports the epoch after
        // them.
        if is_next {
            self.report(id, PeerEventKind::Up { epoch }, wakers);
        }
        let handshake =
            decides.then_some(Handshake { instance, known_instance: handshake.instance, sequence });
        Ok(Adopted { epoch, handshake })
    }

    /// An epoch is over.
    pub(super) fn end(&mut self, id: NodeId, epoch: u64, reason: DownReason, wakers: &mut Vec<Waker>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // The task of a connection that was replaced ends later than its epoch.
        if peer.link.as_ref().is_none_or(|link| link.epoch != epoch) {
            return;
        }
        peer.link = None;
        peer.is_degraded = false;
        // Messages that QUIC has not taken are lost with the epoch: they must not travel in the next one.
        self.telemetry.down();
        peer.outbox.clear(wakers);
        if let Some(segment) = peer.inbox.running(epoch) {
            segment.down = Some(reason);
        }
        peer.changed.notify_waiters();
        self.advance(id, wakers);
    }

    /// The peer of the running epoch is silent, or is heard again.
    pub(super) fn set_degraded(
        &mut self,
        id: NodeId,
        epoch: u64,
        is_degraded: bool,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_running = peer.link.as_ref().is_some_and(|link| link.epoch == epoch);
        if !is_running || peer.is_degraded == is_degraded {
            return;
        }
        if is_degraded {
            // An epoch whose `Up` still waits is not reported as degraded, nor is one to an owner that does
            // not poll events.
            if peer.inbox.segments.len() != 1 || peer.unreported >= EVENTS_MAX {
                return;
            }
            peer.is_degraded = true;
            self.report(id, PeerEventKind::Degraded, wakers);
            return;
        }
        peer.is_degraded = false;
        let last = self.events.iter().rposition(|event| event.peer == id);
        match last.filter(|at| self.events.get(*at).is_some_and(|e| e.kind == PeerEventKind::Degraded)) {
            // The report was not polled, and is over.
            Some(at) => {
                self.events.remove(at);
                peer.unreported = peer.unreported.saturating_sub(1);
            }
            None => self.report(id, PeerEventKind::Up { epoch }, wakers),
        }
    }

    /// An attempt to reach the peer has failed.
    pub(super) fn fail(&mut self, id: NodeId, reason: DownReason, wakers: &mut Vec<Waker>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.telemetry.dial_failed();
        self.telemetry.handshake_failed(&reason);
        // The peer may have come through by dialling while this attempt failed.
        if peer.link.is_some() {
            return;
        }
        peer.is_reaching = false;
        peer.outbox.clear(wakers);
        if peer.last_failure.as_ref() == Some(&reason) {
            return;
        }
        if self.report_failed(id, reason.clone(), wakers)
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.last_failure = Some(reason);
        }
    }

    /// A peer is not reached for the first time any more, and no attempt to reach it has failed: senders that
    /// wait for its first epoch learn from the event that there will be none.
    pub(super) fn give_up(&mut self, id: NodeId, reason: DownReason, wakers: &mut Vec<Waker>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // A peer that is listed again before its last event is polled is the same entry: its first attempt
        // that fails is an event, whatever the reason.
        peer.last_failure = None;
        if std::mem::take(&mut peer.is_reaching) {
            self.report_failed(id, reason, wakers);
        }
    }

    /// Reports an epoch that was never up. False if the owner leaves too much unpolled.
    fn report_failed(&mut self, id: NodeId, reason: DownReason, wakers: &mut Vec<Waker>) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        if peer.inbox.segments.len() >= SEGMENTS_MAX || peer.unreported >= EVENTS_MAX {
            return false;
        }
        self.last_epoch += 1;
        peer.inbox.segments.push_back(Segment::failed(self.last_epoch, reason));
        self.advance(id, wakers);
        true
    }

    /// Ends the epochs that were received as a whole, and begins the next one.
    fn advance(&mut self, id: NodeId, wakers: &mut Vec<Waker>) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let Some(front) = peer.inbox.segments.front_mut() else { return };
            // `Down` comes after the last message of its epoch.
            if front.count > 0 {
                return;
            }
            let Some(reason) = front.down.take() else { return };
            let epoch = front.epoch;
            peer.inbox.segments.pop_front();
            let next = peer.inbox.segments.front_mut().filter(|next| next.is_up);
            let next_epoch = next.as_ref().map(|next| next.epoch);
            if let Some(next) = next {
                for (number, lane) in next.lanes.iter_mut().enumerate() {
                    if !lane.messages.is_empty() {
                        lane.is_listed = true;
                        self.turns.push_back((id, number));
                    }
                }
            }
            // The next epoch may hold messages that the receiver was not woken for when they came.
            if !self.turns.is_empty() {
                wakers.extend(self.recv_waker.take());
            }
            self.report(id, PeerEventKind::Down { epoch, reason }, wakers);
            if let Some(epoch) = next_epoch {
                self.report(id, PeerEventKind::Up { epoch }, wakers);
            }
        }
    }

    fn report(&mut self, peer: NodeId, kind: PeerEventKind, wakers: &mut Vec<Waker>) {
        self.peer(peer).unreported += 1;
        self.events.push_back(PeerEvent { peer, kind });
        wakers.extend(self.event_waker.take());
    }

    pub(super) fn next_event(&mut self) -> Option<PeerEvent> {
        let event = self.events.pop_front()?;
        if let Some(peer) = self.peers.get_mut(&event.peer) {
            peer.unreported = peer.unreported.saturating_sub(1);
            self.forget(event.peer);
        }
        Some(event)
    }

    /// Removes a peer without an address, once nothing of it is left: peers that dial must not make the table
    /// grow for ever.
    pub(super) fn forget(&mut self, id: NodeId) {
        let is_gone = self.peers.get(&id).is_some_and(|peer| {
            peer.address.is_none()
                && peer.link.is_none()
                && peer.inbox.segments.is_empty()
                && peer.unreported == 0
        });
        if is_gone {
            self.peers.remove(&id);
            self.guests.forget(id);
        }
    }

    /// Takes in messages of a lane. Returns whether the lane has room for more; `None` when the epoch is
    /// over.
    pub(super) fn deliver(
        &mut self,
        id: NodeId,
        epoch: u64,
        number: usize,
        messages: impl Iterator<Item = Vec<u8>>,
        wakers: &mut Vec<Waker>,
    ) -> Option<bool> {
        let len_max = self.receive_queue_len_max;
        let is_datagram = number == self.datagram();
        let peer = self.peers.get_mut(&id)?;
        peer.heard_at = Some(Instant::now());
        let inbox = &mut peer.inbox;
        // Messages of a later epoch are kept, and listed once the epoch before was received.
        let is_front = inbox.segments.len() == 1;
        let segment = inbox.running(epoch)?;
        let lane = segment.lanes.get_mut(number)?;
        let (count, len) = (lane.messages.len(), lane.len);
        for message in messages {
            lane.len += message.len();
            lane.messages.push_back(message);
        }
        let count = lane.messages.len() - count;
        self.telemetry.received(count, lane.len - len);
        if is_datagram {
            self.telemetry.datagrams_received(count);
        }
        segment.count += count;
        if is_front && !lane.is_listed && !lane.messages.is_empty() {
            lane.is_listed = true;
            self.turns.push_back((id, number));
            wakers.extend(self.recv_waker.take());
        }
        Some(lane.len < len_max)
    }

    /// Removes the message whose turn it is.
    pub(super) fn next_message(&mut self, wakers: &mut Vec<Waker>) -> Option<(NodeId, usize, Vec<u8>)> {
        let len_max = self.receive_queue_len_max;
        loop {
            let (id, number) = self.turns.pop_front()?;
            let segment = self.peers.get_mut(&id).and_then(|peer| peer.inbox.segments.front_mut());
            let Some(segment) = segment else { continue };
            let Some(lane) = segment.lanes.get_mut(number) else { continue };
            // A lane of an epoch that ended without messages may still be listed.
            let Some(message) = lane.pop(len_max) else {
                lane.is_listed = false;
                continue;
            };
            lane.is_listed = !lane.messages.is_empty();
            if lane.is_listed {
                self.turns.push_back((id, number));
            }
            segment.count -= 1;
            if segment.count == 0 && segment.down.is_some() {
                self.advance(id, wakers);
            }
            return Some((id, number, message));
        }
    }

    /// Ends the transport.
    pub(super) fn finish(&mut self, reason: RecvError, wakers: &mut Vec<Waker>) {
        let over = match &reason {
            RecvError::Closed => DownReason::Local,
            RecvError::Failed { detail } => DownReason::Failed { detail: Arc::clone(detail) },
        };
        if self.over.is_none() {
            self.over = Some(reason);
        }
        // Tasks hold the shared state: without their end it would never be dropped.
        for peer in self.peers.values_mut() {
            if let Some(dialer) = peer.dialer.take() {
                dialer.abort();
            }
            peer.outbox.clear(wakers);
        }
        // The epochs of the others end with their connections.
        let reached: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.is_reaching).map(|(peer, _)| *peer).collect();
        for peer in reached {
            self.give_up(peer, over.clone(), wakers);
        }
        wakers.extend(self.recv_waker.take());
        wakers.extend(self.event_waker.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer above may hold messages back for the first epoch of a peer: it has to know that none comes.
    #[test]
    fn the_end_of_the_transport_ends_attempts_to_reach_peers() {
        let [one, other] = [1, 2].map(|number| NodeId::new(number).unwrap());
        let mut state = State::new(one, 1, 1, 1);
        state.peer(other).is_reaching = true;
        let detail: Arc<str> = "the socket is gone".into();
        state.finish(RecvError::Failed { detail: Arc::clone(&detail) }, &mut Vec::new());
        let kind = PeerEventKind::Down { epoch: 1, reason: DownReason::Failed { detail } };
        assert_eq!(state.next_event(), Some(PeerEvent { peer: other, kind }));
        assert_eq!(state.next_event(), None);
    }

    /// The peer is removed, and listed again, while the event of its first failure waits.
    #[test]
    fn a_peer_that_is_listed_again_fails_with_an_event_of_its_own() {
        let [one, other] = [1, 2].map(|number| NodeId::new(number).unwrap());
        let mut state = State::new(one, 1, 1, 1);
        for _ in 0..2 {
            state.peer(other).is_reaching = true;
            for _ in 0..3 {
                state.fail(other, DownReason::Expired, &mut Vec::new());
            }
            state.give_up(other, DownReason::Local, &mut Vec::new());
        }
        let kinds = [1, 2].map(|epoch| PeerEventKind::Down { epoch, reason: DownReason::Expired });
        for kind in kinds {
            assert_eq!(state.next_event(), Some(PeerEvent { peer: other, kind }));
        }
        assert_eq!(state.next_event(), None);
    }
}
