//! Statements that an authority signs, beside certificates.

use std::string::String;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::KeyAlgorithm;
use crate::crypto::ring_provider;
use crate::x509::Certificate;
use crate::{RevocationView, Revoked, TrustBundle, TrustDomain};

/// The longest signature, in bytes: that of a key of RSA 8192.
pub(super) const SIGNATURE_LEN_MAX: usize = 1024;
/// The longest content of a [`SignedStatement`], in bytes: 4 MiB.
pub const STATEMENT_LEN_MAX: usize = 4 << 20;

/// Bytes of the caller's with the signature of an authority, so that workloads that trust its bundle may
/// receive them over anything: settings that an operator makes for a whole trust domain, for instance.
///
/// The purpose is part of the signed bytes, and a statement for one purpose is none for another. The content
/// should contain a number that grows, or an earlier statement can be replayed.
///
/// ```
/// # #[cfg(feature = "authority")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use x0_identity::{Authority, AuthorityOptions, RevocationView, SignedStatement, TrustDomain};
///
/// let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
/// let content = b"7: no more than 10 replicas".to_vec();
/// let to_be_signed = SignedStatement::to_be_signed("replicas", authority.trust_domain(), &content);
/// let statement = SignedStatement::new("replicas", content, authority.sign(&to_be_signed)?);
/// // It travels as bytes.
/// let received = SignedStatement::from_bytes("replicas", &statement.to_bytes())?;
/// assert_eq!(received.verify(&authority.bundle(), &RevocationView::new())?, statement.content());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "authority"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    purpose: String,
    content: Vec<u8>,
    signature: Vec<u8>,
}

/// A statement is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedStatementError {
    /// The bytes are not a statement.
    #[error("the signed statement is damaged or longer than 4 MiB: fetch it again")]
    Malformed,
    /// No authority of the bundle has signed it for this purpose, or it is revoked.
    #[error(
        "the statement is not signed by an authority that is trusted: sign it with an authority of the current bundle"
    )]
    Signature,
}

impl SignedStatement {
    /// The bytes that the key of an authority signs: a name for this use, the purpose, the trust domain and
    /// the content. Purpose and trust domain end with a zero byte, which a trust domain never contains; a
    /// zero byte in a purpose is left out.
    #[must_use]
    pub fn to_be_signed(purpose: &str, trust_domain: &TrustDomain, content: &[u8]) -> Vec<u8> {
        let purpose = purpose.replace('\0', "");
        let domain = trust_domain.as_str().as_bytes();
        [&b"x0 statement 1\0"[..], purpose.as_bytes(), &[0], domain, &[0], content].concat()
    }

    /// Joins a content with the signature of [`SignedStatement::to_be_signed`]. Nothing is verified.
    #[must_use]
    pub fn new(purpose: &str, content: Vec<u8>, signature: Vec<u8>) -> SignedStatement {
        SignedStatement { purpose: purpose.into(), content, signature }
    }

    /// The content. The signature may not have been verified.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Verifies that an authority of the bundle has signed the statement for its purpose and the trust domain
    /// of the bundle, and returns the content.
    ///
    /// # Errors
    /// [`SignedStatementError::Signature`].
    pub fn verify(
        &self,
        bundle: &TrustBundle,
        revoked: &RevocationView,
    ) -> Result<&[u8], SignedStatementError> {
        self.verify_with_provider(bundle, revoked, &ring_provider())
    }

    /// As [`SignedStatement::verify`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`SignedStatement::verify`].
    pub fn verify_with_provider(
        &self,
        bundle: &TrustBundle,
        revoked: &RevocationView,
        provider: &CryptoProvider,
    ) -> Result<&[u8], SignedStatementError> {
        let signed = SignedStatement::to_be_signed(&self.purpose, bundle.trust_domain(), &self.content);
        match is_signed(bundle, revoked, provider, &signed, &self.signature) {
            true => Ok(&self.content),
            false => Err(SignedStatementError::Signature),
        }
    }

    /// The length of the signature in two bytes, the highest first, the signature, and the content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Signatures are shorter; a longer one is cut, and refused by its reader.
        let len = u16::try_from(self.signature.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], &self.signature[..len.into()], &self.content].concat()
    }

    /// Reads a statement for a purpose, and verifies no signature.
    ///
    /// # Errors
    /// [`SignedStatementError::Malformed`], when the bytes are not a statement, or its content is longer than
    /// [`STATEMENT_LEN_MAX`].
    pub fn from_bytes(purpose: &str, bytes: &[u8]) -> Result<SignedStatement, SignedStatementError> {
        let malformed = SignedStatementError::Malformed;
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(malformed)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (signature, content) = rest.split_at_checked(len).ok_or(malformed)?;
        if len > SIGNATURE_LEN_MAX || content.len() > STATEMENT_LEN_MAX {
            return Err(malformed);
        }
        Ok(SignedStatement::new(purpose, content.to_vec(), signature.to_vec()))
    }
}

/// Whether an authority of the bundle has signed the message, and is not revoked.
pub(super) fn is_signed(
    bundle: &TrustBundle,
    revoked: &RevocationView,
    provider: &CryptoProvider,
    message: &[u8],
    signature: &[u8],
) -> bool {
    bundle.authorities().iter().any(|authority| {
        let Ok(certificate) = Certificate::parse(authority) else { return false };
        let key = Revoked::Authority { public_key_info: certificate.public_key_info.to_vec() };
        let algorithm = KeyAlgorithm::of_key(certificate.public_key_algorithm);
        let verifies = |algorithm: KeyAlgorithm| {
            algorithm.verifies(provider, certificate.public_key, message, signature)
        };
        !revoked.contains(&key) && algorithm.is_some_and(verifies)
    })
}
