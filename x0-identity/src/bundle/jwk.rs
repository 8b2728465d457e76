//! Keys as JSON Web Keys (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use crate::base64::{Alphabet, decode, encode};
use crate::json::Json;
use crate::x509::Certificate;
use crate::x509::der::{
    BIT_STRING, INTEGER, OBJECT_IDENTIFIER, Reader, SEQUENCE, check_integer, only, whole_bytes,
};

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 34];
const P521: &[u8] = &[0x2b, 0x81, 4, 0, 35];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A key that signs JWT-SVIDs, with its id (JWT-SVID §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    key_id: String,
    key: JwtKey,
}

/// A key that signs WIT-SVIDs, with its id (WIT-SVID §6). It is of another type than a [`JwtAuthority`],
/// since no key is for both kinds of SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitAuthority(JwtAuthority);

/// The public key of a [`JwtAuthority`] or [`WitAuthority`]. Integers are big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtKey {
    /// RSA, for RS256 to RS512 and PS256 to PS512.
    Rsa {
        /// The modulus, without leading zeros.
        modulus: Vec<u8>,
        /// The public exponent, without leading zeros.
        exponent: Vec<u8>,
    },
    /// ECDSA with P-256, for ES256: the uncompressed point, 65 bytes.
    P256(Vec<u8>),
    /// ECDSA with P-384, for ES384: the uncompressed point, 97 bytes.
    P384(Vec<u8>),
    /// ECDSA with P-521, for ES512: the uncompressed point, 133 bytes.
    P521(Vec<u8>),
}

/// A public key cannot be written as or read from a JSON Web Key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyEncodingError {
    /// The key id is empty (JWT-SVID §6.1, WIT-SVID §6.1: `kid` MUST be set).
    #[error("the key id of the authority is empty: set one that is unique in the bundle")]
    KeyId,
    /// The bytes are not a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    #[error("the bytes are not a SubjectPublicKeyInfo: pass the DER of a public key")]
    Malformed,
    /// The algorithm does not sign JWT-SVIDs (JWT-SVID §2.1) and WIT-SVIDs (WIT-SVID §2.3).
    #[error("the key does not sign JWT-SVIDs or WIT-SVIDs: use RSA, or ECDSA with P-256, P-384 or P-521")]
    Algorithm,
}

impl JwtAuthority {
    /// The authority with a public key, given as the DER of its `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`KeyEncodingError`], when the key id is empty, or the key cannot be read or does not sign JWT-SVIDs.
    pub fn from_public_key(key_id: &str, public_key_info: &[u8]) -> Result<JwtAuthority, KeyEncodingError> {
        if key_id.is_empty() {
            return Err(KeyEncodingError::KeyId);
        }
        let content = only(public_key_info, SEQUENCE).map_err(|_| KeyEncodingError::Malformed)?;
        let mut info = Reader::new(content);
        let (Ok(algorithm), Ok(key)) = (info.expect(SEQUENCE), info.expect(BIT_STRING)) else {
            return Err(KeyEncodingError::Malformed);
        };
        let key = whole_bytes(key).map_err(|_| KeyEncodingError::Malformed)?;
        let key = match PublicKey::read(algorithm, key).ok_or(KeyEncodingError::Algorithm)? {
            PublicKey::Rsa { modulus, exponent } => {
                JwtKey::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }
            }
            PublicKey::Point { curve: "P-256", point } => JwtKey::P256(point.to_vec()),
            PublicKey::Point { curve: "P-384", point } => JwtKey::P384(point.to_vec()),
            PublicKey::Point { curve: "P-521", point } => JwtKey::P521(point.to_vec()),
            PublicKey::Point { .. } | PublicKey::Ed25519(_) => return Err(KeyEncodingError::Algorithm),
        };
        Ok(JwtAuthority { key_id: key_id.into(), key })
    }

    /// The authority with a key.
    #[cfg(feature = "jwt")]
    pub(crate) fn new(key_id: &str, key: JwtKey) -> Result<JwtAuthority, KeyEncodingError> {
        if key_id.is_empty() {
            Err(KeyEncodingError::KeyId)
        } else {
            Ok(JwtAuthority { key_id: key_id.into(), key })
        }
    }

    /// The key id, never empty.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &JwtKey {
        &self.key
    }

    /// Reads the parameters of a key. `Err` is the reason to leave the element out.
    pub(super) fn read(jwk: &Json) -> Result<JwtAuthority, super::Refusal> {
        use super::Refusal;
        let key_id = jwk.get("kid").and_then(Json::as_str).filter(|key_id| !key_id.is_empty());
        let key_id = key_id.ok_or(Refusal::KeyId)?.to_string();
        Ok(JwtAuthority { key_id, key: JwtKey::read(jwk)? })
    }

    pub(super) fn write(&self) -> Json {
        self.write_for("jwt-svid")
    }

    fn write_for(&self, usage: &str) -> Json {
        let mut members = self.key.write();
        members.insert(1, text("use", usage));
        members.insert(2, text("kid", &self.key_id));
        Json::Object(members)
    }
}

impl WitAuthority {
    /// The authority with a public key, given as the DER of its `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`KeyEncodingError`], when the key id is empty, or the key cannot be read or does not sign WIT-SVIDs.
    pub fn from_public_key(key_id: &str, public_key_info: &[u8]) -> Result<WitAuthority, KeyEncodingError> {
        JwtAuthority::from_public_key(key_id, public_key_info).map(WitAuthority)
    }

    /// The authority with a key.
    #[cfg(feature = "wit")]
    pub(crate) fn new(key_id: &str, key: JwtKey) -> Result<WitAuthority, KeyEncodingError> {
        JwtAuthority::new(key_id, key).map(WitAuthority)
    }

    /// The key id, never empty.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.0.key_id()
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &JwtKey {
        self.0.key()
    }

    /// Reads the parameters of a key. `Err` is the reason to leave the element out.
    pub(super) fn read(jwk: &Json) -> Result<WitAuthority, super::Refusal> {
        JwtAuthority::read(jwk).map(WitAuthority)
    }

    pub(super) fn write(&self) -> Json {
        self.0.write_for("wit-svid")
    }
}

impl JwtKey {
    /// Reads the public parameters of a JSON Web Key. `Err` is the reason that it cannot be used.
    pub(crate) fn read(jwk: &Json) -> Result<JwtKey, super::Refusal> {
        use super::Refusal;
        let parameter = |name: &'static str| {
            let text = jwk.get(name).and_then(Json::as_str).ok_or(Refusal::KeyParameter { name })?;
            decode(text, Alphabet::Url).ok_or(Refusal::KeyParameter { name })
        };
        let integer = |name: &'static str| {
            // RFC 7518 §2: the minimum number of octets.
            parameter(name).and_then(|bytes| {
                if bytes.first().is_none_or(|byte| *byte == 0) || bytes.len() > 1024 {
                    return Err(Refusal::KeyParameter { name });
                }
                Ok(bytes)
            })
        };
        match jwk.get("kty").and_then(Json::as_str) {
            Some("RSA") => Ok(JwtKey::Rsa { modulus: integer("n")?, exponent: integer("e")? }),
            Some("EC") => {
                let curve = jwk.get("crv").and_then(Json::as_str).unwrap_or_default();
                let len = match curve {
                    "P-256" => 32,
                    "P-384" => 48,
                    "P-521" => 66,
                    _ => return Err(Refusal::KeyType),
                };
                let mut point = vec![4];
                for name in ["x", "y"] {
                    let coordinate = parameter(name)?;
                    if coordinate.len() != len {
                        return Err(Refusal::KeyParameter { name });
                    }
                    point.extend(coordinate);
                }
                Ok(match len {
                    32 => JwtKey::P256(point),
                    48 => JwtKey::P384(point),
                    _ => JwtKey::P521(point),
                })
            }
            _ => Err(Refusal::KeyType),
        }
    }

    /// The public parameters of a JSON Web Key.
    pub(crate) fn write(&self) -> Vec<(String, Json)> {
        match self {
            JwtKey::Rsa { modulus, exponent } => rsa(modulus, exponent),
            JwtKey::P256(point) => ec("P-256", point),
            JwtKey::P384(point) => ec("P-384", point),
            JwtKey::P521(point) => ec("P-521", point),
        }
    }
}

/// The JSON Web Key of an X.509 authority (X509-SVID §6.1). `None`, when its key has no parameters that RFC
/// 7518 defines.
pub(super) fn write_authority(certificate: &pki_types::CertificateDer<'_>) -> Option<Json> {
    let parsed = Certificate::parse(certificate).ok()?;
    let mut members = match PublicKey::read(parsed.public_key_algorithm, parsed.public_key)? {
        PublicKey::Rsa { modulus, exponent } => rsa(modulus, exponent),
        PublicKey::Point { curve, point } => ec(curve, point),
        PublicKey::Ed25519(key) => {
            vec![text("kty", "OKP"), text("crv", "Ed25519"), text("x", &encode(key, Alphabet::Url))]
        }
    };
    members.insert(1, text("use", "x509-svid"));
    let der = Json::String(encode(certificate, Alphabet::Standard));
    members.push(("x5c".into(), Json::Array(vec![der])));
    Some(Json::Object(members))
}

fn text(name: &str, value: &str) -> (String, Json) {
    (name.into(), Json::String(value.into()))
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<(String, Json)> {
    let integer = |name, bytes| text(name, &encode(bytes, Alphabet::Url));
    vec![text("kty", "RSA"), integer("n", modulus), integer("e", exponent)]
}

fn ec(curve: &str, point: &[u8]) -> Vec<(String, Json)> {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let coordinate = |name, bytes| text(name, &encode(bytes, Alphabet::Url));
    vec![text("kty", "EC"), text("crv", curve), coordinate("x", x), coordinate("y", y)]
}

enum PublicKey<'a> {
    Rsa {
        modulus: &'a [u8],
        exponent: &'a [u8],
    },
    /// Uncompressed, of the length that the curve has.
    Point {
        curve: &'static str,
        point: &'a [u8],
    },
    Ed25519(&'a [u8]),
}

impl<'a> PublicKey<'a> {
    fn read(algorithm: &'a [u8], key: &'a [u8]) -> Option<PublicKey<'a>> {
        let mut algorithm = Reader::new(algorithm);
        match algorithm.expect(OBJECT_IDENTIFIER).ok()? {
            RSA_ENCRYPTION => {
                let mut integers = Reader::new(only(key, SEQUENCE).ok()?);
                let (modulus, exponent) = (positive(&mut integers)?, positive(&mut integers)?);
                integers.finish().ok()?;
                Some(PublicKey::Rsa { modulus, exponent })
            }
            EC_PUBLIC_KEY => {
                let (curve, len) = match algorithm.expect(OBJECT_IDENTIFIER).ok()? {
                    P256 => ("P-256", 65),
                    P384 => ("P-384", 97),
                    P521 => ("P-521", 133),
                    _ => return None,
                };
                (key.len() == len && key[0] == 4).then_some(PublicKey::Point { curve, point: key })
            }
            ED25519 if key.len() == 32 => Some(PublicKey::Ed25519(key)),
            _ => None,
        }
    }
}

/// The bytes of a positive integer, without leading zeros.
pub(crate) fn positive<'a>(integers: &mut Reader<'a>) -> Option<&'a [u8]> {
    let content = integers.expect(INTEGER).ok()?;
    check_integer(content).ok()?;
    match content {
        [0x80..=0xff, ..] | [0] => None,
        [0, rest @ ..] => Some(rest),
        content => Some(content),
    }
}
