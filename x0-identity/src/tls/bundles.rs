//! The bundles that an identity keeps itself.

use std::sync::Arc;

use super::Swap;
use crate::{BundleSource, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain};

/// A set of bundles that handshakes read and that is replaced as a whole.
#[derive(Debug)]
pub(super) struct Bundles(Swap<TrustBundleSet>);

impl Bundles {
    pub(super) fn new(bundle: TrustBundle) -> Bundles {
        Bundles(Swap::new(bundle.into()))
    }

    /// Changes the set. Two changes at once are both kept.
    pub(super) fn change(&self, change: impl FnOnce(&mut TrustBundleSet)) {
        self.0.change(change);
    }
}

impl BundleSource for Bundles {
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.0.load().get(trust_domain).cloned()
    }

    fn admits(&self, spiffe_id: &SpiffeId) -> bool {
        self.0.load().admits(spiffe_id)
    }
}
