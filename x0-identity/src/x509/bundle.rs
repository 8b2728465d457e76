//! Trust bundles: the signing certificates of a trust domain.

use pki_types::CertificateDer;
use std::string::String;
use std::vec::Vec;

use super::{Certificate, Name, PemError, Signer, SigningError, read_parts, write_certificate};
use crate::TrustDomain;

/// The signing certificates that are authoritative for one trust domain.
///
/// The name and the certificates belong together (Trust Domain and Bundle §3): a certificate of the bundle is
/// trusted for SVIDs of this domain only. An empty bundle is valid; every SVID is untrusted under it
/// (§4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
    /// The subject of the authority at the same position, by which a path search finds it.
    subjects: Vec<Name<'static>>,
}

impl TrustBundle {
    /// The maximum number of authorities in a bundle. A root rotation needs two.
    pub const AUTHORITIES_MAX: usize = 64;

    /// Builds the bundle of a domain. A duplicate certificate counts once.
    ///
    /// # Errors
    /// [`BundleError`], when there are too many authorities or one breaks a rule of X509-SVID for signing
    /// certificates.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<TrustBundle, BundleError> {
        let mut bundle = TrustBundle::empty(trust_domain);
        for (position, authority) in authorities.into_iter().enumerate() {
            bundle.add(authority, position)?;
        }
        Ok(bundle)
    }

    /// Builds the bundle of a domain without authorities: every SVID of it is untrusted.
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> TrustBundle {
        TrustBundle { trust_domain, authorities: Vec::new(), subjects: Vec::new() }
    }

    /// Reads the bundle of a domain from the certificates of a PEM text. A text without certificates gives an
    /// empty bundle.
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

    /// The certificates as PEM text. The text does not contain the name of the domain: store the name with
    /// it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for authority in &self.authorities {
            write_certificate(authority, &mut pem);
        }
        pem
    }

    /// Adds the authorities of another bundle of the same domain, as the first step of a root rotation.
    ///
    /// # Errors
    /// [`BundleError::TrustDomain`] or [`BundleError::Authorities`]; the bundle is unchanged.
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

    /// Adds one authority; the error has its position in the bundle.
    #[cfg(feature = "bundle")]
    pub(crate) fn push(&mut self, authority: CertificateDer<'static>) -> Result<(), BundleError> {
        let position = self.authorities.len();
        self.add(authority, position)
    }

    /// The subject of each authority, in order.
    #[cfg(feature = "rustls")]
    pub(crate) fn subjects(&self) -> &[Name<'static>] {
        &self.subjects
    }

    fn add(&mut self, authority: CertificateDer<'static>, position: usize) -> Result<(), BundleError> {
        if self.authorities.contains(&authority) {
            return Ok(());
        }
        if self.authorities.len() == Self::AUTHORITIES_MAX {
            return Err(BundleError::Authorities);
        }
        let refused = |source| BundleError::Authority { position, source };
        let certificate = Certificate::parse(&authority).map_err(|error| refused(error.into()))?;
        Signer::check(&certificate).map_err(refused)?;
        self.subjects.push(Name::new(certificate.subject.to_vec()));
        self.authorities.push(authority);
        Ok(())
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The signing certificates.
    #[must_use]
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// The authority that a chain leads to, by the names and key identifiers of the certificates (RFC 5280
    /// §4.1.2.4, §4.2.1.1). No signature is verified: for reports on chains that were verified before.
    /// `None`, when no authority of the bundle has issued the last certificate of the chain.
    #[must_use]
    pub fn authority_of(&self, chain: &[CertificateDer<'_>]) -> Option<&CertificateDer<'static>> {
        let last = Certificate::parse(chain.last()?).ok()?;
        let issuer = Name::new(last.issuer);
        let candidates = self.subjects.iter().zip(&self.authorities);
        let mut named = candidates.filter(|(subject, _)| subject.same(&issuer));
        let is_key = |authority: &CertificateDer<'_>| {
            let own = Certificate::parse(authority)
                .ok()
                .and_then(|parsed| parsed.subject_key_id.map(<[u8]>::to_vec));
            match (last.authority_key_id, own) {
                (Some(wanted), Some(own)) => wanted == own,
                _ => true,
            }
        };
        named.find(|(_, authority)| is_key(authority)).map(|(_, authority)| authority)
    }

    /// Whether the bundle has no authority; every SVID is untrusted under it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }
}

/// Certificates are not a trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The PEM text holds a private key. Bundles are public; keys must not be distributed with them.
    #[error("the bundle holds a private key: remove it, and replace the authority if the file was shared")]
    PrivateKey,
    /// The bundle has more authorities than [`TrustBundle::AUTHORITIES_MAX`].
    #[error("the bundle has more than 64 authorities: remove those that no longer sign")]
    Authorities,
    /// A certificate breaks a rule for signing certificates.
    #[error("certificate {position} of the bundle is not a valid signing certificate: remove or replace it")]
    Authority {
        /// The position in the bundle, counted from zero.
        position: usize,
        /// The rule that is broken.
        source: SigningError,
    },
    /// The bundles belong to different trust domains.
    #[error(
        "the bundle of {bundle} is unchanged: the other bundle belongs to {other}; keep one bundle per trust domain"
    )]
    TrustDomain {
        /// The domain of the bundle to be extended.
        bundle: TrustDomain,
        /// The domain of the other bundle.
        other: TrustDomain,
    },
}
