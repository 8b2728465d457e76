//! The rules of a certificate that signs others.

use pki_types::CertificateDer;

use super::certificate::Criticality;
use super::{Certificate, EncodingError, Validity};
use crate::{ParseSpiffeIdError, SpiffeId};

/// Why a certificate may not sign SVIDs. Each variant names the rule of X509-SVID that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// It is no readable certificate.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// It is no certificate authority's (§3.2, §4.1).
    #[error("the certificate is not an authority's (cA is not true): sign with a signing certificate")]
    NotAuthority,
    /// It has no key usage extension (§4.3).
    #[error(
        "the signing certificate has no key usage: issue it anew with a critical key usage of keyCertSign"
    )]
    KeyUsageMissing,
    /// It carries a SPIFFE ID, and its key usage extension is not critical (§4.3).
    #[error("the signing certificate's key usage is not critical: issue it anew with it marked critical")]
    KeyUsageNotCritical,
    /// Its key usage lacks `keyCertSign` (§3.2, §4.3).
    #[error("the signing certificate's key usage lacks keyCertSign: issue it anew with it")]
    KeyUsageCertSign,
    /// It has more than one URI in its subject alternative name (§2).
    #[error("the signing certificate has {count} URI names: at most one, its SPIFFE ID, is allowed")]
    UriCount {
        /// How many it has.
        count: usize,
    },
    /// Its URI is no text.
    #[error(
        "the signing certificate's URI name is not text: issue it anew with a SPIFFE ID or without a URI"
    )]
    UriNotText,
    /// Its URI is no SPIFFE ID (§2).
    #[error("the signing certificate's URI name is not a SPIFFE ID: {0}")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// Its SPIFFE ID has a path (§3.2).
    #[error("the signing certificate's SPIFFE ID has a path, as only a leaf's: issue it anew without a path")]
    Path,
}

/// The SPIFFE ID of a signing certificate, if it has one, every rule of X509-SVID for such having been checked.
///
/// It need not have an ID, and an ID of it may name another trust domain than the one it signs for (X509-SVID §3.2 says
/// SHOULD). Signature and validity are not looked at.
///
/// # Errors
/// [`SigningError`] names the first rule that is broken.
pub fn spiffe_id_of_signer(certificate: &CertificateDer<'_>) -> Result<Option<SpiffeId>, SigningError> {
    Ok(check_signing_certificate(certificate)?.spiffe_id)
}

/// What is known of a signing certificate that keeps the rules.
pub(crate) struct Signer {
    pub(crate) spiffe_id: Option<SpiffeId>,
    #[cfg_attr(
        not(any(feature = "rustls", feature = "authority")),
        expect(dead_code, reason = "asked by both")
    )]
    pub(crate) validity: Validity,
}

pub(crate) fn check_signing_certificate(certificate: &CertificateDer<'_>) -> Result<Signer, SigningError> {
    let certificate = Certificate::parse(certificate)?;
    if !certificate.authority {
        return Err(SigningError::NotAuthority);
    }
    let (usage, criticality) = certificate.key_usage.as_ref().ok_or(SigningError::KeyUsageMissing)?;
    if !usage.key_cert_sign() {
        return Err(SigningError::KeyUsageCertSign);
    }
    let spiffe_id = match certificate.uris[..] {
        [] => None,
        [uri] => {
            let uri = core::str::from_utf8(uri).map_err(|_| SigningError::UriNotText)?;
            Some(SpiffeId::parse(uri)?)
        }
        _ => return Err(SigningError::UriCount { count: certificate.uris.len() }),
    };
    if let Some(spiffe_id) = &spiffe_id {
        // A rule "on all SVIDs" (§4.3): an authority without a SPIFFE ID is none.
        if *criticality == Criticality::NotCritical {
            return Err(SigningError::KeyUsageNotCritical);
        }
        if !spiffe_id.path().is_empty() {
            return Err(SigningError::Path);
        }
    }
    Ok(Signer { spiffe_id, validity: certificate.validity })
}
