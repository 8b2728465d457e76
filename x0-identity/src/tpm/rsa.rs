//! The public operation of endorsement keys of RSA: RSAES-OAEP (RFC 8017 §7.1) with 2,048 bits and the
//! exponent 65,537. What is computed here is public but for the seed, which is padded and serves one
//! attestation.

use std::vec::Vec;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U2048};
use ring::rand::{SecureRandom, SystemRandom};

use super::public::{rsa_head, sha256};
use super::wire::{Reader, put_sized};

pub(super) const RSA_BITS: u16 = 2048;
/// The length of a modulus and of a ciphertext, in bytes.
pub(super) const RSA_LEN: usize = 256;
const DIGEST_LEN: usize = 32;
const EXPONENT: u32 = 65_537;
const EXPONENT_BITS: u32 = 17;

/// An endorsement key of template L-1, by its modulus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RsaKey {
    modulus: Odd<U2048>,
}

impl RsaKey {
    /// Reads a public area. `None`, if it is not exactly that of the template, or its modulus does not have
    /// 2,048 bits or is even.
    pub(super) fn read(bytes: &[u8]) -> Option<RsaKey> {
        let head = rsa_head();
        let mut reader = Reader::new(bytes);
        if reader.take(head.len())? != head {
            return None;
        }
        let modulus = reader.sized()?;
        if !reader.is_empty() || modulus.len() != RSA_LEN || modulus[0] < 0x80 {
            return None;
        }
        let modulus = Odd::new(U2048::from_be_slice(modulus)).into_option()?;
        Some(RsaKey { modulus })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = rsa_head();
        put_sized(&mut bytes, self.modulus.as_ref().to_be_bytes().as_ref());
        bytes
    }

    /// Encrypts a secret of 32 bytes for the TPM with the key. The label has its zero byte (TPM 2.0 Library
    /// part 1, §B.4). `None` without random numbers.
    pub(super) fn encrypt(
        &self,
        secret: &[u8; DIGEST_LEN],
        label: &[u8],
        random: &SystemRandom,
    ) -> Option<Vec<u8>> {
        let mut seed = [0; DIGEST_LEN];
        random.fill(&mut seed).ok()?;
        let encoded = U2048::from_be_slice(&encode(secret, label, seed));
        let params = FixedMontyParams::new_vartime(self.modulus);
        // The encoded message begins with a zero byte: it is less than the modulus.
        let encrypted = FixedMontyForm::new(&encoded, &params)
            .pow_bounded_exp(&U2048::from(EXPONENT), EXPONENT_BITS)
            .retrieve();
        Some(encrypted.to_be_bytes().as_ref().to_vec())
    }
}

/// EME-OAEP with SHA-256 and MGF1 with SHA-256.
fn encode(secret: &[u8], label: &[u8], mut seed: [u8; DIGEST_LEN]) -> Vec<u8> {
    let mut block = sha256(&[label]).to_vec();
    block.resize(RSA_LEN - 1 - DIGEST_LEN - 1 - secret.len(), 0);
    block.push(1);
    block.extend(secret);
    mask(&mut block, &seed);
    mask(&mut seed, &block);
    [&[0][..], &seed, &block].concat()
}

/// Adds MGF1 of a seed to the bytes.
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, piece) in (0_u32..).zip(bytes.chunks_mut(DIGEST_LEN)) {
        let stream = sha256(&[seed, &counter.to_be_bytes()]);
        piece.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    fn area(modulus: &[u8]) -> Vec<u8> {
        let mut bytes = rsa_head();
        put_sized(&mut bytes, modulus);
        bytes
    }

    #[test]
    fn only_the_template_with_a_modulus_of_its_length_is_read() {
        let mut modulus = vec![0xc5; RSA_LEN];
        let good = area(&modulus);
        assert_eq!(RsaKey::read(&good).unwrap().bytes(), good);
        for position in 0..good.len() - RSA_LEN {
            let mut changed = good.clone();
            changed[position] ^= 1;
            assert_eq!(RsaKey::read(&changed), None, "byte {position}");
        }
        assert_eq!(RsaKey::read(&[&good[..], &[0]].concat()), None);
        assert_eq!(RsaKey::read(&area(&modulus[1..])), None);
        modulus[RSA_LEN - 1] = 2;
        assert_eq!(RsaKey::read(&area(&modulus)), None, "an even modulus");
        modulus[RSA_LEN - 1] = 3;
        modulus[0] = 0x7f;
        assert_eq!(RsaKey::read(&area(&modulus)), None, "a modulus of 2,047 bits");
    }

    /// The inverse of the encoding.
    #[test]
    fn an_encoded_secret_is_masked_and_found_again() {
        let encoded = encode(&[7; 32], b"IDENTITY\0", [9; 32]);
        assert_eq!((encoded.len(), encoded[0]), (RSA_LEN, 0));
        let (mut seed, mut block) = (encoded[1..33].to_vec(), encoded[33..].to_vec());
        mask(&mut seed, &block);
        mask(&mut block, &seed);
        assert_eq!(seed, [9; 32]);
        assert_eq!(block[..32], sha256(&[b"IDENTITY\0"]));
        assert!(block.ends_with(&[&[1][..], &[7; 32]].concat()));
        assert!(block[32..block.len() - 33].iter().all(|byte| *byte == 0));
    }
}
