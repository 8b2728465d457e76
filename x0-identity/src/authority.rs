//! Who issues identities.

use alloc::boxed::Box;
use core::fmt;
use std::string::String;
use std::time::{Duration, SystemTime};
use std::vec;

use pki_types::{CertificateDer, PrivateKeyDer};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use time::OffsetDateTime;

use crate::x509::{Certificate, Validity, check_signing_certificate, read_parts, to_system_time, write_key};
use crate::{PemError, SigningError, SpiffeId, SvidError, TrustBundle, TrustDomain, X509Svid};

/// How far certificates are dated back, for peers whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(60);

/// What an authority is made with. Start from [`AuthorityConfig::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorityConfig {
    /// How long its own certificate is valid, and thereby the last of what it issues. One year unless set otherwise.
    pub validity: Duration,
}

impl Default for AuthorityConfig {
    fn default() -> AuthorityConfig {
        AuthorityConfig { validity: Duration::from_secs(365 * 24 * 60 * 60) }
    }
}

/// The signing authority of a trust domain, in memory: a self-signed certificate of ECDSA P-256 and its key.
///
/// It issues to whomever its owner asks for; deciding who may have which identity is the owner's part. The key of each SVID
/// is made here as well and drawn from the operating system's randomness.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::{Authority, AuthorityConfig, NodeId, SpiffeId, TrustDomain};
///
/// let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityConfig::default())?;
/// let node = NodeId::new(7).ok_or("zero names no node")?;
/// let svid = authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), Duration::from_secs(3600))?;
/// assert_eq!(svid.node_id(), Some(node));
///
/// let restored = Authority::from_pem(authority.to_pem().as_bytes())?;
/// assert_eq!(restored.bundle(), authority.bundle());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    /// Of one certificate, the authority's own.
    bundle: TrustBundle,
}

impl Authority {
    /// A new authority with a new key, valid from now (by the system's clock) on.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`], when the validity cannot be written down, or [`AuthorityError::Generate`], when the
    /// system gives no randomness.
    pub fn new(trust_domain: TrustDomain, config: &AuthorityConfig) -> Result<Authority, AuthorityError> {
        Authority::new_at(trust_domain, config, SystemTime::now())
    }

    /// As [`Authority::new`], with the time given.
    ///
    /// # Errors
    /// As for [`Authority::new`].
    pub fn new_at(
        trust_domain: TrustDomain,
        config: &AuthorityConfig,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        let validity = validity_from(now, config.validity).ok_or(AuthorityError::Validity)?;
        let spiffe_id = SpiffeId::from_segments(&trust_domain, &[]).map_err(SigningError::SpiffeId)?;
        let key = KeyPair::generate().map_err(AuthorityError::generate)?;
        let mut params = params(&spiffe_id, validity).map_err(AuthorityError::generate)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // A name of its own for each key, so that two roots of one domain are told apart while one replaces the other.
        let mut name = String::from("x0 authority ");
        for byte in params.key_identifier(&key).iter().take(8) {
            name.push_str(&alloc::format!("{byte:02x}"));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).map_err(AuthorityError::generate)?;
        Authority::from_parts(certificate.der(), key, trust_domain, validity)
    }

    fn from_parts(
        certificate: &CertificateDer<'static>,
        key: KeyPair,
        trust_domain: TrustDomain,
        validity: Validity,
    ) -> Result<Authority, AuthorityError> {
        let bundle = TrustBundle::new(trust_domain, vec![certificate.clone()])
            .map_err(|error| AuthorityError::Generate { source: Box::new(error) })?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(AuthorityError::generate)?;
        Ok(Authority { issuer, validity, bundle })
    }

    /// Takes the certificate and the key of an authority as [`Authority::to_pem`] writes them.
    ///
    /// # Errors
    /// [`AuthorityError`], when the text is damaged or lacks a part, the certificate may not sign or has no SPIFFE ID, or
    /// the key is not the certificate's.
    pub fn from_pem(pem: &[u8]) -> Result<Authority, AuthorityError> {
        let parts = read_parts(pem)?;
        let [certificate] = &parts.certificates[..] else {
            return Err(AuthorityError::CertificateCount { count: parts.certificates.len() });
        };
        let key = parts.key.ok_or(AuthorityError::NoKey)?;
        let signer = check_signing_certificate(certificate)?;
        let spiffe_id = signer.spiffe_id.ok_or(AuthorityError::NoSpiffeId)?;
        let key = KeyPair::try_from(&key).map_err(|_| AuthorityError::KeyUnsupported)?;
        let parsed = Certificate::parse(certificate).map_err(SigningError::Encoding)?;
        if parsed.public_key != key.der_bytes() {
            return Err(AuthorityError::KeyMismatch);
        }
        let trust_domain = spiffe_id.trust_domain().clone();
        Authority::from_parts(certificate, key, trust_domain, signer.validity)
    }

    /// The certificate and the **private key** as PEM text: whoever reads it can become anybody of the trust domain.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = self.bundle.to_pem();
        write_key(&PrivateKeyDer::Pkcs8(self.issuer.key().serialize_der().into()), &mut pem);
        pem
    }

    /// Issues an SVID with a new key, valid from now (by the system's clock) on, but not longer than the authority is.
    ///
    /// # Errors
    /// [`IssueError`], when the SPIFFE ID is not the authority's to give, or the authority has run out.
    pub fn issue(&self, spiffe_id: &SpiffeId, validity: Duration) -> Result<X509Svid, IssueError> {
        self.issue_at(spiffe_id, validity, SystemTime::now())
    }

    /// As [`Authority::issue`], with the time given.
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
        let asked = validity_from(now, validity).ok_or(IssueError::Validity)?;
        let validity = Validity {
            not_before: asked.not_before.max(self.validity.not_before),
            not_after: asked.not_after.min(self.validity.not_after),
        };
        // A backdated certificate that is over before it is asked for serves nobody.
        if to_system_time(validity.not_after) < now || validity.not_before > validity.not_after {
            return Err(IssueError::AuthorityExpired);
        }
        let key = KeyPair::generate().map_err(IssueError::generate)?;
        let mut params = params(spiffe_id, validity).map_err(IssueError::generate)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::generate)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(X509Svid::from_der(vec![certificate], key)?)
    }

    /// The domain it is the authority of.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The bundle that trusts it, and nobody else.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }

    /// Until when it is valid, that second included.
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

/// From a little before now, none when a certificate cannot say it (RFC 5280 §4.1.2.5: up to the year 9999).
fn validity_from(now: SystemTime, validity: Duration) -> Option<Validity> {
    const YEAR_10000: i64 = 253_402_300_800;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let not_before = i64::try_from(now.saturating_sub(BACKDATE).as_secs()).ok()?;
    let not_after = i64::try_from(now.checked_add(validity)?.as_secs()).ok()?;
    (not_after < YEAR_10000).then_some(Validity { not_before, not_after })
}

/// What leaf and signing certificates have in common: one URI, no subject.
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

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The PEM text does not hold exactly one certificate.
    #[error("an authority's PEM text holds one certificate, this one holds {count}")]
    CertificateCount {
        /// How many it holds.
        count: usize,
    },
    /// The PEM text holds no private key.
    #[error("the authority's private key is missing: append it to the certificate")]
    NoKey,
    /// The certificate may not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The certificate has no SPIFFE ID, so its trust domain is not known.
    #[error("the authority's certificate has no SPIFFE ID: issue it anew with spiffe://<trust domain>")]
    NoSpiffeId,
    /// The private key is damaged or not in PKCS #8.
    #[error("the authority's private key is damaged or not in PKCS #8: convert it with openssl pkcs8 -topk8")]
    KeyUnsupported,
    /// The private key is not the certificate's.
    #[error("the private key is not that of the authority's certificate: give the one they were made with")]
    KeyMismatch,
    /// The validity ends before 1970 or after the year 9999.
    #[error("the validity cannot be written into a certificate: it must end between 1970 and the year 9999")]
    Validity,
    /// The key or the certificate could not be made.
    #[error("the authority could not be made: {source}")]
    Generate {
        /// Why.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
}

impl AuthorityError {
    fn generate(source: rcgen::Error) -> AuthorityError {
        AuthorityError::Generate { source: Box::new(source) }
    }
}

/// Why an SVID was not issued. The authority is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The SPIFFE ID is of another trust domain.
    #[error(
        "{spiffe_id} is not for the authority of {authority} to issue: ask the authority of its trust domain"
    )]
    TrustDomain {
        /// The SPIFFE ID that was asked for.
        spiffe_id: SpiffeId,
        /// The domain of the authority.
        authority: TrustDomain,
    },
    /// The SPIFFE ID has no path, as only a signing certificate's (X509-SVID §3.1).
    #[error("the SPIFFE ID has no path, as only an authority's: name a workload")]
    RootPath,
    /// The authority is not valid at that time.
    #[error("the authority is not valid at that time: make a new one and hand out its bundle first")]
    AuthorityExpired,
    /// The validity ends before 1970 or after the year 9999.
    #[error("the validity cannot be written into a certificate: it must end between 1970 and the year 9999")]
    Validity,
    /// What came out breaks a rule.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The key or the certificate could not be made.
    #[error("the SVID could not be made: {source}")]
    Generate {
        /// Why.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
}

impl IssueError {
    fn generate(source: rcgen::Error) -> IssueError {
        IssueError::Generate { source: Box::new(source) }
    }
}
