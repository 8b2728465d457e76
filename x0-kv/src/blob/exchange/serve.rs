//! Serving: a bounded queue for each peer, and a bound on what is read for it.

use std::collections::VecDeque;
use std::ops::{Bound, Range};

use x0_identity::NodeId;

use super::{BlobExchange, ExchangeOutput};
use crate::blob::message::Message;
use crate::blob::{BlobId, Holding, MESSAGE_LEN_MAX, Piece};

/// Most questions of one peer that the driver is asked at once.
const LOOKS_MAX: usize = 64;

/// The requests of one peer that wait to be served.
#[derive(Debug, Default)]
pub(super) struct PeerRequests {
    /// Blob, chunk, and the stamp of the want.
    queue: VecDeque<(BlobId, u32, u64)>,
    looks: usize,
}

/// A chunk that is being read, or was handed out to be sent.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) to: NodeId,
    id: BlobId,
    index: u32,
    stamp: u64,
    pub(super) len: usize,
}

impl BlobExchange {
    pub(super) fn wanted(&mut self, from: NodeId, id: BlobId, stamp: u64, ranges: &[Range<u32>]) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if ranges.is_empty() {
            return self.look(from, id);
        }
        for index in ranges.iter().cloned().flatten() {
            // A peer that repeats a request for a chunk that is queued or in flight gets it once.
            let is_coming =
                peer.requests.queue.iter().any(|(queued, number, _)| (*queued, *number) == (id, index))
                    || self
                        .flights
                        .values()
                        .any(|flight| (flight.to, flight.id, flight.index) == (from, id, index));
            if is_coming {
                continue;
            }
            if peer.requests.queue.len() >= self.options.queue_max {
                self.totals.refused += 1;
                break;
            }
            peer.requests.queue.push_back((id, index, stamp));
        }
    }

    /// Asks the driver what there is.
    fn look(&mut self, to: NodeId, id: BlobId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.requests.looks >= LOOKS_MAX {
            self.totals.refused += 1;
            return;
        }
        peer.requests.looks += 1;
        self.outputs.push_back(ExchangeOutput::Look { to, id });
    }

    pub(super) fn looked(&mut self, to: NodeId, id: BlobId, holding: Option<Holding>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.requests.looks = peer.requests.looks.saturating_sub(1);
        let message = match holding {
            Some(holding) => Message::Have { id, holding },
            None => Message::Gone { id },
        };
        self.send(to, &message, None);
    }

    /// Has read what may be read now, peer after peer.
    pub(super) fn serve(&mut self) {
        loop {
            let in_flight: usize = self.flights.values().map(|flight| flight.len).sum();
            if in_flight + MESSAGE_LEN_MAX > self.options.serving_bytes_total_max && in_flight > 0 {
                return;
            }
            let may = |to: &NodeId| {
                let own: usize =
                    self.flights.values().filter(|flight| flight.to == *to).map(|flight| flight.len).sum();
                own == 0 || own + MESSAGE_LEN_MAX <= self.options.serving_bytes_max
            };
            let waiting = |(to, peer): (&NodeId, &super::Peer)| {
                (!peer.requests.queue.is_empty() && may(to)).then_some(*to)
            };
            let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.peers.range((after, Bound::Unbounded)).find_map(waiting);
            let Some(to) = next.or_else(|| self.peers.iter().find_map(waiting)) else { return };
            self.turn = Some(to);
            let Some((id, index, stamp)) =
                self.peers.get_mut(&to).and_then(|peer| peer.requests.queue.pop_front())
            else {
                return;
            };
            let ticket = self.ticket_next;
            self.ticket_next += 1;
            self.flights.insert(ticket, Flight { to, id, index, stamp, len: MESSAGE_LEN_MAX });
            self.outputs.push_back(ExchangeOutput::Read { ticket, id, index });
        }
    }

    pub(super) fn was_read(&mut self, ticket: u64, piece: Option<Piece>) {
        // Without a flight the peer has gone meanwhile.
        let Some(Flight { to, id, index, stamp, .. }) = self.flights.remove(&ticket) else { return };
        let Some(piece) = piece else {
            // The peer believes that this node holds more than it does. It is notified once for all chunks of
            // this blob that it wants.
            let is_more = |peer: &super::Peer| peer.requests.queue.iter().any(|(wanted, _, _)| *wanted == id);
            if !self.peers.get(&to).is_some_and(is_more) {
                self.look(to, id);
            }
            return;
        };
        let len = piece.bytes.len();
        self.totals.served_chunks += 1;
        self.totals.served_chunk_bytes += len as u64;
        self.flights.insert(ticket, Flight { to, id, index, stamp, len });
        self.send(to, &Message::Chunk { id, stamp, index, piece }, Some(ticket));
    }

    pub(super) fn left(&mut self, ticket: u64) {
        self.flights.remove(&ticket);
    }
}
