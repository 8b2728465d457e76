//! [`Flag`]: a switch that enabling wins.

use crate::types::change::Change;
use crate::types::store::{Dots, wrap_store};

/// A switch, off at first: of a concurrent enabling and disabling, the enabling wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flag(pub(super) Dots<()>);

impl Flag {
    /// Whether it is on.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        !self.0.is_empty()
    }

    /// Switches it on.
    #[must_use = "this is the store of the delta"]
    pub fn enable(&self, change: &mut Change) -> Self {
        Self(self.0.replaced(change, ()))
    }

    /// Switches it off. Off already: no event.
    #[must_use = "this is the store of the delta"]
    pub fn disable(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn dots(&self) -> &Dots<()> {
        &self.0
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_dots(dots: Dots<()>) -> Self {
        Self(dots)
    }
}

wrap_store!([] Flag, Dots<()>);
