//! Signatures and keys in the forms of JSON Web Algorithms and of ASN.1.

use std::vec::Vec;

use crate::bundle::positive;
use crate::x509::der::{INTEGER, Reader, SEQUENCE, element, only};

/// A positive integer, given without leading zeros.
pub(crate) fn integer(bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes {
        [] | [0, ..] => None,
        [0x80..=0xff, ..] => Some(element(INTEGER, &[&[0], bytes].concat())),
        _ => Some(element(INTEGER, bytes)),
    }
}

/// The DER of an RSA public key (RFC 8017 §A.1.1).
pub(super) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    Some(element(SEQUENCE, &[integer(modulus)?, integer(exponent)?].concat()))
}

/// Modulus and exponent of an RSA public key, without leading zeros.
pub(super) fn rsa_components(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut integers = Reader::new(only(der, SEQUENCE).ok()?);
    let (modulus, exponent) = (positive(&mut integers)?, positive(&mut integers)?);
    integers.finish().ok()?;
    Some((modulus.to_vec(), exponent.to_vec()))
}

/// A signature of ECDSA as two numbers of `len` bytes each (RFC 7518 §3.4), in ASN.1 (RFC 3279 §2.2.3).
pub(super) fn to_asn1(signature: &[u8], len: usize) -> Option<Vec<u8>> {
    let (r, s) = signature.split_at_checked(len).filter(|(_, s)| s.len() == len)?;
    let number = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        integer(&bytes[zeros..])
    };
    Some(element(SEQUENCE, &[number(r)?, number(s)?].concat()))
}

/// The opposite of [`to_asn1`].
pub(super) fn from_asn1(der: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut numbers = Reader::new(only(der, SEQUENCE).ok()?);
    let mut signature = Vec::with_capacity(2 * len);
    for _ in 0..2 {
        let number = positive(&mut numbers)?;
        signature.resize(signature.len() + len.checked_sub(number.len())?, 0);
        signature.extend(number);
    }
    numbers.finish().ok()?;
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_signature() {
        for (fixed, der) in [
            (&[0, 1, 0x80, 0][..], &[0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0][..]),
            (&[0x7f, 0xff, 0, 0x80], &[0x30, 8, 2, 2, 0x7f, 0xff, 2, 2, 0, 0x80]),
        ] {
            assert_eq!(to_asn1(fixed, 2).unwrap(), der);
            assert_eq!(from_asn1(der, 2).unwrap(), fixed);
        }
        // A number of zero, and lengths that are not those of the curve.
        for fixed in [&[0, 0, 1, 1][..], &[1, 1, 0, 0], &[1, 1, 1], &[1, 1, 1, 1, 1], &[]] {
            assert_eq!(to_asn1(fixed, 2), None, "{fixed:?}");
        }
        // A number that is longer than the curve's, further bytes, and a negative number.
        for der in [
            &[0x30, 8, 2, 3, 1, 0, 0, 2, 1, 1][..],
            &[0x30, 7, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 6, 2, 1, 0x80, 2, 1, 1],
        ] {
            assert_eq!(from_asn1(der, 2), None, "{der:?}");
        }
    }
}
