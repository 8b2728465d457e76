//! Bundles of several trust domains, and the seam through which verifiers read them.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::TrustBundle;
use crate::TrustDomain;

/// Trust bundles keyed by trust domain. Bundles are never merged: an authority is trusted for its own domain
/// only (Trust Domain and Bundle §3).
///
/// ```
/// use x0_identity::{TrustBundle, TrustBundleSet, TrustDomain};
///
/// let (own, other) = (TrustDomain::parse("example.org")?, TrustDomain::parse("example.com")?);
/// let mut bundles = TrustBundleSet::new();
/// bundles.insert(TrustBundle::new(own.clone(), Vec::new())?);
/// assert!(bundles.get(&own).is_some());
/// assert!(bundles.get(&other).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundleSet {
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}

impl TrustBundleSet {
    /// Builds an empty set.
    #[must_use]
    pub fn new() -> TrustBundleSet {
        TrustBundleSet::default()
    }

    /// Puts a bundle in the place of the one that its trust domain has, and returns that.
    pub fn insert(&mut self, bundle: TrustBundle) -> Option<Arc<TrustBundle>> {
        self.bundles.insert(bundle.trust_domain().clone(), Arc::new(bundle))
    }

    /// Removes the bundle of a trust domain: its SVIDs are untrusted from then on.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.bundles.remove(trust_domain)
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(trust_domain)
    }

    /// The bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.bundles.values().map(Arc::as_ref)
    }

    /// The number of trust domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bundles.len()
    }

    /// Whether the set has no bundle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }
}

impl FromIterator<TrustBundle> for TrustBundleSet {
    /// The last of several bundles of one trust domain stays.
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> TrustBundleSet {
        let mut set = TrustBundleSet::new();
        for bundle in bundles {
            set.insert(bundle);
        }
        set
    }
}

impl From<TrustBundle> for TrustBundleSet {
    fn from(bundle: TrustBundle) -> TrustBundleSet {
        [bundle].into_iter().collect()
    }
}

/// The seam between verifiers and whatever stores bundles. A verifier asks at each handshake, so an answer
/// takes effect with the next one.
///
/// The implementation returns the current bundle of the domain that it is asked for, or `None` if it trusts
/// no authority of it; it never returns the bundle of another domain (a verifier refuses that). It is called
/// from handshakes: it does not block on I/O.
pub trait BundleSource: fmt::Debug + Send + Sync {
    /// The current bundle of a trust domain.
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>>;
}

/// A set that does not change.
impl BundleSource for TrustBundleSet {
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.bundles.get(trust_domain).cloned()
    }
}
