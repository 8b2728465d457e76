//! An in-memory authority that issues SVIDs.

mod key;

use alloc::boxed::Box;
use core::fmt;
use std::string::String;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec;
use std::vec::Vec;

use pki_types::CertificateDer;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SigningKey,
};
use rustls::crypto::CryptoProvider;
use time::OffsetDateTime;

use key::AuthorityKey;

use crate::crypto::ring_provider;
use crate::x509::{Certificate, Validity, check_signing_certificate, read_parts, to_system_time, write_key};
use crate::{PemError, SigningError, SpiffeId, SvidError, TrustBundle, TrustDomain, X509Svid};

const NO_RANDOMNESS: &str = "the system provides no randomness";

/// The settings of an [`Authority`]. Start from [`AuthorityOptions::default`].
///
/// ```
/// use std::time::Duration;
/// use x0_identity::AuthorityOptions;
///
/// let options = AuthorityOptions::default().validity(Duration::from_secs(30 * 24 * 3600)).backdate(Duration::ZERO);
/// assert_eq!(options.backdate, Duration::ZERO);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorityOptions {
    /// The validity of the authority's own certificate, which also bounds that of every SVID. The default is
    /// 365 days.
    pub validity: Duration,
    /// Certificates become valid this long before they are issued, for peers whose clocks lag. The default is
    /// 60 seconds.
    pub backdate: Duration,
    /// The provider of cryptography, which generates and uses the keys. The default is ring's.
    pub provider: Arc<CryptoProvider>,
}

impl AuthorityOptions {
    /// Sets [`AuthorityOptions::validity`].
    #[must_use]
    pub fn validity(mut self, validity: Duration) -> AuthorityOptions {
        self.validity = validity;
        self
    }

    /// Sets [`AuthorityOptions::backdate`].
    #[must_use]
    pub fn backdate(mut self, backdate: Duration) -> AuthorityOptions {
        self.backdate = backdate;
        self
    }

    /// Sets [`AuthorityOptions::provider`].
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> AuthorityOptions {
        self.provider = provider;
        self
    }
}

impl Default for AuthorityOptions {
    fn default() -> AuthorityOptions {
        AuthorityOptions {
            validity: Duration::from_secs(365 * 24 * 60 * 60),
            backdate: Duration::from_secs(60),
            provider: ring_provider(),
        }
    }
}

/// The signing authority of a trust domain, in memory: a self-signed certificate of ECDSA P-256 and its key.
///
/// An authority issues every SPIFFE ID of its trust domain that the caller requests; the caller decides which
/// workload receives which ID. It also generates the key of each SVID, by its provider of cryptography.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::{Authority, AuthorityOptions, NodeId, SpiffeId, TrustDomain};
///
/// let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
/// let node = NodeId::new(7).ok_or("zero names no node")?;
/// let svid = authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), Duration::from_secs(3600))?;
/// assert_eq!(svid.node_id(), Some(node));
///
/// let restored = Authority::from_pem(authority.to_pem().as_bytes())?;
/// assert_eq!(restored.bundle(), authority.bundle());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    issuer: Issuer<'static, AuthorityKey>,
    validity: Validity,
    backdate: Duration,
    /// Holds one certificate, the authority's own.
    bundle: TrustBundle,
}

impl Authority {
    /// Creates an authority with a new key, valid from now on by the system's clock.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`], when the validity cannot be encoded, or [`AuthorityError::Generate`],
    /// when the system provides no randomness.
    pub fn new(trust_domain: TrustDomain, options: &AuthorityOptions) -> Result<Authority, AuthorityError> {
        Authority::new_at(trust_domain, options, SystemTime::now())
    }

    /// As [`Authority::new`], at the time `now`.
    ///
    /// # Errors
    /// As for [`Authority::new`].
    pub fn new_at(
        trust_domain: TrustDomain,
        options: &AuthorityOptions,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        let validity =
            validity_from(now, options.validity, options.backdate).ok_or(AuthorityError::Validity)?;
        let spiffe_id = SpiffeId::from_segments(&trust_domain, &[]).map_err(SigningError::SpiffeId)?;
        let key = AuthorityKey::generate(&options.provider)
            .ok_or_else(|| AuthorityError::Generate { source: NO_RANDOMNESS.into() })?;
        let mut params = params(&spiffe_id, validity).map_err(AuthorityError::generate)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // One subject per key, so that verifiers find the right one of two roots during a root rotation.
        let mut name = String::from("x0 authority ");
        for byte in params.key_identifier(&key).iter().take(8) {
            name.push_str(&alloc::format!("{byte:02x}"));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).map_err(AuthorityError::generate)?;
        let mut authority = Authority::from_parts(certificate.der(), key, trust_domain, validity)?;
        authority.backdate = options.backdate;
        Ok(authority)
    }

    fn from_parts(
        certificate: &CertificateDer<'static>,
        key: AuthorityKey,
        trust_domain: TrustDomain,
        validity: Validity,
    ) -> Result<Authority, AuthorityError> {
        let bundle = TrustBundle::new(trust_domain, vec![certificate.clone()])
            .map_err(|error| AuthorityError::Generate { source: Box::new(error) })?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(AuthorityError::generate)?;
        Ok(Authority { issuer, validity, backdate: AuthorityOptions::default().backdate, bundle })
    }

    /// Reads the certificate and the key of an authority as [`Authority::to_pem`] writes them.
    ///
    /// # Errors
    /// [`AuthorityError`], when the text is damaged or lacks a part, the certificate breaks a rule for
    /// signing certificates or has no SPIFFE ID, or the key does not belong to it.
    pub fn from_pem(pem: &[u8]) -> Result<Authority, AuthorityError> {
        Authority::from_pem_with_provider(pem, ring_provider())
    }

    /// As [`Authority::from_pem`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`Authority::from_pem`].
    #[expect(clippy::needless_pass_by_value, reason = "the same parameter as of other constructors")]
    pub fn from_pem_with_provider(
        pem: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Authority, AuthorityError> {
        let parts = read_parts(pem)?;
        let [certificate] = &parts.certificates[..] else {
            return Err(AuthorityError::CertificateCount { count: parts.certificates.len() });
        };
        let key = parts.key.ok_or(AuthorityError::NoKey)?;
        let signer = check_signing_certificate(certificate)?;
        let spiffe_id = signer.spiffe_id.ok_or(AuthorityError::NoSpiffeId)?;
        let key = AuthorityKey::load(key, &provider).ok_or(AuthorityError::KeyUnsupported)?;
        let parsed = Certificate::parse(certificate).map_err(SigningError::Encoding)?;
        if parsed.public_key != key.der_bytes() {
            return Err(AuthorityError::KeyMismatch);
        }
        let trust_domain = spiffe_id.trust_domain().clone();
        Authority::from_parts(certificate, key, trust_domain, signer.validity)
    }

    /// The certificate and the **private key** as PEM text. Every reader of the text can issue every SPIFFE
    /// ID of the trust domain.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = self.bundle.to_pem();
        write_key(self.issuer.key().pkcs8(), &mut pem);
        pem
    }

    /// Issues an SVID with a new key, valid from now on by the system's clock, and not longer than the
    /// authority.
    ///
    /// # Errors
    /// [`IssueError`], when the SPIFFE ID is of another trust domain or has no path, or the authority is not
    /// valid.
    pub fn issue(&self, spiffe_id: &SpiffeId, validity: Duration) -> Result<X509Svid, IssueError> {
        self.issue_at(spiffe_id, validity, SystemTime::now())
    }

    /// As [`Authority::issue`], at the time `now`.
    ///
    /// # Errors
    /// As for [`Authority::issue`].
    pub fn issue_at(
        &self,
        spiffe_id: &SpiffeId,
        validity: Duration,
        now: SystemTime,
    ) -> Result<X509Svid, IssueError> {
        if spiffe_id.trust_domain() != self.trust_domain() {
            return Err(IssueError::TrustDomain {
                spiffe_id: spiffe_id.clone(),
                authority: self.trust_domain().clone(),
            });
        }
        if spiffe_id.path().is_empty() {
            return Err(IssueError::RootPath);
        }
        let asked = validity_from(now, validity, self.backdate).ok_or(IssueError::Validity)?;
        let validity = Validity {
            not_before: asked.not_before.max(self.validity.not_before),
            not_after: asked.not_after.min(self.validity.not_after),
        };
        // A backdated certificate must not end before the time of the request.
        if to_system_time(validity.not_after) < now || validity.not_before > validity.not_after {
            return Err(IssueError::AuthorityExpired);
        }
        let key = AuthorityKey::generate(self.issuer.key().provider())
            .ok_or_else(|| IssueError::Generate { source: NO_RANDOMNESS.into() })?;
        let mut params = params(spiffe_id, validity).map_err(IssueError::generate)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::generate)?.der().clone();
        Ok(X509Svid::from_der(vec![certificate], key.into_pkcs8())?)
    }

    /// Signs bytes with the key of the authority (ECDSA P-256 with SHA-256, ASN.1), such as those of
    /// `UnsignedCertificate::to_be_signed`. The caller has checked what the bytes say.
    ///
    /// # Errors
    /// [`IssueError::Generate`], when the system provides no randomness.
    pub fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, IssueError> {
        self.issuer.key().sign(to_be_signed).map_err(IssueError::generate)
    }

    /// The certificate of the authority, for `CaSigner::new`.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        // The bundle holds one certificate since the construction.
        &self.bundle.authorities()[0]
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The bundle that trusts this authority only.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }

    /// The last second in which the authority is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        to_system_time(self.validity.not_after)
    }
}

/// Without the private key.
impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("trust_domain", self.trust_domain())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// `None` when a certificate cannot encode the end (RFC 5280 §4.1.2.5: up to the year 9999).
fn validity_from(now: SystemTime, validity: Duration, backdate: Duration) -> Option<Validity> {
    const YEAR_10000: i64 = 253_402_300_800;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let not_before = i64::try_from(now.saturating_sub(backdate).as_secs()).ok()?;
    let not_after = i64::try_from(now.checked_add(validity)?.as_secs()).ok()?;
    (not_after < YEAR_10000).then_some(Validity { not_before, not_after })
}

/// The parameters that leaf and signing certificates share: one URI, no subject.
fn params(spiffe_id: &SpiffeId, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(alloc::format!("{spiffe_id}").try_into()?)];
    params.not_before =
        OffsetDateTime::from_unix_timestamp(validity.not_before).map_err(|_| rcgen::Error::Time)?;
    params.not_after =
        OffsetDateTime::from_unix_timestamp(validity.not_after).map_err(|_| rcgen::Error::Time)?;
    Ok(params)
}

/// An authority was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The PEM text does not hold exactly one certificate.
    #[error("the authority's PEM text holds {count} certificates: keep its own certificate only")]
    CertificateCount {
        /// The number of certificates.
        count: usize,
    },
    /// The PEM text holds no private key.
    #[error("the authority's private key is missing: append it to the certificate")]
    NoKey,
    /// The certificate breaks a rule for signing certificates.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The certificate has no SPIFFE ID, so its trust domain is not known.
    #[error("the authority's certificate has no SPIFFE ID: issue it again with spiffe://<trust domain>")]
    NoSpiffeId,
    /// The private key is damaged or not in PKCS #8.
    #[error("the authority's private key is damaged or not in PKCS #8: convert it with openssl pkcs8 -topk8")]
    KeyUnsupported,
    /// The private key does not belong to the certificate.
    #[error(
        "the private key does not belong to the authority's certificate: use the key that was generated for it"
    )]
    KeyMismatch,
    /// The validity ends before 1970 or after the year 9999.
    #[error("the validity cannot be encoded in a certificate: choose an end between 1970 and the year 9999")]
    Validity,
    /// The key or the certificate could not be generated.
    #[error(
        "cannot generate the authority's key or certificate: check the system's random source and the names"
    )]
    Generate {
        /// The reason that the generator gives.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
}

impl AuthorityError {
    fn generate(source: rcgen::Error) -> AuthorityError {
        AuthorityError::Generate { source: Box::new(source) }
    }
}

/// An SVID was not issued. The authority is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The SPIFFE ID is of another trust domain.
    #[error(
        "the authority of {authority} cannot issue {spiffe_id}: request it from the authority of its trust domain"
    )]
    TrustDomain {
        /// The requested SPIFFE ID.
        spiffe_id: SpiffeId,
        /// The domain of the authority.
        authority: TrustDomain,
    },
    /// The SPIFFE ID has no path, which a leaf must have (X509-SVID §3.1).
    #[error("the requested SPIFFE ID has no path: request the ID of a workload")]
    RootPath,
    /// The authority is not valid at that time.
    #[error("the authority is not valid at that time: create a new one and distribute its bundle first")]
    AuthorityExpired,
    /// The validity ends before 1970 or after the year 9999.
    #[error("the validity cannot be encoded in a certificate: choose an end between 1970 and the year 9999")]
    Validity,
    /// The issued certificate breaks a rule of X509-SVID.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The key or the certificate could not be generated.
    #[error(
        "cannot generate the key or the certificate of the SVID: check the system's random source and the SPIFFE ID"
    )]
    Generate {
        /// The reason that the generator gives.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
}

impl IssueError {
    fn generate(source: rcgen::Error) -> IssueError {
        IssueError::Generate { source: Box::new(source) }
    }
}
