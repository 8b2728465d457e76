//! A neighbour: its links, its session, what it advertises, and what it has been sent.
//!
//! Both routers of a pair keep each other's view in step: each numbered message carries the current state of
//! some destinations, and is acknowledged by its number. What is not acknowledged is sent again under a new
//! number, with the state of that time. A receiver ignores numbers that arrive out of order, so that an old
//! state never replaces a newer one. There are no periodic updates.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use x0_identity::NodeId;

use super::message::{Advert, DEPTH_MAX, Packed};
use super::table::grow;
use super::{LinkCost, LinkId};

/// Messages to one neighbour that wait for their acknowledgement.
pub(super) const IN_FLIGHT_MAX: usize = 16;
/// Requests that wait for the neighbour; further ones are dropped and repeated by their origin.
pub(super) const REQUESTS_MAX: usize = 1024;
/// Destinations of a usual round of updates.
const DIRTY_KEPT: usize = 64;
/// Ended sessions whose late messages are recognised.
const ENDED_MAX: usize = 4;

/// An acknowledgement waits this long for a message that takes it along.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(5);
const RETRANSMISSION_MIN: Duration = Duration::from_millis(30);
const RETRANSMISSION_MAX: Duration = Duration::from_secs(1);

/// The neighbour has the current state of a destination.
const CLEAN: u8 = 0;
/// The state has to be sent. Other values are the place of the message in flight that it was last sent in.
pub(super) const DIRTY: u8 = u8::MAX;
/// The greatest number of a message.
pub(super) const NUMBER_MAX: u32 = u32::MAX - 1;

/// One destination, as the neighbour advertises it and as the neighbour knows it. There is one for each
/// neighbour of each pair of nodes: 14 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    advert: Packed,
    /// `CLEAN`, `DIRTY`, or the place of a message in flight.
    pub(super) sync: u8,
    /// The depth of the advert in the lower four bits, `HELD` and `SENT` above.
    depth_and_flags: u8,
}

const DEPTH: u8 = DEPTH_MAX;
/// The neighbour may hold a route through this node.
const HELD: u8 = 1 << 4;
/// What was sent last was a route, not a retraction.
const SENT: u8 = 1 << 5;

const _: () = assert!(size_of::<Row>() == 14, "the documentation of `Row`");
const _: () = assert!(IN_FLIGHT_MAX < DIRTY as usize, "a place is neither `CLEAN` nor `DIRTY`");

impl Row {
    const EMPTY: Row = Row { advert: Packed::NONE, sync: CLEAN, depth_and_flags: 0 };

    pub(super) fn is_held(&self) -> bool {
        self.depth_and_flags & HELD != 0
    }

    pub(super) fn advert(&self) -> Advert {
        self.advert.unpack(self.depth_and_flags & DEPTH)
    }

    /// Records what was sent last, and whether the neighbour may hold a route.
    fn set_flags(&mut self, flags: u8) {
        self.depth_and_flags = self.depth_and_flags & DEPTH | flags;
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LinkState {
    pub(super) id: LinkId,
    pub(super) cost: LinkCost,
    pub(super) is_degraded: bool,
}

/// A request for a newer sequence number, on its way to this neighbour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) seqno: u32,
    pub(super) hops: u8,
    /// As that of a row.
    pub(super) sync: u8,
}

#[derive(Debug, Clone)]
struct InFlight {
    number: u32,
    /// From 1 to [`IN_FLIGHT_MAX`]: rows name a message in one byte by it. A place is free again when no row
    /// names it any more.
    place: u8,
    sent_at: Duration,
    rows: Vec<u32>,
    requests: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    pub(super) peer: NodeId,
    pub(super) links: Vec<LinkState>,
    /// The best link, with the cost that counts.
    pub(super) best: (LinkId, LinkCost),
    /// The session that this node chose.
    pub(super) session: u32,
    /// The session that the neighbour chose.
    pub(super) remote: Option<u32>,
    ended: VecDeque<u32>,
    /// Whether the neighbour has named our session.
    pub(super) is_established: bool,
    pub(super) hello_due: bool,
    pub(super) hello_at: Duration,
    rows: Vec<Row>,
    pub(super) dirty: VecDeque<u32>,
    pub(super) requests: BTreeMap<u32, Request>,
    pub(super) number: u32,
    in_flight: VecDeque<InFlight>,
    received_last: u32,
    /// Bit n: number `received_last - n` was taken.
    received: u64,
    pub(super) acks: Vec<u32>,
    pub(super) ack_at: Duration,
    /// The next round of updates, and the pause before it.
    pub(super) update_at: Duration,
    pub(super) update_interval: Duration,
    round_trip: Option<Duration>,
    backoff: u32,
    pub(super) is_full_reported: bool,
}

/// What to do with a message, by its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Of the current session.
    Current,
    /// The neighbour began a session; its routes and all that it knew are void.
    Begun,
    /// Late, or from a neighbour that does not know our session yet.
    Ignored,
}

impl Neighbour {
    /// Whether the best link to it loses frames or answers late.
    pub(super) fn is_degraded(&self) -> bool {
        self.links.iter().any(|link| link.id == self.best.0 && link.is_degraded)
    }

    pub(super) fn new(
        peer: NodeId,
        link: LinkState,
        session: u32,
        now: Duration,
        interval: Duration,
    ) -> Neighbour {
        Neighbour {
            peer,
            best: (link.id, link.cost),
            links: alloc::vec![link],
            session,
            remote: None,
            ended: VecDeque::new(),
            is_established: false,
            hello_due: true,
            hello_at: now,
            rows: Vec::new(),
            dirty: VecDeque::new(),
            requests: BTreeMap::new(),
            number: 0,
            in_flight: VecDeque::new(),
            received_last: 0,
            received: 0,
            acks: Vec::new(),
            ack_at: now,
            update_at: now,
            update_interval: interval,
            round_trip: None,
            backoff: 0,
            is_full_reported: false,
        }
    }

    /// Decides about a message by its sessions, and answers one that shows a wrong view of ours.
    pub(super) fn admit(&mut self, from: u32, to: u32) -> Admission {
        let knows_us = to == self.session;
        let is_new = match self.remote {
            Some(remote) if remote == from => {
                if !knows_us {
                    self.hello_due = true;
                    return Admission::Ignored;
                }
                self.is_established = true;
                return Admission::Current;
            }
            // A first message may be a late one of an ended session; the neighbour corrects that, see below.
            None => true,
            // Only a message that names our session is certainly not older than it; and a neighbour that
            // restarted within it is distinguished from a late message by the list.
            Some(_) => knows_us && !self.ended.contains(&from),
        };
        if !is_new {
            if !knows_us && !self.ended.contains(&from) {
                // The neighbour may have restarted: it learns our session, and names it in its next message.
                self.hello_due = true;
            }
            return Admission::Ignored;
        }
        if let Some(old) = self.remote.replace(from) {
            if self.ended.len() == ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(old);
        }
        self.is_established = knows_us;
        self.hello_due |= !knows_us;
        self.rows.clear();
        self.dirty.clear();
        self.requests.clear();
        self.in_flight.clear();
        self.acks.clear();
        self.received = 0;
        self.received_last = 0;
        self.backoff = 0;
        self.is_full_reported = false;
        Admission::Begun
    }

    /// Whether a numbered message is to be taken. One that was taken before is acknowledged again; one that
    /// was overtaken is not, so that its content comes again.
    pub(super) fn receive(&mut self, number: u32, now: Duration) -> bool {
        let is_fresh = number > self.received_last;
        if is_fresh {
            let ahead = number - self.received_last;
            self.received = if ahead < 64 { self.received << ahead } else { 0 } | 1;
            self.received_last = number;
        } else {
            let late = self.received_last - number;
            if late >= 64 || self.received >> late & 1 == 0 {
                return false;
            }
        }
        if self.acks.is_empty() {
            self.ack_at = now + ACK_DELAY;
        }
        if !self.acks.contains(&number) {
            if self.acks.len() == super::message::ACKS_MAX {
                self.acks.remove(0);
            }
            self.acks.push(number);
        }
        if self.acks.len() == super::message::ACKS_MAX {
            self.ack_at = now;
        }
        is_fresh
    }

    pub(super) fn row(&self, index: u32) -> Row {
        self.rows.get(index as usize).copied().unwrap_or(Row::EMPTY)
    }

    fn row_mut(&mut self, index: u32) -> &mut Row {
        let index = index as usize;
        if self.rows.len() <= index {
            grow(&mut self.rows, index + 1);
            self.rows.resize(index + 1, Row::EMPTY);
        }
        &mut self.rows[index]
    }

    /// Stores an advert; true if it differs from the last one.
    pub(super) fn set_advert(&mut self, index: u32, advert: Advert) -> bool {
        let row = self.row_mut(index);
        let is_changed = row.advert() != advert;
        row.advert = Packed::new(&advert);
        // The decoder takes no greater depth.
        row.depth_and_flags = row.depth_and_flags & !DEPTH | advert.depth & DEPTH;
        is_changed
    }

    /// Forgets a destination that was removed.
    pub(super) fn clear(&mut self, index: u32) {
        if let Some(row) = self.rows.get_mut(index as usize) {
            *row = Row::EMPTY;
        }
        self.requests.remove(&index);
    }

    /// Marks a destination to be sent. Without a session nothing is marked: all is when it begins.
    pub(super) fn mark(&mut self, index: u32) {
        if self.remote.is_none() {
            return;
        }
        let row = self.row_mut(index);
        if row.sync != DIRTY {
            row.sync = DIRTY;
            self.dirty.push_back(index);
        }
    }

    /// Records that a destination needs nothing to be sent.
    pub(super) fn set_clean(&mut self, index: u32) {
        self.row_mut(index).sync = CLEAN;
    }

    /// The place of the next message in flight. One is free whenever the neighbour [can be
    /// sent](Neighbour::can_send) a message.
    pub(super) fn free_place(&self) -> u8 {
        let is_free = |place: &u8| self.in_flight.iter().all(|message| message.place != *place);
        (1..DIRTY).find(is_free).unwrap_or(CLEAN)
    }

    pub(super) fn set_sent(&mut self, index: u32, place: u8, is_finite: bool) {
        let row = self.row_mut(index);
        row.sync = place;
        row.set_flags(if is_finite { HELD | SENT } else { row.depth_and_flags & HELD });
    }

    pub(super) fn push_in_flight(
        &mut self,
        (number, place): (u32, u8),
        now: Duration,
        rows: Vec<u32>,
        requests: Vec<u32>,
    ) {
        self.in_flight.push_back(InFlight { number, place, sent_at: now, rows, requests });
    }

    /// Gives back the room of a long round of updates, such as the first one.
    pub(super) fn end_round(&mut self) {
        if self.dirty.is_empty() {
            self.dirty.shrink_to(DIRTY_KEPT);
        }
    }

    pub(super) fn can_send(&self) -> bool {
        self.is_established && self.in_flight.len() < IN_FLIGHT_MAX
    }

    pub(super) fn has_updates(&self) -> bool {
        !self.dirty.is_empty() || self.requests.values().any(|request| request.sync == DIRTY)
    }

    /// A message has arrived: what it carried and what has not changed since is known to the neighbour.
    pub(super) fn acknowledge(&mut self, number: u32, now: Duration) {
        let Some(position) = self.in_flight.iter().position(|message| message.number == number) else {
            return;
        };
        let Some(message) = self.in_flight.remove(position) else { return };
        for index in message.rows {
            let row = self.row_mut(index);
            if row.sync == message.place {
                row.sync = CLEAN;
                row.set_flags(if row.depth_and_flags & SENT != 0 { HELD | SENT } else { 0 });
            }
        }
        for index in message.requests {
            if self.requests.get(&index).is_some_and(|request| request.sync == message.place) {
                self.requests.remove(&index);
            }
        }
        self.backoff = 0;
        // A number is used for one transmission only, so that each sample is unambiguous.
        let sample = now.saturating_sub(message.sent_at);
        self.round_trip = Some(self.round_trip.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    /// How long to wait for an acknowledgement.
    fn patience(&self) -> Duration {
        let base = self.round_trip.map_or(RETRANSMISSION_MIN * 2, |smoothed| smoothed * 2 + ACK_DELAY * 2);
        (base.max(RETRANSMISSION_MIN) * (1 << self.backoff.min(5))).min(RETRANSMISSION_MAX)
    }

    /// Marks the content of messages whose acknowledgement is overdue. True if there was one.
    pub(super) fn retransmit(&mut self, now: Duration) -> bool {
        let patience = self.patience();
        let mut is_late = false;
        while let Some(message) = self.in_flight.front().filter(|message| message.sent_at + patience <= now) {
            let place = message.place;
            let Some(message) = self.in_flight.pop_front() else { break };
            is_late = true;
            for index in message.rows {
                if self.row(index).sync == place {
                    self.mark(index);
                }
            }
            for index in message.requests {
                if let Some(request) = self.requests.get_mut(&index).filter(|request| request.sync == place) {
                    request.sync = DIRTY;
                }
            }
        }
        if is_late {
            self.backoff = (self.backoff + 1).min(5);
            // A retransmission does not wait for the round after.
            self.update_at = self.update_at.min(now);
        }
        is_late
    }

    /// When this neighbour needs something to be done.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let hello = (self.hello_due || !self.is_established).then_some(self.hello_at);
        let ack = (!self.acks.is_empty() && self.remote.is_some()).then_some(self.ack_at);
        let update = (self.can_send() && self.has_updates()).then_some(self.update_at);
        let late = self.in_flight.front().map(|message| message.sent_at + self.patience());
        [hello, ack, update, late].into_iter().flatten().min()
    }

    /// Whether the neighbour holds no route of this node to the destination, and nothing is under way.
    pub(super) fn is_clear_of(&self, index: u32) -> bool {
        let row = self.row(index);
        !row.is_held() && row.sync == CLEAN && !row.advert().is_some()
    }
}
