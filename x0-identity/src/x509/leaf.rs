//! The rules of a certificate that identifies somebody.

use pki_types::CertificateDer;
use std::vec::Vec;

use super::certificate::Criticality;
use super::{Certificate, EncodingError, Validity};
use crate::{ParseSpiffeIdError, SpiffeId};

/// Why a certificate identifies nobody. Each variant names the rule of X509-SVID that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// It is no readable certificate.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// It is a certificate authority's (§4.1, §5.2).
    #[error("the certificate is an authority's (cA is true): authenticate with a leaf certificate")]
    Authority,
    /// It has no key usage extension (§4.3).
    #[error("the certificate has no key usage: issue it anew with a critical key usage of digitalSignature")]
    KeyUsageMissing,
    /// Its key usage extension is not critical (§4.3).
    #[error("the certificate's key usage is not critical: issue it anew with it marked critical")]
    KeyUsageNotCritical,
    /// Its key usage lacks `digitalSignature` (§4.3).
    #[error("the certificate's key usage lacks digitalSignature: issue it anew with it")]
    KeyUsageDigitalSignature,
    /// Its key usage has `keyCertSign` (§4.3, §5.2).
    #[error("the certificate's key usage has keyCertSign, which no leaf may have: issue it anew without")]
    KeyUsageCertSign,
    /// Its key usage has `cRLSign` (§4.3, §5.2).
    #[error("the certificate's key usage has cRLSign, which no leaf may have: issue it anew without")]
    KeyUsageCrlSign,
    /// Its extended key usage lacks `id-kp-serverAuth` (§4.4).
    #[error("the certificate's extended key usage lacks id-kp-serverAuth: issue it anew with it")]
    ExtendedKeyUsageServer,
    /// Its extended key usage lacks `id-kp-clientAuth` (§4.4).
    #[error("the certificate's extended key usage lacks id-kp-clientAuth: issue it anew with it")]
    ExtendedKeyUsageClient,
    /// It does not have exactly one URI in its subject alternative name, whatever these URIs hold (§2, §5.2).
    #[error("the certificate has {count} URI names: an SVID has exactly one, its SPIFFE ID")]
    UriCount {
        /// How many it has.
        count: usize,
    },
    /// Its URI is no text.
    #[error("the certificate's URI name is not text: issue it anew with a SPIFFE ID")]
    UriNotText,
    /// Its URI is no SPIFFE ID (§2, §5.2).
    #[error("the certificate's URI name is not a SPIFFE ID: {0}")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// Its SPIFFE ID has no path (§3.1, §5.2).
    #[error("the certificate's SPIFFE ID has no path, as only an authority's: issue it anew with a path")]
    RootPath,
    /// Its subject is empty and its subject alternative name not critical (§3.1).
    #[error(
        "the certificate has no subject, so its subject alternative name must be critical: issue it anew"
    )]
    AlternativeNameNotCritical,
}

/// The SPIFFE ID of a leaf certificate, every rule of X509-SVID for a leaf having been checked.
///
/// Who signed it and when it is valid is **not** looked at: that takes a trust bundle, see `Verifier`. A certificate from a
/// connection that our verifier has accepted, or a file the caller trusts, is what to ask about.
///
/// # Errors
/// [`LeafError`] names the first rule that is broken.
pub fn spiffe_id_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, LeafError> {
    Ok(Leaf::read(certificate)?.spiffe_id)
}

/// What is known of a certificate that keeps the rules.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) validity: Validity,
    pub(crate) serial_number: Vec<u8>,
}

impl Leaf {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
        let certificate = Certificate::parse(certificate)?;
        // cA is FALSE by default (RFC 5280 §4.2.1.9), so the extension may be absent.
        if certificate.authority {
            return Err(LeafError::Authority);
        }
        let (usage, criticality) = certificate.key_usage.as_ref().ok_or(LeafError::KeyUsageMissing)?;
        if *criticality == Criticality::NotCritical {
            return Err(LeafError::KeyUsageNotCritical);
        }
        if usage.key_cert_sign() {
            return Err(LeafError::KeyUsageCertSign);
        }
        if usage.crl_sign() {
            return Err(LeafError::KeyUsageCrlSign);
        }
        if !usage.digital_signature() {
            return Err(LeafError::KeyUsageDigitalSignature);
        }
        // anyExtendedKeyUsage does not stand in for them: "fields ... MUST be set" (§4.4).
        if let Some(usage) = &certificate.extended_key_usage {
            if !usage.server_auth {
                return Err(LeafError::ExtendedKeyUsageServer);
            }
            if !usage.client_auth {
                return Err(LeafError::ExtendedKeyUsageClient);
            }
        }
        let [uri] = certificate.uris[..] else {
            return Err(LeafError::UriCount { count: certificate.uris.len() });
        };
        let uri = core::str::from_utf8(uri).map_err(|_| LeafError::UriNotText)?;
        let spiffe_id = SpiffeId::parse(uri)?;
        if spiffe_id.path().is_empty() {
            return Err(LeafError::RootPath);
        }
        if certificate.subject_empty && !certificate.alternative_name_critical {
            return Err(LeafError::AlternativeNameNotCritical);
        }
        Ok(Leaf {
            spiffe_id,
            validity: certificate.validity,
            serial_number: certificate.serial_number.clone(),
        })
    }
}
