//! The choice of a next hop, and of what is advertised.

use super::super::message::Advert;
use super::super::neighbour::Neighbour;
use super::super::table::{Removal, SELF, Selection, Slot};
use super::super::{Distance, Output};
use super::Router;

/// A way to a destination through a neighbour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) slot: Slot,
    /// As the neighbour advertises it.
    pub(super) advert: Advert,
    /// From this node.
    pub(super) total: Distance,
    pub(super) price: u16,
    pub(super) mtu: u16,
}

impl Candidate {
    /// Routes of the protocol come before detours of the neighbour, then short before long ones.
    fn rank(&self) -> (bool, u32, Slot) {
        (self.advert.depth > 0, self.total.metric, self.slot)
    }

    fn is_feasible(&self, feasible: Distance) -> bool {
        self.advert.distance.is_better_than(feasible)
    }
}

impl Router {
    /// All neighbours that reach a destination.
    pub(super) fn candidates(&self, index: u32) -> impl Iterator<Item = Candidate> {
        (0..).zip(&self.neighbours).filter_map(move |(slot, neighbour)| {
            let neighbour = neighbour.as_ref()?;
            let advert = neighbour.row(index).advert();
            let cost = neighbour.best.1;
            let total = advert.distance.through(cost.metric);
            let price = advert.price.saturating_add(cost.price);
            let mtu = advert.mtu.min(cost.mtu);
            total.is_finite().then_some(Candidate { slot, advert, total, price, mtu })
        })
    }

    pub(super) fn evaluate_all(&mut self) {
        for index in 1..self.table.end() {
            self.evaluate(index);
        }
    }

    /// Chooses the next hop of a destination, and marks what has to be advertised.
    pub(super) fn evaluate(&mut self, index: u32) {
        let Some(destination) = self.table.get(index).filter(|_| index != SELF).copied() else { return };
        let mut feasible = destination.feasible;
        // Found once: each look at the tables of all neighbours is a look at memory that is in no cache.
        let mut candidates = core::mem::take(&mut self.candidates_room);
        candidates.extend(self.candidates(index));
        let (chosen, is_feasible) = self.choose(&candidates, destination.selection, feasible);
        let selection = match chosen {
            None => Selection::None,
            Some(candidate) if is_feasible => {
                // RFC 8966 §3.7.3, at the choice and not only at the update: it is never looser.
                feasible = feasible.better(candidate.total);
                Selection::Feasible(candidate.slot)
            }
            Some(candidate) => Selection::Detour(candidate.slot),
        };
        let primary = chosen.map_or(Advert::NONE, |candidate| self.offer(&candidate, !is_feasible, feasible));
        let next = selection.slot();
        let alternate = next.map_or(Advert::NONE, |next| {
            let others = candidates.iter().filter(|candidate| candidate.slot != next);
            let others = others.filter(|candidate| candidate.advert.depth < self.options.detour_depth_max);
            others
                .min_by_key(|candidate| candidate.rank())
                .map_or(Advert::NONE, |candidate| self.offer(candidate, true, feasible))
        });
        let old_next = destination.selection.slot();
        let is_primary_new = is_news(destination.primary(), primary, 16);
        let is_alternate_new = is_news(destination.alternate(), alternate, 4);
        if let Some(destination) = self.table.get_mut(index) {
            destination.feasible = feasible;
            destination.selection = selection;
            if is_primary_new {
                destination.set_primary(&primary);
            }
            if is_alternate_new {
                destination.set_alternate(&alternate);
            }
        }
        for (slot, neighbour) in (0..).zip(self.neighbours.iter_mut()) {
            let Some(neighbour) = neighbour else { continue };
            let hears_alternate = next == Some(slot);
            let heard_alternate = old_next == Some(slot);
            let is_new = if hears_alternate { is_alternate_new } else { is_primary_new };
            if is_new || hears_alternate != heard_alternate {
                neighbour.mark(index);
            }
        }
        if destination.selection != selection {
            self.stats.starvations +=
                u64::from(matches!(destination.selection, Selection::Feasible(_)) && !is_feasible);
            if old_next != next {
                self.count_change(index, old_next, next);
            }
            let next = next.and_then(|slot| self.neighbour(slot)).map(|neighbour| neighbour.peer);
            self.outputs.push_back(Output::RouteChanged { destination: destination.node, next });
        }
        self.request_among(index, &candidates);
        candidates.clear();
        self.candidates_room = candidates;
        self.plan_removal(index, next.is_none());
    }

    /// Counts the change of a next hop, and why the old one was left if it failed.
    fn count_change(&mut self, index: u32, old: Option<Slot>, new: Option<Slot>) {
        self.stats.route_changes += 1;
        let (Some(old), Some(_)) = (old, new) else { return };
        let has_way = self.candidates(index).any(|candidate| candidate.slot == old);
        let failovers = match self.neighbour(old).map(Neighbour::is_degraded) {
            None => &mut self.stats.failovers.link_down,
            Some(true) => &mut self.stats.failovers.link_degraded,
            Some(false) if !has_way => &mut self.stats.failovers.withdrawn,
            // The new way is better.
            Some(false) => return,
        };
        *failovers += 1;
    }

    fn plan_removal(&mut self, index: u32, is_lost: bool) {
        let Some(destination) = self.table.get_mut(index) else { return };
        match destination.removal {
            Removal::None if is_lost => {
                destination.removal = Removal::Due;
                self.expiring.insert((self.now + self.options.hold_down, index));
            }
            Removal::Due if !is_lost => destination.removal = Removal::Postponed,
            _ => {}
        }
    }

    /// The best feasible candidate, else the best for a detour. A working route is left only for one that is
    /// better by an eighth.
    fn choose(
        &self,
        candidates: &[Candidate],
        current: Selection,
        feasible: Distance,
    ) -> (Option<Candidate>, bool) {
        let best = |is_feasible: bool| {
            candidates
                .iter()
                .copied()
                .filter(|candidate| candidate.is_feasible(feasible) == is_feasible)
                .filter(|candidate| is_feasible || candidate.advert.depth < self.options.detour_depth_max)
                .min_by_key(Candidate::rank)
        };
        let Some(best_feasible) = best(true) else { return (best(false), false) };
        if let Selection::Feasible(slot) = current
            && let Some(kept) = candidates.iter().copied().find(|candidate| candidate.slot == slot)
            && kept.is_feasible(feasible)
            && (kept.advert.depth > 0) == (best_feasible.advert.depth > 0)
            && kept.total.metric - kept.total.metric / 8 <= best_feasible.total.metric
        {
            return (Some(kept), true);
        }
        (Some(best_feasible), true)
    }

    /// Whether a newer sequence number of the destination would help: this node is starved and some neighbour
    /// has a way, or a way that is not feasible is much better than the route (RFC 8966 §3.8.2.2).
    pub(super) fn wants_seqno(&self, index: u32, candidates: &[Candidate]) -> bool {
        let Some(destination) = self.table.get(index).filter(|known| known.feasible.is_finite()) else {
            return false;
        };
        let metric = match destination.selection {
            Selection::Feasible(slot) => candidates
                .iter()
                .find(|candidate| candidate.slot == slot)
                .map_or(Distance::METRIC_INFINITE, |used| used.total.metric - used.total.metric / 4),
            _ => Distance::METRIC_INFINITE,
        };
        candidates
            .iter()
            .any(|candidate| !candidate.is_feasible(destination.feasible) && candidate.total.metric < metric)
    }

    /// What this node advertises of a candidate. It is never better than the feasibility distance: that is
    /// the rule that the proof of loop-freedom rests on.
    fn offer(&self, candidate: &Candidate, is_detour: bool, feasible: Distance) -> Advert {
        let Some(relay) = self.options.relay else { return Advert::NONE };
        let metric = candidate.total.metric.saturating_add(relay.metric);
        if metric == Distance::METRIC_INFINITE {
            return Advert::NONE;
        }
        let distance = Distance { seqno: candidate.total.seqno, metric };
        let distance = if distance.is_better_than(feasible) { feasible } else { distance };
        let depth = candidate.advert.depth + u8::from(is_detour);
        Advert { distance, price: candidate.price.saturating_add(relay.price), mtu: candidate.mtu, depth }
    }

    /// What a neighbour is to know of a destination.
    pub(super) fn advert_to(&self, slot: Slot, index: u32) -> Advert {
        if index == SELF {
            let distance = Distance { seqno: self.seqno, metric: 0 };
            return Advert { distance, price: 0, mtu: u16::MAX, depth: 0 };
        }
        let Some(destination) = self.table.get(index) else { return Advert::NONE };
        if destination.selection.slot() != Some(slot) {
            destination.primary()
        } else if self.neighbour(slot).is_some_and(|neighbour| neighbour.peer == destination.node) {
            // The neighbour needs no way to itself. (A primary route is sent to it: that is how it sees
            // forgeries.)
            Advert::NONE
        } else {
            destination.alternate()
        }
    }
}

/// Whether an advert has to be sent in place of an old one. Small changes of the metric are not: the old
/// statement remains safe, because feasibility distances never get worse.
fn is_news(old: Advert, new: Advert, share: u32) -> bool {
    let is_same = old.is_some() == new.is_some()
        && old.distance.seqno == new.distance.seqno
        && old.depth == new.depth
        && old.price == new.price
        && old.mtu == new.mtu;
    !is_same || old.distance.metric.abs_diff(new.distance.metric) > old.distance.metric / share
}
