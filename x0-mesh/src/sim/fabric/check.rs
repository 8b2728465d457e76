//! The invariants that are checked at each event.

use x0_identity::NodeId;

use super::{Fabric, position};
use crate::router::{RouteFault, route_faults};

/// Violations beyond these are not recorded.
const VIOLATIONS_MAX: usize = 100;

/// What a [`Fabric`] checks at each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checks {
    /// Nothing.
    None,
    /// The routes that the event changed, and the tables of the node. Any new loop goes through a route that
    /// has changed.
    Changes,
    /// All routes of all nodes. For small fabrics.
    All,
}

/// An invariant that was broken. Nodes that forge messages are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FabricViolation {
    /// The routes to a destination lead from a node back to it.
    #[error("a loop: the routes of {at} to {destination} lead back to it")]
    Loop {
        /// The node.
        at: NodeId,
        /// The destination.
        destination: NodeId,
    },
    /// The feasibility distance of the next hop is not better than that of the node.
    #[error("the route of {at} to {destination} leads to {next}, whose feasibility distance is not better")]
    Feasibility {
        /// The node.
        at: NodeId,
        /// The next hop.
        next: NodeId,
        /// The destination.
        destination: NodeId,
    },
    /// A table is larger than the options allow.
    #[error("a table of {at} is beyond its bound")]
    Bounds {
        /// The node.
        at: NodeId,
    },
    /// A packet on a detour came no nearer to its destination.
    #[error("{at} sent a packet to {destination} on without lowering its bound")]
    Bound {
        /// The node.
        at: NodeId,
        /// The destination.
        destination: NodeId,
    },
}

impl Fabric {
    pub(super) fn check(&mut self, node: NodeId, changed: &[NodeId]) {
        let mut found = Vec::new();
        let limits = &self.options.router;
        if self.options.checks == Checks::None {
            return;
        }
        if let Some(router) = self.router(node) {
            let stats = router.stats();
            if stats.destinations > limits.destinations_max || stats.neighbours > limits.neighbours_max {
                found.push(FabricViolation::Bounds { at: node });
            }
        }
        if self.options.checks == Checks::All {
            for at in self.nodes() {
                for destination in self.nodes() {
                    self.check_route(at, destination, &mut found);
                }
            }
        } else {
            for destination in changed {
                self.check_route(node, *destination, &mut found);
            }
        }
        found.truncate(VIOLATIONS_MAX.saturating_sub(self.violations.len()));
        self.violations.append(&mut found);
    }

    /// Checks all routes of all nodes now, whatever [`Checks`] says.
    pub fn check_all(&mut self) {
        let mut found = Vec::new();
        for at in self.nodes() {
            for destination in self.nodes() {
                self.check_route(at, destination, &mut found);
            }
        }
        found.truncate(VIOLATIONS_MAX.saturating_sub(self.violations.len()));
        self.violations.append(&mut found);
    }

    fn check_route(&self, at: NodeId, destination: NodeId, found: &mut Vec<FabricViolation>) {
        let honest = |node: NodeId| {
            let state = self.nodes.get(position(node)).filter(|state| state.forgery.is_none())?;
            state.router.as_ref()
        };
        found.extend(route_faults(at, destination, self.nodes.len(), honest).into_iter().map(|fault| {
            match fault {
                RouteFault::Loop => FabricViolation::Loop { at, destination },
                RouteFault::Feasibility { next } => FabricViolation::Feasibility { at, next, destination },
            }
        }));
    }
}
