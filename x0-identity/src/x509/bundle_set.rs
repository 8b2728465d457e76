//! Bundles of several trust domains, and the seam through which verifiers read them.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::TrustBundle;
use crate::{SpiffeId, TrustDomain};

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
    /// The workloads of a trust domain that are admitted, where not all are.
    admitted: BTreeMap<TrustDomain, BTreeSet<SpiffeId>>,
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

    /// Removes the bundle of a trust domain: its SVIDs are untrusted from then on. A restriction of the trust
    /// domain stays.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.bundles.remove(trust_domain)
    }

    /// Admits the named workloads of a trust domain, and no others, whether or not the set has its bundle.
    /// IDs of other trust domains have no effect. With `None` every workload of the domain is admitted, as
    /// without a restriction.
    pub fn restrict(&mut self, trust_domain: &TrustDomain, admitted: Option<BTreeSet<SpiffeId>>) {
        match admitted {
            Some(admitted) => _ = self.admitted.insert(trust_domain.clone(), admitted),
            None => _ = self.admitted.remove(trust_domain),
        }
    }

    /// Whether the workload is not excluded by a restriction. The set may lack the bundle of its trust
    /// domain.
    #[must_use]
    pub fn admits(&self, spiffe_id: &SpiffeId) -> bool {
        self.admitted.get(spiffe_id.trust_domain()).is_none_or(|admitted| admitted.contains(spiffe_id))
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

    /// Whether a workload is admitted at all: a verifier refuses its valid chains otherwise. Unless
    /// implemented, every workload is.
    fn admits(&self, spiffe_id: &SpiffeId) -> bool {
        let _ = spiffe_id;
        true
    }
}

/// A set that does not change.
impl BundleSource for TrustBundleSet {
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.bundles.get(trust_domain).cloned()
    }

    fn admits(&self, spiffe_id: &SpiffeId) -> bool {
        TrustBundleSet::admits(self, spiffe_id)
    }
}
