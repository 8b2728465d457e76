//! Whom a trust domain's identities are signed by.

use pki_types::CertificateDer;
use std::string::String;
use std::vec::Vec;

use super::{PemError, SigningError, check_signing_certificate, read_parts, write_certificate};
use crate::TrustDomain;

/// The signing certificates that speak for one trust domain.
///
/// The name and the certificates belong together (Trust Domain and Bundle §3): a certificate of the bundle vouches for
/// identities of this domain and no other. An empty bundle is valid and trusts nobody (§4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// The most authorities a bundle holds. A root rotation needs two.
    pub const AUTHORITIES_MAX: usize = 64;

    /// The bundle of a domain. A certificate given twice counts once.
    ///
    /// # Errors
    /// [`BundleError`], when there are too many or one breaks a rule of X509-SVID for signing certificates.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<TrustBundle, BundleError> {
        let mut bundle = TrustBundle { trust_domain, authorities: Vec::new() };
        for (position, authority) in authorities.into_iter().enumerate() {
            bundle.add(authority, position)?;
        }
        Ok(bundle)
    }

    /// The bundle of a domain from PEM text with one certificate after the other. No certificate makes an empty bundle.
    ///
    /// # Errors
    /// [`BundleError`], when the text is damaged or holds a private key, or as for [`TrustBundle::new`].
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<TrustBundle, BundleError> {
        let parts = read_parts(pem)?;
        if parts.key.is_some() {
            return Err(BundleError::PrivateKey);
        }
        TrustBundle::new(trust_domain, parts.certificates)
    }

    /// The certificates as PEM text. The name of the domain is not in it: record it beside.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for authority in &self.authorities {
            write_certificate(authority, &mut pem);
        }
        pem
    }

    /// Adds the authorities of another bundle of the same domain, as one does ahead of a root rotation.
    ///
    /// # Errors
    /// [`BundleError::TrustDomain`] or [`BundleError::Authorities`]; the bundle is then as before.
    pub fn extend(&mut self, other: &TrustBundle) -> Result<(), BundleError> {
        if other.trust_domain != self.trust_domain {
            return Err(BundleError::TrustDomain {
                bundle: self.trust_domain.clone(),
                other: other.trust_domain.clone(),
            });
        }
        let mut extended = self.clone();
        for (position, authority) in other.authorities.iter().enumerate() {
            extended.add(authority.clone(), position)?;
        }
        *self = extended;
        Ok(())
    }

    fn add(&mut self, authority: CertificateDer<'static>, position: usize) -> Result<(), BundleError> {
        if self.authorities.contains(&authority) {
            return Ok(());
        }
        if self.authorities.len() == Self::AUTHORITIES_MAX {
            return Err(BundleError::Authorities);
        }
        check_signing_certificate(&authority)
            .map_err(|source| BundleError::Authority { position, source })?;
        self.authorities.push(authority);
        Ok(())
    }

    /// The domain it speaks for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The signing certificates.
    #[must_use]
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Whether it trusts nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }
}

/// Why certificates are not a trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The PEM text holds a private key, which a bundle that is handed around must not.
    #[error(
        "the bundle holds a private key: take it out, and issue the authority anew if the file was shared"
    )]
    PrivateKey,
    /// There are more authorities than [`TrustBundle::AUTHORITIES_MAX`].
    #[error("the bundle has more than 64 authorities: drop those that no longer sign")]
    Authorities,
    /// A certificate may not sign SVIDs.
    #[error("certificate {position} of the bundle may not sign: {source}")]
    Authority {
        /// Which, counted from zero.
        position: usize,
        /// The rule it breaks.
        source: SigningError,
    },
    /// The bundles speak for different domains.
    #[error("a bundle of {bundle} cannot take authorities of {other}: keep one bundle for each trust domain")]
    TrustDomain {
        /// The domain of the bundle that was to be extended.
        bundle: TrustDomain,
        /// The domain of the other.
        other: TrustDomain,
    },
}
