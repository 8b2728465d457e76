//! The key pair of a workload, with which it proves that a WIT-SVID is its own.

use core::fmt;
use std::string::String;
use std::vec::Vec;

use rustls::crypto::{CryptoProvider, SecureRandom};

use super::WitConfirmation;
use crate::base64::{Alphabet, decode, encode};
use crate::bundle::positive;
use crate::crypto::{self, ec_pkcs8, generate_key, ring_provider};
use crate::json::Json;
use crate::jwt::signature::integer;
use crate::jwt::signing_key::SigningKey;
use crate::x509::der::{INTEGER, OCTET_STRING, Reader, SEQUENCE, element, only};
use crate::{JwtAlgorithm, JwtKey};

/// The longest private key that is parsed as JSON, in bytes. RSA of 4096 bits takes some 3 KiB.
const JWK_LEN_MAX: usize = 16 * 1024;

/// The members of an RSA private key after `n` and `e`, in the order of RFC 8017 §A.1.2.
const RSA_MEMBERS: [&str; 6] = ["d", "p", "q", "dp", "dq", "qi"];

/// The key pair of a workload, whose public half is in its WIT-SVIDs. The private key signs proofs of
/// possession and leaves the process only through [`WitKey::to_jwk`], for the Workload API.
pub struct WitKey {
    pub(super) key: SigningKey,
    pub(super) random: &'static dyn SecureRandom,
    confirmation: WitConfirmation,
    /// With the private parameters.
    jwk: Json,
}

impl WitKey {
    /// Generates a key of ECDSA P-256, which signs ES256.
    ///
    /// # Errors
    /// [`WitKeyError::Random`], when the system provides no randomness.
    pub fn generate() -> Result<WitKey, WitKeyError> {
        WitKey::generate_with_provider(&ring_provider())
    }

    /// As [`WitKey::generate`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`WitKey::generate`].
    pub fn generate_with_provider(provider: &CryptoProvider) -> Result<WitKey, WitKeyError> {
        let pkcs8 = generate_key(provider).ok_or(WitKeyError::Random)?;
        WitKey::from_pkcs8_with_provider(JwtAlgorithm::Es256, &pkcs8, provider)
    }

    /// Takes a private key in PKCS #8 (DER) that the algorithm takes: of RSA with 2048 to 4096 bits
    /// and an exponent of at least 65537, or of ECDSA with the curve of the algorithm.
    ///
    /// # Errors
    /// [`WitKeyError::Key`], when the key is not one for the algorithm.
    pub fn from_pkcs8(algorithm: JwtAlgorithm, pkcs8: &[u8]) -> Result<WitKey, WitKeyError> {
        WitKey::from_pkcs8_with_provider(algorithm, pkcs8, &ring_provider())
    }

    /// As [`WitKey::from_pkcs8`], with another provider of cryptography, which signs everything but ES512.
    ///
    /// # Errors
    /// As for [`WitKey::from_pkcs8`].
    pub fn from_pkcs8_with_provider(
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
        provider: &CryptoProvider,
    ) -> Result<WitKey, WitKeyError> {
        let key = SigningKey::from_pkcs8(algorithm, pkcs8, provider).ok_or(WitKeyError::Key { algorithm })?;
        let confirmation = WitConfirmation::new(algorithm, key.public_key().clone())?;
        let mut members = confirmation.jwk();
        members.extend(private_members(confirmation.key(), pkcs8).ok_or(WitKeyError::Key { algorithm })?);
        Ok(WitKey { key, confirmation, random: provider.secure_random, jwk: Json::Object(members) })
    }

    /// Reads a private key as a JSON Web Key (RFC 7517) with its `alg`, as the Workload API has it.
    ///
    /// # Errors
    /// [`WitKeyError`], when the text is no such key.
    pub fn from_jwk(text: &str) -> Result<WitKey, WitKeyError> {
        WitKey::from_jwk_with_provider(text, &ring_provider())
    }

    /// As [`WitKey::from_jwk`], with another provider of cryptography, which signs everything but ES512.
    ///
    /// # Errors
    /// As for [`WitKey::from_jwk`].
    pub fn from_jwk_with_provider(text: &str, provider: &CryptoProvider) -> Result<WitKey, WitKeyError> {
        let jwk = Some(text).filter(|text| text.len() <= JWK_LEN_MAX).ok_or(WitKeyError::Jwk)?;
        let jwk = Json::parse(jwk.as_bytes()).map_err(|_| WitKeyError::Jwk)?;
        let algorithm = jwk.get("alg").and_then(Json::as_str).and_then(JwtAlgorithm::parse);
        let algorithm = algorithm.ok_or(WitKeyError::Jwk)?;
        let public = JwtKey::read(&jwk).map_err(|_| WitKeyError::Jwk)?;
        let pkcs8 = pkcs8(&public, &jwk).ok_or(WitKeyError::Jwk)?;
        let key = WitKey::from_pkcs8_with_provider(algorithm, &pkcs8, provider)?;
        // The halves of the pair belong together. ring, graviola and p521 compare them as well.
        if *key.confirmation.key() != public {
            return Err(WitKeyError::Key { algorithm });
        }
        // ring finds wrong exponents of RSA when it signs. It neither uses nor checks `d`.
        key.sign(&[])?;
        Ok(key)
    }

    /// The private key as a JSON Web Key with its `alg`. Keep it as secret as a password.
    #[must_use]
    pub fn to_jwk(&self) -> String {
        let mut text = String::new();
        self.jwk.write(&mut text);
        text
    }

    /// The public half, for the issuer.
    #[must_use]
    pub fn confirmation(&self) -> &WitConfirmation {
        &self.confirmation
    }

    /// Signs the message of a protocol that presents WIT-SVIDs, such as the signature base of HTTP Message
    /// Signatures, which [`UnprovenWitSvid::with_signature`](super::UnprovenWitSvid::with_signature)
    /// verifies.
    ///
    /// # Errors
    /// [`WitKeyError::Sign`], when the system provides no randomness, or the key is damaged.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, WitKeyError> {
        let algorithm = self.key.algorithm();
        self.key.sign(message).ok_or(WitKeyError::Sign { algorithm })
    }
}

/// Without the private key.
impl fmt::Debug for WitKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WitKey").field("confirmation", &self.confirmation).finish_non_exhaustive()
    }
}

fn member(name: &str, bytes: &[u8]) -> (String, Json) {
    (name.into(), Json::String(encode(bytes, Alphabet::Url)))
}

/// The private parameters of a key in PKCS #8 (RFC 7518 §6.2.2 and §6.3.2).
fn private_members(public: &JwtKey, pkcs8: &[u8]) -> Option<Vec<(String, Json)>> {
    let mut info = Reader::new(only(pkcs8, SEQUENCE).ok()?);
    info.expect(INTEGER).ok()?;
    info.expect(SEQUENCE).ok()?;
    let mut key = Reader::new(only(info.expect(OCTET_STRING).ok()?, SEQUENCE).ok()?);
    key.expect(INTEGER).ok()?;
    if let JwtKey::Rsa { .. } = public {
        positive(&mut key)?;
        positive(&mut key)?;
        return RSA_MEMBERS.into_iter().map(|name| Some(member(name, positive(&mut key)?))).collect();
    }
    let scalar = key.expect(OCTET_STRING).ok()?;
    (scalar.len() == scalar_len(public)?).then(|| Vec::from([member("d", scalar)]))
}

/// The bytes of a private key on the curve of the public one.
fn scalar_len(public: &JwtKey) -> Option<usize> {
    match public {
        JwtKey::Rsa { .. } => None,
        JwtKey::P256(point) | JwtKey::P384(point) | JwtKey::P521(point) => Some(point.len() / 2),
    }
}

/// A private JSON Web Key as PKCS #8.
fn pkcs8(public: &JwtKey, jwk: &Json) -> Option<Vec<u8>> {
    /// The content of the `AlgorithmIdentifier` of RSA keys.
    const RSA_ENCRYPTION: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let bytes = |name: &str| decode(jwk.get(name)?.as_str()?, Alphabet::Url);
    let ec = |curve: &[u8], point: &[u8]| {
        let scalar = bytes("d").filter(|scalar| Some(scalar.len()) == scalar_len(public))?;
        Some(ec_pkcs8(curve, &scalar, Some(point)))
    };
    match public {
        JwtKey::P256(point) => ec(&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], point),
        JwtKey::P384(point) => ec(&[6, 5, 0x2b, 0x81, 4, 0, 34], point),
        JwtKey::P521(point) => ec(&[6, 5, 0x2b, 0x81, 4, 0, 35], point),
        JwtKey::Rsa { modulus, exponent } => {
            let mut key = element(INTEGER, &[0]);
            key.extend(integer(modulus)?);
            key.extend(integer(exponent)?);
            for name in RSA_MEMBERS {
                key.extend(integer(&bytes(name)?)?);
            }
            Some(crypto::pkcs8(RSA_ENCRYPTION, &key))
        }
    }
}

/// A key does not prove the possession of WIT-SVIDs, or does not sign them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitKeyError {
    /// The key is damaged, not in PKCS #8, or not one for the algorithm.
    #[error(
        "the key is not one for {algorithm}: use RSA of 2048 to 4096 bits with the exponent 65537, or ECDSA with the curve of the algorithm"
    )]
    Key {
        /// The algorithm.
        algorithm: JwtAlgorithm,
    },
    /// The text is not a private JSON Web Key with an algorithm of WIT-SVID §3.2.
    #[error(
        "the text is not a private JSON Web Key with an alg of RS, PS or ES 256, 384 or 512: fetch it again"
    )]
    Jwk,
    /// The system provides no randomness.
    #[error("cannot generate a key: the system provides no randomness")]
    Random,
    /// The key did not sign.
    #[error("cannot sign by {algorithm}: the private key is damaged, or the system provides no randomness")]
    Sign {
        /// The algorithm of the key.
        algorithm: JwtAlgorithm,
    },
}
