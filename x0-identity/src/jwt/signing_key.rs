//! Private keys that sign tokens, of every algorithm.

use std::vec::Vec;

use pki_types::PrivateKeyDer;
use rustls::crypto::CryptoProvider;

use super::es512::Es512Key;
use super::{JwtAlgorithm, signature};
use crate::JwtKey;
use crate::crypto::PrivateKey;

/// A private key with the one algorithm that it signs with.
pub(crate) struct SigningKey {
    algorithm: JwtAlgorithm,
    public: JwtKey,
    key: Key,
}

enum Key {
    /// With the bytes of one of the two numbers of a signature.
    Ecdsa(PrivateKey, usize),
    Rsa(PrivateKey),
    Es512(Es512Key),
}

impl SigningKey {
    /// Reads a key in PKCS #8 (DER). `None`, when it is not one for the algorithm, or not one that the
    /// provider supports.
    pub(crate) fn from_pkcs8(
        algorithm: JwtAlgorithm,
        pkcs8: &[u8],
        provider: &CryptoProvider,
    ) -> Option<SigningKey> {
        let Some(scheme) = algorithm.scheme() else {
            let key = Es512Key::from_pkcs8(pkcs8)?;
            return Some(SigningKey {
                algorithm,
                public: JwtKey::P521(key.public_key()),
                key: Key::Es512(key),
            });
        };
        let key = PrivateKey::load(provider, &PrivateKeyDer::Pkcs8(pkcs8.into()), &[scheme])?;
        let public = key.public_key()?;
        let (public, key) = match algorithm {
            JwtAlgorithm::Es256 => (JwtKey::P256(public.to_vec()), Key::Ecdsa(key, 32)),
            JwtAlgorithm::Es384 => (JwtKey::P384(public.to_vec()), Key::Ecdsa(key, 48)),
            _ => {
                let (modulus, exponent) = signature::rsa_components(public)?;
                (JwtKey::Rsa { modulus, exponent }, Key::Rsa(key))
            }
        };
        Some(SigningKey { algorithm, public, key })
    }

    pub(crate) fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    pub(crate) fn public_key(&self) -> &JwtKey {
        &self.public
    }

    /// The signature in the form of RFC 7518. `None`, when the system provides no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.key {
            Key::Ecdsa(key, len) => signature::from_asn1(&key.sign(message)?, *len),
            Key::Es512(key) => key.sign(message),
            Key::Rsa(key) => key.sign(message),
        }
    }
}
