//! Cryptography by a provider of rustls.

#[cfg(any(feature = "authority", feature = "issuer", feature = "jwt"))]
mod keys;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

#[cfg(any(feature = "issuer", feature = "jwt"))]
pub(crate) use keys::verifies;
#[cfg(any(feature = "authority", feature = "issuer", feature = "jwt"))]
pub(crate) use keys::{PrivateKey, generate_key};
#[cfg(feature = "wit")]
pub(crate) use keys::{ec_pkcs8, pkcs8};

/// The provider unless the caller passes one.
pub(crate) fn ring_provider() -> Arc<CryptoProvider> {
    static RING: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&RING)
}
