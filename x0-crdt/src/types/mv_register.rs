//! [`MvRegister`]: a register that shows all concurrent values.

use crate::codec::Canonical;
use crate::dot::Dot;
use crate::types::change::Change;
use crate::types::store::{Dots, wrap_store};

/// A register: a write replaces the values it has seen; of concurrent writes all stay, until the next write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MvRegister<V>(Dots<V>);

impl<V> Default for MvRegister<V> {
    fn default() -> Self {
        Self(Dots::default())
    }
}

impl<V: Clone + Eq + Canonical> MvRegister<V> {
    /// The values, ascending by the dot that wrote them; none before the first write.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone + '_ {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values with their dots.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Dot, &V)> + Clone + '_ {
        self.0.iter()
    }

    /// Writes a value over all that are seen.
    #[must_use = "this is the store of the delta"]
    pub fn write(&self, change: &mut Change, value: V) -> Self {
        Self(self.0.replaced(change, value))
    }

    /// Removes all values that are seen. None there: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_dots(dots: Dots<V>) -> Self {
        Self(dots)
    }
}

wrap_store!([V: Clone + Eq + Canonical] MvRegister<V>, Dots<V>);
