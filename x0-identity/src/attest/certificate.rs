//! The attestors of workloads that hold the key of a certificate: of an earlier SVID, or of another
//! authority.

use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use pki_types::{CertificateDer, UnixTime};
use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;

use super::attestor::another_kind;
use super::{Attestation, Attestor, EvidenceKind, Selector};
use crate::crypto::ring_provider;
use crate::path::{Usage, validate};
use crate::x509::{Certificate, attributes};
use crate::{EncodingError, PathError, PresentedEvidence, Proof, RevocationView, TrustBundle, Verifier};

/// The attestor of workloads by an SVID that they had before. It may be expired: a workload that was off for
/// long proves itself by the key that it has still.
#[derive(Debug, Clone)]
pub struct SvidAttestor {
    verifier: Arc<Verifier>,
    grace: Duration,
}

impl SvidAttestor {
    /// Builds an attestor that accepts SVIDs until `grace` after their end. The revocations of the verifier
    /// apply.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, grace: Duration) -> SvidAttestor {
        SvidAttestor { verifier, grace }
    }
}

impl Attestor for SvidAttestor {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Svid
    }

    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation {
        let PresentedEvidence::Svid(chain) = evidence else { return another_kind() };
        match self.verifier.verify_with_grace(chain, self.grace, now) {
            Ok(holder) => Attestation::Proved(Proof::Holder(holder)),
            Err(error) => Attestation::Refused(format!("the earlier SVID: {error:?}")),
        }
    }
}

/// The attestor of machines by a certificate of another authority than that of the trust domain, such as the
/// one that a manufacturer or an inventory gives to each device (X.509 proof of possession).
///
/// The certificate is no SVID: it has any subject, and its authority is in no bundle of a trust domain.
/// Validated are RFC 5280 §6.1, with the decisions of [`Verifier`], that the certificate is not that of an
/// authority, and that its key usage, if it has one, allows signatures, and its extended key usage, if it has
/// one, allows clients.
///
/// # What the selectors prove
/// `x509pop:subject:cn:` with the common name if there is exactly one, `x509pop:serialnumber:` with
/// hexadecimal digits, and `x509pop:sha256:` with the digest of the certificate. Two authorities may give one
/// serial number and one name: use an attestor with the authorities that agree on them.
#[derive(Debug, Clone)]
pub struct CertificateAttestor {
    authorities: TrustBundle,
    revocations: RevocationView,
    provider: Arc<CryptoProvider>,
}

/// A certificate is not that of a device that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateAttestError {
    /// The evidence has no certificate, or more than eight.
    #[error("the evidence has {count} certificates: present the device's own, and up to seven issuers")]
    Count {
        /// The number of certificates.
        count: usize,
    },
    /// The certificate cannot be read.
    #[error("the certificate of the device cannot be read")]
    Encoding(#[from] EncodingError),
    /// The certificate is that of an authority, or its usage does not allow it to authenticate a client.
    #[error(
        "the usage of the certificate does not allow it to authenticate a device: issue it for digitalSignature and id-kp-clientAuth"
    )]
    Usage,
    /// The certificate is revoked.
    #[error("the certificate of the device is revoked: replace the device's certificate")]
    Revoked,
    /// No authority of devices has issued it.
    #[error(
        "no authority of devices has issued the certificate: add the authority, or present the missing issuer"
    )]
    Path(#[from] PathError),
}

impl CertificateAttestor {
    /// Builds an attestor for the certificates below these authorities. The trust domain of the bundle is not
    /// looked at: it may have any name.
    #[must_use]
    pub fn new(authorities: TrustBundle) -> CertificateAttestor {
        CertificateAttestor { authorities, revocations: RevocationView::new(), provider: ring_provider() }
    }

    /// Refuses what a view names: certificates and authorities.
    #[must_use]
    pub fn revocations(mut self, revocations: RevocationView) -> CertificateAttestor {
        self.revocations = revocations;
        self
    }

    /// Sets the provider of cryptography. The default is ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> CertificateAttestor {
        self.provider = provider;
        self
    }

    /// Validates the chain of a device, its own certificate first, and returns its selectors.
    ///
    /// # Errors
    /// [`CertificateAttestError`] names the first rule that is broken.
    pub fn selectors_of(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<BTreeSet<Selector>, CertificateAttestError> {
        let count = chain.len();
        let (der, issuers) = chain.split_first().ok_or(CertificateAttestError::Count { count })?;
        if count > crate::X509Svid::CHAIN_LEN_MAX {
            return Err(CertificateAttestError::Count { count });
        }
        let certificate = Certificate::parse(der)?;
        let signs = certificate.key_usage.is_none_or(|(usage, _)| usage.digital_signature());
        let is_client = certificate.extended_key_usage.is_none_or(|usage| usage.client_auth || usage.any);
        if certificate.authority || !signs || !is_client {
            return Err(CertificateAttestError::Usage);
        }
        if self.revocations.signer(&certificate).is_some() {
            return Err(CertificateAttestError::Revoked);
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (bundle, revocations) = (&self.authorities, &self.revocations);
        let now = UnixTime::since_unix_epoch(now);
        validate(&certificate, issuers, bundle, revocations, algorithms, now, Usage::Client)?;
        Ok(selectors(der, &certificate))
    }
}

fn selectors(der: &[u8], certificate: &Certificate<'_>) -> BTreeSet<Selector> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    let names: Vec<&[u8]> = attributes(certificate.subject, COMMON_NAME).collect();
    let name = match names[..] {
        [name] => core::str::from_utf8(name).ok(),
        _ => None,
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let texts = [
        name.map(|name| format!("x509pop:subject:cn:{name}")),
        Some(format!("x509pop:serialnumber:{}", hex(certificate.serial_number))),
        Some(format!("x509pop:sha256:{}", hex(digest(&SHA256, der).as_ref()))),
    ];
    // A name that is too long for a selector is left out.
    texts.into_iter().flatten().filter_map(|text| Selector::parse(&text).ok()).collect()
}

impl Attestor for CertificateAttestor {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Certificate
    }

    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation {
        let PresentedEvidence::Certificate(chain) = evidence else { return another_kind() };
        match self.selectors_of(chain, now) {
            Ok(selectors) => Attestation::Proved(Proof::Selectors(selectors)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Attestation::Refused(error.to_string() + &cause.unwrap_or_default())
            }
        }
    }
}
