//! The invariants of routes, over the routers of a whole network: for simulators and models.

use alloc::vec::Vec;

use x0_identity::NodeId;

use super::{RouteKind, Router, Session};

/// A route that breaks the safety rule of the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteFault {
    /// The routes lead from the node back to it, or to a loop.
    #[error("the routes lead back to the node, or to a loop")]
    Loop,
    /// The feasibility distance of the next hop is not better than that of the node.
    #[error("the feasibility distance of the next hop {next} is not better")]
    Feasibility {
        /// The next hop.
        next: NodeId,
    },
}

/// The faults of the route of a node to a destination, in a network of up to `nodes` nodes. `router` returns
/// the routers that run and are honest; a route ends at the others.
pub fn route_faults<'a>(
    at: NodeId,
    destination: NodeId,
    nodes: usize,
    router: impl Fn(NodeId) -> Option<&'a Router>,
) -> Vec<RouteFault> {
    let next_of = |at: NodeId| next(at, destination, &router);
    let Some(next) = next_of(at) else { return Vec::new() };
    let mut faults = Vec::new();
    let distance = |node| router(node).and_then(|router| router.feasibility_distance(destination));
    let falls = distance(next).is_some_and(|next| distance(at).is_some_and(|at| next.is_better_than(at)));
    if !falls {
        faults.push(RouteFault::Feasibility { next });
    }
    let (mut current, mut hops) = (Some(next), 0);
    while let Some(hop) = current {
        hops += 1;
        if hop == at || hops > nodes {
            faults.push(RouteFault::Loop);
            break;
        }
        current = next_of(hop);
    }
    faults
}

/// The next hop for packets without bound, over a session that both ends agree on: others are refused.
fn next<'a>(
    at: NodeId,
    destination: NodeId,
    router: &impl Fn(NodeId) -> Option<&'a Router>,
) -> Option<NodeId> {
    let here = router(at)?;
    let next = here.route(destination).filter(|route| route.kind == RouteKind::Feasible)?.next;
    let session = here.session(next)?;
    let mirrored = Session { local: session.remote, remote: session.local };
    router(next)?.session(at).filter(|other| *other == mirrored)?;
    Some(next)
}
