//! The rules of X509-SVID for leaf certificates.

use pki_types::CertificateDer;
use std::vec::Vec;

use super::certificate::Criticality;
use super::{Certificate, EncodingError, Validity};
use crate::{ParseSpiffeIdError, SpiffeId};

/// A certificate is not a leaf of X509-SVID. Each variant names the rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The certificate cannot be read.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The certificate is that of an authority (§4.1, §5.2).
    #[error("the leaf is the certificate of an authority (cA is true): authenticate with a leaf certificate")]
    Authority,
    /// The certificate has no key usage extension (§4.3).
    #[error("the leaf has no key usage: issue it again with a critical key usage of digitalSignature")]
    KeyUsageMissing,
    /// The key usage extension is not critical (§4.3).
    #[error("the key usage of the leaf is not critical: issue the leaf again with a critical key usage")]
    KeyUsageNotCritical,
    /// The key usage lacks `digitalSignature` (§4.3).
    #[error("the key usage of the leaf lacks digitalSignature: issue the leaf again with digitalSignature")]
    KeyUsageDigitalSignature,
    /// The key usage has `keyCertSign` (§4.3, §5.2).
    #[error("the key usage of the leaf has keyCertSign: issue the leaf again without keyCertSign")]
    KeyUsageCertSign,
    /// The key usage has `cRLSign` (§4.3, §5.2).
    #[error("the key usage of the leaf has cRLSign: issue the leaf again without cRLSign")]
    KeyUsageCrlSign,
    /// The extended key usage lacks `id-kp-serverAuth` (§4.4).
    #[error(
        "the extended key usage of the leaf lacks id-kp-serverAuth: issue the leaf again with id-kp-serverAuth"
    )]
    ExtendedKeyUsageServer,
    /// The extended key usage lacks `id-kp-clientAuth` (§4.4).
    #[error(
        "the extended key usage of the leaf lacks id-kp-clientAuth: issue the leaf again with id-kp-clientAuth"
    )]
    ExtendedKeyUsageClient,
    /// The subject alternative name does not have exactly one URI, of any content (§2, §5.2).
    #[error("the leaf has {count} URI names: issue it again with exactly one, its SPIFFE ID")]
    UriCount {
        /// The number of URIs.
        count: usize,
    },
    /// The URI is not UTF-8.
    #[error("the URI name of the leaf is not UTF-8: issue the leaf again with a SPIFFE ID")]
    UriNotText,
    /// The URI is not a SPIFFE ID (§2, §5.2).
    #[error("the URI name of the leaf is not a SPIFFE ID: issue the leaf again with a SPIFFE ID")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// The SPIFFE ID has no path (§3.1, §5.2).
    #[error("the SPIFFE ID of the leaf has no path: issue the leaf again with a path")]
    RootPath,
    /// The subject is empty and the subject alternative name not critical (§3.1).
    #[error(
        "the leaf has no subject, and its subject alternative name is not critical: issue it again with a critical one"
    )]
    AlternativeNameNotCritical,
}

/// Checks every rule of X509-SVID for a leaf certificate and returns its SPIFFE ID.
///
/// Signature and validity are **not** checked: that takes a trust bundle, see `Verifier`. Pass a certificate
/// of a connection that the verifier has accepted, or of a file that the caller trusts.
///
/// # Errors
/// [`LeafError`] names the first rule that is broken.
pub fn spiffe_id_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, LeafError> {
    Ok(Leaf::read(certificate)?.spiffe_id)
}

/// The fields of a leaf that keeps the rules.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) validity: Validity,
    pub(crate) serial_number: Vec<u8>,
}

impl Leaf {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
        Leaf::check(&Certificate::parse(certificate)?)
    }

    pub(crate) fn check(certificate: &Certificate<'_>) -> Result<Leaf, LeafError> {
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
        // RFC 5280 §4.1.2.6.
        let critical = matches!(certificate.alternative_names, Some((_, Criticality::Critical)));
        if certificate.subject.is_empty() && !critical {
            return Err(LeafError::AlternativeNameNotCritical);
        }
        Ok(Leaf {
            spiffe_id,
            validity: certificate.validity,
            serial_number: certificate.serial_number.to_vec(),
        })
    }
}
