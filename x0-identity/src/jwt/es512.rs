//! ECDSA with P-521 and SHA-512 (RFC 7518 §3.4), which ring does not have.

use std::vec::Vec;

use p521::ecdsa::signature::{Signer, Verifier};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::pkcs8::DecodePrivateKey;

/// A private key. Signatures are deterministic (RFC 6979).
pub(super) struct Es512Key(SigningKey);

impl Es512Key {
    /// Reads a key of P-521 in PKCS #8; `None` if the bytes are none.
    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Option<Es512Key> {
        SigningKey::from_pkcs8_der(pkcs8).ok().map(Es512Key)
    }

    /// The uncompressed point.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature: Signature = self.0.try_sign(message).ok()?;
        Some(signature.to_bytes().to_vec())
    }
}

/// Whether a signature of 132 bytes is by the key of an uncompressed point.
pub(super) fn verifies(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(point), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify(message, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base64::{Alphabet, decode};

    /// The example of RFC 7515 §A.4.
    #[test]
    fn the_example_of_the_standard_verifies() {
        let x = "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk";
        let y = "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2";
        let signature = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_\
                         7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXo\
                         lLzeO_Jn";
        let bytes = |text: &str| decode(text, Alphabet::Url).unwrap();
        let point = [vec![4], bytes(x), bytes(y)].concat();
        let signature = bytes(signature);
        let message = b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA";
        assert!(verifies(&point, message, &signature));
        assert!(!verifies(&point, b"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZB", &signature));
        for position in 0..signature.len() {
            let mut damaged = signature.clone();
            damaged[position] ^= 1;
            assert!(!verifies(&point, message, &damaged), "{position}");
        }
        // A length that is not 132 bytes, zeros, and points that are not on the curve.
        for other in [&signature[..131], &[&signature[..], &[0]].concat(), &[0; 132], &[]] {
            assert!(!verifies(&point, message, other));
        }
        let mut off_curve = point.clone();
        off_curve[132] ^= 1;
        for other in [&off_curve[..], &point[..132], &[0], &[]] {
            assert!(!verifies(other, message, &signature));
        }
    }
}
