//! Revocations that an authority has signed, so that they may travel over anything.

use std::time::SystemTime;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::statement::{SIGNATURE_LEN_MAX, is_signed};
use crate::crypto::ring_provider;
use crate::{ReadRevocationsError, RevocationView, TrustBundle, TrustDomain};

/// A [`RevocationView`] with the signature of an authority of the trust domain: any node may pass it on, and
/// nobody but the authority can make one.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{Revoked, RevocationView, SignedRevocations, SpiffeId};
/// # fn run(ca_sign: impl Fn(&[u8]) -> Vec<u8>, bundle: x0_identity::TrustBundle) -> Result<(), Box<dyn std::error::Error>> {
/// let stolen = SpiffeId::parse("spiffe://example.org/node/0000000000000007")?;
/// let mut view = RevocationView::new();
/// view.insert(Revoked::SpiffeId(stolen), SystemTime::now() + Duration::from_secs(3600))?;
/// let to_be_signed = SignedRevocations::to_be_signed(bundle.trust_domain(), &view);
/// let signed = SignedRevocations::new(view, ca_sign(&to_be_signed));
///
/// // Another node, with the view that it has.
/// let mut own = RevocationView::new();
/// let received = SignedRevocations::from_bytes(&signed.to_bytes())?;
/// own.merge(received.verify(&bundle, &own)?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRevocations {
    view: RevocationView,
    signature: Vec<u8>,
}

/// Revocations are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedRevocationsError {
    /// The bytes are not signed revocations.
    #[error("the signed revocations are damaged: fetch them again")]
    Malformed,
    /// The view in them cannot be read.
    #[error(transparent)]
    View(#[from] ReadRevocationsError),
    /// No authority of the bundle has signed them, or it is revoked itself.
    #[error(
        "the revocations are not signed by an authority of the bundle that is trusted: sign them again with the current authority"
    )]
    Signature,
}

impl SignedRevocations {
    /// The bytes that the key of an authority signs: a name for this use, the trust domain and the view.
    #[must_use]
    pub fn to_be_signed(trust_domain: &TrustDomain, view: &RevocationView) -> Vec<u8> {
        let domain = trust_domain.as_str().as_bytes();
        [&b"x0 revocations 1\0"[..], domain, &[0], &view.to_bytes()].concat()
    }

    /// Joins a view with the signature of [`SignedRevocations::to_be_signed`]. Nothing is verified.
    #[must_use]
    pub fn new(view: RevocationView, signature: Vec<u8>) -> SignedRevocations {
        SignedRevocations { view, signature }
    }

    /// The view. Its signature may not have been verified.
    #[must_use]
    pub fn view(&self) -> &RevocationView {
        &self.view
    }

    /// Verifies the signature and returns the view. `own` is the view of this node: an authority that it
    /// revokes cannot revoke.
    ///
    /// # Errors
    /// [`SignedRevocationsError::Signature`].
    pub fn verify(
        &self,
        bundle: &TrustBundle,
        own: &RevocationView,
    ) -> Result<&RevocationView, SignedRevocationsError> {
        self.verify_with_provider(bundle, own, &ring_provider())
    }

    /// As [`SignedRevocations::verify`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`SignedRevocations::verify`].
    pub fn verify_with_provider(
        &self,
        bundle: &TrustBundle,
        own: &RevocationView,
        provider: &CryptoProvider,
    ) -> Result<&RevocationView, SignedRevocationsError> {
        let signed = SignedRevocations::to_be_signed(bundle.trust_domain(), &self.view);
        let found = is_signed(bundle, own, provider, &signed, &self.signature);
        if found { Ok(&self.view) } else { Err(SignedRevocationsError::Signature) }
    }

    /// The length of the signature in two bytes, the highest first, the signature, and the view.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Signatures are shorter; a longer one is cut, and refused by its reader.
        let len = u16::try_from(self.signature.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], &self.signature[..len.into()], &self.view.to_bytes()].concat()
    }

    /// Reads signed revocations, and verifies nothing.
    ///
    /// # Errors
    /// [`SignedRevocationsError`], when the bytes are not signed revocations.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedRevocations, SignedRevocationsError> {
        let malformed = SignedRevocationsError::Malformed;
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(malformed)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > SIGNATURE_LEN_MAX {
            return Err(malformed);
        }
        let (signature, view) = rest.split_at_checked(len).ok_or(malformed)?;
        Ok(SignedRevocations { view: RevocationView::from_bytes(view)?, signature: signature.to_vec() })
    }
}

impl RevocationView {
    /// The end of the entry that ends last; `None` without entries.
    #[must_use]
    pub fn last_expiry(&self) -> Option<SystemTime> {
        self.iter().map(|(_, expires)| expires).max()
    }
}
