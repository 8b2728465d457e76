//! An in-memory issuer of JWT-SVIDs.

use core::fmt;
use std::string::ToString;
use std::time::{Duration, SystemTime};
use std::vec;

use rustls::crypto::CryptoProvider;

use super::signing_key::SigningKey;
use super::token::{self, Issued};
use super::{JWT_SVID_LEN_MAX, JwtAlgorithm, JwtSvid};
use crate::crypto::{generate_key, ring_provider};
use crate::json::Json;
use crate::{JwtAuthority, KeyEncodingError, SpiffeId, TrustDomain};

/// Issues JWT-SVIDs of a trust domain with one key. The caller decides which workload receives which SPIFFE
/// ID.
pub struct JwtIssuer {
    trust_domain: TrustDomain,
    authority: JwtAuthority,
    key: SigningKey,
}

impl JwtIssuer {
    /// Generates a key of ECDSA P-256, which signs ES256. A program that restarts keeps its key and uses
    /// [`JwtIssuer::from_pkcs8`].
    ///
    /// # Errors
    /// [`JwtKeyError`], when the key id is empty or the system provides no randomness.
    pub fn generate(trust_domain: TrustDomain, key_id: &str) -> Result<JwtIssuer, JwtKeyError> {
        JwtIssuer::generate_with_provider(trust_domain, key_id, &ring_provider())
    }

    /// As [`JwtIssuer::generate`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`JwtIssuer::generate`].
    pub fn generate_with_provider(
        trust_domain: TrustDomain,
        key_id: &str,
        provider: &CryptoProvider,
    ) -> Result<JwtIssuer, JwtKeyError> {
        let pkcs8 = generate_key(provider).ok_or(JwtKeyError::Random)?;
        JwtIssuer::from_pkcs8_with_provider(trust_domain, key_id, JwtAlgorithm::Es256, &pkcs8, provider)
    }

    /// Takes a private key in PKCS #8 (DER) that the algorithm takes: of RSA with 2048 to 4096 bits and an
    /// exponent of at least 65537, or of ECDSA with the curve of the algorithm.
    ///
    /// # Errors
    /// [`JwtKeyError`], when the key id is empty, or the key is not one for the algorithm.
    pub fn from_pkcs8(
        trust_domain: TrustDomain,
        key_id: &str,
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
    ) -> Result<JwtIssuer, JwtKeyError> {
        JwtIssuer::from_pkcs8_with_provider(trust_domain, key_id, algorithm, pkcs8, &ring_provider())
    }

    /// As [`JwtIssuer::from_pkcs8`], with another provider of cryptography, which signs everything but ES512.
    ///
    /// # Errors
    /// As for [`JwtIssuer::from_pkcs8`].
    pub fn from_pkcs8_with_provider(
        trust_domain: TrustDomain,
        key_id: &str,
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
        provider: &CryptoProvider,
    ) -> Result<JwtIssuer, JwtKeyError> {
        let key = SigningKey::from_pkcs8(algorithm, pkcs8, provider).ok_or(JwtKeyError::Key { algorithm })?;
        let authority = JwtAuthority::new(key_id, key.public_key().clone())?;
        Ok(JwtIssuer { trust_domain, authority, key })
    }

    /// The public key with its id, for the bundle of the trust domain.
    #[must_use]
    pub fn authority(&self) -> &JwtAuthority {
        &self.authority
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Issues a JWT-SVID for an audience, valid from `now` on for whole seconds. One audience is recommended
    /// (JWT-SVID §3.2).
    ///
    /// # Errors
    /// [`JwtIssueError`]; the issuer is unchanged.
    pub fn issue(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[&str],
        validity: Duration,
        now: SystemTime,
    ) -> Result<JwtSvid, JwtIssueError> {
        if spiffe_id.trust_domain() != &self.trust_domain {
            return Err(JwtIssueError::TrustDomain {
                spiffe_id: spiffe_id.clone(),
                issuer: self.trust_domain.clone(),
            });
        }
        if audience.is_empty() || audience.iter().any(|one| one.is_empty()) {
            return Err(JwtIssueError::Audience);
        }
        let Issued { issued, expires, until } = Issued::new(now, validity).ok_or(JwtIssueError::Validity)?;
        let header = token::header(&self.key, Some(self.authority.key_id()), "JWT");
        let text = |value: &str| Json::String(value.into());
        let claims = Json::Object(vec![
            ("sub".into(), text(&spiffe_id.to_string())),
            ("aud".into(), Json::Array(audience.iter().map(|one| text(one)).collect())),
            ("exp".into(), Json::Number(expires.to_string())),
            ("iat".into(), Json::Number(issued.to_string())),
        ]);
        let token = token::sign(&header, &claims, &self.key).ok_or(JwtIssueError::Sign)?;
        if token.len() > JWT_SVID_LEN_MAX {
            return Err(JwtIssueError::Length { len: token.len() });
        }
        Ok(JwtSvid {
            token,
            spiffe_id: spiffe_id.clone(),
            audience: audience.iter().map(ToString::to_string).collect(),
            expires: until,
            claims,
        })
    }
}

/// Without the private key.
impl fmt::Debug for JwtIssuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtIssuer")
            .field("trust_domain", &self.trust_domain)
            .field("key_id", &self.authority.key_id())
            .field("algorithm", &self.key.algorithm())
            .finish_non_exhaustive()
    }
}

/// A key does not sign JWT-SVIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The key is damaged, not in PKCS #8, or not one for the algorithm.
    #[error(
        "the private key is not a PKCS #8 key for {algorithm}: convert it with openssl pkcs8 -topk8, or choose its algorithm"
    )]
    Key {
        /// The algorithm.
        algorithm: JwtAlgorithm,
    },
    /// The key id is empty.
    #[error(transparent)]
    KeyId(#[from] KeyEncodingError),
    /// The system provides no randomness.
    #[error("cannot generate a key: the system provides no randomness")]
    Random,
}

/// A JWT-SVID was not issued. The issuer is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtIssueError {
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
    /// There is no audience, or an empty one (JWT-SVID §3.2).
    #[error("the audience is empty: name the service that the token is presented to")]
    Audience,
    /// The validity is below a second, or ends at a time that cannot be represented.
    #[error("the validity is below one second or too long: choose one of seconds to hours")]
    Validity,
    /// The token would be longer than [`JWT_SVID_LEN_MAX`].
    #[error(
        "the token would have {len} bytes, more than the {JWT_SVID_LEN_MAX} allowed: name fewer audiences"
    )]
    Length {
        /// The length of the token, in bytes.
        len: usize,
    },
    /// The key did not sign.
    #[error("cannot sign the token: the system provides no randomness, or the key is damaged")]
    Sign,
}
