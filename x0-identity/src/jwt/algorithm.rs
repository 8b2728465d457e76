//! The algorithms of JWT-SVID §2.1, and no others.

use core::fmt;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::es512;
use crate::JwtKey;

/// An algorithm that signs JWT-SVIDs, and WIT-SVIDs and their proofs. The cryptography of ES512 is that of
/// the crate `p521`, because ring has no P-521.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of RFC 7518 §3.1")]
pub enum JwtAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
}

impl JwtAlgorithm {
    const ALL: [(JwtAlgorithm, &'static str); 9] = [
        (JwtAlgorithm::Rs256, "RS256"),
        (JwtAlgorithm::Rs384, "RS384"),
        (JwtAlgorithm::Rs512, "RS512"),
        (JwtAlgorithm::Es256, "ES256"),
        (JwtAlgorithm::Es384, "ES384"),
        (JwtAlgorithm::Es512, "ES512"),
        (JwtAlgorithm::Ps256, "PS256"),
        (JwtAlgorithm::Ps384, "PS384"),
        (JwtAlgorithm::Ps512, "PS512"),
    ];

    pub(crate) fn parse(name: &str) -> Option<JwtAlgorithm> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(algorithm, _)| algorithm)
    }

    /// The name of RFC 7518 §3.1.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(algorithm, _)| *algorithm == self).map_or("", |(_, name)| name)
    }

    /// Whether a key is of the kind that the algorithm takes: a key verifies signatures of no other algorithm
    /// (RFC 8725 §3.1).
    pub(crate) fn takes(self, key: &JwtKey) -> bool {
        match key {
            JwtKey::Rsa { .. } => self.rsa().is_some(),
            JwtKey::P256(_) => self == JwtAlgorithm::Es256,
            JwtKey::P384(_) => self == JwtAlgorithm::Es384,
            JwtKey::P521(_) => self == JwtAlgorithm::Es512,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            JwtAlgorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            JwtAlgorithm::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            JwtAlgorithm::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            JwtAlgorithm::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            JwtAlgorithm::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            JwtAlgorithm::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            JwtAlgorithm::Es256 | JwtAlgorithm::Es384 | JwtAlgorithm::Es512 => None,
        }
    }

    pub(crate) fn verifies(self, key: &JwtKey, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, key) {
            (JwtAlgorithm::Es256, JwtKey::P256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (JwtAlgorithm::Es384, JwtKey::P384(point)) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature)
            }
            (JwtAlgorithm::Es512, JwtKey::P521(point)) => return es512::verifies(point, message, signature),
            (_, JwtKey::Rsa { modulus, exponent }) => match self.rsa() {
                Some(parameters) => {
                    RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature)
                }
                None => return false,
            },
            _ => return false,
        };
        verified.is_ok()
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
