//! The algorithms of keys that sign certificates and requests.

use pki_types::{AlgorithmIdentifier, alg_id};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;

use crate::crypto;
use crate::x509::der::{OBJECT_IDENTIFIER, Reader};

/// The algorithm of a key, which fixes the algorithm that it signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAlgorithm {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl KeyAlgorithm {
    /// The schemes of all algorithms, one for each.
    pub(crate) const SCHEMES: [SignatureScheme; 4] = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PKCS1_SHA256,
    ];

    /// From the content of the `AlgorithmIdentifier` of a key.
    pub(crate) fn of_key(algorithm: &[u8]) -> Option<KeyAlgorithm> {
        let mut fields = Reader::new(algorithm);
        let oid = fields.expect(OBJECT_IDENTIFIER).ok()?;
        match oid {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => match fields.expect(OBJECT_IDENTIFIER).ok()? {
                [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(KeyAlgorithm::P256),
                [0x2b, 0x81, 4, 0, 34] => Some(KeyAlgorithm::P384),
                _ => None,
            },
            [0x2b, 0x65, 0x70] => Some(KeyAlgorithm::Ed25519),
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => Some(KeyAlgorithm::Rsa),
            _ => None,
        }
    }

    /// The identifiers of the key and of its signatures (RFC 5758 §3.2, RFC 8410 §3, RFC 4055 §5).
    fn identifiers(self) -> (AlgorithmIdentifier, AlgorithmIdentifier) {
        match self {
            KeyAlgorithm::P256 => (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
            KeyAlgorithm::P384 => (alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
            KeyAlgorithm::Ed25519 => (alg_id::ED25519, alg_id::ED25519),
            KeyAlgorithm::Rsa => (alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA256),
        }
    }

    /// The content of the `AlgorithmIdentifier` of a signature.
    pub(super) fn signature(self) -> AlgorithmIdentifier {
        self.identifiers().1
    }

    pub(crate) fn verifies(
        self,
        provider: &CryptoProvider,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        crypto::verifies(provider, self.identifiers(), key, message, signature)
    }
}
