//! Questions to the tables: routes, and the next hop of a packet.

use x0_identity::NodeId;

use super::super::table::{SELF, Selection};
use super::super::{Distance, ForwardError, NextHop, Packet, Route, RouteKind, Session};
use super::Router;
use super::select::Candidate;

impl Router {
    /// The route to a destination, `None` if there is none or it is this node.
    #[must_use]
    pub fn route(&self, destination: NodeId) -> Option<Route> {
        self.route_at(self.table.find(destination)?)
    }

    /// All routes, in no particular order.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.table.iter().filter_map(|(index, _)| self.route_at(index))
    }

    fn route_at(&self, index: u32) -> Option<Route> {
        let destination = self.table.get(index).filter(|_| index != SELF)?;
        let (slot, kind) = match destination.selection {
            Selection::None => return None,
            Selection::Feasible(slot) => (slot, RouteKind::Feasible),
            Selection::Detour(slot) => (slot, RouteKind::Detour),
        };
        let used = self.candidates(index).find(|candidate| candidate.slot == slot)?;
        let others = self.candidates(index).filter(|candidate| candidate.slot != slot);
        let backups =
            others.filter(|other| other.advert.distance.is_better_than(destination.feasible)).count();
        let neighbour = self.neighbour(slot)?;
        Some(Route {
            destination: destination.node,
            next: neighbour.peer,
            link: neighbour.best.0,
            distance: used.total,
            price: used.price,
            mtu: used.mtu,
            region: destination.region,
            kind,
            backups,
        })
    }

    /// Where a packet goes. See [the module](super::super) on bounds.
    ///
    /// # Errors
    /// [`ForwardError`]; the packet is to be dropped.
    pub fn forward(&self, packet: &Packet) -> Result<NextHop, ForwardError> {
        let destination = packet.destination;
        let no_route = ForwardError::NoRoute { destination };
        let index = self.table.find(destination).filter(|index| *index != SELF).ok_or(no_route)?;
        let selection = self.table.get(index).map_or(Selection::None, |known| known.selection);
        let slot = selection.slot().ok_or(no_route)?;
        let Some(bound) = packet.bound else {
            let used = self.candidates(index).find(|candidate| candidate.slot == slot).ok_or(no_route)?;
            let is_detour = matches!(selection, Selection::Detour(_));
            return self.hop(&used, is_detour).ok_or(no_route);
        };
        // The neighbour that sent the packet here knows of a way that avoids it.
        let from = packet.from.and_then(|from| self.slots.get(&from).copied());
        let nearer = self
            .candidates(index)
            .filter(|candidate| candidate.advert.distance.metric < bound && Some(candidate.slot) != from);
        let best = nearer.min_by_key(|candidate| {
            (Some(candidate.slot) != selection.slot(), candidate.total.metric, candidate.slot)
        });
        best.and_then(|best| self.hop(&best, true)).ok_or(ForwardError::Bound { destination, bound })
    }

    fn hop(&self, candidate: &Candidate, is_bounded: bool) -> Option<NextHop> {
        let neighbour = self.neighbour(candidate.slot)?;
        Some(NextHop {
            peer: neighbour.peer,
            link: neighbour.best.0,
            bound: is_bounded.then_some(candidate.advert.distance.metric),
            price: candidate.price,
            mtu: neighbour.best.1.mtu,
        })
    }

    /// The best distance that this node has advertised of a destination: what the feasibility condition
    /// compares with. For invariants, see [the module](super::super).
    #[must_use]
    pub fn feasibility_distance(&self, destination: NodeId) -> Option<Distance> {
        let index = self.table.find(destination)?;
        if index == SELF {
            return Some(Distance { seqno: self.seqno, metric: 0 });
        }
        self.table.get(index).map(|known| known.feasible).filter(|feasible| feasible.is_finite())
    }

    /// The session with a neighbour, once both ends agree on it. A packet of another session must not be
    /// forwarded: its sender may hold routes that this node no longer knows of.
    #[must_use]
    pub fn session(&self, peer: NodeId) -> Option<Session> {
        let neighbour = self.neighbour(*self.slots.get(&peer)?)?;
        let remote = neighbour.remote.filter(|_| neighbour.is_established)?;
        Some(Session { local: neighbour.session, remote })
    }
}
