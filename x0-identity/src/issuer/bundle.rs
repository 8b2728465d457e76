//! A bundle that an authority of the bundle before has signed, so that it may travel over anything.

use std::vec::Vec;

use pki_types::CertificateDer;
use rustls::crypto::CryptoProvider;

use super::statement::{SIGNATURE_LEN_MAX, is_signed};
use crate::crypto::ring_provider;
use crate::{BundleError, RevocationView, TrustBundle, TrustDomain};

/// A [`TrustBundle`] with a sequence number and the signature of an authority that is trusted already: the
/// next bundle of the trust domain. Of two bundles the one with the higher number is the current one. The
/// first authority in it is the one that issues.
///
/// To replace an authority, its successor is first published beside it, in a bundle that the old one signs;
/// it issues when every workload has that bundle; the old one is left out when no SVID of it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBundle {
    sequence: u64,
    bundle: TrustBundle,
    signature: Vec<u8>,
}

/// A signed bundle is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedBundleError {
    /// The bytes are not a signed bundle.
    #[error("the signed bundle is damaged: fetch it again")]
    Malformed,
    /// The bundle in it breaks a rule.
    #[error("the signed bundle breaks a rule: publish it again")]
    Bundle(#[from] BundleError),
    /// No authority of the current bundle has signed it, or it is revoked.
    #[error(
        "the bundle is not signed by an authority that is trusted: publish it with an authority of the current bundle"
    )]
    Signature,
}

impl SignedBundle {
    /// The bytes that the key of a trusted authority signs: a name for this use, the trust domain, the number
    /// and the authorities.
    #[must_use]
    pub fn to_be_signed(sequence: u64, bundle: &TrustBundle) -> Vec<u8> {
        let domain = bundle.trust_domain().as_str().as_bytes();
        [&b"x0 bundle 1\0"[..], domain, &[0], &body(sequence, bundle)].concat()
    }

    /// Joins a bundle with the signature of [`SignedBundle::to_be_signed`]. Nothing is verified.
    #[must_use]
    pub fn new(sequence: u64, bundle: TrustBundle, signature: Vec<u8>) -> SignedBundle {
        SignedBundle { sequence, bundle, signature }
    }

    /// The sequence number. The signature may not have been verified.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Verifies that an authority of the current bundle has signed it, and returns the next bundle.
    ///
    /// # Errors
    /// [`SignedBundleError::Signature`].
    pub fn verify(
        &self,
        current: &TrustBundle,
        revoked: &RevocationView,
    ) -> Result<&TrustBundle, SignedBundleError> {
        self.verify_with_provider(current, revoked, &ring_provider())
    }

    /// As [`SignedBundle::verify`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`SignedBundle::verify`].
    pub fn verify_with_provider(
        &self,
        current: &TrustBundle,
        revoked: &RevocationView,
        provider: &CryptoProvider,
    ) -> Result<&TrustBundle, SignedBundleError> {
        let signed = SignedBundle::to_be_signed(self.sequence, &self.bundle);
        let is_own = self.bundle.trust_domain() == current.trust_domain();
        match is_own && is_signed(current, revoked, provider, &signed, &self.signature) {
            true => Ok(&self.bundle),
            false => Err(SignedBundleError::Signature),
        }
    }

    /// The length of the signature in two bytes, the highest first, the signature, the number in eight bytes,
    /// the count of authorities in one, and each authority after its length in two.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Signatures are shorter; a longer one is cut, and refused by its reader.
        let len = u16::try_from(self.signature.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], &self.signature[..len.into()], &body(self.sequence, &self.bundle)].concat()
    }

    /// Reads a signed bundle of a trust domain, and verifies no signature.
    ///
    /// # Errors
    /// [`SignedBundleError`], when the bytes are not a signed bundle.
    pub fn from_bytes(trust_domain: TrustDomain, bytes: &[u8]) -> Result<SignedBundle, SignedBundleError> {
        let malformed = SignedBundleError::Malformed;
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(malformed.clone())?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > SIGNATURE_LEN_MAX {
            return Err(malformed);
        }
        let (signature, rest) = rest.split_at_checked(len).ok_or(malformed.clone())?;
        let (sequence, rest) = rest.split_first_chunk::<8>().ok_or(malformed.clone())?;
        let (count, mut rest) = rest.split_first().ok_or(malformed.clone())?;
        if usize::from(*count) > TrustBundle::AUTHORITIES_MAX {
            return Err(malformed);
        }
        let mut authorities: Vec<CertificateDer<'static>> = Vec::new();
        for _ in 0..*count {
            let (len, after) = rest.split_first_chunk::<2>().ok_or(malformed.clone())?;
            let len = usize::from(u16::from_be_bytes(*len));
            let (authority, after) = after.split_at_checked(len).ok_or(malformed.clone())?;
            authorities.push(authority.to_vec().into());
            rest = after;
        }
        let bundle = TrustBundle::new(trust_domain, authorities)?;
        // A certificate that occurs twice has another encoding.
        if !rest.is_empty() || bundle.authorities().len() != usize::from(*count) {
            return Err(malformed);
        }
        Ok(SignedBundle { sequence: u64::from_be_bytes(*sequence), bundle, signature: signature.to_vec() })
    }
}

fn body(sequence: u64, bundle: &TrustBundle) -> Vec<u8> {
    let mut bytes = sequence.to_be_bytes().to_vec();
    // At most 64 authorities of at most 16 KiB.
    bytes.push(u8::try_from(bundle.authorities().len()).unwrap_or(u8::MAX));
    for authority in bundle.authorities() {
        bytes.extend(u16::try_from(authority.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(authority.iter());
    }
    bytes
}
