//! The rules of X509-SVID for signing certificates.

use pki_types::CertificateDer;

use super::certificate::Criticality;
use super::{Certificate, EncodingError, Validity};
use crate::{ParseSpiffeIdError, SpiffeId};

/// A certificate is not a signing certificate of X509-SVID. Each variant names the rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The certificate cannot be read.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The certificate is not that of an authority (§3.2, §4.1).
    #[error("the certificate is not that of an authority (cA is not true): use a signing certificate")]
    NotAuthority,
    /// The certificate has an empty subject (RFC 5280 §4.1.2.6), by which nothing that it signs could name
    /// it.
    #[error("the subject of the signing certificate is empty: issue it again with a name")]
    Subject,
    /// The certificate has no key usage extension (§4.3).
    #[error(
        "the signing certificate has no key usage: issue it again with a critical key usage of keyCertSign"
    )]
    KeyUsageMissing,
    /// The certificate has a SPIFFE ID, and its key usage extension is not critical (§4.3).
    #[error(
        "the key usage of the signing certificate is not critical: issue it again with a critical key usage"
    )]
    KeyUsageNotCritical,
    /// The key usage lacks `keyCertSign` (§3.2, §4.3).
    #[error("the key usage of the signing certificate lacks keyCertSign: issue it again with keyCertSign")]
    KeyUsageCertSign,
    /// The certificate has a SPIFFE ID and a further URI in its subject alternative name (§2).
    #[error("the signing certificate has {count} URI names: issue it again with at most one, its SPIFFE ID")]
    UriCount {
        /// The number of URIs.
        count: usize,
    },
    /// The URI is not UTF-8.
    #[error(
        "the URI name of the signing certificate is not UTF-8: issue it again with a SPIFFE ID or without a URI"
    )]
    UriNotText,
    /// The URI is not a SPIFFE ID (§2).
    #[error(
        "the URI name of the signing certificate is not a SPIFFE ID: issue it again with a SPIFFE ID or without a URI"
    )]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// The SPIFFE ID has a path (§3.2).
    #[error("the SPIFFE ID of the signing certificate has a path: issue it again without a path")]
    Path,
}

/// Checks every rule of X509-SVID for a signing certificate and returns its SPIFFE ID, if it has one.
///
/// The ID is optional, and it may name another trust domain than the one that the certificate signs for
/// (X509-SVID §3.2 says SHOULD). Signature and validity are not checked.
///
/// # Errors
/// [`SigningError`] names the first rule that is broken.
pub fn spiffe_id_of_signer(certificate: &CertificateDer<'_>) -> Result<Option<SpiffeId>, SigningError> {
    Ok(check_signing_certificate(certificate)?.spiffe_id)
}

/// The fields of a signing certificate that keeps the rules.
pub(crate) struct Signer {
    pub(crate) spiffe_id: Option<SpiffeId>,
    #[cfg_attr(not(feature = "authority"), expect(dead_code, reason = "read by the authority"))]
    pub(crate) validity: Validity,
}

pub(crate) fn check_signing_certificate(certificate: &CertificateDer<'_>) -> Result<Signer, SigningError> {
    Signer::check(&Certificate::parse(certificate)?)
}

/// Whether a URI claims to be a SPIFFE ID; a scheme has no case (RFC 3986 §3.1).
fn claims_spiffe(uri: &[u8]) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"spiffe:"))
}

impl Signer {
    pub(crate) fn check(certificate: &Certificate<'_>) -> Result<Signer, SigningError> {
        if !certificate.authority {
            return Err(SigningError::NotAuthority);
        }
        if certificate.subject.is_empty() {
            return Err(SigningError::Subject);
        }
        let (usage, criticality) = certificate.key_usage.as_ref().ok_or(SigningError::KeyUsageMissing)?;
        if !usage.key_cert_sign() {
            return Err(SigningError::KeyUsageCertSign);
        }
        // An authority is an SVID if it has a SPIFFE ID (§3.2); the rules of SVIDs do not apply to one with
        // other URIs only.
        let spiffe_id = match certificate.uris[..] {
            [uri] if claims_spiffe(uri) => {
                let uri = core::str::from_utf8(uri).map_err(|_| SigningError::UriNotText)?;
                Some(SpiffeId::parse(uri)?)
            }
            ref uris if uris.iter().any(|uri| claims_spiffe(uri)) => {
                return Err(SigningError::UriCount { count: uris.len() });
            }
            _ => None,
        };
        if let Some(spiffe_id) = &spiffe_id {
            // A rule "on all SVIDs" (§4.3): an authority without a SPIFFE ID is not an SVID.
            if *criticality == Criticality::NotCritical {
                return Err(SigningError::KeyUsageNotCritical);
            }
            if !spiffe_id.path().is_empty() {
                return Err(SigningError::Path);
            }
        }
        Ok(Signer { spiffe_id, validity: certificate.validity })
    }
}
