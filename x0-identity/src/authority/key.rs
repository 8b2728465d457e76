//! Keys of a provider for the generator of certificates.

use std::sync::Arc;
use std::vec::Vec;

use pki_types::PrivateKeyDer;
use rcgen::{
    Error, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;

use crate::crypto::{PrivateKey, generate_key};

/// The key of an authority or of an SVID.
pub(super) struct AuthorityKey {
    pkcs8: PrivateKeyDer<'static>,
    key: PrivateKey,
    public_key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    provider: Arc<CryptoProvider>,
}

impl AuthorityKey {
    /// A new key of ECDSA P-256. `None`, when the system provides no randomness.
    pub(super) fn generate(provider: &Arc<CryptoProvider>) -> Option<AuthorityKey> {
        let pkcs8 = generate_key(provider)?;
        AuthorityKey::load(PrivateKeyDer::Pkcs8(pkcs8.into()), provider)
    }

    /// Takes a key in PKCS #8. `None`, when the provider does not support it.
    pub(super) fn load(
        pkcs8: PrivateKeyDer<'static>,
        provider: &Arc<CryptoProvider>,
    ) -> Option<AuthorityKey> {
        let algorithms: [(SignatureScheme, &'static SignatureAlgorithm); 4] = [
            (SignatureScheme::ECDSA_NISTP256_SHA256, &PKCS_ECDSA_P256_SHA256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, &PKCS_ECDSA_P384_SHA384),
            (SignatureScheme::ED25519, &PKCS_ED25519),
            (SignatureScheme::RSA_PKCS1_SHA256, &PKCS_RSA_SHA256),
        ];
        if !matches!(pkcs8, PrivateKeyDer::Pkcs8(_)) {
            return None;
        }
        let key = PrivateKey::load(provider, &pkcs8, &algorithms.map(|(scheme, _)| scheme))?;
        let (_, algorithm) = algorithms.into_iter().find(|(scheme, _)| *scheme == key.scheme())?;
        let public_key = key.public_key()?.to_vec();
        Some(AuthorityKey { pkcs8, key, public_key, algorithm, provider: Arc::clone(provider) })
    }

    pub(super) fn pkcs8(&self) -> &PrivateKeyDer<'static> {
        &self.pkcs8
    }

    pub(super) fn into_pkcs8(self) -> PrivateKeyDer<'static> {
        self.pkcs8
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(message).ok_or(Error::RemoteKeyError)
    }
}
