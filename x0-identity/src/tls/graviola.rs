//! Graviola as a provider of cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Graviola's cryptography, for everything that takes a provider, such as
/// [`Identity::new_with_provider`](crate::Identity::new_with_provider): formally verified assembly, built
/// without a C compiler, with the post-quantum key exchange X25519MLKEM768. It needs a 64-bit processor of
/// Intel, AMD or ARM of the last ten years, and stops the process on another one.
#[must_use]
pub fn graviola_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls_graviola::default_provider())
}
