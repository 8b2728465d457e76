//! The algorithms of keys that sign certificates and requests.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};

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

    /// The content of the `AlgorithmIdentifier` of a signature (RFC 5758 §3.2, RFC 8410 §3, RFC 4055 §5).
    pub(super) fn signature(self) -> &'static [u8] {
        match self {
            KeyAlgorithm::P256 => &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            KeyAlgorithm::P384 => &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
            KeyAlgorithm::Ed25519 => &[6, 3, 0x2b, 0x65, 0x70],
            KeyAlgorithm::Rsa => &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0],
        }
    }

    pub(crate) fn verifies(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self {
            KeyAlgorithm::P256 => &ECDSA_P256_SHA256_ASN1,
            KeyAlgorithm::P384 => &ECDSA_P384_SHA384_ASN1,
            KeyAlgorithm::Ed25519 => &ED25519,
            KeyAlgorithm::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}
