//! The algorithms of JWT-SVID §2.1, and no others.

use core::fmt;

use pki_types::{AlgorithmIdentifier, alg_id};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;

use super::{es512, signature};
use crate::{JwtKey, crypto};

/// An algorithm that signs JWT-SVIDs, and WIT-SVIDs and their proofs. The cryptography of ES512 is that of
/// the crate `p521` with every provider, because ring and graviola have no P-521.
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
            JwtKey::Rsa { .. } => {
                !matches!(self, JwtAlgorithm::Es256 | JwtAlgorithm::Es384 | JwtAlgorithm::Es512)
            }
            JwtKey::P256(_) => self == JwtAlgorithm::Es256,
            JwtKey::P384(_) => self == JwtAlgorithm::Es384,
            JwtKey::P521(_) => self == JwtAlgorithm::Es512,
        }
    }

    /// The scheme of the provider; `None` for ES512.
    pub(super) fn scheme(self) -> Option<SignatureScheme> {
        match self {
            JwtAlgorithm::Rs256 => Some(SignatureScheme::RSA_PKCS1_SHA256),
            JwtAlgorithm::Rs384 => Some(SignatureScheme::RSA_PKCS1_SHA384),
            JwtAlgorithm::Rs512 => Some(SignatureScheme::RSA_PKCS1_SHA512),
            JwtAlgorithm::Ps256 => Some(SignatureScheme::RSA_PSS_SHA256),
            JwtAlgorithm::Ps384 => Some(SignatureScheme::RSA_PSS_SHA384),
            JwtAlgorithm::Ps512 => Some(SignatureScheme::RSA_PSS_SHA512),
            JwtAlgorithm::Es256 => Some(SignatureScheme::ECDSA_NISTP256_SHA256),
            JwtAlgorithm::Es384 => Some(SignatureScheme::ECDSA_NISTP384_SHA384),
            JwtAlgorithm::Es512 => None,
        }
    }

    /// The identifiers of the key and of the signature; `None` for ES512.
    fn identifiers(self) -> Option<(AlgorithmIdentifier, AlgorithmIdentifier)> {
        match self {
            JwtAlgorithm::Rs256 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA256)),
            JwtAlgorithm::Rs384 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA384)),
            JwtAlgorithm::Rs512 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA512)),
            JwtAlgorithm::Ps256 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PSS_SHA256)),
            JwtAlgorithm::Ps384 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PSS_SHA384)),
            JwtAlgorithm::Ps512 => Some((alg_id::RSA_ENCRYPTION, alg_id::RSA_PSS_SHA512)),
            JwtAlgorithm::Es256 => Some((alg_id::ECDSA_P256, alg_id::ECDSA_SHA256)),
            JwtAlgorithm::Es384 => Some((alg_id::ECDSA_P384, alg_id::ECDSA_SHA384)),
            JwtAlgorithm::Es512 => None,
        }
    }

    /// Whether a signature in the form of RFC 7518 is by the key.
    pub(crate) fn verifies(
        self,
        provider: &CryptoProvider,
        key: &JwtKey,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        if !self.takes(key) {
            return false;
        }
        let Some(identifiers) = self.identifiers() else {
            return matches!(key, JwtKey::P521(point) if es512::verifies(point, message, signature));
        };
        match key {
            JwtKey::Rsa { modulus, exponent } => signature::rsa_public_key(modulus, exponent)
                .is_some_and(|key| crypto::verifies(provider, identifiers, &key, message, signature)),
            JwtKey::P256(point) | JwtKey::P384(point) | JwtKey::P521(point) => {
                signature::to_asn1(signature, point.len() / 2).is_some_and(|signature| {
                    crypto::verifies(provider, identifiers, point, message, &signature)
                })
            }
        }
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
