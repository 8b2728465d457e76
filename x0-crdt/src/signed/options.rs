//! The settings of a [`SignedMap`](super::SignedMap).

use core::time::Duration;

use crate::SessionOptions;
use crate::chain::ChainOptions;

/// The settings of a [`SignedMap`](super::SignedMap).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedMapOptions {
    /// Batches and what is held of chains.
    pub chain: ChainOptions,
    /// The budget of each session.
    pub session: SessionOptions,
    /// How long a member is waited for that sends nothing. A heartbeat is counted eight times in it, with one
    /// pass over the map each.
    pub lease: Duration,
    /// How long a value may stay unsigned while its batch is not full.
    pub sign_after: Duration,
}

impl SignedMapOptions {
    /// Sets [`chain`](Self#structfield.chain).
    #[must_use]
    pub const fn chain(mut self, options: ChainOptions) -> Self {
        self.chain = options;
        self
    }

    /// Sets [`session`](Self#structfield.session).
    #[must_use]
    pub fn session(mut self, options: SessionOptions) -> Self {
        self.session = options;
        self
    }

    /// Sets [`lease`](Self#structfield.lease).
    #[must_use]
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets [`sign_after`](Self#structfield.sign_after).
    #[must_use]
    pub const fn sign_after(mut self, pause: Duration) -> Self {
        self.sign_after = pause;
        self
    }
}

impl Default for SignedMapOptions {
    /// A lease of ten minutes; a value stays unsigned for a second at most.
    fn default() -> Self {
        Self {
            chain: ChainOptions::default(),
            session: SessionOptions::default(),
            lease: Duration::from_secs(600),
            sign_after: Duration::from_secs(1),
        }
    }
}
