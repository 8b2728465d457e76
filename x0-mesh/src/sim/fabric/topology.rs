//! Shapes of networks.

use std::time::Duration;

use crate::random::SplitMix64;

/// The shape of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Topology {
    /// Each node with the next one.
    Line {
        /// How many nodes.
        nodes: usize,
    },
    /// A line whose ends are joined.
    Ring {
        /// How many nodes.
        nodes: usize,
    },
    /// Rows and columns, each node with up to four others.
    Grid {
        /// Nodes in a row.
        width: usize,
        /// Nodes in a column.
        height: usize,
    },
    /// Each node with its parent. The first is the root.
    Tree {
        /// How many nodes.
        nodes: usize,
        /// Children of a node.
        arity: usize,
    },
    /// Nodes at random places of a square of side 1, each with all within reach. Parts that are not joined by
    /// that are joined by a line.
    Geometric {
        /// How many nodes.
        nodes: usize,
        /// The reach.
        radius: f64,
    },
    /// Satellites in planes: each with its neighbours in the plane, and with one of the next plane, which
    /// changes as they move. The changes are part of the topology.
    Satellites {
        /// How many planes.
        planes: usize,
        /// Satellites in a plane.
        per_plane: usize,
        /// After how long a satellite passes to another one of the next plane.
        handover: Duration,
        /// Until when they move.
        until: Duration,
    },
}

type Pair = (usize, usize);

/// Nodes by position, links, and cuts (`true`) and repairs at times.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) links: Vec<Pair>,
    pub(super) changes: Vec<(Duration, bool, Pair)>,
}

impl Topology {
    pub(super) fn plan(&self, random: &mut SplitMix64) -> Plan {
        match *self {
            Topology::Line { nodes } => Plan { nodes, links: line(nodes).collect(), ..Plan::default() },
            Topology::Ring { nodes } => {
                let closing = (nodes > 2).then(|| (nodes - 1, 0));
                Plan { nodes, links: line(nodes).chain(closing).collect(), ..Plan::default() }
            }
            Topology::Grid { width, height } => {
                let nodes = width * height;
                let right = (0..nodes).filter(|at| (at + 1) % width != 0).map(|at| (at, at + 1));
                let down = (0..nodes.saturating_sub(width)).map(|at| (at, at + width));
                Plan { nodes, links: right.chain(down).collect(), ..Plan::default() }
            }
            Topology::Tree { nodes, arity } => {
                let links = (1..nodes).map(|at| ((at - 1) / arity.max(1), at)).collect();
                Plan { nodes, links, ..Plan::default() }
            }
            Topology::Geometric { nodes, radius } => geometric(nodes, radius, random),
            Topology::Satellites { planes, per_plane, handover, until } => {
                satellites(planes, per_plane, handover, until)
            }
        }
    }
}

fn line(nodes: usize) -> impl Iterator<Item = Pair> {
    (1..nodes).map(|at| (at - 1, at))
}

fn geometric(nodes: usize, radius: f64, random: &mut SplitMix64) -> Plan {
    let mut place = || random.below(1 << 20) as f64 / f64::from(1 << 20);
    let places: Vec<(f64, f64)> = (0..nodes).map(|_| (place(), place())).collect();
    let mut links = Vec::new();
    // The part that each node belongs to, by its lowest node.
    let mut parts: Vec<usize> = (0..nodes).collect();
    let join = |parts: &mut Vec<usize>, one: usize, other: usize| {
        let (low, high) = (parts[one].min(parts[other]), parts[one].max(parts[other]));
        for part in parts.iter_mut().filter(|part| **part == high) {
            *part = low;
        }
    };
    for one in 0..nodes {
        for other in one + 1..nodes {
            let (x, y) = (places[one].0 - places[other].0, places[one].1 - places[other].1);
            if x.hypot(y) <= radius {
                links.push((one, other));
                join(&mut parts, one, other);
            }
        }
    }
    for (one, other) in line(nodes) {
        if parts[one] != parts[other] {
            links.push((one, other));
            join(&mut parts, one, other);
        }
    }
    Plan { nodes, links, changes: Vec::new() }
}

fn satellites(planes: usize, per_plane: usize, handover: Duration, until: Duration) -> Plan {
    let at = |plane: usize, place: usize| plane * per_plane + place % per_plane;
    let mut plan = Plan { nodes: planes * per_plane, ..Plan::default() };
    for plane in 0..planes {
        for place in 0..per_plane {
            if per_plane > 2 || place + 1 < per_plane {
                plan.links.push((at(plane, place), at(plane, place + 1)));
            }
            if plane + 1 == planes {
                continue;
            }
            let pairs = [0, 1].map(|offset| (at(plane, place), at(plane + 1, place + offset)));
            plan.links.extend(pairs);
            // Handovers of a plane do not all happen at once.
            let mut time =
                handover * u32::try_from(place).unwrap_or(0) / u32::try_from(per_plane).unwrap_or(1);
            let mut current = 0;
            plan.changes.push((Duration::ZERO, true, pairs[1]));
            while time + handover < until && handover > Duration::ZERO {
                time += handover;
                plan.changes.push((time, true, pairs[current]));
                current = 1 - current;
                plan.changes.push((time, false, pairs[current]));
            }
        }
    }
    plan
}
