//! Private keys that sign tokens, of every algorithm.

use std::vec;
use std::vec::Vec;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};

use super::JwtAlgorithm;
use super::es512::Es512Key;
use crate::JwtKey;

/// A private key with the one algorithm that it signs with.
pub(crate) struct SigningKey {
    algorithm: JwtAlgorithm,
    public: JwtKey,
    key: Key,
    random: SystemRandom,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Es512(Es512Key),
}

/// A new key of ECDSA P-256 in PKCS #8. `None`, when the system provides no randomness.
pub(crate) fn generate_pkcs8() -> Option<Vec<u8>> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    Some(pkcs8.ok()?.as_ref().to_vec())
}

/// The public key of a point.
type OfPoint = fn(Vec<u8>) -> JwtKey;

fn ecdsa(algorithm: JwtAlgorithm) -> Option<(&'static EcdsaSigningAlgorithm, OfPoint)> {
    match algorithm {
        JwtAlgorithm::Es256 => Some((&ECDSA_P256_SHA256_FIXED_SIGNING, JwtKey::P256)),
        JwtAlgorithm::Es384 => Some((&ECDSA_P384_SHA384_FIXED_SIGNING, JwtKey::P384)),
        _ => None,
    }
}

fn rsa(algorithm: JwtAlgorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        JwtAlgorithm::Rs256 => Some(&RSA_PKCS1_SHA256),
        JwtAlgorithm::Rs384 => Some(&RSA_PKCS1_SHA384),
        JwtAlgorithm::Rs512 => Some(&RSA_PKCS1_SHA512),
        JwtAlgorithm::Ps256 => Some(&RSA_PSS_SHA256),
        JwtAlgorithm::Ps384 => Some(&RSA_PSS_SHA384),
        JwtAlgorithm::Ps512 => Some(&RSA_PSS_SHA512),
        JwtAlgorithm::Es256 | JwtAlgorithm::Es384 | JwtAlgorithm::Es512 => None,
    }
}

impl SigningKey {
    /// Reads a key in PKCS #8 (DER). `None`, when it is not one for the algorithm.
    pub(crate) fn from_pkcs8(algorithm: JwtAlgorithm, pkcs8: &[u8]) -> Option<SigningKey> {
        let random = SystemRandom::new();
        let (key, public) = if let Some((signing, public)) = ecdsa(algorithm) {
            let key = EcdsaKeyPair::from_pkcs8(signing, pkcs8, &random).ok()?;
            let public = public(key.public_key().as_ref().to_vec());
            (Key::Ecdsa(key), public)
        } else if let Some(encoding) = rsa(algorithm) {
            let key = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
            let public: RsaPublicKeyComponents<Vec<u8>> = key.public().into();
            let public = JwtKey::Rsa { modulus: public.n, exponent: public.e };
            (Key::Rsa(key, encoding), public)
        } else {
            let key = Es512Key::from_pkcs8(pkcs8)?;
            let public = JwtKey::P521(key.public_key());
            (Key::Es512(key), public)
        };
        Some(SigningKey { algorithm, public, key, random })
    }

    pub(crate) fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    pub(crate) fn public_key(&self) -> &JwtKey {
        &self.public
    }

    /// `None`, when the system provides no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.key {
            Key::Ecdsa(key) => Some(key.sign(&self.random, message).ok()?.as_ref().to_vec()),
            Key::Es512(key) => key.sign(message),
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &self.random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}
