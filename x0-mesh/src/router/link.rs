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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LinkCost {
    /// Without unit, from 1: routes with the smallest sum are used. Zero counts as 1.
    pub metric: u32,
    /// Money per GB, in the smallest unit of the operator's currency; zero for a free link. It is carried
    /// beside the metric, so that a service can refuse a paid path: see
    /// [`NextHop::price`](super::NextHop::price).
    pub price: u16,
    /// The longest datagram that it carries, in bytes; `u16::MAX` without a limit. Zero counts as 1. Routes
    /// carry the least of their links, so that each node knows the limit of each of its paths: see
    /// [`Route::mtu`](super::Route::mtu).
    pub mtu: u16,
}

impl Default for LinkCost {
    fn default() -> LinkCost {
        LinkCost::new(0)
    }
}

impl LinkCost {
    /// A free link of this metric, without a limit of length.
    #[must_use]
    pub const fn new(metric: u32) -> LinkCost {
        LinkCost { metric, price: 0, mtu: u16::MAX }
    }

    /// Sets [`LinkCost::price`].
    #[must_use]
    pub const fn price(mut self, per_gb: u16) -> LinkCost {
        self.price = per_gb;
        self
    }

    /// Sets [`LinkCost::mtu`]; zero counts as 1.
    #[must_use]
    pub const fn mtu(mut self, mtu: u16) -> LinkCost {
        self.mtu = if mtu == 0 { 1 } else { mtu };
        self
    }
}
