//! The key of a workload that requests an SVID.

use core::fmt;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

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

/// A key was not generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestKeyError {
    /// The system provides no randomness.
    #[error("cannot generate a key: the system provides no randomness")]
    Random,
}

impl RequestKey {
    /// Generates a key and signs a request with it.
    ///
    /// # Errors
    /// [`RequestKeyError::Random`], when the system provides no randomness.
    pub fn generate() -> Result<RequestKey, RequestKeyError> {
        let random = SystemRandom::new();
        let failed = |_| RequestKeyError::Random;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(failed)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .map_err(|_| RequestKeyError::Random)?;
        // id-ecPublicKey with prime256v1 (RFC 5480 §2.1.1).
        let algorithm = sequence(&[
            &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1],
            &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        ]);
        let public_key_info = sequence(&[&algorithm, &bits(key.public_key().as_ref())]);
        let signed = sequence(&[&[2, 1, 0], &sequence(&[]), &public_key_info, &element(0xa0, &[])]);
        let signature = key.sign(&random, &signed).map_err(failed)?;
        let request =
            sequence(&[&signed, &sequence(&[KeyAlgorithm::P256.signature()]), &bits(signature.as_ref())]);
        Ok(RequestKey { pkcs8: pkcs8.as_ref().to_vec(), request })
    }

    /// The certificate request (PKCS #10, DER), without names.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Joins the key with the chain that an issuer returned, the leaf first.
    ///
    /// # Errors
    /// [`SvidError`], when a certificate of the chain breaks a rule of X509-SVID. `Identity` checks that the
    /// key belongs to the leaf.
    pub fn into_svid(self, chain: Vec<CertificateDer<'static>>) -> Result<X509Svid, SvidError> {
        X509Svid::from_der(chain, PrivateKeyDer::Pkcs8(self.pkcs8.into()))
    }
}

/// Without the private key.
impl fmt::Debug for RequestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RequestKey").finish_non_exhaustive()
    }
}
