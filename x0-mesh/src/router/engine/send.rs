//! Messages to a neighbour.

use alloc::vec::Vec;
use core::time::Duration;

use super::super::Output;
use super::super::message::{ACKS_MAX, ENTRY_LEN_MAX, Entry, HEADER_LEN_MAX, Header};
use super::super::neighbour::{DIRTY, NUMBER_MAX};
use super::super::table::Slot;
use super::Router;

/// Between two attempts to begin a session.
const HELLO_INTERVAL: Duration = Duration::from_millis(50);
/// A pause of this many intervals between rounds of updates resets the interval.
const CALM: u32 = 4;

impl Router {
    /// The next message for the neighbour in a slot, if one is due.
    pub(super) fn send(&mut self, slot: Slot) -> Option<Output> {
        let now = self.now;
        let neighbour = self.neighbour(slot)?;
        if neighbour.can_send() && neighbour.update_at <= now && neighbour.has_updates() {
            if neighbour.number == NUMBER_MAX {
                // Numbers of a session are used up: the next one begins, after years.
                let session = self.draw_session();
                let neighbour = self.neighbour_mut(slot)?;
                (neighbour.session, neighbour.number) = (session, 0);
                neighbour.is_established = false;
                neighbour.hello_due = true;
            } else if let Some(output) = self.update(slot) {
                return Some(output);
            }
        }
        let neighbour = self.neighbour_mut(slot)?;
        let ack_due = !neighbour.acks.is_empty() && neighbour.ack_at <= now;
        let hello_due = neighbour.hello_due && neighbour.hello_at <= now;
        if !ack_due && !hello_due {
            return None;
        }
        if neighbour.hello_due {
            neighbour.hello_due = false;
            neighbour.hello_at = now + HELLO_INTERVAL;
        }
        let acks = core::mem::take(&mut neighbour.acks);
        let mut message = Vec::with_capacity(HEADER_LEN_MAX);
        let to_session = neighbour.remote.unwrap_or(0);
        Header { session: neighbour.session, to_session, number: None }.encode(&acks, &mut message);
        self.output(slot, message)
    }

    /// A numbered message with what has changed, `None` if nothing of it concerns the neighbour.
    fn update(&mut self, slot: Slot) -> Option<Output> {
        let now = self.now;
        let len_max = self.options.message_len_max;
        // Taken out while adverts are computed from the rest of the router.
        let mut dirty = core::mem::take(&mut self.neighbour_mut(slot)?.dirty);
        let neighbour = self.neighbour(slot)?;
        let (number, place) = (neighbour.number + 1, neighbour.free_place());
        let acks_len = neighbour.acks.len().min(ACKS_MAX);
        let header = Header {
            session: neighbour.session,
            to_session: neighbour.remote.unwrap_or(0),
            number: Some(number),
        };
        let mut message =
            Vec::with_capacity(len_max.min(HEADER_LEN_MAX + ENTRY_LEN_MAX * dirty.len().max(1)));
        header.encode(&neighbour.acks[..acks_len], &mut message);
        let mut rows = Vec::new();
        let mut requests = Vec::new();
        let mut entries = 0;
        for (index, request) in &neighbour.requests {
            if request.sync == DIRTY && message.len() + ENTRY_LEN_MAX <= len_max {
                let Some(destination) = self.table.get(*index) else { continue };
                let (seqno, hops) = (request.seqno, request.hops);
                Entry::Request { node: destination.node, seqno, hops }.encode(&mut message);
                requests.push(*index);
                entries += 1;
            }
        }
        while message.len() + ENTRY_LEN_MAX <= len_max {
            let Some(index) = dirty.pop_front() else { break };
            let row = self.neighbour(slot)?.row(index);
            if row.sync != DIRTY {
                continue;
            }
            let advert = self.advert_to(slot, index);
            let entry = match self.table.get(index) {
                Some(destination) if advert.is_some() => {
                    Some(Entry::Update { node: destination.node, advert, region: destination.region })
                }
                Some(destination) if row.is_held() => Some(Entry::Retraction { node: destination.node }),
                // The neighbour knows nothing of it, and need not.
                _ => None,
            };
            let neighbour = self.neighbour_mut(slot)?;
            if let Some(entry) = entry {
                entry.encode(&mut message);
                neighbour.set_sent(index, place, advert.is_some());
                rows.push(index);
                entries += 1;
            } else {
                neighbour.set_clean(index);
            }
        }
        let (min, max) = (self.options.update_interval_min, self.options.update_interval_max);
        let neighbour = self.neighbour_mut(slot)?;
        dirty.append(&mut neighbour.dirty);
        neighbour.dirty = dirty;
        if entries == 0 {
            return None;
        }
        for index in &requests {
            if let Some(request) = neighbour.requests.get_mut(index) {
                request.sync = place;
            }
        }
        if neighbour.dirty.is_empty() {
            // The round is over. Rounds that follow each other closely are spread further apart.
            let is_calm = neighbour.update_at + neighbour.update_interval * CALM <= now;
            neighbour.update_interval = if is_calm { min } else { (neighbour.update_interval * 2).min(max) };
            neighbour.update_at = now + neighbour.update_interval;
            neighbour.end_round();
        }
        neighbour.number = number;
        neighbour.acks.drain(..acks_len);
        neighbour.hello_due = false;
        neighbour.push_in_flight((number, place), now, rows, requests);
        self.stats.sent_entries += entries;
        self.output(slot, message)
    }

    fn output(&mut self, slot: Slot, message: Vec<u8>) -> Option<Output> {
        let neighbour = self.neighbour(slot)?;
        let (link, peer) = (neighbour.best.0, neighbour.peer);
        self.stats.sent_messages += 1;
        self.stats.sent_bytes += message.len() as u64;
        Some(Output::Send { link, peer, message })
    }
}
