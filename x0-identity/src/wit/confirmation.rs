//! The public key of a workload in a WIT-SVID (§3.2, RFC 7800).

use std::string::String;
use std::vec;
use std::vec::Vec;

use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;

use super::WitKeyError;
use crate::base64::{Alphabet, encode};
use crate::json::Json;
use crate::{JwtAlgorithm, JwtKey};

/// Bytes of an RSA modulus that is accepted: 2048 to 8192 bits.
const MODULUS_LEN: core::ops::RangeInclusive<usize> = 256..=1024;

/// Bytes of the largest public exponent that every provider verifies with: Graviola takes 4, ring 5.
const EXPONENT_LEN_MAX: usize = 4;

/// The private parameters of RFC 7518 §6.2.2 and §6.3.2.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The public key of a workload, with the one algorithm of its proofs: the claim `cnf` of a WIT-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitConfirmation {
    algorithm: JwtAlgorithm,
    key: JwtKey,
}

impl WitConfirmation {
    /// Builds the confirmation of a key and its algorithm. Whether a point is on its curve shows with the
    /// first proof.
    ///
    /// # Errors
    /// [`WitKeyError::Key`], when the key is not one for the algorithm, RSA with fewer than 2048 or more than
    /// 8192 bits or an exponent that no key has, or a point that is not uncompressed or not of its length.
    pub fn new(algorithm: JwtAlgorithm, key: JwtKey) -> Result<WitConfirmation, WitKeyError> {
        let is_point = |point: &[u8], len| point.len() == len && point[0] == 4;
        // Without leading zeros, and odd.
        let is_odd = |integer: &[u8]| {
            integer.first().is_some_and(|byte| *byte != 0) && integer.last().is_some_and(|byte| byte % 2 == 1)
        };
        let fits = match &key {
            JwtKey::Rsa { modulus, exponent } => {
                MODULUS_LEN.contains(&modulus.len())
                    && is_odd(modulus)
                    && exponent.len() <= EXPONENT_LEN_MAX
                    && is_odd(exponent)
                    && exponent[..] != [1]
            }
            JwtKey::P256(point) => is_point(point, 65),
            JwtKey::P384(point) => is_point(point, 97),
            JwtKey::P521(point) => is_point(point, 133),
        };
        if fits && algorithm.takes(&key) {
            Ok(WitConfirmation { algorithm, key })
        } else {
            Err(WitKeyError::Key { algorithm })
        }
    }

    /// The algorithm of the proofs.
    #[must_use]
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &JwtKey {
        &self.key
    }

    /// Whether a signature over a message is by the key.
    pub(super) fn verifies(&self, provider: &CryptoProvider, message: &[u8], signature: &[u8]) -> bool {
        self.algorithm.verifies(provider, &self.key, message, signature)
    }

    /// Reads the claim. RFC 7800 §3.1 and §3.2: exactly one key, in the member `jwk`; a private key has no
    /// place in it.
    pub(super) fn read(claim: &Json) -> Option<WitConfirmation> {
        if claim.get("jwe").is_some() || claim.get("jku").is_some() {
            return None;
        }
        let jwk = claim.get("jwk")?;
        if PRIVATE_MEMBERS.into_iter().any(|name| jwk.get(name).is_some()) {
            return None;
        }
        let algorithm = JwtAlgorithm::parse(jwk.get("alg")?.as_str()?)?;
        WitConfirmation::new(algorithm, JwtKey::read(jwk).ok()?).ok()
    }

    /// The members of the JSON Web Key, with its algorithm.
    pub(super) fn jwk(&self) -> Vec<(String, Json)> {
        let mut members = self.key.write();
        members.insert(1, ("alg".into(), Json::String(self.algorithm.name().into())));
        members
    }

    pub(super) fn write(&self) -> Json {
        Json::Object(vec![("jwk".into(), Json::Object(self.jwk()))])
    }
}

/// The thumbprint of a key (RFC 7638): SHA-256 of its required members, in the order of their names.
pub(super) fn thumbprint(key: &JwtKey) -> String {
    let mut members = key.write();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    let mut text = String::new();
    Json::Object(members).write(&mut text);
    encode(digest(&SHA256, text.as_bytes()).as_ref(), Alphabet::Url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1.
    #[test]
    fn the_thumbprint_of_the_standard() {
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB\
                       ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8\
                       KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_\
                       xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let decode = |text| crate::base64::decode(text, Alphabet::Url).unwrap();
        let key = JwtKey::Rsa { modulus: decode(modulus), exponent: decode("AQAB") };
        assert_eq!(thumbprint(&key), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
