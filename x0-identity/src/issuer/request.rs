//! Certificate requests (PKCS #10, RFC 2986): a public key with a proof that the sender has the private key.

use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::KeyAlgorithm;
use crate::crypto::ring_provider;
use crate::x509::der::{BIT_STRING, INTEGER, Malformed, Reader, SEQUENCE, only, whole_bytes};

/// The longest certificate request that is parsed, in bytes. One with a key of RSA 8192 takes about 2.3 KiB.
pub const CERTIFICATE_REQUEST_LEN_MAX: usize = 16 * 1024;

/// A public key whose owner has signed the request. Names and extensions that the request asks for are not
/// read: an issuer takes them from the registration entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    public_key_info: Vec<u8>,
}

/// Bytes are not a certificate request with a proof of possession.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateRequestError {
    /// The request is longer than [`CERTIFICATE_REQUEST_LEN_MAX`]; it was not parsed.
    #[error(
        "the certificate request has {len} bytes, more than the {CERTIFICATE_REQUEST_LEN_MAX} allowed: request no extensions"
    )]
    Length {
        /// The length of the request, in bytes.
        len: usize,
    },
    /// The bytes are not the DER encoding of a request (RFC 2986 §4).
    #[error(
        "the bytes are not the DER encoding of a certificate request: convert it with openssl req -outform DER"
    )]
    Malformed,
    /// The key, or the algorithm of the signature, is not supported.
    #[error(
        "the key of the certificate request or its signature is not supported: use ECDSA with P-256 and SHA-256 or P-384 and SHA-384, Ed25519, or RSA with SHA-256"
    )]
    Algorithm,
    /// The signature is not by the key of the request.
    #[error(
        "the certificate request is not signed by its own key: create it with the private key of the workload"
    )]
    Signature,
}

impl From<Malformed> for CertificateRequestError {
    fn from(_: Malformed) -> CertificateRequestError {
        CertificateRequestError::Malformed
    }
}

impl CertificateRequest {
    /// Reads a request and verifies the proof of possession.
    ///
    /// # Errors
    /// [`CertificateRequestError`] names the first rule that is broken.
    pub fn from_der(der: &[u8]) -> Result<CertificateRequest, CertificateRequestError> {
        CertificateRequest::from_der_with_provider(der, &ring_provider())
    }

    /// As [`CertificateRequest::from_der`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`CertificateRequest::from_der`].
    pub fn from_der_with_provider(
        der: &[u8],
        provider: &CryptoProvider,
    ) -> Result<CertificateRequest, CertificateRequestError> {
        if der.len() > CERTIFICATE_REQUEST_LEN_MAX {
            return Err(CertificateRequestError::Length { len: der.len() });
        }
        let mut parts = Reader::new(only(der, SEQUENCE)?);
        let signed = parts.element()?;
        let algorithm = parts.expect(SEQUENCE)?;
        let signature = whole_bytes(parts.expect(BIT_STRING)?)?;
        parts.finish()?;
        if signed.tag != SEQUENCE {
            return Err(CertificateRequestError::Malformed);
        }
        let mut fields = Reader::new(signed.content);
        if fields.expect(INTEGER)? != [0] {
            return Err(CertificateRequestError::Malformed);
        }
        fields.expect(SEQUENCE)?;
        let public_key_info = fields.element()?;
        // [0] IMPLICIT SET OF Attribute, which may be empty but not absent.
        fields.expect(0xa0)?;
        fields.finish()?;
        if public_key_info.tag != SEQUENCE {
            return Err(CertificateRequestError::Malformed);
        }
        let mut key = Reader::new(public_key_info.content);
        let key_algorithm = key.expect(SEQUENCE)?;
        let public_key = whole_bytes(key.expect(BIT_STRING)?)?;
        key.finish()?;
        let key_algorithm = KeyAlgorithm::of_key(key_algorithm).ok_or(CertificateRequestError::Algorithm)?;
        if algorithm != &*key_algorithm.signature() {
            return Err(CertificateRequestError::Algorithm);
        }
        if !key_algorithm.verifies(provider, public_key, signed.whole, signature) {
            return Err(CertificateRequestError::Signature);
        }
        Ok(CertificateRequest { public_key_info: public_key_info.whole.to_vec() })
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }
}
