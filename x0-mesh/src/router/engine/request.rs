//! Requests for a newer sequence number (RFC 8966 §3.8.2.1), and the sequence number of this node.

use alloc::vec::Vec;
use core::time::Duration;

use x0_identity::NodeId;

use super::super::neighbour::{DIRTY, REQUESTS_MAX, Request};
use super::super::table::{SELF, Selection, Slot};
use super::super::{Output, Report, RouterOptions};
use super::Router;
use super::select::Candidate;

/// How far a request travels.
const HOPS_MAX: u8 = 255;
/// The first pause before a request is repeated; it doubles.
const REPEAT: Duration = Duration::from_millis(100);
/// A starved node stops asking after this many requests, until something changes.
const ATTEMPTS_MAX: u8 = 8;
/// The shortest time between two sequence numbers of this node.
const SEQNO_INTERVAL: Duration = Duration::from_millis(20);

/// The greatest sequence number that a young node takes over: the greatest to begin with, and 2^30 more, for
/// which requests need months. A forged number above it would leave no room for newer ones; it is reported
/// and outbid in steps of one only.
const SEQNO_CATCH_UP_MAX: u32 = RouterOptions::SEQNO_LIMIT / 2 * 3;

/// A request that this node made or forwarded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requested {
    seqno: u32,
    /// Until then the same request is not sent again.
    until: Duration,
    /// How often this node asked by itself; 0 for a request that it forwarded only.
    attempts: u8,
}

impl Router {
    /// Asks for a newer sequence number if that would help.
    fn request_if_useful(&mut self, index: u32) {
        let candidates: Vec<Candidate> = self.candidates(index).collect();
        self.request_among(index, &candidates);
    }

    /// Asks for a newer sequence number if that would help, of the neighbours that reach the destination.
    pub(super) fn request_among(&mut self, index: u32, candidates: &[Candidate]) {
        if !self.wants_seqno(index, candidates) {
            // What was forwarded for others remains, so that repetitions are recognised.
            if self.requested.get(&index).is_some_and(|requested| requested.attempts > 0) {
                self.requested.remove(&index);
            }
            return;
        }
        let Some(destination) = self.table.get(index) else { return };
        let feasible = destination.feasible;
        let Some(seqno) = feasible.seqno.checked_add(1) else { return };
        let attempts = match self.requested.get(&index) {
            Some(requested) if requested.seqno >= seqno => {
                if self.now < requested.until {
                    return;
                }
                // Something has changed since the last of them.
                if requested.attempts < ATTEMPTS_MAX { requested.attempts } else { 0 }
            }
            _ => 0,
        };
        // The first request takes the best way; if that is a dead end, the others follow.
        let mut targets: Vec<_> = candidates
            .iter()
            .filter(|candidate| !candidate.advert.distance.is_better_than(feasible))
            .map(|candidate| (candidate.total.metric, candidate.slot))
            .collect();
        targets.sort_unstable();
        if targets.is_empty() {
            return;
        }
        if attempts == 0 {
            targets.truncate(1);
        }
        for (_, slot) in targets {
            self.push_request(slot, index, seqno, HOPS_MAX);
        }
        let until = self.now + REPEAT * (1 << attempts.min(5));
        self.requested.insert(index, Requested { seqno, until, attempts: attempts + 1 });
    }

    fn push_request(&mut self, slot: Slot, index: u32, seqno: u32, hops: u8) {
        let now = self.now;
        if let Some(neighbour) = self.neighbour_mut(slot)
            && (neighbour.requests.len() < REQUESTS_MAX || neighbour.requests.contains_key(&index))
        {
            neighbour.requests.insert(index, Request { seqno, hops, sync: DIRTY });
            // A request does not wait for the next round: traffic may depend on it.
            neighbour.update_at = neighbour.update_at.min(now);
        }
    }

    /// A neighbour asks for a sequence number that is at least `seqno`.
    pub(super) fn handle_request(&mut self, from: Slot, node: NodeId, seqno: u32, hops: u8) {
        let Some(index) = self.table.find(node) else { return };
        if index == SELF {
            if seqno > self.seqno {
                self.want_seqno(seqno);
            }
            return;
        }
        let Some(destination) = self.table.get(index) else { return };
        let selection = destination.selection;
        let is_current = match selection {
            Selection::Feasible(slot) => self
                .neighbour(slot)
                .is_some_and(|neighbour| neighbour.row(index).advert().distance.seqno >= seqno),
            _ => false,
        };
        if is_current {
            // The answer is an update, which was sent or is about to be.
            return;
        }
        let is_repeated = self
            .requested
            .get(&index)
            .is_some_and(|requested| requested.seqno >= seqno && self.now < requested.until);
        let Some(hops) = hops.checked_sub(1).filter(|_| !is_repeated && self.options.relay.is_some()) else {
            return;
        };
        // Towards the destination: along the route, or along a detour that avoids the neighbour that asks.
        let target = match selection {
            Selection::Feasible(slot) if slot != from => Some(slot),
            _ => {
                let others = self.candidates(index).filter(|candidate| candidate.slot != from);
                others.min_by_key(|candidate| (candidate.total.metric, candidate.slot)).map(|best| best.slot)
            }
        };
        if let Some(slot) = target {
            self.push_request(slot, index, seqno, hops);
            let attempts = self.requested.get(&index).map_or(0, |requested| requested.attempts);
            let until = self.now + REPEAT / 2;
            self.requested.insert(index, Requested { seqno, until, attempts });
        }
    }

    /// Whether this node may still meet the sequence number of its previous run: a hold-down after its first
    /// link came up, its neighbours have forgotten that number or have shown it.
    fn is_young(&self) -> bool {
        self.joined.is_none_or(|joined| self.now < joined + self.options.hold_down)
    }

    /// Raises the sequence number of this node, not more often than its interval allows.
    fn want_seqno(&mut self, seqno: u32) {
        // RFC 8966 §3.8.1.2 raises by one. A young node raises to any number that it can have used before: a
        // node without a clock begins at 1, and its previous run had a clock. Later, a larger step would only
        // serve a forger.
        let is_plausible = self.is_young() && seqno <= SEQNO_CATCH_UP_MAX;
        let seqno = if is_plausible { seqno } else { seqno.min(self.seqno.saturating_add(1)) };
        if self.seqno_raised.is_some_and(|raised| self.now < raised + SEQNO_INTERVAL) {
            self.seqno_wanted = self.seqno_wanted.max(Some(seqno));
            return;
        }
        self.seqno = seqno;
        self.seqno_wanted = None;
        self.seqno_raised = Some(self.now);
        let now = self.now;
        for neighbour in self.neighbours.iter_mut().flatten() {
            neighbour.mark(SELF);
            // Traffic on detours waits for it.
            neighbour.update_at = neighbour.update_at.min(now);
        }
    }

    /// A neighbour advertises this node. A higher sequence number than its own is from before a restart, or
    /// is forged.
    pub(super) fn own_seqno_seen(&mut self, neighbour: NodeId, seqno: u32) {
        if seqno <= self.seqno {
            return;
        }
        if !self.is_young() || seqno >= SEQNO_CATCH_UP_MAX {
            self.stats.forged_seqnos += 1;
            let report = Report::ForgedSeqno { neighbour, seqno, own: self.seqno };
            self.outputs.push_back(Output::Report(report));
        }
        self.want_seqno(seqno.saturating_add(1));
    }

    pub(super) fn request_timeout(&self) -> Option<Duration> {
        let repeats = self.requested.values().filter(|requested| requested.attempts > 0);
        let repeat = repeats
            .filter(|requested| requested.attempts < ATTEMPTS_MAX)
            .map(|requested| requested.until)
            .min();
        let seqno = self.seqno_wanted.and(self.seqno_raised).map(|raised| raised + SEQNO_INTERVAL);
        repeat.into_iter().chain(seqno).min()
    }

    /// Repeats requests that are due, and forgets those that are over.
    pub(super) fn request_due(&mut self) {
        let now = self.now;
        if let Some(seqno) = self.seqno_wanted
            && self.seqno_raised.is_none_or(|raised| raised + SEQNO_INTERVAL <= now)
        {
            self.seqno_wanted = None;
            if seqno > self.seqno {
                self.want_seqno(seqno);
            }
        }
        self.requested.retain(|_, requested| requested.attempts > 0 || requested.until > now);
        let due: Vec<u32> = self
            .requested
            .iter()
            .filter(|(_, requested)| requested.until <= now && requested.attempts < ATTEMPTS_MAX)
            .map(|(index, _)| *index)
            .collect();
        for index in due {
            let before = self.requested.get(&index).map(|requested| requested.attempts);
            self.request_if_useful(index);
            // Without any candidate left there is nothing to repeat.
            if self.requested.get(&index).map(|requested| requested.attempts) == before {
                self.requested.remove(&index);
            }
        }
    }
}
