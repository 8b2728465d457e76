//! The SVID that handshakes present, with its signing key.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use super::Swap;
use crate::X509Svid;

/// An SVID whose key is ready to sign.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) svid: X509Svid,
    /// `None`, when handshakes present nothing.
    certified_key: Option<Arc<CertifiedKey>>,
}

impl Held {
    pub(super) fn new(svid: X509Svid, provider: &CryptoProvider) -> Result<Held, KeyError> {
        let key = provider.key_provider.load_private_key(svid.key().clone_key());
        let key = key.map_err(|_| KeyError::Unsupported)?;
        let certified_key = CertifiedKey::new(svid.chain().to_vec(), key);
        match certified_key.keys_match() {
            Ok(()) => Ok(Held { svid, certified_key: Some(Arc::new(certified_key)) }),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(KeyError::Mismatch),
            Err(_) => Err(KeyError::Unsupported),
        }
    }

    /// The SVID without its key, so that handshakes present nothing.
    pub(super) fn withdrawn(&self) -> Held {
        Held { svid: self.svid.clone(), certified_key: None }
    }
}

/// The private key of an SVID cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is damaged or of an algorithm that the provider does not sign with.
    #[error(
        "the private key is damaged or of an unsupported algorithm: use ECDSA P-256 or P-384, Ed25519, or RSA"
    )]
    Unsupported,
    /// The key does not belong to the leaf certificate.
    #[error(
        "the private key does not belong to the leaf certificate: use the key that the certificate was issued for"
    )]
    Mismatch,
}

/// Passes the current SVID to rustls at each handshake.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Swap<Held>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certified_key.clone()
    }
}

impl ResolvesClientCert for Resolver {
    /// Ignores the server's hints and schemes: there is one SVID, and the server decides whether to refuse
    /// it.
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.load().certified_key.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.load().certified_key.is_some()
    }
}
