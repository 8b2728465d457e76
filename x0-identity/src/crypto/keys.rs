//! Private keys and signatures outside of TLS, by a provider of rustls.

use std::boxed::Box;
use std::vec::Vec;

use pki_types::PrivateKeyDer;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::sign::Signer;

use crate::x509::der::{BIT_STRING, INTEGER, OCTET_STRING, Reader, SEQUENCE, element, only, whole_bytes};

/// The curve P-256 as an object identifier, with its tag and length.
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// The order of P-256.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The draws of a scalar. A provider with randomness needs a second one with a probability of 2^-32.
const DRAWS_MAX: usize = 64;

/// A private key with the one scheme that it signs with.
pub(crate) struct PrivateKey {
    signer: Box<dyn Signer>,
    public_key_info: Vec<u8>,
}

impl PrivateKey {
    /// Reads a key. `None`, when the provider does not support it, or the key signs with none of the schemes.
    pub(crate) fn load(
        provider: &CryptoProvider,
        key: &PrivateKeyDer<'_>,
        schemes: &[SignatureScheme],
    ) -> Option<PrivateKey> {
        let key = provider.key_provider.load_private_key(key.clone_key()).ok()?;
        let signer = key.choose_scheme(schemes)?;
        let public_key_info = key.public_key()?.to_vec();
        Some(PrivateKey { signer, public_key_info })
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    #[cfg(feature = "issuer")]
    pub(crate) fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// The content of the key's bit string: the point of a curve, or the DER of an RSA key. `None`, when the
    /// provider writes no DER.
    pub(crate) fn public_key(&self) -> Option<&[u8]> {
        let mut info = Reader::new(only(&self.public_key_info, SEQUENCE).ok()?);
        info.expect(SEQUENCE).ok()?;
        whole_bytes(info.expect(BIT_STRING).ok()?).ok()
    }

    #[cfg(feature = "authority")]
    pub(crate) fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }

    /// The signature of ECDSA in ASN.1. `None`, when the system provides no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.signer.sign(message).ok()
    }
}

/// A new private key of ECDSA P-256 in PKCS #8. `None`, when the provider or the system provides no
/// randomness.
///
/// rustls has no interface that generates keys. A provider that derives the public half of a private key
/// makes the key from its own randomness (FIPS 186-5 §A.2.2). ring derives none, and generates its keys
/// itself, which then serve a provider that derives none either.
pub(crate) fn generate_key(provider: &CryptoProvider) -> Option<Vec<u8>> {
    let draw = |_| {
        let mut scalar = [0; 32];
        provider.secure_random.fill(&mut scalar).ok().map(|()| scalar)
    };
    let is_key = |scalar: &[u8; 32]| *scalar != [0; 32] && *scalar < P256_ORDER;
    let scalar = (0..DRAWS_MAX).map_while(draw).find(is_key)?;
    let derived = PrivateKeyDer::Pkcs8(ec_pkcs8(P256, &scalar, None).into());
    match PrivateKey::load(provider, &derived, &[SignatureScheme::ECDSA_NISTP256_SHA256]) {
        Some(key) => Some(ec_pkcs8(P256, &scalar, Some(key.public_key()?))),
        None => {
            let random = ring::rand::SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).ok()?;
            Some(pkcs8.as_ref().to_vec())
        }
    }
}

/// A private key on a curve in PKCS #8 (RFC 5915, RFC 5958). `curve` is an object identifier with its tag.
pub(crate) fn ec_pkcs8(curve: &[u8], scalar: &[u8], point: Option<&[u8]>) -> Vec<u8> {
    const EC_PUBLIC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const CONTEXT_1: u8 = 0xa1;
    let mut key = [element(INTEGER, &[1]), element(OCTET_STRING, scalar)].concat();
    if let Some(point) = point {
        key.extend(element(CONTEXT_1, &element(BIT_STRING, &[&[0], point].concat())));
    }
    pkcs8(&[EC_PUBLIC_KEY, curve].concat(), &key)
}

/// A private key in PKCS #8 (RFC 5958 §2): the content of its algorithm, and the content of the key's
/// sequence.
pub(crate) fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let key = element(OCTET_STRING, &element(SEQUENCE, key));
    element(SEQUENCE, &[element(INTEGER, &[0]), element(SEQUENCE, algorithm), key].concat())
}

/// Whether a signature is by a public key, given as the content of its bit string. The identifiers are the
/// contents of the `AlgorithmIdentifier`s of the key and the signature. A provider without the algorithm
/// verifies nothing.
#[cfg(any(feature = "issuer", feature = "jwt"))]
pub(crate) fn verifies(
    provider: &CryptoProvider,
    (of_key, of_signature): (pki_types::AlgorithmIdentifier, pki_types::AlgorithmIdentifier),
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let algorithms = provider.signature_verification_algorithms.all.iter();
    // Algorithms with the same identifiers may take keys of different lengths.
    let mut fitting = algorithms.filter(|algorithm| {
        algorithm.public_key_alg_id() == of_key && algorithm.signature_alg_id() == of_signature
    });
    fitting.any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ring reads only keys whose halves fit.
    fn check(provider: &CryptoProvider) {
        let pkcs8 = generate_key(provider).unwrap();
        assert_ne!(generate_key(provider).unwrap(), pkcs8);
        let random = ring::rand::SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).unwrap();
    }

    #[test]
    fn generated_keys_have_both_halves() {
        check(&crate::crypto::ring_provider());
        #[cfg(feature = "graviola")]
        {
            let graviola = crate::graviola_provider();
            check(&graviola);
            // ring generates for a provider that reads no key without its public half.
            let half = PrivateKeyDer::Pkcs8(ec_pkcs8(P256, &[1; 32], None).into());
            assert!(PrivateKey::load(&graviola, &half, &[SignatureScheme::ECDSA_NISTP256_SHA256]).is_some());
        }
    }

    /// webpki has RSA from 2048 and from 3072 bits on, both with one pair of identifiers.
    #[cfg(any(feature = "issuer", feature = "jwt"))]
    #[test]
    fn each_algorithm_with_the_identifiers_is_tried() {
        use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

        #[derive(Debug)]
        struct Never;

        impl SignatureVerificationAlgorithm for Never {
            fn verify_signature(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
                Err(InvalidSignature)
            }

            fn public_key_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::ECDSA_P256
            }

            fn signature_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::ECDSA_SHA256
            }
        }

        let mut provider = (*crate::crypto::ring_provider()).clone();
        let never: &[&dyn SignatureVerificationAlgorithm] = &[&Never];
        let all = [never, provider.signature_verification_algorithms.all].concat();
        provider.signature_verification_algorithms.all = Box::leak(all.into_boxed_slice());
        let pkcs8 = PrivateKeyDer::Pkcs8(generate_key(&provider).unwrap().into());
        let key = PrivateKey::load(&provider, &pkcs8, &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let (public, signature) = (key.public_key().unwrap(), key.sign(b"one").unwrap());
        let is_of = |message| {
            verifies(&provider, (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256), public, message, &signature)
        };
        assert!(is_of(b"one") && !is_of(b"two"));
    }

    /// A provider whose randomness is broken.
    #[test]
    fn zeros_are_no_key() {
        #[derive(Debug)]
        struct Zeros;

        impl rustls::crypto::SecureRandom for Zeros {
            fn fill(&self, bytes: &mut [u8]) -> Result<(), rustls::crypto::GetRandomFailed> {
                bytes.fill(0);
                Ok(())
            }
        }

        let ring = crate::crypto::ring_provider();
        let provider = CryptoProvider { secure_random: &Zeros, ..(*ring).clone() };
        assert_eq!(generate_key(&provider), None);
    }
}
