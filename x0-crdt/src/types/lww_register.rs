//! [`LwwRegister`]: a register in which the last write wins.

use alloc::vec::Vec;

use crate::codec::Canonical;
use crate::dot::Dot;
use crate::types::change::Change;
use crate::types::clock::Stamp;
use crate::types::store::{Dots, wrap_store};

/// A register with the time of each write: a write replaces the values it has seen, whatever its time; of
/// concurrent ones the latest wins, by (time, dot, value).
///
/// The values that lose stay, until a write that has seen them replaces them. Dropped at once, they would
/// break associativity: let `a` at time 10 and `b` at time 5 be concurrent, and let `c` at time 3 replace
/// `a`. If one replica joins `a` and `b` and drops `b`, then `c` leaves it with `c`; if another joins `a` and
/// `c` first, then `b` wins over `c`. Kept, the siblings are `b` and `c` on both.
///
/// A writer whose clock runs ahead would win for as long as it is ahead. No bound on the times that are
/// *joined* helps: a replica that refused a write because of its own clock would diverge from one that did
/// not. So all are joined, and a read states how far it trusts: [`winner`](Self::winner) ignores what is
/// stamped later than its limit and [`quarantined`](Self::quarantined) shows it. It becomes readable when the
/// clocks have caught up, or is gone when a write replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LwwRegister<V>(Dots<(Stamp, V)>);

impl<V> Default for LwwRegister<V> {
    fn default() -> Self {
        Self(Dots::default())
    }
}

impl<V: Clone + Eq + Canonical> LwwRegister<V> {
    /// The value to show if no timestamp later than `limit` is trusted (see
    /// [`Clock::limit`](crate::types::Clock::limit)).
    #[must_use]
    pub fn winner(&self, limit: Stamp) -> Option<&V> {
        let trusted = self.siblings().filter(|(_, stamp, _)| *stamp <= limit);
        // The dots differ, so the values need not be compared: two values of one dot are settled when they
        // are joined.
        trusted.max_by_key(|(dot, stamp, _)| (*stamp, *dot)).map(|(_, _, value)| value)
    }

    /// The values stamped later than `limit`.
    pub fn quarantined(&self, limit: Stamp) -> impl Iterator<Item = (Dot, Stamp, &V)> + '_ {
        self.siblings().filter(move |(_, stamp, _)| *stamp > limit)
    }

    /// All values that no write has replaced, ascending by dot.
    pub fn siblings(&self) -> impl ExactSizeIterator<Item = (Dot, Stamp, &V)> + Clone + '_ {
        self.0.iter().map(|(dot, (stamp, value))| (dot, *stamp, value))
    }

    /// Writes a value over all that are seen, also over quarantined ones.
    #[must_use = "this is the store of the delta"]
    pub fn set(&self, change: &mut Change, stamp: Stamp, value: V) -> Self {
        Self(self.0.replaced(change, (stamp, value)))
    }

    /// Removes all values that are seen. None there: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }

    /// All values, the winner first, as if every time was trusted.
    #[must_use]
    pub fn ranking(&self) -> Vec<&V> {
        let mut siblings: Vec<_> = self.siblings().collect();
        siblings.sort_unstable_by_key(|(dot, stamp, _)| core::cmp::Reverse((*stamp, *dot)));
        siblings.into_iter().map(|(_, _, value)| value).collect()
    }
}

wrap_store!([V: Clone + Eq + Canonical] LwwRegister<V>, Dots<(Stamp, V)>);
