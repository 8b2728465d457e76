//! The two phases of signing a certificate: what is to be signed, and the certificate with the signature.

use std::string::ToString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use std::vec;
use std::vec::Vec;

use pki_types::CertificateDer;
use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;

use super::encode::{bits, element, extension, sequence, time};
use super::{CertificateRequest, KeyAlgorithm};
use crate::crypto::ring_provider;
use crate::x509::{Certificate, Signer, Validity, to_system_time};
use crate::{RegistrationEntry, SigningError, SpiffeId, TrustDomain};

/// The settings of a [`CaSigner`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaSignerOptions {
    /// Certificates become valid this long before they are issued, for peers whose clocks lag. The default is
    /// 60 seconds.
    pub backdate: Duration,
    /// Whether [`CaSigner::finish`] checks every signature, or only the first one of a signer. The default is
    /// every one.
    pub check_every_signature: bool,
    /// The provider of cryptography, which checks signatures and proofs of possession and chooses serial
    /// numbers. The default is ring's.
    pub provider: Arc<CryptoProvider>,
}

impl Default for CaSignerOptions {
    fn default() -> CaSignerOptions {
        CaSignerOptions {
            backdate: Duration::from_secs(60),
            check_every_signature: true,
            provider: ring_provider(),
        }
    }
}

impl CaSignerOptions {
    /// Sets [`CaSignerOptions::backdate`].
    #[must_use]
    pub fn backdate(mut self, backdate: Duration) -> CaSignerOptions {
        self.backdate = backdate;
        self
    }

    /// Sets [`CaSignerOptions::check_every_signature`]. A check takes more processor time than a signature.
    /// Without it the first check, which this process makes before it issues anything, finds a key that is
    /// not that of the certificate. Another signer for the same `CaSigner` is not checked: build a new one
    /// for it. Keep every check for a key that signs elsewhere: in hardware, by several parties, or on
    /// another machine.
    #[must_use]
    pub fn check_every_signature(mut self, checked: bool) -> CaSignerOptions {
        self.check_every_signature = checked;
        self
    }

    /// Sets [`CaSignerOptions::provider`].
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> CaSignerOptions {
        self.provider = provider;
        self
    }
}

/// The request of a workload. DNS names are not part of it: they come from the registration entry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssueRequest {
    /// The SPIFFE ID, which is that of the entry.
    pub spiffe_id: SpiffeId,
    /// The public key, with proof of possession.
    pub request: CertificateRequest,
    /// The requested validity; the entry and the authority bound it.
    pub validity: Duration,
}

impl IssueRequest {
    /// Builds a request.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, request: CertificateRequest, validity: Duration) -> IssueRequest {
        IssueRequest { spiffe_id, request, validity }
    }
}

/// The certificate of an authority, whose key signs elsewhere: in this process, in a hardware module, or by
/// several parties. It says what is to be signed ([`CaSigner::begin`]) and assembles the certificate with the
/// signature ([`CaSigner::finish`]).
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{CaSigner, CaSignerOptions, CertificateRequest, IssueRequest, RegistrationEntry, RequestKey, SpiffeId};
/// # use ring::{rand::SystemRandom, signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair}};
/// # fn run(root: pki_types::CertificateDer<'static>, ca_key: &EcdsaKeyPair) -> Result<(), Box<dyn std::error::Error>> {
/// // The workload: its key stays where it is.
/// let key = RequestKey::generate()?;
/// let request = key.request().to_vec();
///
/// // The issuer.
/// let id = SpiffeId::parse("spiffe://example.org/web")?;
/// let entry = RegistrationEntry::new(id.clone(), Duration::from_secs(3600)).dns_name("web.example.org")?;
/// let signer = CaSigner::new(root, Vec::new(), CaSignerOptions::default())?;
/// let request = IssueRequest::new(id, CertificateRequest::from_der(&request)?, Duration::from_secs(3600));
/// let unsigned = signer.begin(&entry, &request, SystemTime::now())?;
/// let signature = ca_key.sign(&SystemRandom::new(), unsigned.to_be_signed()).map_err(|_| "no randomness")?;
/// let chain = signer.finish(&unsigned, signature.as_ref())?;
///
/// // The workload again.
/// let svid = key.into_svid(chain)?;
/// # drop(svid);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CaSigner {
    authority: Authority,
    /// The certificates that a leaf presents beside itself.
    presented: Vec<CertificateDer<'static>>,
    algorithm: KeyAlgorithm,
    /// The seconds in which the authority and all that a leaf presents are valid.
    validity: Validity,
    trust_domain: TrustDomain,
    options: CaSignerOptions,
    /// Whether a signature was checked and was right; clones share it.
    is_checked: Arc<AtomicBool>,
}

/// The parts of the authority's certificate that a leaf and its check need.
#[derive(Debug, Clone)]
struct Authority {
    /// The content of the name.
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// The content of the bit string.
    public_key: Vec<u8>,
}

/// A certificate that is not signed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedCertificate {
    signed: Vec<u8>,
}

impl UnsignedCertificate {
    /// The bytes to be signed with the authority's key: with ECDSA (P-256 with SHA-256, P-384 with SHA-384;
    /// the signature in ASN.1), Ed25519, or RSA (PKCS #1 with SHA-256).
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        &self.signed
    }
}

impl CaSigner {
    /// Takes the certificate of the authority, and its issuers up to the root without the root, if the
    /// authority is not the root itself.
    ///
    /// # Errors
    /// [`CaSignerError`], when a certificate breaks a rule for signing certificates, has no SPIFFE ID, or has
    /// a key that is not supported.
    pub fn new(
        certificate: CertificateDer<'static>,
        upstream: Vec<CertificateDer<'static>>,
        options: CaSignerOptions,
    ) -> Result<CaSigner, CaSignerError> {
        let parsed = Certificate::parse(&certificate).map_err(SigningError::from)?;
        let checked = Signer::check(&parsed)?;
        let spiffe_id = checked.spiffe_id.ok_or(CaSignerError::NoSpiffeId)?;
        let algorithm = KeyAlgorithm::of_key(parsed.public_key_algorithm).ok_or(CaSignerError::Algorithm)?;
        // A root is in every bundle; only an intermediate is presented.
        let is_root = parsed.issuer == parsed.subject;
        let mut validity = parsed.validity;
        for (position, signer) in upstream.iter().enumerate() {
            let broken = |source| CaSignerError::Upstream { position, source };
            let parsed = Certificate::parse(signer).map_err(|error| broken(error.into()))?;
            Signer::check(&parsed).map_err(broken)?;
            if !is_root {
                validity.not_before = validity.not_before.max(parsed.validity.not_before);
                validity.not_after = validity.not_after.min(parsed.validity.not_after);
            }
        }
        let authority = Authority {
            subject: parsed.subject.to_vec(),
            key_id: parsed.subject_key_id.map(<[u8]>::to_vec),
            public_key: parsed.public_key.to_vec(),
        };
        let presented =
            if is_root { Vec::new() } else { [certificate].into_iter().chain(upstream).collect() };
        let trust_domain = spiffe_id.trust_domain().clone();
        let is_checked = Arc::default();
        Ok(CaSigner { validity, algorithm, presented, trust_domain, options, authority, is_checked })
    }

    /// The trust domain of the authority.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(crate) fn provider(&self) -> &CryptoProvider {
        &self.options.provider
    }

    /// The last second in which the authority and the issuers that a leaf presents are valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        to_system_time(self.validity.not_after)
    }

    /// Builds the certificate of a leaf, with the DNS names of its entry and a random serial number. Its
    /// validity ends at the earliest of what is requested, what the entry allows, until when the entry is
    /// admitted, and the end of the authority and of each issuer that the leaf presents.
    ///
    /// # Errors
    /// [`IssueRequestError`], when the entry is not for the request, is no longer admitted, or the authority
    /// or an issuer of it is not valid.
    pub fn begin(
        &self,
        entry: &RegistrationEntry,
        request: &IssueRequest,
        now: SystemTime,
    ) -> Result<UnsignedCertificate, IssueRequestError> {
        let spiffe_id = entry.spiffe_id();
        if request.spiffe_id != *spiffe_id {
            return Err(IssueRequestError::Entry { requested: request.spiffe_id.clone() });
        }
        if *spiffe_id.trust_domain() != self.trust_domain {
            return Err(IssueRequestError::TrustDomain {
                spiffe_id: spiffe_id.clone(),
                authority: self.trust_domain.clone(),
            });
        }
        if spiffe_id.path().is_empty() {
            return Err(IssueRequestError::RootPath);
        }
        let now_seconds = seconds(now).ok_or(IssueRequestError::Validity)?;
        let admitted = entry.admitted_until().map_or(Some(i64::MAX), seconds).unwrap_or(i64::MAX);
        if admitted < now_seconds {
            return Err(IssueRequestError::Admitted { spiffe_id: spiffe_id.clone() });
        }
        let asked = i64::try_from(request.validity.min(entry.validity()).as_secs()).unwrap_or(i64::MAX);
        let backdate = i64::try_from(self.options.backdate.as_secs()).unwrap_or(i64::MAX);
        let not_before = now_seconds.saturating_sub(backdate).max(self.validity.not_before).max(0);
        let not_after = now_seconds.saturating_add(asked).min(admitted).min(self.validity.not_after);
        if now_seconds < self.validity.not_before || now_seconds > self.validity.not_after {
            return Err(IssueRequestError::Authority);
        }
        if not_after >= YEAR_10000 {
            return Err(IssueRequestError::Validity);
        }
        self.leaf(entry, request.request.public_key_info(), not_before, not_after)
    }

    fn leaf(
        &self,
        entry: &RegistrationEntry,
        public_key_info: &[u8],
        not_before: i64,
        not_after: i64,
    ) -> Result<UnsignedCertificate, IssueRequestError> {
        let mut serial = [0; 16];
        self.options.provider.secure_random.fill(&mut serial).map_err(|_| IssueRequestError::Random)?;
        // RFC 5280 §4.1.2.2: positive; the second highest bit makes the encoding the shortest.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut names = element(0x86, entry.spiffe_id().to_string().as_bytes());
        for name in entry.dns_names() {
            names.extend(element(0x82, name.as_bytes()));
        }
        // RFC 7093 §2 (1).
        let key_hash = digest(&SHA256, public_key_info);
        let mut extensions = vec![
            extension(19, true, &sequence(&[])),
            extension(15, true, &[3, 2, 7, 0x80]),
            extension(
                37,
                false,
                &sequence(&[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1], &[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2]]),
            ),
            // Critical, because there is no subject (X509-SVID §3.1).
            extension(17, true, &sequence(&[&names])),
            extension(14, false, &element(4, &key_hash.as_ref()[..20])),
        ];
        if let Some(key_id) = &self.authority.key_id {
            extensions.push(extension(35, false, &sequence(&[&element(0x80, key_id)])));
        }
        let signed = sequence(&[
            &element(0xa0, &[2, 1, 2]),
            &element(2, &serial),
            &sequence(&[&self.algorithm.signature()]),
            &element(0x30, &self.authority.subject),
            &sequence(&[&time(not_before), &time(not_after)]),
            &sequence(&[]),
            public_key_info,
            &element(0xa3, &sequence(&[&extensions.concat()])),
        ]);
        Ok(UnsignedCertificate { signed })
    }

    /// Checks the signature with the authority's key and returns the chain, the leaf first. Without
    /// [`CaSignerOptions::check_every_signature`] the signatures after the first that was right are not
    /// checked.
    ///
    /// # Errors
    /// [`FinishError`], when the signature is not by the authority's key. Nothing was issued.
    pub fn finish(
        &self,
        unsigned: &UnsignedCertificate,
        signature: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, FinishError> {
        if self.options.check_every_signature || !self.is_checked.load(Ordering::Relaxed) {
            let (key, signed) = (&self.authority.public_key, &unsigned.signed);
            if !self.algorithm.verifies(&self.options.provider, key, signed, signature) {
                return Err(FinishError::Signature);
            }
            self.is_checked.store(true, Ordering::Relaxed);
        }
        let leaf = sequence(&[&unsigned.signed, &sequence(&[&self.algorithm.signature()]), &bits(signature)]);
        Ok([leaf.into()].into_iter().chain(self.presented.iter().cloned()).collect())
    }
}

/// RFC 5280 §4.1.2.5: a certificate says times up to the year 9999.
const YEAR_10000: i64 = 253_402_300_800;

fn seconds(moment: SystemTime) -> Option<i64> {
    i64::try_from(moment.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Certificates are not those of an authority that can issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaSignerError {
    /// The certificate breaks a rule for signing certificates.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The certificate has no SPIFFE ID, so its trust domain is not known.
    #[error("the authority's certificate has no SPIFFE ID: issue it again with spiffe://<trust domain>")]
    NoSpiffeId,
    /// The key of the authority is not supported.
    #[error("the key of the authority is not supported: use ECDSA with P-256 or P-384, Ed25519, or RSA")]
    Algorithm,
    /// An issuer of the authority breaks a rule for signing certificates.
    #[error(
        "upstream certificate {position} is not a valid signing certificate: replace it with the issuer of the one before"
    )]
    Upstream {
        /// The position among the issuers.
        position: usize,
        /// The rule that is broken.
        source: SigningError,
    },
}

/// A certificate is not issued. The signer is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueRequestError {
    /// The entry is for another SPIFFE ID.
    #[error(
        "the registration entry is not for {requested}: request the SPIFFE ID of an entry that the workload matches"
    )]
    Entry {
        /// The requested SPIFFE ID.
        requested: SpiffeId,
    },
    /// The entry is for another trust domain.
    #[error(
        "the authority of {authority} cannot issue {spiffe_id}: request it from the authority of its trust domain"
    )]
    TrustDomain {
        /// The SPIFFE ID of the entry.
        spiffe_id: SpiffeId,
        /// The trust domain of the authority.
        authority: TrustDomain,
    },
    /// The SPIFFE ID has no path, which a leaf must have (X509-SVID §3.1).
    #[error("the SPIFFE ID of the registration entry has no path: register the ID of a workload")]
    RootPath,
    /// The entry is no longer admitted.
    #[error("{spiffe_id} is no longer admitted: extend its registration entry")]
    Admitted {
        /// The SPIFFE ID of the entry.
        spiffe_id: SpiffeId,
    },
    /// The authority, or an issuer that its leaves present, is not valid at that time.
    #[error(
        "the authority or an issuer of it is not valid at that time: activate a new one and distribute its bundle first"
    )]
    Authority,
    /// The validity ends before 1970 or after the year 9999.
    #[error("the validity cannot be encoded in a certificate: choose an end between 1970 and the year 9999")]
    Validity,
    /// The system provides no randomness for a serial number.
    #[error("cannot choose a serial number: the system provides no randomness")]
    Random,
}

/// A signature does not complete the certificate. Nothing was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// The signature is not by the authority's key.
    #[error("the signature is not by the authority's key: sign the bytes of to_be_signed with that key")]
    Signature,
}
