//! A federation relationship: the parameters of one foreign trust domain.

use super::EndpointUrl;
use crate::{SpiffeBundle, SpiffeId, TrustDomain};

/// How a bundle endpoint is authenticated (§5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointProfile {
    /// `https_web`: by the certificate authorities of the web and the host of the URL.
    Web,
    /// `https_spiffe`: by an X.509-SVID.
    Spiffe {
        /// The SPIFFE ID of the endpoint.
        endpoint: SpiffeId,
    },
}

/// The parameters of a relationship with a foreign trust domain (§5.1). None of them is inferred from another
/// one (§7.2): take all of them from a source that cannot be tampered with (§7.1).
///
/// ```
/// use x0_identity::federation::{EndpointProfile, EndpointUrl, Relationship};
/// use x0_identity::{SpiffeBundle, SpiffeId, TrustDomain};
///
/// let trust_domain = TrustDomain::parse("example.com")?;
/// let url = EndpointUrl::parse("https://example.com/global/bundle.json")?;
/// let endpoint = SpiffeId::parse("spiffe://example.com/spiffe-bundle-server")?;
/// let bundle = SpiffeBundle::from_json(trust_domain.clone(), br#"{"keys": []}"#)?; // from the operator
/// let relationship =
///     Relationship::new(trust_domain, url, EndpointProfile::Spiffe { endpoint }).with_bundle(bundle)?;
/// assert!(relationship.is_self_serving());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relationship {
    trust_domain: TrustDomain,
    url: EndpointUrl,
    profile: EndpointProfile,
    bundle: Option<SpiffeBundle>,
}

/// The parameters do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelationshipError {
    /// The bundle is of another trust domain.
    #[error("the bundle of {bundle} is not that of {relationship}: configure the bundle of {relationship}")]
    TrustDomain {
        /// The trust domain of the relationship.
        relationship: TrustDomain,
        /// The trust domain of the bundle.
        bundle: TrustDomain,
    },
}

impl Relationship {
    /// Builds a relationship without a bundle.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, url: EndpointUrl, profile: EndpointProfile) -> Relationship {
        Relationship { trust_domain, url, profile, bundle: None }
    }

    /// Sets the bundle to begin with: the one that the operator supplies for a self-serving endpoint
    /// (§5.2.2.2), or the one that [`FederationOutput::Store`](super::FederationOutput::Store) had stored.
    ///
    /// # Errors
    /// [`RelationshipError::TrustDomain`], when the bundle is of another trust domain.
    pub fn with_bundle(mut self, bundle: SpiffeBundle) -> Result<Relationship, RelationshipError> {
        if *bundle.trust_domain() != self.trust_domain {
            return Err(RelationshipError::TrustDomain {
                relationship: self.trust_domain,
                bundle: bundle.trust_domain().clone(),
            });
        }
        self.bundle = Some(bundle);
        Ok(self)
    }

    /// The foreign trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The URL of the bundle endpoint.
    #[must_use]
    pub fn url(&self) -> &EndpointUrl {
        &self.url
    }

    /// The profile of the bundle endpoint.
    #[must_use]
    pub fn profile(&self) -> &EndpointProfile {
        &self.profile
    }

    /// The bundle to begin with.
    #[must_use]
    pub fn bundle(&self) -> Option<&SpiffeBundle> {
        self.bundle.as_ref()
    }

    /// Whether the endpoint's SPIFFE ID is in the trust domain whose bundle it serves (§5.2.2.2).
    #[must_use]
    pub fn is_self_serving(&self) -> bool {
        matches!(&self.profile, EndpointProfile::Spiffe { endpoint } if *endpoint.trust_domain() == self.trust_domain)
    }
}
