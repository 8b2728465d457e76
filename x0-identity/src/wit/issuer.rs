//! An in-memory issuer of WIT-SVIDs.

use core::fmt;
use std::string::{String, ToString};
use std::time::{Duration, SystemTime};
use std::vec;

use rustls::crypto::{CryptoProvider, SecureRandom};

use super::confirmation::thumbprint;
use super::{WIT_SVID_LEN_MAX, WitConfirmation, WitKeyError, WitSvid};
use crate::base64::{Alphabet, encode};
use crate::crypto::{generate_key, ring_provider};
use crate::json::Json;
use crate::jwt::signing_key::SigningKey;
use crate::jwt::token::{self, Issued};
use crate::{JwtAlgorithm, SpiffeId, TrustDomain, WitAuthority};

/// Tokens become valid this many seconds before they are issued, for recipients whose clocks lag.
const BACKDATE: u64 = 60;

/// Issues WIT-SVIDs of a trust domain with one key. The caller decides which workload receives which SPIFFE
/// ID, and that the workload holds the key that the token names.
///
/// The key id is the thumbprint of the key (RFC 7638), so that two keys never share one (WIT-SVID §2.1).
pub struct WitIssuer {
    trust_domain: TrustDomain,
    authority: WitAuthority,
    key: SigningKey,
    random: &'static dyn SecureRandom,
}

impl WitIssuer {
    /// Generates a key of ECDSA P-256, which signs ES256. A program that restarts keeps its key and uses
    /// [`WitIssuer::from_pkcs8`].
    ///
    /// # Errors
    /// [`WitKeyError::Random`], when the system provides no randomness.
    pub fn generate(trust_domain: TrustDomain) -> Result<WitIssuer, WitKeyError> {
        WitIssuer::generate_with_provider(trust_domain, &ring_provider())
    }

    /// As [`WitIssuer::generate`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`WitIssuer::generate`].
    pub fn generate_with_provider(
        trust_domain: TrustDomain,
        provider: &CryptoProvider,
    ) -> Result<WitIssuer, WitKeyError> {
        let pkcs8 = generate_key(provider).ok_or(WitKeyError::Random)?;
        WitIssuer::from_pkcs8_with_provider(trust_domain, JwtAlgorithm::Es256, &pkcs8, provider)
    }

    /// Takes a private key in PKCS #8 (DER) that the algorithm takes: of RSA with 2048 to 4096 bits
    /// and an exponent of at least 65537, or of ECDSA with the curve of the algorithm.
    ///
    /// # Errors
    /// [`WitKeyError::Key`], when the key is not one for the algorithm.
    pub fn from_pkcs8(
        trust_domain: TrustDomain,
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
    ) -> Result<WitIssuer, WitKeyError> {
        WitIssuer::from_pkcs8_with_provider(trust_domain, algorithm, pkcs8, &ring_provider())
    }

    /// As [`WitIssuer::from_pkcs8`], with another provider of cryptography, which signs everything but ES512.
    ///
    /// # Errors
    /// As for [`WitIssuer::from_pkcs8`].
    pub fn from_pkcs8_with_provider(
        trust_domain: TrustDomain,
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
        provider: &CryptoProvider,
    ) -> Result<WitIssuer, WitKeyError> {
        let key = SigningKey::from_pkcs8(algorithm, pkcs8, provider).ok_or(WitKeyError::Key { algorithm })?;
        // A thumbprint is never empty.
        let authority = WitAuthority::new(&thumbprint(key.public_key()), key.public_key().clone())
            .map_err(|_| WitKeyError::Key { algorithm })?;
        Ok(WitIssuer { trust_domain, authority, key, random: provider.secure_random })
    }

    /// The public key with its id, for the bundle of the trust domain.
    #[must_use]
    pub fn authority(&self) -> &WitAuthority {
        &self.authority
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Issues a WIT-SVID for a workload and its key, valid until so many whole seconds after `now`, with a
    /// random `jti`. Its `nbf` is 60 seconds before `now`, for recipients whose clocks lag.
    ///
    /// # Errors
    /// [`WitIssueError`]; the issuer is unchanged.
    pub fn issue(
        &self,
        spiffe_id: &SpiffeId,
        confirmation: &WitConfirmation,
        validity: Duration,
        now: SystemTime,
    ) -> Result<WitSvid, WitIssueError> {
        if spiffe_id.trust_domain() != &self.trust_domain {
            return Err(WitIssueError::TrustDomain {
                spiffe_id: spiffe_id.clone(),
                issuer: self.trust_domain.clone(),
            });
        }
        let Issued { issued, expires, until } = Issued::new(now, validity).ok_or(WitIssueError::Validity)?;
        let header = token::header(&self.key, Some(self.authority.key_id()), "wit+jwt");
        let claims = Json::Object(vec![
            ("sub".into(), Json::String(spiffe_id.to_string())),
            ("cnf".into(), confirmation.write()),
            ("exp".into(), Json::Number(expires.to_string())),
            ("iat".into(), Json::Number(issued.to_string())),
            ("nbf".into(), Json::Number(issued.saturating_sub(BACKDATE).to_string())),
            ("jti".into(), Json::String(random_id(self.random).ok_or(WitIssueError::Sign)?)),
        ]);
        let token = token::sign(&header, &claims, &self.key).ok_or(WitIssueError::Sign)?;
        if token.len() > WIT_SVID_LEN_MAX {
            return Err(WitIssueError::Length { len: token.len() });
        }
        Ok(WitSvid {
            token,
            spiffe_id: spiffe_id.clone(),
            confirmation: confirmation.clone(),
            expires: until,
            claims,
        })
    }
}

/// A `jti` of 128 random bits (§3.3). `None`, when the system provides no randomness.
pub(super) fn random_id(random: &dyn SecureRandom) -> Option<String> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes).ok()?;
    Some(encode(&bytes, Alphabet::Url))
}

/// Without the private key.
impl fmt::Debug for WitIssuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WitIssuer")
            .field("trust_domain", &self.trust_domain)
            .field("key_id", &self.authority.key_id())
            .field("algorithm", &self.key.algorithm())
            .finish_non_exhaustive()
    }
}

/// A WIT-SVID was not issued. The issuer is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitIssueError {
    /// The SPIFFE ID is of another trust domain.
    #[error(
        "the issuer of {issuer} cannot issue {spiffe_id}: request it from the issuer of its trust domain"
    )]
    TrustDomain {
        /// The requested SPIFFE ID.
        spiffe_id: SpiffeId,
        /// The trust domain of the issuer.
        issuer: TrustDomain,
    },
    /// The validity is below a second, or ends at a time that cannot be represented.
    #[error("the validity is below one second or too long: choose one of minutes to hours")]
    Validity,
    /// The token would be longer than [`WIT_SVID_LEN_MAX`].
    #[error("the token would have {len} bytes, more than the {WIT_SVID_LEN_MAX} allowed: use a shorter key")]
    Length {
        /// The length of the token, in bytes.
        len: usize,
    },
    /// The key did not sign.
    #[error("cannot sign the token: the system provides no randomness, or the key is damaged")]
    Sign,
}
