//! Public areas of keys (`TPMT_PUBLIC`, TPM 2.0 Library part 2, §12.2.4): on P-256, and endorsement keys of
//! RSA.

use std::vec::Vec;

use ring::digest::{SHA256, digest};

use super::rsa::{RSA_BITS, RSA_LEN, RsaKey};
use super::wire::{Reader, put_sized};

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
pub(super) const ALG_SHA256: u16 = 0x000b;
pub(super) const ALG_NULL: u16 = 0x0010;
pub(super) const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;

/// `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `adminWithPolicy`, `restricted` and `decrypt`.
const EK_ATTRIBUTES: u32 = 0x0003_00b2;
/// `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `userWithAuth`, `noDA`, `restricted` and `sign`.
const AK_ATTRIBUTES: u32 = 0x0005_0472;
/// `PolicySecret` of the endorsement hierarchy (EK Credential Profile §B.3.4).
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// The algorithm of the endorsement key of a TPM. Most TPMs have both keys, and each has a certificate of the
/// manufacturer; an operator enrolls the one that is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndorsementAlgorithm {
    /// ECC on P-256, template L-2 of the EK Credential Profile.
    #[default]
    P256,
    /// RSA with 2,048 bits, template L-1.
    Rsa2048,
}

/// An endorsement key of one of the two templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndorsementKey {
    P256(PublicKey),
    Rsa2048(RsaKey),
}

impl EndorsementKey {
    /// Reads a public area. `None`, if it is not exactly that of a template.
    pub(super) fn read(bytes: &[u8]) -> Option<EndorsementKey> {
        if bytes.starts_with(&ALG_RSA.to_be_bytes()) {
            return RsaKey::read(bytes).map(EndorsementKey::Rsa2048);
        }
        PublicKey::read(KeyRole::Endorsement, bytes).map(EndorsementKey::P256)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            EndorsementKey::P256(key) => key.bytes(),
            EndorsementKey::Rsa2048(key) => key.bytes(),
        }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        sha256(&[&self.bytes()])
    }
}

/// The area from which a TPM makes its endorsement key.
pub(super) fn endorsement_template(algorithm: EndorsementAlgorithm) -> Vec<u8> {
    match algorithm {
        EndorsementAlgorithm::P256 => template(KeyRole::Endorsement),
        EndorsementAlgorithm::Rsa2048 => {
            let mut bytes = rsa_head();
            // The EK Credential Profile has zeros there, and another template would make another key.
            put_sized(&mut bytes, &[0; RSA_LEN]);
            bytes
        }
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRole {
    Endorsement,
    Attestation,
}

/// The public area of a key of one of the two templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub(super) x: [u8; 32],
    pub(super) y: [u8; 32],
    role: KeyRole,
}

impl PublicKey {
    /// Reads a public area. `None`, if it is not exactly that of the template: a key with other attributes
    /// could be used for other purposes, and what it signs would prove less.
    pub(super) fn read(role: KeyRole, bytes: &[u8]) -> Option<PublicKey> {
        let before = head(role);
        let mut reader = Reader::new(bytes);
        if reader.take(before.len())? != before {
            return None;
        }
        let (x, y) = (coordinate(reader.sized()?)?, coordinate(reader.sized()?)?);
        reader.is_empty().then_some(PublicKey { x, y, role })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = head(self.role);
        put_sized(&mut bytes, &self.x);
        put_sized(&mut bytes, &self.y);
        bytes
    }

    /// The name: the algorithm and the digest of the public area (part 1, §16).
    pub(super) fn name(&self) -> Vec<u8> {
        let mut name = ALG_SHA256.to_be_bytes().to_vec();
        name.extend(self.digest());
        name
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        sha256(&[&self.bytes()])
    }

    /// The point, uncompressed (SEC 1 §2.3.3).
    pub(super) fn point(&self) -> Vec<u8> {
        [&[4][..], &self.x, &self.y].concat()
    }
}

/// Everything before the modulus of an endorsement key of RSA.
pub(super) fn rsa_head() -> Vec<u8> {
    let mut bytes = [ALG_RSA, ALG_SHA256].map(u16::to_be_bytes).concat();
    bytes.extend(EK_ATTRIBUTES.to_be_bytes());
    put_sized(&mut bytes, &EK_POLICY);
    for number in [ALG_AES, 128, ALG_CFB, ALG_NULL, RSA_BITS] {
        bytes.extend(number.to_be_bytes());
    }
    // The exponent 65,537.
    bytes.extend(0_u32.to_be_bytes());
    bytes
}

/// The area from which a TPM makes a key: the same area, with an empty point.
pub(super) fn template(role: KeyRole) -> Vec<u8> {
    let mut bytes = head(role);
    let empty: &[u8] = match role {
        // The EK Credential Profile has zeros there, and another template would make another key.
        KeyRole::Endorsement => &[0; 32],
        KeyRole::Attestation => &[],
    };
    put_sized(&mut bytes, empty);
    put_sized(&mut bytes, empty);
    bytes
}

/// Everything before the point.
fn head(role: KeyRole) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |number: u16| bytes.extend(number.to_be_bytes());
    put(ALG_ECC);
    put(ALG_SHA256);
    match role {
        KeyRole::Endorsement => {
            bytes.extend(EK_ATTRIBUTES.to_be_bytes());
            put_sized(&mut bytes, &EK_POLICY);
            for number in [ALG_AES, 128, ALG_CFB, ALG_NULL] {
                bytes.extend(number.to_be_bytes());
            }
        }
        KeyRole::Attestation => {
            bytes.extend(AK_ATTRIBUTES.to_be_bytes());
            put_sized(&mut bytes, &[]);
            for number in [ALG_NULL, ALG_ECDSA, ALG_SHA256] {
                bytes.extend(number.to_be_bytes());
            }
        }
    }
    bytes.extend(CURVE_P256.to_be_bytes());
    bytes.extend(ALG_NULL.to_be_bytes());
    bytes
}

/// A coordinate; some TPMs leave zeros at its beginning out.
pub(super) fn coordinate(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut coordinate = [0; 32];
    coordinate.get_mut(32_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(coordinate)
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    out
}
