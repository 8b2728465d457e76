//! Distances and the feasibility condition.

/// How far a destination is, and how recent the statement is: the "distance" of RFC 8966 §2.4.
///
/// Distances are ordered by *preference for safety*, not by length: a distance with a newer sequence number
/// is better than any with an older one, and among equal sequence numbers the shorter is better. A route is
/// feasible if its neighbour advertised a distance better than the best that this node has ever advertised;
/// then no loop can arise, whatever messages were lost or reordered.
///
/// ```
/// use x0_mesh::router::Distance;
///
/// let advertised = Distance { seqno: 7, metric: 300 };
/// assert!(Distance { seqno: 7, metric: 299 }.is_better_than(advertised));
/// assert!(!advertised.is_better_than(advertised));
/// assert!(Distance { seqno: 8, metric: 900 }.is_better_than(advertised));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Distance {
    /// The sequence number of the destination. Only the destination raises it.
    pub seqno: u32,
    /// The length of the path: the sum of its links' metrics.
    pub metric: u32,
}

impl Distance {
    /// The metric of a destination that cannot be reached.
    pub const METRIC_INFINITE: u32 = u32::MAX;
    /// Worse than every advertised distance: the feasibility distance of an unknown destination.
    pub const WORST: Distance = Distance { seqno: 0, metric: Distance::METRIC_INFINITE };

    /// Whether this distance is strictly better: the feasibility condition of RFC 8966 §3.5.1, where `other`
    /// is the feasibility distance.
    #[must_use]
    pub const fn is_better_than(self, other: Distance) -> bool {
        self.seqno > other.seqno || (self.seqno == other.seqno && self.metric < other.metric)
    }

    /// Whether the destination can be reached.
    #[must_use]
    pub const fn is_finite(self) -> bool {
        self.metric != Distance::METRIC_INFINITE
    }

    /// The better of two.
    pub(super) const fn better(self, other: Distance) -> Distance {
        if other.is_better_than(self) { other } else { self }
    }

    /// The distance through a link. A sum that does not fit is infinite (RFC 8966 §3.5.2: the sum is strictly
    /// greater than the distance, so a link never costs zero).
    pub(super) const fn through(self, link_metric: u32) -> Distance {
        let link_metric = if link_metric == 0 { 1 } else { link_metric };
        Distance { seqno: self.seqno, metric: self.metric.saturating_add(link_metric) }
    }
}
