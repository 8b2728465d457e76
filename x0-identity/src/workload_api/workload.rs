//! What one workload receives.

use core::fmt;
use std::string::{String, ToString};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};

use super::messages::{
    BundleEntries, JwtBundlesResponse, X509BundlesResponse, X509SvidMessage, X509SvidResponse,
};
use super::wit::{self, WitIdentities};
use crate::grpc::frame_message;
use crate::x509::Certificate;
use crate::x509::der::{OCTET_STRING, SEQUENCE, element};
use crate::{BundleMap, JwtIssuer, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain, X509Svid};

/// The longest hint, in bytes (Workload API §8).
pub const HINT_LEN_MAX: usize = 1024;

/// The most certificate revocation lists of a workload or a message.
pub const CRLS_MAX: usize = 1024;

/// The most bytes of all certificate revocation lists of a workload: they share a message with its SVIDs, and
/// clients of gRPC refuse messages above 4 MiB.
pub const CRLS_LEN_MAX: usize = 1024 * 1024;

/// The most bytes of all WIT-SVIDs of a workload, with their keys and hints: they share a message, and
/// clients of gRPC refuse messages above 4 MiB.
pub const WIT_SVIDS_LEN_MAX: usize = 1024 * 1024;

/// The identities and bundles of one workload at one moment: everything that the Workload API answers to it.
///
/// The value is complete and does not change. A rotation builds another one, and the server sends each stream
/// a message with all of it (Workload API §4.3). The first identity is the default one (§8).
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use x0_identity::workload_api::Workload;
/// use x0_identity::{Authority, AuthorityOptions, JwtIssuer, SpiffeBundle, SpiffeId, TrustDomain};
///
/// let trust_domain = TrustDomain::parse("example.org")?;
/// let authority = Authority::new(trust_domain.clone(), &AuthorityOptions::default())?;
/// let jwt_issuer = Arc::new(JwtIssuer::generate(trust_domain, "key 1")?);
/// let bundle = SpiffeBundle::new(authority.bundle()).with_jwt_authorities(vec![jwt_issuer.authority().clone()])?;
///
/// let web = SpiffeId::parse("spiffe://example.org/web")?;
/// let workload = Workload::new(bundle)
///     .with_svid(authority.issue(&web, Duration::from_secs(3600))?, "internal")?
///     .with_jwt_issuer(jwt_issuer, Duration::from_secs(300))?;
/// assert_eq!(workload.spiffe_ids().next(), Some(&web));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Workload {
    bundle: SpiffeBundle,
    federated: BundleMap,
    identities: Vec<HeldSvid>,
    jwt: Option<JwtIssuing>,
    crls: Vec<Vec<u8>>,
    wit: WitIdentities,
    encoded: OnceLock<Encoded>,
}

#[derive(Clone)]
pub(super) struct HeldSvid {
    pub(super) svid: X509Svid,
    pub(super) hint: String,
    /// As PKCS #8, which the Workload API demands.
    pub(super) key: PrivateKeyDer8,
}

/// The bytes of a private key in PKCS #8.
pub(super) type PrivateKeyDer8 = Arc<[u8]>;

#[derive(Clone)]
pub(super) struct JwtIssuing {
    pub(super) issuer: Arc<JwtIssuer>,
    pub(super) validity: Duration,
}

/// The messages of the streams, with their prefix; all streams of all connections share them.
#[derive(Clone)]
pub(super) struct Encoded {
    /// `None`, when there is no identity.
    pub(super) x509_svid: Option<Arc<[u8]>>,
    pub(super) x509_bundles: Arc<[u8]>,
    pub(super) jwt_bundles: Arc<[u8]>,
    /// `None`, when there is no WIT-SVID.
    pub(super) wit_svid: Option<Arc<[u8]>>,
    pub(super) wit_bundles: Arc<[u8]>,
}

impl Workload {
    /// Builds the workload of a server in the trust domain of the bundle, without identities: it may fetch
    /// bundles and validate JWT-SVIDs.
    #[must_use]
    pub fn new(bundle: SpiffeBundle) -> Workload {
        Workload {
            bundle,
            federated: BundleMap::new(),
            identities: Vec::new(),
            jwt: None,
            crls: Vec::new(),
            wit: WitIdentities::default(),
            encoded: OnceLock::new(),
        }
    }

    /// Adds an identity. The hint says what the workload uses it for (§8); it may be empty.
    ///
    /// # Errors
    /// [`WorkloadError`], when the SVID is of another trust domain, the bundle has no authority, the hint is
    /// too long or that of another identity, or the key cannot be written as PKCS #8.
    pub fn with_svid(mut self, svid: X509Svid, hint: &str) -> Result<Workload, WorkloadError> {
        self.check_domain(svid.spiffe_id().trust_domain())?;
        if self.bundle.trust_bundle().is_empty() {
            return Err(WorkloadError::NoAuthority { trust_domain: self.bundle.trust_domain().clone() });
        }
        if hint.len() > HINT_LEN_MAX {
            return Err(WorkloadError::HintLength { len: hint.len() });
        }
        if !hint.is_empty() && self.identities.iter().any(|held| held.hint == hint) {
            return Err(WorkloadError::DuplicateHint { hint: hint.into() });
        }
        let key = pkcs8(&svid).ok_or_else(|| WorkloadError::Key { spiffe_id: svid.spiffe_id().clone() })?;
        self.identities.push(HeldSvid { svid, hint: hint.into(), key });
        self.encoded = OnceLock::new();
        Ok(self)
    }

    /// Adds the bundle of a foreign trust domain, in the place of the one that the domain has (§4.6).
    ///
    /// # Errors
    /// [`WorkloadError::OwnDomain`], when the bundle is of the server's own trust domain.
    pub fn with_federated(mut self, bundle: SpiffeBundle) -> Result<Workload, WorkloadError> {
        if bundle.trust_domain() == self.bundle.trust_domain() {
            return Err(WorkloadError::OwnDomain { trust_domain: bundle.trust_domain().clone() });
        }
        self.federated.insert(bundle);
        self.encoded = OnceLock::new();
        Ok(self)
    }

    /// Lets the workload fetch JWT-SVIDs for its identities, valid for so long. Without an issuer it receives
    /// none.
    ///
    /// # Errors
    /// [`WorkloadError::TrustDomain`], when the issuer is of another trust domain.
    pub fn with_jwt_issuer(
        mut self,
        issuer: Arc<JwtIssuer>,
        validity: Duration,
    ) -> Result<Workload, WorkloadError> {
        self.check_domain(issuer.trust_domain())?;
        self.jwt = Some(JwtIssuing { issuer, validity });
        Ok(self)
    }

    /// Sets the certificate revocation lists, as DER, that are sent beside X.509-SVIDs and X.509 bundles
    /// (§5.1). Nothing reads or enforces them here, and no known client does: revocation is
    /// [`RevocationView`](crate::RevocationView). The specification may remove the fields.
    ///
    /// # Errors
    /// [`WorkloadError::Crls`], when there are more than [`CRLS_MAX`], and [`WorkloadError::CrlsLength`],
    /// when they have more than [`CRLS_LEN_MAX`] bytes.
    pub fn with_crls(mut self, crls: Vec<Vec<u8>>) -> Result<Workload, WorkloadError> {
        if crls.len() > CRLS_MAX {
            return Err(WorkloadError::Crls { count: crls.len() });
        }
        let len = crls.iter().map(Vec::len).fold(0, usize::saturating_add);
        if len > CRLS_LEN_MAX {
            return Err(WorkloadError::CrlsLength { len });
        }
        self.crls = crls;
        self.encoded = OnceLock::new();
        Ok(self)
    }

    pub(super) fn check_domain(&self, offered: &TrustDomain) -> Result<(), WorkloadError> {
        let server = self.bundle.trust_domain();
        if offered == server {
            return Ok(());
        }
        Err(WorkloadError::TrustDomain { server: server.clone(), offered: offered.clone() })
    }

    pub(super) fn wit(&self) -> &WitIdentities {
        &self.wit
    }

    #[cfg(feature = "wit")]
    pub(super) fn wit_mut(&mut self) -> &mut WitIdentities {
        self.encoded = OnceLock::new();
        &mut self.wit
    }

    /// The SPIFFE IDs of the identities, the default one first.
    pub fn spiffe_ids(&self) -> impl Iterator<Item = &SpiffeId> {
        self.identities.iter().map(|held| held.svid.spiffe_id())
    }

    /// The bundle of the server's trust domain.
    #[must_use]
    pub fn bundle(&self) -> &SpiffeBundle {
        &self.bundle
    }

    /// The bundles of foreign trust domains.
    #[must_use]
    pub fn federated(&self) -> &BundleMap {
        &self.federated
    }

    pub(super) fn identities(&self) -> &[HeldSvid] {
        &self.identities
    }

    pub(super) fn jwt(&self) -> Option<&JwtIssuing> {
        self.jwt.as_ref()
    }

    /// All bundles. JWT-SVIDs of the trust domain and of foreign ones are validated with them.
    pub(super) fn bundles(&self) -> BundleMap {
        let mut bundles = self.federated.clone();
        bundles.insert(self.bundle.clone());
        bundles
    }

    pub(super) fn encoded(&self) -> &Encoded {
        self.encoded.get_or_init(|| {
            let federated: Vec<&SpiffeBundle> = self.federated.iter().collect();
            let all = [&self.bundle].into_iter().chain(federated.iter().copied());
            let x509 = |bundle: &SpiffeBundle| (key_of(bundle), concatenated(bundle.trust_bundle()));
            let jwt = |bundle: &SpiffeBundle| (key_of(bundle), bundle.jwt_key_set().into_bytes());
            let svids = X509SvidResponse {
                svids: self.identities.iter().map(|held| held.message(&self.bundle)).collect(),
                crl: self.crls.clone(),
                federated_bundles: federated.iter().copied().map(x509).collect::<BundleEntries>(),
            };
            let x509_bundles =
                X509BundlesResponse { crl: self.crls.clone(), bundles: all.clone().map(x509).collect() };
            let jwt_bundles = JwtBundlesResponse { bundles: all.clone().map(jwt).collect() };
            Encoded {
                x509_svid: (!svids.svids.is_empty()).then(|| frame_message(&svids.encode())),
                x509_bundles: frame_message(&x509_bundles.encode()),
                jwt_bundles: frame_message(&jwt_bundles.encode()),
                wit_svid: self.wit.svids(None),
                wit_bundles: wit::bundles(all),
            }
        })
    }
}

impl HeldSvid {
    fn message(&self, bundle: &SpiffeBundle) -> X509SvidMessage {
        X509SvidMessage {
            spiffe_id: self.svid.spiffe_id().to_string(),
            x509_svid: self.svid.chain().iter().flat_map(|certificate| certificate.iter().copied()).collect(),
            x509_svid_key: self.key.to_vec(),
            bundle: concatenated(bundle.trust_bundle()),
            hint: self.hint.clone(),
        }
    }
}

/// Without private keys.
impl fmt::Debug for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Workload")
            .field("spiffe_ids", &self.spiffe_ids().collect::<Vec<_>>())
            .field("trust_domain", self.bundle.trust_domain())
            .finish_non_exhaustive()
    }
}

/// Bundles are keyed by the SPIFFE ID of their trust domain (§5.1).
pub(super) fn key_of(bundle: &SpiffeBundle) -> String {
    std::format!("spiffe://{}", bundle.trust_domain())
}

fn concatenated(bundle: &TrustBundle) -> Vec<u8> {
    bundle.authorities().iter().flat_map(|authority| authority.iter().copied()).collect()
}

/// The key of an SVID as PKCS #8 (RFC 5208 §5). SEC 1 and PKCS #1 are what its innermost field holds, and the
/// algorithm is that of the certificate.
fn pkcs8(svid: &X509Svid) -> Option<PrivateKeyDer8> {
    let key = match svid.key() {
        PrivateKeyDer::Pkcs8(key) => return Some(key.secret_pkcs8_der().into()),
        PrivateKeyDer::Sec1(key) => key.secret_sec1_der(),
        PrivateKeyDer::Pkcs1(key) => key.secret_pkcs1_der(),
        _ => return None,
    };
    let leaf: &CertificateDer<'_> = svid.chain().first()?;
    let algorithm = Certificate::parse(leaf).ok()?.public_key_algorithm;
    let version = [0x02, 1, 0];
    let content = [&version[..], &element(SEQUENCE, algorithm), &element(OCTET_STRING, key)].concat();
    Some(element(SEQUENCE, &content).into())
}

/// A workload cannot receive what is offered. The workload is unchanged: build it again without that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The SVID or the issuer is of another trust domain than the bundle.
    #[error(
        "the workload is of {server}, and the SVID or issuer of {offered}: serve each trust domain by itself"
    )]
    TrustDomain {
        /// The trust domain of the bundle.
        server: TrustDomain,
        /// The trust domain of the SVID or issuer.
        offered: TrustDomain,
    },
    /// The bundle of the trust domain has no authority, which the API demands beside an SVID.
    #[error(
        "the bundle of {trust_domain} has no authority for this kind of SVID: add the one that signed it"
    )]
    NoAuthority {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The bundle is of the server's own trust domain.
    #[error("{trust_domain} is the workload's own trust domain: pass its bundle to Workload::new")]
    OwnDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The hint is longer than [`HINT_LEN_MAX`] (§8).
    #[error("the hint has {len} bytes, more than the {HINT_LEN_MAX} allowed: shorten it")]
    HintLength {
        /// The length of the hint, in bytes.
        len: usize,
    },
    /// The certificate revocation lists have more bytes than [`CRLS_LEN_MAX`].
    #[error(
        "the certificate revocation lists have {len} bytes, more than the {CRLS_LEN_MAX} allowed: drop some"
    )]
    CrlsLength {
        /// The length of all lists, in bytes.
        len: usize,
    },
    /// The workload has more certificate revocation lists than [`CRLS_MAX`].
    #[error("{count} certificate revocation lists are more than the {CRLS_MAX} allowed: merge or drop some")]
    Crls {
        /// The number of lists.
        count: usize,
    },
    /// The WIT-SVIDs have more bytes than [`WIT_SVIDS_LEN_MAX`], with their keys and hints.
    #[error(
        "the WIT-SVIDs have {len} bytes, more than the {WIT_SVIDS_LEN_MAX} allowed: serve fewer identities"
    )]
    WitSvidsLength {
        /// The length of all WIT-SVIDs, in bytes.
        len: usize,
    },
    /// Another identity of the workload has the hint (§5.2.1).
    #[error("two identities of the workload have the hint {hint:?}: give each one a hint of its own")]
    DuplicateHint {
        /// The hint.
        hint: String,
    },
    /// The private key cannot be written as PKCS #8, or is not that of the SVID.
    #[error(
        "the private key of {spiffe_id} is not that of the SVID, or not in PKCS #8: pass its own, converted with openssl pkcs8 -topk8"
    )]
    Key {
        /// The SPIFFE ID of the SVID.
        spiffe_id: SpiffeId,
    },
}
