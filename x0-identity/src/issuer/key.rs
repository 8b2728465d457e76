//! The key of a workload that requests an SVID.

use core::fmt;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;

use super::KeyAlgorithm;
use super::encode::{bits, element, sequence};
use crate::crypto::{PrivateKey, generate_key, ring_provider};
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
        RequestKey::generate_with_provider(&ring_provider())
    }

    /// As [`RequestKey::generate`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`RequestKey::generate`].
    pub fn generate_with_provider(provider: &CryptoProvider) -> Result<RequestKey, RequestKeyError> {
        let pkcs8 = generate_key(provider).ok_or(RequestKeyError::Random)?;
        RequestKey::from_pkcs8_with_provider(&pkcs8, provider)
    }

    /// Takes a key that was stored by [`RequestKey::pkcs8`], and signs a request with it.
    ///
    /// # Errors
    /// [`RequestKeyError::Key`], when the bytes are not a private key of ECDSA P-256 in PKCS #8, or
    /// [`RequestKeyError::Random`], when the system provides no randomness.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<RequestKey, RequestKeyError> {
        RequestKey::from_pkcs8_with_provider(pkcs8, &ring_provider())
    }

    /// As [`RequestKey::from_pkcs8`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`RequestKey::from_pkcs8`].
    pub fn from_pkcs8_with_provider(
        pkcs8: &[u8],
        provider: &CryptoProvider,
    ) -> Result<RequestKey, RequestKeyError> {
        let key = PrivateKeyDer::Pkcs8(pkcs8.into());
        let key = PrivateKey::load(provider, &key, &[SignatureScheme::ECDSA_NISTP256_SHA256])
            .ok_or(RequestKeyError::Key)?;
        let signed = sequence(&[&[2, 1, 0], &sequence(&[]), key.public_key_info(), &element(0xa0, &[])]);
        let signature = key.sign(&signed).ok_or(RequestKeyError::Random)?;
        let request = sequence(&[&signed, &sequence(&[&KeyAlgorithm::P256.signature()]), &bits(&signature)]);
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
pub(crate) fn sign(provider: &CryptoProvider, key: &PrivateKeyDer<'_>, message: &[u8]) -> Option<Vec<u8>> {
    PrivateKey::load(provider, key, &KeyAlgorithm::SCHEMES)?.sign(message)
}
