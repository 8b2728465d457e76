//! WIT-SVIDs as they are received.

use core::fmt;
use std::string::String;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::{WIT_PROOF_LIFETIME_MAX, WitConfirmation, WitPresentationError, WitProof, WitProofError};
use crate::crypto::ring_provider;
use crate::json::Json;
use crate::jwt::token::{Compact, PartError, TimeError, Times, read_object, read_signature};
use crate::{BundleMap, JsonError, JwtAlgorithm, ParseSpiffeIdError, SpiffeId, TrustDomain};

/// The longest token that is parsed, in bytes.
pub const WIT_SVID_LEN_MAX: usize = 16 * 1024;

/// The longest leeway: the end of a proof and a leeway after it are times that can be represented.
const LEEWAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// A WIT-SVID that was issued here, or was validated together with a proof that its presenter holds the key.
#[derive(Clone, PartialEq, Eq)]
pub struct WitSvid {
    pub(super) token: String,
    pub(super) spiffe_id: SpiffeId,
    pub(super) confirmation: WitConfirmation,
    pub(super) expires: SystemTime,
    pub(super) claims: Json,
}

impl WitSvid {
    /// The token in the compact serialization. It is presented beside a proof of possession, over a secure
    /// channel, and never in the header `Authorization` (WIT-SVID §5): WIMSE has `Workload-Identity-Token`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The SPIFFE ID of the workload that the token was issued to.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The public key of the workload.
    #[must_use]
    pub fn confirmation(&self) -> &WitConfirmation {
        &self.confirmation
    }

    /// The moment from which on the token is not accepted.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// A further claim that is a text, such as `jti`, for audits. Two instances of a workload may present one
    /// token: `jti` does not detect replays (§3.3).
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Json::as_str)
    }
}

/// Without the token.
impl fmt::Debug for WitSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WitSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Validates WIT-SVIDs. A token alone proves nothing: its presenter proves that it holds the key.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{
///     BundleMap, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain, WitIssuer, WitKey, WitSvidValidator,
/// };
///
/// let (now, trust_domain) = (SystemTime::now(), TrustDomain::parse("example.org")?);
/// let issuer = WitIssuer::generate(trust_domain.clone())?;
/// let workload = SpiffeId::parse("spiffe://example.org/web")?;
/// let key = WitKey::generate()?;
/// let svid = issuer.issue(&workload, key.confirmation(), Duration::from_secs(3600), now)?;
/// let proof = key.prove(svid.token(), "https://reports.example.org/daily", Duration::from_secs(10), now)?;
///
/// let mut bundles = BundleMap::new();
/// let bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain));
/// bundles.insert(bundle.with_wit_authorities(vec![issuer.authority().clone()])?);
/// let presented = WitSvidValidator::new().validate(svid.token(), &bundles, now)?;
/// let (svid, _) = presented.with_proof(&proof, "https://reports.example.org/daily", now)?;
/// assert_eq!(svid.spiffe_id(), &workload);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct WitSvidValidator {
    pub(super) leeway: Duration,
    pub(super) lifespan_max: Option<Duration>,
    pub(super) proof_lifetime_max: Duration,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Default for WitSvidValidator {
    fn default() -> WitSvidValidator {
        WitSvidValidator {
            leeway: Duration::ZERO,
            lifespan_max: None,
            proof_lifetime_max: WIT_PROOF_LIFETIME_MAX,
            provider: ring_provider(),
        }
    }
}

impl WitSvidValidator {
    /// Builds a validator without leeway.
    #[must_use]
    pub fn new() -> WitSvidValidator {
        WitSvidValidator::default()
    }

    /// Sets how far clocks may differ: a token or a proof is accepted so much longer, and so much before its
    /// `nbf`. The default is zero; the specification advises at most a couple of minutes (§3.4). More than a
    /// day counts as a day.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> WitSvidValidator {
        self.leeway = leeway.min(LEEWAY_MAX);
        self
    }

    /// Sets the longest time from `nbf` to `exp` (§3.5); tokens without `nbf` are refused as well. Without it
    /// every lifespan is accepted. A [`WitIssuer`](super::WitIssuer) sets `nbf` 60 seconds before it issues.
    #[must_use]
    pub fn lifespan_max(mut self, lifespan: Duration) -> WitSvidValidator {
        self.lifespan_max = Some(lifespan);
        self
    }

    /// Sets how long a proof may be valid from now on (§7.2), at most [`WIT_PROOF_LIFETIME_MAX`], which is
    /// the default.
    #[must_use]
    pub fn proof_lifetime_max(mut self, lifetime: Duration) -> WitSvidValidator {
        self.proof_lifetime_max = lifetime.min(WIT_PROOF_LIFETIME_MAX);
        self
    }

    /// Sets the provider of cryptography, which verifies everything but ES512, also of proofs. The default is
    /// ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> WitSvidValidator {
        self.provider = provider;
        self
    }

    /// Validates a token with the keys for WIT-SVIDs of its trust domain. The result is not accepted yet: the
    /// proof of possession is missing.
    ///
    /// # Errors
    /// [`WitSvidError`] names the first rule that is broken.
    pub fn validate(
        &self,
        token: &str,
        bundles: &BundleMap,
        now: SystemTime,
    ) -> Result<UnprovenWitSvid, WitSvidError> {
        let Parsed { algorithm, key_id, signed, signature, claims, spiffe_id, confirmation } =
            Parsed::read(token)?;
        let expires = self.check_times(&claims, now)?;
        let trust_domain = spiffe_id.trust_domain();
        let unknown = || WitSvidError::TrustDomain { trust_domain: trust_domain.clone() };
        let bundle = bundles.get(trust_domain).ok_or_else(unknown)?;
        // §6.2: keys of other uses are not looked at.
        let key = bundle.wit_authorities().iter().find(|authority| authority.key_id() == key_id);
        let key = key.map(crate::WitAuthority::key).filter(|key| algorithm.takes(key));
        let key = key.ok_or_else(|| WitSvidError::Key { trust_domain: trust_domain.clone(), algorithm })?;
        if !algorithm.verifies(&self.provider, key, signed.as_bytes(), &signature) {
            return Err(WitSvidError::Signature);
        }
        let svid = WitSvid { token: token.into(), spiffe_id, confirmation, expires, claims };
        Ok(UnprovenWitSvid { svid, validator: self.clone() })
    }

    /// §3.4 and §3.5. `iat` limits nothing (§3.6).
    fn check_times(&self, claims: &Json, now: SystemTime) -> Result<SystemTime, WitSvidError> {
        let times = Times::read(claims)?;
        times.check(now, self.leeway)?;
        if let Some(lifespan_max) = self.lifespan_max {
            let lifespan = times.not_before.and_then(|begin| times.expires.duration_since(begin).ok());
            if lifespan.ok_or(WitSvidError::NoNotBefore)? > lifespan_max {
                return Err(WitSvidError::Lifespan { lifespan_max });
            }
        }
        Ok(times.expires)
    }
}

/// The parts of a token. Neither its times nor its signature were looked at.
pub(crate) struct Parsed<'a> {
    algorithm: JwtAlgorithm,
    key_id: String,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Json,
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) confirmation: WitConfirmation,
}

impl<'a> Parsed<'a> {
    pub(crate) fn read(token: &'a str) -> Result<Parsed<'a>, WitSvidError> {
        if token.len() > WIT_SVID_LEN_MAX {
            return Err(WitSvidError::Length { len: token.len() });
        }
        let parts = Compact::split(token).ok_or(WitSvidError::Serialization)?;
        let (algorithm, key_id) = read_header(parts.header)?;
        let claims = read_object(parts.claims)?;
        let signature = read_signature(parts.signature)?;

        let subject = claims.get("sub").and_then(Json::as_str).ok_or(WitSvidError::Subject)?;
        let spiffe_id = SpiffeId::parse(subject)?;
        // §3.8.
        if claims.get("aud").is_some() {
            return Err(WitSvidError::Audience);
        }
        let confirmation =
            claims.get("cnf").and_then(WitConfirmation::read).ok_or(WitSvidError::Confirmation)?;
        Ok(Parsed { algorithm, key_id, signed: parts.signed, signature, claims, spiffe_id, confirmation })
    }

    #[cfg(feature = "workload-api")]
    pub(crate) fn expires(&self) -> Result<SystemTime, WitSvidError> {
        Ok(Times::read(&self.claims)?.expires)
    }
}

/// §2. Headers that are not known mean nothing, except those that `crit` names (RFC 7515 §4.1.11), of which
/// this crate knows none.
fn read_header(part: &str) -> Result<(JwtAlgorithm, String), WitSvidError> {
    let header = read_object(part)?;
    let known = |name: &str| header.get(name).and_then(Json::as_str);
    let algorithm = known("alg").and_then(JwtAlgorithm::parse).ok_or(WitSvidError::Algorithm)?;
    if known("typ") != Some("wit+jwt") {
        return Err(WitSvidError::Type);
    }
    if header.get("crit").is_some() {
        return Err(WitSvidError::Critical);
    }
    let key_id = known("kid").ok_or(WitSvidError::KeyId)?;
    Ok((algorithm, key_id.into()))
}

/// A valid WIT-SVID whose presenter has not proved yet that it holds the key. It authenticates no presenter:
/// it becomes a [`WitSvid`] by a proof.
pub struct UnprovenWitSvid {
    pub(super) svid: WitSvid,
    pub(super) validator: WitSvidValidator,
}

impl UnprovenWitSvid {
    /// The SPIFFE ID of the workload that the token was issued to, for logs of refusals. A presenter that
    /// copied the token claims it too.
    #[must_use]
    pub fn claimed_spiffe_id(&self) -> &SpiffeId {
        &self.svid.spiffe_id
    }

    /// Accepts the WIT-SVID with the signature of a protocol of the caller's, such as HTTP Message
    /// Signatures. The caller has built the message from the request, so that the signature is over what it
    /// acts on, and has refused signatures that are too old (§7.2).
    ///
    /// # Errors
    /// [`WitProofError::TokenExpired`], when the token has expired since it was validated, and
    /// [`WitProofError::Signature`], when the signature is not by the key of the token.
    pub fn with_signature(
        self,
        message: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) -> Result<WitSvid, WitPresentationError> {
        let confirmation = &self.svid.confirmation;
        match self.check_expiry(now) {
            Ok(()) if confirmation.verifies(&self.validator.provider, message, signature) => Ok(self.svid),
            Ok(()) => Err(self.refused(WitProofError::Signature)),
            Err(source) => Err(self.refused(source)),
        }
    }

    /// Accepts the WIT-SVID with a Workload Proof Token (draft-ietf-wimse-wpt) for an audience, which is the
    /// target URI of a request over HTTP.
    ///
    /// # Errors
    /// [`WitProofError`] names the first rule that is broken.
    pub fn with_proof(
        self,
        proof: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<(WitSvid, WitProof), WitPresentationError> {
        match self.check_expiry(now).and_then(|()| WitProof::verify(&self, proof, audience, now)) {
            Ok(proof) => Ok((self.svid, proof)),
            Err(source) => Err(self.refused(source)),
        }
    }

    /// §3.4: the request with the proof may have taken its time since the token was validated.
    fn check_expiry(&self, now: SystemTime) -> Result<(), WitProofError> {
        let is_over = now.checked_sub(self.validator.leeway).is_some_and(|now| now >= self.svid.expires);
        if is_over { Err(WitProofError::TokenExpired) } else { Ok(()) }
    }

    fn refused(self, source: WitProofError) -> WitPresentationError {
        WitPresentationError { spiffe_id: self.svid.spiffe_id, source }
    }
}

impl fmt::Debug for UnprovenWitSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UnprovenWitSvid").field("svid", &self.svid).finish_non_exhaustive()
    }
}

impl From<TimeError> for WitSvidError {
    fn from(error: TimeError) -> WitSvidError {
        match error {
            TimeError::NoExpiry => WitSvidError::NoExpiry,
            TimeError::Expired => WitSvidError::Expired,
            TimeError::NotBefore => WitSvidError::NotBefore,
            TimeError::NotYetValid => WitSvidError::NotYetValid,
        }
    }
}

impl From<PartError> for WitSvidError {
    fn from(error: PartError) -> WitSvidError {
        match error {
            PartError::Serialization => WitSvidError::Serialization,
            PartError::Json(error) => WitSvidError::Json(error),
        }
    }
}

/// A token is not a valid WIT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitSvidError {
    /// The token is longer than [`WIT_SVID_LEN_MAX`]; it was not parsed.
    #[error(
        "the token has {len} bytes, more than the {WIT_SVID_LEN_MAX} allowed: issue it with fewer claims"
    )]
    Length {
        /// The length of the token, in bytes.
        len: usize,
    },
    /// The token is not in the compact serialization (§1).
    #[error(
        "the token is not a JWS in the compact serialization: pass header, claims and signature in base64url"
    )]
    Serialization,
    /// Header or claims are not JSON, or have a name twice.
    #[error("the header or the claims of the token are not JSON with unique names: issue it again")]
    Json(#[from] JsonError),
    /// `alg` is missing, or is not an algorithm of §2.3.
    #[error("the alg of the token is missing or not allowed: sign with RS, PS or ES 256, 384 or 512")]
    Algorithm,
    /// `typ` is not `wit+jwt` (§2.2).
    #[error("the typ of the token is not wit+jwt: present a WIT-SVID")]
    Type,
    /// `kid` is missing (§2.1).
    #[error("the token has no kid: issue it with the id of the key")]
    KeyId,
    /// `crit` names headers, none of which this crate knows (RFC 7515 §4.1.11).
    #[error("the token has the header crit: issue it with alg, kid and typ only")]
    Critical,
    /// `sub` is missing or not a text (§3.1).
    #[error("the token has no sub that is a text: issue it with the SPIFFE ID of the workload")]
    Subject,
    /// `sub` is not a SPIFFE ID (§3.1).
    #[error("the sub of the token is not a SPIFFE ID: issue it with the SPIFFE ID of the workload")]
    SpiffeId(#[from] ParseSpiffeIdError),
    /// `aud` is present (§3.8).
    #[error("the token has an aud, which a WIT-SVID must not have: name the audience in the proof")]
    Audience,
    /// `cnf` is missing, or has no public key with an algorithm of §3.2.
    #[error(
        "the cnf of the token has no public key with an allowed alg: issue it with the key of the workload"
    )]
    Confirmation,
    /// `exp` is missing or not a number (§3.4).
    #[error("the token has no exp that is a time: issue it with one")]
    NoExpiry,
    /// The token is expired (§3.4).
    #[error("the token is expired: request a new one, or check the clocks")]
    Expired,
    /// `nbf` is not a number (§3.5).
    #[error("the nbf of the token is not a time: issue it with one, or without nbf")]
    NotBefore,
    /// The token is not valid yet (§3.5).
    #[error("the token is not valid yet: wait, or check the clocks")]
    NotYetValid,
    /// `nbf` is missing or after `exp`, and the validator limits the time from it to `exp` (§3.5).
    #[error("the token has no nbf before its exp, so that its lifespan is not known: issue it with nbf")]
    NoNotBefore,
    /// The time from `nbf` to `exp` is longer than the validator allows (§3.5).
    #[error("the token is valid for longer than {lifespan_max:?}: issue it for a shorter time")]
    Lifespan {
        /// The longest time that the validator allows.
        lifespan_max: Duration,
    },
    /// There is no bundle for the trust domain of `sub`.
    #[error("no bundle is trusted for {trust_domain}: add the bundle of the trust domain")]
    TrustDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The bundle has no `wit-svid` key with the id of the header that the algorithm takes (§6.2).
    #[error(
        "the bundle of {trust_domain} has no wit-svid key for this kid and {algorithm}: refresh the bundle"
    )]
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
