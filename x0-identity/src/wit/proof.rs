//! Proofs of possession: Workload Proof Tokens (draft-ietf-wimse-wpt-01 §2).

use std::string::{String, ToString};
use std::time::{Duration, SystemTime};
use std::vec;

use ring::digest::{SHA256, digest};

use super::issuer::random_id;
use super::{UnprovenWitSvid, WIT_SVID_LEN_MAX, WitKey};
use crate::base64::{Alphabet, encode};
use crate::json::Json;
use crate::jwt::token::{self, Compact, Issued, PartError, numeric_date, read_object, read_signature};
use crate::{JsonError, SpiffeId};

/// The longest time that a proof is valid (WIT-SVID §7.2: it MUST be limited): 5 minutes. Seconds are enough.
pub const WIT_PROOF_LIFETIME_MAX: Duration = Duration::from_secs(300);

/// Claims that bind a proof to a further token, which a verifier that does not look at that token must not
/// ignore.
const FURTHER_TOKENS: [&str; 3] = ["ath", "tth", "oth"];

/// A proof that was verified. A recipient that wants no proof twice remembers its id until
/// [`WitProof::expires`] (§7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitProof {
    id: String,
    expires: SystemTime,
}

impl WitKey {
    /// Makes a Workload Proof Token for one presentation of a WIT-SVID, valid from `now` on for whole
    /// seconds. The audience is the target URI of a request over HTTP, without query and fragment.
    ///
    /// # Errors
    /// [`WitProveError`].
    pub fn prove(
        &self,
        wit_svid: &str,
        audience: &str,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, WitProveError> {
        if audience.is_empty() {
            return Err(WitProveError::Audience);
        }
        // Fractions of a second are left out.
        if validity.as_secs() > WIT_PROOF_LIFETIME_MAX.as_secs() {
            return Err(WitProveError::Validity);
        }
        let Issued { expires, .. } = Issued::new(now, validity).ok_or(WitProveError::Validity)?;
        let header = token::header(&self.key, None, "wpt+jwt");
        let claims = Json::Object(vec![
            ("aud".into(), Json::String(audience.into())),
            ("exp".into(), Json::Number(expires.to_string())),
            ("jti".into(), Json::String(random_id(self.random).ok_or(WitProveError::Sign)?)),
            ("wth".into(), Json::String(hash(wit_svid))),
        ]);
        let token = token::sign(&header, &claims, &self.key).ok_or(WitProveError::Sign)?;
        if token.len() > WIT_SVID_LEN_MAX { Err(WitProveError::Audience) } else { Ok(token) }
    }
}

/// The one audience of a proof, which may be the only element of an array (RFC 7519 §4.1.3). A proof for
/// several recipients is bound to none of them.
fn single(audience: Option<&Json>) -> Option<&str> {
    match audience? {
        Json::Array(all) => match &all[..] {
            [one] => one.as_str(),
            _ => None,
        },
        one => one.as_str(),
    }
}

fn hash(wit_svid: &str) -> String {
    encode(digest(&SHA256, wit_svid.as_bytes()).as_ref(), Alphabet::Url)
}

impl WitProof {
    /// The id, unique among the proofs of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The moment from which on the validator refuses the proof: `exp`, and the leeway after it.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    pub(super) fn verify(
        presented: &UnprovenWitSvid,
        proof: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<WitProof, WitProofError> {
        let (svid, validator) = (&presented.svid, &presented.validator);
        if proof.len() > WIT_SVID_LEN_MAX {
            return Err(WitProofError::Serialization);
        }
        let parts = Compact::split(proof).ok_or(WitProofError::Serialization)?;
        let header = read_object(parts.header)?;
        let known = |name: &str| header.get(name).and_then(Json::as_str);
        if known("typ") != Some("wpt+jwt") || header.get("crit").is_some() {
            return Err(WitProofError::Type);
        }
        // The key decides the algorithm, not the presenter.
        if known("alg") != Some(svid.confirmation.algorithm().name()) {
            return Err(WitProofError::Algorithm);
        }
        let (signed, signature) = (parts.signed.as_bytes(), read_signature(parts.signature)?);
        if !svid.confirmation.verifies(&validator.provider, signed, &signature) {
            return Err(WitProofError::Signature);
        }
        let claims = read_object(parts.claims)?;
        let claim = |name: &str| claims.get(name).and_then(Json::as_str);
        if claim("wth") != Some(&hash(&svid.token)) {
            return Err(WitProofError::OtherToken);
        }
        if let Some(name) = FURTHER_TOKENS.into_iter().find(|name| claims.get(name).is_some()) {
            return Err(WitProofError::FurtherToken { name });
        }
        // An empty audience in the place of the recipient's name is a mistake of its configuration.
        if audience.is_empty() || single(claims.get("aud")) != Some(audience) {
            return Err(WitProofError::Audience);
        }
        let id = claim("jti").filter(|id| !id.is_empty()).ok_or(WitProofError::Id)?;
        let expires = claims.get("exp").and_then(numeric_date).ok_or(WitProofError::NoExpiry)?;
        if now.checked_sub(validator.leeway).is_some_and(|now| now >= expires) {
            return Err(WitProofError::Expired);
        }
        if let Some(not_before) = claims.get("nbf") {
            let not_before = numeric_date(not_before).ok_or(WitProofError::NotBefore)?;
            if now.checked_add(validator.leeway).is_some_and(|now| now < not_before) {
                return Err(WitProofError::NotYetValid);
            }
        }
        let latest = now.checked_add(validator.proof_lifetime_max.saturating_add(validator.leeway));
        let too_long = WitProofError::Lifetime { lifetime_max: validator.proof_lifetime_max };
        match expires.checked_add(validator.leeway) {
            Some(refused_from) if latest.is_none_or(|latest| expires <= latest) => {
                Ok(WitProof { id: id.into(), expires: refused_from })
            }
            _ => Err(too_long),
        }
    }
}

impl From<PartError> for WitProofError {
    fn from(error: PartError) -> WitProofError {
        match error {
            PartError::Serialization => WitProofError::Serialization,
            PartError::Json(error) => WitProofError::Json(error),
        }
    }
}

/// A proof was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitProveError {
    /// The audience is empty, or so long that the proof exceeds [`WIT_SVID_LEN_MAX`].
    #[error("the audience is empty or too long: name the target that the token is presented to")]
    Audience,
    /// The validity is below a second or above [`WIT_PROOF_LIFETIME_MAX`].
    #[error("the proof would be valid for less than a second or more than 5 minutes: choose some seconds")]
    Validity,
    /// The key did not sign.
    #[error("cannot sign the proof: the system provides no randomness, or the key is damaged")]
    Sign,
}

/// The presenter of a WIT-SVID did not prove that it holds the key. The presenter is not authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the presenter of the WIT-SVID of {spiffe_id} did not prove that it holds the key")]
#[non_exhaustive]
pub struct WitPresentationError {
    /// The SPIFFE ID of the token, which a presenter that copied the token claims too.
    pub spiffe_id: SpiffeId,
    /// The rule that is broken.
    pub source: WitProofError,
}

/// The rule that a proof of possession breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitProofError {
    /// The WIT-SVID has expired since it was validated (WIT-SVID §3.4).
    #[error("the WIT-SVID has expired since it was validated: present a new one")]
    TokenExpired,
    /// The proof is not in the compact serialization, or is longer than [`WIT_SVID_LEN_MAX`].
    #[error("the proof is not a JWS in the compact serialization: make it with the key of the workload")]
    Serialization,
    /// Header or claims are not JSON, or have a name twice.
    #[error("the header or the claims of the proof are not JSON with unique names: make it again")]
    Json(#[from] JsonError),
    /// `typ` is not `wpt+jwt`, or the header has `crit`.
    #[error("the proof is not of type wpt+jwt without crit: present a Workload Proof Token")]
    Type,
    /// `alg` is not that of the key in the token.
    #[error("the alg of the proof is not that of the key in the token: sign with the algorithm of the key")]
    Algorithm,
    /// The signature is not by the key in the token.
    #[error("the signature is not by the key in the token: sign with the key of the workload")]
    Signature,
    /// The proof is for another WIT-SVID.
    #[error("the proof is for another WIT-SVID: make one for each token")]
    OtherToken,
    /// The proof is bound to a further token, which is not verified here.
    #[error("the proof is bound to a further token by {name}, which is not verified here: make it without")]
    FurtherToken {
        /// The name of the claim.
        name: &'static str,
    },
    /// The proof is for another audience, for several, or for none.
    #[error("the proof is not for this audience alone: make it for the target of the request")]
    Audience,
    /// The proof has no id.
    #[error("the proof has no jti: make it with one that is unique")]
    Id,
    /// `exp` is missing or not a number.
    #[error("the proof has no exp that is a time: make it with one")]
    NoExpiry,
    /// The proof is expired.
    #[error("the proof is expired: make one for each request, or check the clocks")]
    Expired,
    /// `nbf` is not a number (RFC 7519 §4.1.5).
    #[error("the nbf of the proof is not a time: make it with one, or without nbf")]
    NotBefore,
    /// The proof is not valid yet.
    #[error("the proof is not valid yet: wait, or check the clocks")]
    NotYetValid,
    /// The proof is valid for too long (WIT-SVID §7.2).
    #[error("the proof is valid for more than {lifetime_max:?}: make it for some seconds")]
    Lifetime {
        /// The longest time that the validator allows.
        lifetime_max: Duration,
    },
}
