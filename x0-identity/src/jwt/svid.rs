//! JWT-SVIDs as they are received.

use core::fmt;
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::JwtAlgorithm;
use super::token::{Compact, PartError, TimeError, Times, read_object, read_signature};
use crate::crypto::ring_provider;
use crate::json::Json;
use crate::{BundleMap, JsonError, ParseSpiffeIdError, SpiffeId, TrustDomain};

/// The longest token that is parsed, in bytes.
pub const JWT_SVID_LEN_MAX: usize = 16 * 1024;

/// A JWT-SVID whose signature and claims were validated. It is a bearer token: keep it as secret as a
/// password until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    pub(super) token: String,
    pub(super) spiffe_id: SpiffeId,
    pub(super) audience: Vec<String>,
    pub(super) expires: SystemTime,
    pub(super) claims: Json,
}

impl JwtSvid {
    /// The token in the compact serialization, for an `Authorization: Bearer` header (JWT-SVID §5).
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The SPIFFE ID of the workload that the token was issued to.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The audience, never empty.
    #[must_use]
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// The moment from which on the token is not accepted.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// All claims, an object.
    #[cfg(feature = "workload-api")]
    pub(crate) fn claims(&self) -> &Json {
        &self.claims
    }

    /// A further claim that is a text, such as `jti`.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Json::as_str)
    }
}

/// Without the token.
impl fmt::Debug for JwtSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("audience", &self.audience)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Validates JWT-SVIDs for one audience.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{BundleMap, JwtIssuer, JwtSvidValidator, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain};
///
/// let trust_domain = TrustDomain::parse("example.org")?;
/// let issuer = JwtIssuer::generate(trust_domain.clone(), "key 1")?;
/// let workload = SpiffeId::parse("spiffe://example.org/web")?;
/// let svid = issuer.issue(&workload, &["reports"], Duration::from_secs(300), SystemTime::now())?;
///
/// let mut bundles = BundleMap::new();
/// bundles.insert(
///     SpiffeBundle::new(TrustBundle::empty(trust_domain)).with_jwt_authorities(vec![issuer.authority().clone()])?,
/// );
/// let validator = JwtSvidValidator::new("reports").leeway(Duration::from_secs(5));
/// assert_eq!(validator.validate(svid.token(), &bundles, SystemTime::now())?.spiffe_id(), &workload);
/// assert!(JwtSvidValidator::new("other").validate(svid.token(), &bundles, SystemTime::now()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct JwtSvidValidator {
    audience: String,
    leeway: Duration,
    provider: Arc<CryptoProvider>,
}

impl JwtSvidValidator {
    /// Builds a validator for the audience that this workload identifies with.
    #[must_use]
    pub fn new(audience: &str) -> JwtSvidValidator {
        JwtSvidValidator { audience: audience.into(), leeway: Duration::ZERO, provider: ring_provider() }
    }

    /// Sets how far clocks may differ: a token is accepted so much longer, and so much before its `nbf`. The
    /// default is zero.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> JwtSvidValidator {
        self.leeway = leeway;
        self
    }

    /// Sets the provider of cryptography, which verifies everything but ES512. The default is ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> JwtSvidValidator {
        self.provider = provider;
        self
    }

    /// Validates a token with the keys of its trust domain.
    ///
    /// # Errors
    /// [`JwtSvidError`] names the first rule that is broken.
    pub fn validate(
        &self,
        token: &str,
        bundles: &BundleMap,
        now: SystemTime,
    ) -> Result<JwtSvid, JwtSvidError> {
        if token.len() > JWT_SVID_LEN_MAX {
            return Err(JwtSvidError::Length { len: token.len() });
        }
        let parts = Compact::split(token).ok_or(JwtSvidError::Serialization)?;
        let header = Header::read(parts.header)?;
        let claims = read_object(parts.claims)?;
        let signature = read_signature(parts.signature)?;

        // §3.1.
        let subject = claims.get("sub").and_then(Json::as_str).ok_or(JwtSvidError::Subject)?;
        let spiffe_id = SpiffeId::parse(subject)?;
        let audience = self.check_audience(&claims)?;
        // §3.3.
        let times = Times::read(&claims)?;
        times.check(now, self.leeway)?;
        self.verify(&header, spiffe_id.trust_domain(), bundles, parts.signed.as_bytes(), &signature)?;
        Ok(JwtSvid { token: token.into(), spiffe_id, audience, expires: times.expires, claims })
    }

    /// §3.2.
    fn check_audience(&self, claims: &Json) -> Result<Vec<String>, JwtSvidError> {
        let audience: Option<Vec<String>> = match claims.get("aud") {
            Some(Json::String(one)) => Some(vec![one.clone()]),
            Some(Json::Array(values)) => {
                values.iter().map(|value| value.as_str().map(ToString::to_string)).collect()
            }
            _ => None,
        };
        let audience = audience.filter(|audience| !audience.is_empty()).ok_or(JwtSvidError::NoAudience)?;
        if audience.contains(&self.audience) {
            Ok(audience)
        } else {
            Err(JwtSvidError::Audience { expected: self.audience.clone() })
        }
    }

    /// With the key that the header names, or without a name with each that the algorithm takes. Keys of
    /// other trust domains are not looked at.
    fn verify(
        &self,
        header: &Header,
        trust_domain: &TrustDomain,
        bundles: &BundleMap,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtSvidError> {
        let unknown = || JwtSvidError::TrustDomain { trust_domain: trust_domain.clone() };
        let bundle = bundles.get(trust_domain).ok_or_else(unknown)?;
        let mut candidates = bundle
            .jwt_authorities()
            .iter()
            .filter(|authority| header.key_id.as_deref().is_none_or(|key_id| key_id == authority.key_id()))
            .filter(|authority| header.algorithm.takes(authority.key()))
            .peekable();
        if candidates.peek().is_none() {
            return Err(JwtSvidError::Key {
                trust_domain: trust_domain.clone(),
                algorithm: header.algorithm,
            });
        }
        if candidates
            .any(|authority| header.algorithm.verifies(&self.provider, authority.key(), message, signature))
        {
            Ok(())
        } else {
            Err(JwtSvidError::Signature)
        }
    }
}

struct Header {
    algorithm: JwtAlgorithm,
    key_id: Option<String>,
}

impl Header {
    /// §2: only these three, each with its rule, before anything else is looked at.
    fn read(part: &str) -> Result<Header, JwtSvidError> {
        let Json::Object(members) = read_object(part)? else { return Err(JwtSvidError::Serialization) };
        let (mut algorithm, mut key_id) = (None, None);
        for (name, value) in &members {
            match (name.as_str(), value.as_str()) {
                ("alg", Some(name)) => algorithm = JwtAlgorithm::parse(name),
                ("alg", None) => {}
                ("kid", Some(id)) => key_id = Some(id.into()),
                ("typ", Some("JWT" | "JOSE")) => {}
                ("typ" | "kid", _) | (_, _) => return Err(JwtSvidError::Header { name: name.clone() }),
            }
        }
        let algorithm = algorithm.ok_or(JwtSvidError::Algorithm)?;
        Ok(Header { algorithm, key_id })
    }
}

/// A token is not a valid JWT-SVID for this audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtSvidError {
    /// The token is longer than [`JWT_SVID_LEN_MAX`]; it was not parsed.
    #[error(
        "the token has {len} bytes, more than the {JWT_SVID_LEN_MAX} allowed: issue it with fewer claims"
    )]
    Length {
        /// The length of the token, in bytes.
        len: usize,
    },
    /// The token is not in the compact serialization (§5.1).
    #[error(
        "the token is not a JWS in the compact serialization: pass header, claims and signature in base64url"
    )]
    Serialization,
    /// Header or claims are not JSON, or have a name twice.
    #[error("the header or the claims of the token are not JSON with unique names: issue it again")]
    Json(#[from] JsonError),
    /// A header is not allowed, or has a value that is not (§2).
    #[error(
        "the token has the header {name:?}, which is not allowed or has a wrong value: issue it with alg, kid and typ only"
    )]
    Header {
        /// The name of the header.
        name: String,
    },
    /// `alg` is missing, or is not an algorithm of §2.1.
    #[error("the alg of the token is missing or not allowed: sign with RS, PS or ES 256, 384 or 512")]
    Algorithm,
    /// `sub` is missing or not a text (§3.1).
    #[error("the token has no sub that is a text: issue it with the SPIFFE ID of the workload")]
    Subject,
    /// `sub` is not a SPIFFE ID (§3.1).
    #[error("the sub of the token is not a SPIFFE ID: issue it with the SPIFFE ID of the workload")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// `aud` is missing, empty, or not texts (§3.2).
    #[error("the token has no aud: issue it for the audience that it is presented to")]
    NoAudience,
    /// `aud` does not contain the audience of the validator (§3.2).
    #[error("the token is not for the audience {expected:?}: request one for it")]
    Audience {
        /// The audience of the validator.
        expected: String,
    },
    /// `exp` is missing or not a number (§3.3).
    #[error("the token has no exp that is a time: issue it with one")]
    NoExpiry,
    /// The token is expired (§3.3).
    #[error("the token is expired: request a new one, or check the clocks")]
    Expired,
    /// `nbf` is not a number (RFC 7519 §4.1.5).
    #[error("the nbf of the token is not a time: issue it with one, or without nbf")]
    NotBefore,
    /// The token is not valid yet (RFC 7519 §4.1.5).
    #[error("the token is not valid yet: wait, or check the clocks")]
    NotYetValid,
    /// There is no bundle for the trust domain of `sub`.
    #[error("no bundle is trusted for {trust_domain}: add the bundle of the trust domain")]
    TrustDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The bundle has no key with the id of the header that the algorithm takes.
    #[error("the bundle of {trust_domain} has no key for this kid and {algorithm}: refresh the bundle")]
    Key {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The algorithm.
        algorithm: JwtAlgorithm,
    },
    /// The signature is not by the key.
    #[error("the signature of the token is not by the key of the bundle: request a new token")]
    Signature,
}

impl From<TimeError> for JwtSvidError {
    fn from(error: TimeError) -> JwtSvidError {
        match error {
            TimeError::NoExpiry => JwtSvidError::NoExpiry,
            TimeError::Expired => JwtSvidError::Expired,
            TimeError::NotBefore => JwtSvidError::NotBefore,
            TimeError::NotYetValid => JwtSvidError::NotYetValid,
        }
    }
}

impl From<PartError> for JwtSvidError {
    fn from(error: PartError) -> JwtSvidError {
        match error {
            PartError::Serialization => JwtSvidError::Serialization,
            PartError::Json(error) => JwtSvidError::Json(error),
        }
    }
}
