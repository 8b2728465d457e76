//! Links as the router sees them.

use core::fmt;

/// A link of this node: the driver chooses the number. Several links may lead to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "link {}", self.0)
    }
}

/// The cost of sending over a link, and of a path as the sum of its links and relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkCost {
    /// Without unit, from 1: routes with the smallest sum are used. Zero counts as 1.
    pub metric: u32,
    /// Money per GB, in the smallest unit of the operator's currency; zero for a free link. It is carried
    /// beside the metric, so that a service can refuse a paid path: see
    /// [`NextHop::price`](super::NextHop::price).
    pub price: u16,
}

impl LinkCost {
    /// A free link of this metric.
    #[must_use]
    pub const fn new(metric: u32) -> LinkCost {
        LinkCost { metric, price: 0 }
    }
}
