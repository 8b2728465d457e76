//! What a client receives, parsed and checked.

use core::fmt;
use std::string::String;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};

use super::messages::{
    BundleEntries, JwtBundlesResponse, JwtSvidResponse, ValidateJwtSvidResponse, X509BundlesResponse,
    X509SvidMessage, X509SvidResponse,
};
use super::wit::WitMessageError;
use crate::grpc::DecodeError;
use crate::x509::der::Reader;
use crate::{
    BundleError, BundleMap, ParseSpiffeIdError, ParseTrustDomainError, SpiffeBundle, SpiffeBundleError,
    SpiffeId, SvidError, TrustBundle, TrustBundleSet, TrustDomain, X509Svid,
};

/// The X.509-SVIDs of this workload and the bundles that it trusts, from one message. It takes the place of
/// the one before as a whole (Workload API §4.4).
#[derive(Debug, Clone)]
pub struct X509Context {
    svids: Vec<HintedSvid>,
    bundles: X509Bundles,
}

/// The bundles of trust domains for X.509-SVIDs, from one message.
#[derive(Debug, Clone)]
pub struct X509Bundles {
    bundles: TrustBundleSet,
    crls: Vec<Vec<u8>>,
    refused: Vec<RefusedAuthority>,
}

impl X509Bundles {
    /// The bundles.
    #[must_use]
    pub fn bundles(&self) -> &TrustBundleSet {
        &self.bundles
    }

    /// The certificate revocation lists, as the message has them: unread, and enforced by nothing here.
    #[must_use]
    pub fn crls(&self) -> &[Vec<u8>] {
        &self.crls
    }

    /// Authorities that are left out of their bundles.
    #[must_use]
    pub fn refused(&self) -> &[RefusedAuthority] {
        &self.refused
    }

    fn read(entries: &BundleEntries, crls: Vec<Vec<u8>>) -> Result<X509Bundles, MessageError> {
        let (mut bundles, mut refused) = (TrustBundleSet::new(), Vec::new());
        for (key, bytes) in entries {
            bundles.insert(read_bundle(&read_key(key)?, bytes, &mut refused)?);
        }
        Ok(X509Bundles { bundles, crls, refused })
    }
}

/// An X.509-SVID with the operator's hint of its use (Workload API §8).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HintedSvid {
    /// The SVID.
    pub svid: X509Svid,
    /// The hint; empty if there is none.
    pub hint: String,
}

/// An authority that breaks a rule of X509-SVID. It is left out of its bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("authority {position} of the bundle of {trust_domain} is left out")]
#[non_exhaustive]
pub struct RefusedAuthority {
    /// The trust domain of the bundle.
    pub trust_domain: TrustDomain,
    /// The position in the bundle, counted from zero.
    pub position: usize,
    /// The rule that is broken.
    pub source: BundleError,
}

/// A JWT-SVID of this workload. It is a bearer token: keep it as secret as a password until it expires.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedJwtSvid {
    /// The SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The token in the compact serialization.
    pub token: String,
    /// The hint; empty if there is none.
    pub hint: String,
}

/// Without the token.
impl fmt::Debug for FetchedJwtSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FetchedJwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// The result of a validation by the Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValidatedJwtSvid {
    /// The SPIFFE ID of the workload that presented the token.
    pub spiffe_id: SpiffeId,
    /// The claims as a JSON object.
    pub claims: String,
}

/// A message of a Workload API cannot be used. It is discarded as a whole (§4.5); what the message before had
/// stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are not the message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A mandatory field is empty (§4.5).
    #[error("the message has no {field}, which is mandatory: correct the server")]
    Missing {
        /// The name of the field.
        field: &'static str,
    },
    /// A SPIFFE ID is not valid.
    #[error("the message has a SPIFFE ID that is not valid: correct the server")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// A bundle is not keyed by a trust domain.
    #[error("a bundle of the message is not keyed by a trust domain: correct the server")]
    TrustDomain(#[from] ParseTrustDomainError),
    /// An SVID breaks a rule of X509-SVID.
    #[error("the SVID of {spiffe_id} breaks a rule: issue it again")]
    Svid {
        /// The SPIFFE ID that the message names.
        spiffe_id: SpiffeId,
        /// The rule.
        source: SvidError,
    },
    /// The certificate or the WIT-SVID has another SPIFFE ID than the message names.
    #[error("the message names {named}, and the SVID {found}: correct the server")]
    Mismatch {
        /// The SPIFFE ID in the message.
        named: SpiffeId,
        /// The SPIFFE ID in the SVID.
        found: SpiffeId,
    },
    /// Certificates are not DER, one after the other.
    #[error("the certificates of {spiffe_id} are not DER: correct the server")]
    Certificates {
        /// The SPIFFE ID of the SVID, or of the trust domain of the bundle.
        spiffe_id: String,
    },
    /// A bundle of keys for tokens is not a JSON Web Key Set.
    #[error("the key set of {trust_domain} cannot be read: correct the server")]
    KeySet {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The reason.
        source: SpiffeBundleError,
    },
    /// A WIT-SVID or its key cannot be used.
    #[error(transparent)]
    Wit(#[from] WitMessageError),
}

impl X509Context {
    pub(super) fn read(message: &[u8]) -> Result<X509Context, MessageError> {
        let response = X509SvidResponse::decode(message)?;
        let missing = |field| MessageError::Missing { field };
        if response.svids.is_empty() {
            return Err(missing("svids"));
        }
        let mut bundles = X509Bundles::read(&response.federated_bundles, response.crl)?;
        let mut svids: Vec<HintedSvid> = Vec::new();
        for message in response.svids {
            let svid = read_svid(&message)?;
            let trust_domain = svid.spiffe_id().trust_domain();
            // The first SVID decides for its trust domain. A foreign bundle never takes its place.
            if !svids.iter().any(|known| known.svid.spiffe_id().trust_domain() == trust_domain) {
                let bundle = read_bundle(trust_domain, &message.bundle, &mut bundles.refused)?;
                bundles.bundles.insert(bundle);
            }
            svids.push(HintedSvid { svid, hint: message.hint });
        }
        Ok(X509Context { svids, bundles })
    }

    /// The SVIDs, never none, the default one first (§8).
    #[must_use]
    pub fn svids(&self) -> &[HintedSvid] {
        &self.svids
    }

    /// The first SVID with a hint (§5.2.1).
    #[must_use]
    pub fn svid_with_hint(&self, hint: &str) -> Option<&X509Svid> {
        self.svids.iter().find(|held| held.hint == hint).map(|held| &held.svid)
    }

    /// The bundles of the trust domains of the SVIDs, and of the foreign ones.
    #[must_use]
    pub fn bundles(&self) -> &TrustBundleSet {
        &self.bundles.bundles
    }

    /// The certificate revocation lists, as the message has them: unread, and enforced by nothing here.
    #[must_use]
    pub fn crls(&self) -> &[Vec<u8>] {
        &self.bundles.crls
    }

    /// Authorities that are left out of their bundles.
    #[must_use]
    pub fn refused(&self) -> &[RefusedAuthority] {
        &self.bundles.refused
    }
}

fn read_svid(message: &X509SvidMessage) -> Result<X509Svid, MessageError> {
    let missing = |field| Err(MessageError::Missing { field });
    let certificates = || MessageError::Certificates { spiffe_id: message.spiffe_id.clone() };
    match message {
        X509SvidMessage { spiffe_id, .. } if spiffe_id.is_empty() => return missing("spiffe_id"),
        X509SvidMessage { x509_svid, .. } if x509_svid.is_empty() => return missing("x509_svid"),
        X509SvidMessage { x509_svid_key, .. } if x509_svid_key.is_empty() => return missing("x509_svid_key"),
        X509SvidMessage { bundle, .. } if bundle.is_empty() => return missing("bundle"),
        _ => {}
    }
    let named = SpiffeId::parse(&message.spiffe_id)?;
    let chain = split(&message.x509_svid, X509Svid::CHAIN_LEN_MAX).ok_or_else(certificates)?;
    let key = PrivateKeyDer::Pkcs8(message.x509_svid_key.clone().into());
    let svid = X509Svid::from_der(chain, key)
        .map_err(|source| MessageError::Svid { spiffe_id: named.clone(), source })?;
    if *svid.spiffe_id() == named {
        Ok(svid)
    } else {
        Err(MessageError::Mismatch { named, found: svid.spiffe_id().clone() })
    }
}

/// Certificates that follow one another, at most one more than allowed: the rules count them.
fn split(bytes: &[u8], count_max: usize) -> Option<Vec<CertificateDer<'static>>> {
    let mut reader = Reader::new(bytes);
    let mut certificates = Vec::new();
    while !reader.is_empty() && certificates.len() <= count_max {
        certificates.push(reader.element().ok()?.whole.to_vec().into());
    }
    Some(certificates)
}

fn read_bundle(
    trust_domain: &TrustDomain,
    bytes: &[u8],
    refused: &mut Vec<RefusedAuthority>,
) -> Result<TrustBundle, MessageError> {
    let certificates = split(bytes, TrustBundle::AUTHORITIES_MAX)
        .ok_or_else(|| MessageError::Certificates { spiffe_id: std::format!("spiffe://{trust_domain}") })?;
    let mut bundle = TrustBundle::empty(trust_domain.clone());
    for (position, certificate) in certificates.into_iter().enumerate() {
        if let Err(source) = bundle.push(certificate) {
            refused.push(RefusedAuthority { trust_domain: trust_domain.clone(), position, source });
        }
    }
    Ok(bundle)
}

/// The SPIFFE ID of a trust domain.
fn read_key(key: &str) -> Result<TrustDomain, ParseTrustDomainError> {
    TrustDomain::parse(key.strip_prefix("spiffe://").unwrap_or(key))
}

/// The X.509 bundles of a message.
pub(super) fn read_x509_bundles(message: &[u8]) -> Result<X509Bundles, MessageError> {
    let response = X509BundlesResponse::decode(message)?;
    if response.bundles.is_empty() {
        return Err(MessageError::Missing { field: "bundles" });
    }
    X509Bundles::read(&response.bundles, response.crl)
}

/// Reads the key set of a trust domain.
type ReadKeySet = fn(TrustDomain, &[u8]) -> Result<SpiffeBundle, SpiffeBundleError>;

/// The keys of a message, for JWT-SVIDs or for WIT-SVIDs: the messages have one encoding.
pub(super) fn read_key_sets(message: &[u8], read: ReadKeySet) -> Result<BundleMap, MessageError> {
    let response = JwtBundlesResponse::decode(message)?;
    if response.bundles.is_empty() {
        return Err(MessageError::Missing { field: "bundles" });
    }
    let mut bundles = BundleMap::new();
    for (key, json) in &response.bundles {
        let trust_domain = read_key(key)?;
        let bundle = read(trust_domain.clone(), json)
            .map_err(|source| MessageError::KeySet { trust_domain, source })?;
        bundles.insert(bundle);
    }
    Ok(bundles)
}

pub(super) fn read_jwt_svids(message: &[u8]) -> Result<Vec<FetchedJwtSvid>, MessageError> {
    let response = JwtSvidResponse::decode(message)?;
    let missing = |field| MessageError::Missing { field };
    if response.svids.is_empty() {
        return Err(missing("svids"));
    }
    let read = |svid: super::messages::JwtSvidMessage| {
        if svid.svid.is_empty() {
            return Err(missing("svid"));
        }
        Ok(FetchedJwtSvid { spiffe_id: SpiffeId::parse(&svid.spiffe_id)?, token: svid.svid, hint: svid.hint })
    };
    response.svids.into_iter().map(read).collect()
}

pub(super) fn read_validated(message: &[u8]) -> Result<ValidatedJwtSvid, MessageError> {
    let response = ValidateJwtSvidResponse::decode(message)?;
    let claims = response.claims.ok_or(MessageError::Missing { field: "claims" })?;
    let mut text = String::new();
    claims.write(&mut text);
    Ok(ValidatedJwtSvid { spiffe_id: SpiffeId::parse(&response.spiffe_id)?, claims: text })
}
