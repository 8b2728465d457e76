//! The kit of the tests of tokens: names, times, keys, and tokens that no issuer of ours would sign.

use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use serde_json::Value;
use x0_identity::{JwtAlgorithm, SpiffeId, TrustDomain};

pub(crate) const SECONDS: u64 = 2_000_000_000;

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(crate) fn workload() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3)
            .fold(0_usize, |bits, index| bits << 8 | group.get(index).map_or(0, |byte| usize::from(*byte)));
        for index in 0..=group.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * index) & 63]));
        }
    }
    text
}

pub(crate) fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

pub(crate) fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn generate(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

/// A new key of ECDSA P-256.
pub(crate) fn new_pkcs8() -> Vec<u8> {
    generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
}

pub(crate) fn sign_text(pkcs8: &[u8], header: &str, claims: &str) -> String {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).unwrap();
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64url(signature.as_ref()))
}

/// Keys of all algorithms.
pub(crate) fn keys() -> Vec<(JwtAlgorithm, Vec<u8>)> {
    use JwtAlgorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let p384 = generate(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let mut keys = vec![(JwtAlgorithm::Es256, new_pkcs8()), (JwtAlgorithm::Es384, p384)];
    let rsa = include_bytes!("../data/rsa.der").to_vec();
    keys.extend([Rs256, Rs384, Rs512, Ps256, Ps384, Ps512].map(|algorithm| (algorithm, rsa.clone())));
    keys.push((JwtAlgorithm::Es512, include_bytes!("../data/p521.der").to_vec()));
    keys
}
