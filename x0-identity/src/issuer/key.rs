//! The key of a workload that requests an SVID.

use core::fmt;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};

use super::KeyAlgorithm;
use super::encode::{bits, element, sequence};
use crate::{SvidError, X509Svid};

/// A new private key of ECDSA P-256 that never leaves the workload: the issuer receives
/// [`RequestKey::request`], and [`RequestKey::into_svid`] joins the key with the chain that the issuer
/// returns.
pub struct RequestKey {
    pkcs8: Vec<u8>,
    request: Vec<u8>,
}

/// A key was not generated or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestKeyError {
    /// The system provides no randomness.
    #[error("cannot generate a key: the system provides no randomness")]
    Random,
    /// The bytes are not a private key of ECDSA P-256 in PKCS #8.
    #[error("the stored key is damaged, or no key of ECDSA P-256 in PKCS #8: remove it, and request again")]
    Key,
}

impl RequestKey {
    /// Generates a key and signs a request with it.
    ///
    /// # Errors
    /// [`RequestKeyError::Random`], when the system provides no randomness.
    pub fn generate() -> Result<RequestKey, RequestKeyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| RequestKeyError::Random)?;
        RequestKey::from_pkcs8(pkcs8.as_ref())
    }

    /// Takes a key that was stored by [`RequestKey::pkcs8`], and signs a request with it.
    ///
    /// # Errors
    /// [`RequestKeyError::Key`], when the bytes are not a private key of ECDSA P-256 in PKCS #8, or
    /// [`RequestKeyError::Random`], when the system provides no randomness.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<RequestKey, RequestKeyError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random)
            .map_err(|_| RequestKeyError::Key)?;
        // id-ecPublicKey with prime256v1 (RFC 5480 §2.1.1).
        let algorithm = sequence(&[
            &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1],
            &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        ]);
        let public_key_info = sequence(&[&algorithm, &bits(key.public_key().as_ref())]);
        let signed = sequence(&[&[2, 1, 0], &sequence(&[]), &public_key_info, &element(0xa0, &[])]);
        let signature = key.sign(&random, &signed).map_err(|_| RequestKeyError::Random)?;
        let request =
            sequence(&[&signed, &sequence(&[KeyAlgorithm::P256.signature()]), &bits(signature.as_ref())]);
        Ok(RequestKey { pkcs8: pkcs8.to_vec(), request })
    }

    /// The certificate request (PKCS #10, DER), without names.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// The **private key** (PKCS #8), to be stored until the issuer has answered.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pkcs8.clone().into())
    }

    /// Joins the key with the chain that an issuer returned, the leaf first.
    ///
    /// # Errors
    /// [`SvidError`], when a certificate of the chain breaks a rule of X509-SVID. `Identity` checks that the
    /// key belongs to the leaf.
    pub fn into_svid(self, chain: Vec<CertificateDer<'static>>) -> Result<X509Svid, SvidError> {
        X509Svid::from_der(chain, self.private_key())
    }
}

/// Without the private key.
impl fmt::Debug for RequestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RequestKey").finish_non_exhaustive()
    }
}

/// Signs with the private key of an SVID; `None` if its algorithm is not supported.
pub(crate) fn sign(key: &PrivateKeyDer<'_>, message: &[u8]) -> Option<Vec<u8>> {
    let PrivateKeyDer::Pkcs8(pkcs8) = key else { return None };
    let (pkcs8, random) = (pkcs8.secret_pkcs8_der(), SystemRandom::new());
    for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random) {
            return Some(key.sign(&random, message).ok()?.as_ref().to_vec());
        }
    }
    if let Ok(key) = RsaKeyPair::from_pkcs8(pkcs8) {
        let mut signature = std::vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
        return Some(signature);
    }
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
    Some(key.sign(message).as_ref().to_vec())
}
