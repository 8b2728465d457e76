//! The request of a workload and the answer of the issuer.
//!
//! Each is one message; a stream carries its length before it, in four bytes with the highest first. Lengths
//! of fields have two bytes, counts have one.
//!
//! | request | answer |
//! |---|---|
//! | version (1) | version (1) |
//! | kind of the evidence: 1 join token, 2 current SVID, 3 SVID with proof, 4 TPM, 5 certificate with proof | 0 issued, 255 a challenge, or the reason of a refusal |
//! | validity in seconds, 4 bytes | |
//! | SPIFFE ID, certificate request | issued: the chain, then the authorities: a count, and each certificate |
//! | 1: the token. 3, 5: the chain, the signature. 4: the evidence | refused: a text; a challenge: its bytes |
//!
//! A challenge is answered on the same connection, by a message with the version (1), the kind 255 and the
//! bytes of the response. The answer to the request comes after it.

use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use pki_types::CertificateDer;
use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;

use crate::issuer::KeyAlgorithm;
use crate::x509::Certificate;
use crate::{CERTIFICATE_LEN_MAX, CERTIFICATE_REQUEST_LEN_MAX, SpiffeId, TrustBundle, X509Svid};

/// The longest request, in bytes: a chain of eight certificates, and a certificate request.
pub const ISSUANCE_REQUEST_LEN_MAX: usize =
    (X509Svid::CHAIN_LEN_MAX + 1) * (CERTIFICATE_LEN_MAX + 2) + CERTIFICATE_REQUEST_LEN_MAX;

/// The longest answer, in bytes: a chain of eight certificates, and 64 authorities.
pub const ISSUANCE_ANSWER_LEN_MAX: usize =
    (X509Svid::CHAIN_LEN_MAX + TrustBundle::AUTHORITIES_MAX + 1) * (CERTIFICATE_LEN_MAX + 2);

const VERSION: u8 = 1;
const TOKEN_LEN_MAX: usize = 256;
const SIGNATURE_LEN_MAX: usize = 1024;
const TEXT_LEN_MAX: usize = 512;
/// The length of evidence of a TPM, of a challenge and of a response, in bytes.
const DEVICE_LEN_MAX: usize = 4096;
/// The kind of challenges and responses.
const CHALLENGE: u8 = 255;

/// What a workload presents to prove that it may have a SPIFFE ID.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A join token, which the operator has given to it.
    JoinToken(String),
    /// The SVID that it authenticates the TLS connection with.
    CurrentSvid,
    /// An SVID that it had, which may be expired, with a signature of its key: a proof of possession that is
    /// bound to the TLS connection and to the requested key.
    Svid {
        /// The chain, the leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// The signature by the key of the leaf; see [`IssuanceRequest::proof`].
        signature: Vec<u8>,
    },
    /// The keys of a TPM, as bytes of `tpm::TpmEvidence`. The issuer answers with a challenge.
    Tpm(Vec<u8>),
    /// A certificate of another authority, such as that of the device, with a signature of its key as for
    /// [`Evidence::Svid`].
    Certificate {
        /// The chain, the device's certificate first.
        chain: Vec<CertificateDer<'static>>,
        /// The signature by the key of the certificate; see [`IssuanceRequest::certificate_proof`].
        signature: Vec<u8>,
    },
}

/// The request of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuanceRequest {
    /// The requested SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The requested validity in whole seconds, which the registration entry bounds.
    pub validity: Duration,
    /// The certificate request (PKCS #10, DER).
    pub certificate_request: Vec<u8>,
    /// The evidence.
    pub evidence: Evidence,
}

/// The answer of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssuanceAnswer {
    /// The SVID was issued.
    Issued {
        /// The chain, the leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// The authorities that the trust domain has now.
        authorities: Vec<CertificateDer<'static>>,
    },
    /// The evidence is not enough by itself: the workload answers the challenge on the same connection, with
    /// an [`IssuanceResponse`]. For a TPM, the bytes of `tpm::TpmChallenge`, at most 4,096.
    Challenge(Vec<u8>),
    /// No SVID was issued.
    Refused {
        /// The reason.
        refusal: IssuanceRefusal,
        /// What an operator reads: the cause and the remedy. At most 512 bytes.
        text: String,
    },
}

/// The answer of a workload to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuanceResponse {
    /// For a TPM, the bytes of `tpm::TpmAnswer`, at most 4,096.
    pub response: Vec<u8>,
}

impl IssuanceResponse {
    /// The response as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = std::vec![VERSION, CHALLENGE];
        field(&mut bytes, &self.response);
        bytes
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`IssuanceMessageError`], when the bytes are not a response.
    pub fn from_bytes(bytes: &[u8]) -> Result<IssuanceResponse, IssuanceMessageError> {
        let mut reader = Reader::new(bytes, ISSUANCE_REQUEST_LEN_MAX)?;
        if reader.byte()? != CHALLENGE {
            return Err(IssuanceMessageError::Malformed { position: 1 });
        }
        let response = reader.field(DEVICE_LEN_MAX)?.to_vec();
        reader.finish()?;
        Ok(IssuanceResponse { response })
    }
}

/// Without the secret.
impl core::fmt::Debug for IssuanceResponse {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("IssuanceResponse").field("len", &self.response.len()).finish()
    }
}

/// The reason why an issuer does not issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuanceRefusal {
    /// The request cannot be read, or its certificate request proves no key.
    #[error("the request is malformed")]
    Malformed,
    /// The issuer has too many requests.
    #[error("the issuer is busy")]
    Busy,
    /// The evidence is not accepted.
    #[error("the evidence is not accepted")]
    NotAttested,
    /// No registration entry of the SPIFFE ID matches the workload.
    #[error("the SPIFFE ID is not registered for this workload")]
    NotRegistered,
    /// The signer failed.
    #[error("the issuer cannot sign")]
    Signer,
}

/// Bytes are not a message of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuanceMessageError {
    /// The message is too long; it was not parsed.
    #[error("the issuance message has {len} bytes, more than the {len_max} allowed: send fewer certificates")]
    Length {
        /// The length, in bytes.
        len: usize,
        /// The limit, in bytes.
        len_max: usize,
    },
    /// The version is not known.
    #[error("the issuance message has version {version}, and 1 is known: upgrade the older side")]
    Version {
        /// The version.
        version: u8,
    },
    /// The message ends early, goes on, or has an unknown or overlong part.
    #[error("the issuance message is malformed at byte {position}: check that the peer speaks x0-issuance/1")]
    Malformed {
        /// The offset of the byte.
        position: usize,
    },
}

impl IssuanceRefusal {
    fn code(self) -> u8 {
        match self {
            IssuanceRefusal::Malformed => 1,
            IssuanceRefusal::Busy => 2,
            IssuanceRefusal::NotAttested => 3,
            IssuanceRefusal::NotRegistered => 4,
            IssuanceRefusal::Signer => 5,
        }
    }

    fn of_code(code: u8) -> Option<IssuanceRefusal> {
        Some(match code {
            1 => IssuanceRefusal::Malformed,
            2 => IssuanceRefusal::Busy,
            3 => IssuanceRefusal::NotAttested,
            4 => IssuanceRefusal::NotRegistered,
            5 => IssuanceRefusal::Signer,
            _ => return None,
        })
    }
}

impl IssuanceRequest {
    /// Builds a request with the longest validity that the registration entry allows.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, certificate_request: Vec<u8>, evidence: Evidence) -> IssuanceRequest {
        let validity = Duration::from_secs(u32::MAX.into());
        IssuanceRequest { spiffe_id, validity, certificate_request, evidence }
    }

    /// The bytes that the key of an earlier SVID signs in [`Evidence::Svid`]: a name for this use, the 32
    /// bytes of [`ISSUANCE_BINDING_LABEL`](crate::ISSUANCE_BINDING_LABEL), the SHA-256 of the certificate
    /// request, and the SPIFFE ID. The signature serves no other connection and no other key.
    #[must_use]
    pub fn proof(spiffe_id: &SpiffeId, binding: &[u8; 32], certificate_request: &[u8]) -> Vec<u8> {
        proof(b"x0-issuance/1 SVID proof\0", spiffe_id, binding, certificate_request)
    }

    /// The bytes that the key of another certificate signs in [`Evidence::Certificate`]: as
    /// [`IssuanceRequest::proof`], under the name of this use.
    #[must_use]
    pub fn certificate_proof(
        spiffe_id: &SpiffeId,
        binding: &[u8; 32],
        certificate_request: &[u8],
    ) -> Vec<u8> {
        proof(b"x0-issuance/1 certificate proof\0", spiffe_id, binding, certificate_request)
    }

    /// Whether the evidence has the signature of its certificate's key, for this connection and this request.
    /// Evidence of another kind has none.
    pub(super) fn is_proved(&self, provider: &CryptoProvider, binding: &[u8; 32]) -> bool {
        let (chain, signature, proof) = match &self.evidence {
            Evidence::Svid { chain, signature } => {
                (chain, signature, IssuanceRequest::proof as fn(&SpiffeId, &[u8; 32], &[u8]) -> Vec<u8>)
            }
            Evidence::Certificate { chain, signature } => (
                chain,
                signature,
                IssuanceRequest::certificate_proof as fn(&SpiffeId, &[u8; 32], &[u8]) -> Vec<u8>,
            ),
            _ => return false,
        };
        let Some(leaf) = chain.first().and_then(|leaf| Certificate::parse(leaf).ok()) else { return false };
        let Some(algorithm) = KeyAlgorithm::of_key(leaf.public_key_algorithm) else { return false };
        let proof = proof(&self.spiffe_id, binding, &self.certificate_request);
        algorithm.verifies(provider, leaf.public_key, &proof, signature)
    }

    /// The request as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = std::vec![VERSION];
        bytes.push(match self.evidence {
            Evidence::JoinToken(_) => 1,
            Evidence::CurrentSvid => 2,
            Evidence::Svid { .. } => 3,
            Evidence::Tpm(_) => 4,
            Evidence::Certificate { .. } => 5,
        });
        bytes.extend(u32::try_from(self.validity.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        field(&mut bytes, self.spiffe_id.to_string().as_bytes());
        field(&mut bytes, &self.certificate_request);
        match &self.evidence {
            Evidence::JoinToken(token) => field(&mut bytes, token.as_bytes()),
            Evidence::CurrentSvid => {}
            Evidence::Svid { chain, signature } | Evidence::Certificate { chain, signature } => {
                certificates(&mut bytes, chain);
                field(&mut bytes, signature);
            }
            Evidence::Tpm(evidence) => field(&mut bytes, evidence),
        }
        bytes
    }

    /// Reads a request. The certificate request in it is not verified yet.
    ///
    /// # Errors
    /// [`IssuanceMessageError`], when the bytes are not a request.
    pub fn from_bytes(bytes: &[u8]) -> Result<IssuanceRequest, IssuanceMessageError> {
        let mut reader = Reader::new(bytes, ISSUANCE_REQUEST_LEN_MAX)?;
        let kind = reader.byte()?;
        let mut seconds = [0; 4];
        seconds.copy_from_slice(reader.take(4)?);
        let malformed = IssuanceMessageError::Malformed { position: reader.position };
        let spiffe_id = SpiffeId::parse(reader.text(SpiffeId::LEN_MAX)?).map_err(|_| malformed)?;
        let certificate_request = reader.field(CERTIFICATE_REQUEST_LEN_MAX)?.to_vec();
        let evidence = match kind {
            1 => Evidence::JoinToken(reader.text(TOKEN_LEN_MAX)?.into()),
            2 => Evidence::CurrentSvid,
            3 => Evidence::Svid {
                chain: reader.certificates(X509Svid::CHAIN_LEN_MAX)?,
                signature: reader.field(SIGNATURE_LEN_MAX)?.to_vec(),
            },
            4 => Evidence::Tpm(reader.field(DEVICE_LEN_MAX)?.to_vec()),
            5 => Evidence::Certificate {
                chain: reader.certificates(X509Svid::CHAIN_LEN_MAX)?,
                signature: reader.field(SIGNATURE_LEN_MAX)?.to_vec(),
            },
            _ => return Err(IssuanceMessageError::Malformed { position: 1 }),
        };
        reader.finish()?;
        let validity = Duration::from_secs(u32::from_be_bytes(seconds).into());
        Ok(IssuanceRequest { spiffe_id, validity, certificate_request, evidence })
    }
}

impl IssuanceAnswer {
    /// The answer as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = std::vec![VERSION];
        match self {
            IssuanceAnswer::Issued { chain, authorities } => {
                bytes.push(0);
                certificates(&mut bytes, chain);
                certificates(&mut bytes, authorities);
            }
            IssuanceAnswer::Challenge(challenge) => {
                bytes.push(CHALLENGE);
                field(&mut bytes, challenge);
            }
            IssuanceAnswer::Refused { refusal, text } => {
                bytes.push(refusal.code());
                let end = (0..=text.len().min(TEXT_LEN_MAX)).rev().find(|end| text.is_char_boundary(*end));
                field(&mut bytes, &text.as_bytes()[..end.unwrap_or(0)]);
            }
        }
        bytes
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`IssuanceMessageError`], when the bytes are not an answer.
    pub fn from_bytes(bytes: &[u8]) -> Result<IssuanceAnswer, IssuanceMessageError> {
        let mut reader = Reader::new(bytes, ISSUANCE_ANSWER_LEN_MAX)?;
        let answer = match reader.byte()? {
            0 => IssuanceAnswer::Issued {
                chain: reader.certificates(X509Svid::CHAIN_LEN_MAX)?,
                authorities: reader.certificates(TrustBundle::AUTHORITIES_MAX)?,
            },
            CHALLENGE => IssuanceAnswer::Challenge(reader.field(DEVICE_LEN_MAX)?.to_vec()),
            code => {
                let refusal = IssuanceRefusal::of_code(code)
                    .ok_or(IssuanceMessageError::Malformed { position: reader.position - 1 })?;
                IssuanceAnswer::Refused { refusal, text: reader.text(TEXT_LEN_MAX)?.into() }
            }
        };
        reader.finish()?;
        Ok(answer)
    }
}

/// Without the token.
impl core::fmt::Debug for Evidence {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Evidence::JoinToken(_) => formatter.write_str("JoinToken"),
            Evidence::CurrentSvid => formatter.write_str("CurrentSvid"),
            Evidence::Tpm(_) => formatter.write_str("Tpm"),
            Evidence::Svid { chain, .. } => {
                formatter.debug_struct("Svid").field("chain_len", &chain.len()).finish_non_exhaustive()
            }
            Evidence::Certificate { chain, .. } => {
                formatter.debug_struct("Certificate").field("chain_len", &chain.len()).finish_non_exhaustive()
            }
        }
    }
}

fn proof(use_of: &[u8], spiffe_id: &SpiffeId, binding: &[u8; 32], certificate_request: &[u8]) -> Vec<u8> {
    let request = digest(&SHA256, certificate_request);
    let spiffe_id = spiffe_id.to_string();
    [use_of, binding, request.as_ref(), spiffe_id.as_bytes()].concat()
}

/// Fields are at most 64 KiB: longer ones are cut, and the receiver refuses the message.
fn field(bytes: &mut Vec<u8>, content: &[u8]) {
    let len = u16::try_from(content.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_be_bytes());
    bytes.extend(&content[..len.into()]);
}

fn certificates(bytes: &mut Vec<u8>, chain: &[CertificateDer<'_>]) {
    let count = u8::try_from(chain.len()).unwrap_or(u8::MAX);
    bytes.push(count);
    chain.iter().take(count.into()).for_each(|certificate| field(bytes, certificate));
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads the version.
    fn new(bytes: &'a [u8], len_max: usize) -> Result<Reader<'a>, IssuanceMessageError> {
        if bytes.len() > len_max {
            return Err(IssuanceMessageError::Length { len: bytes.len(), len_max });
        }
        let mut reader = Reader { bytes, position: 0 };
        match reader.byte()? {
            VERSION => Ok(reader),
            version => Err(IssuanceMessageError::Version { version }),
        }
    }

    fn malformed<T>(&self) -> Result<T, IssuanceMessageError> {
        Err(IssuanceMessageError::Malformed { position: self.position })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], IssuanceMessageError> {
        let Some(taken) = self.bytes.get(self.position..).and_then(|rest| rest.get(..len)) else {
            return self.malformed();
        };
        self.position += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, IssuanceMessageError> {
        Ok(self.take(1)?[0])
    }

    fn field(&mut self, len_max: usize) -> Result<&'a [u8], IssuanceMessageError> {
        let len = self.take(2)?;
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        if len > len_max { self.malformed() } else { self.take(len) }
    }

    fn text(&mut self, len_max: usize) -> Result<&'a str, IssuanceMessageError> {
        let position = self.position;
        core::str::from_utf8(self.field(len_max)?).map_err(|_| IssuanceMessageError::Malformed { position })
    }

    fn certificates(
        &mut self,
        count_max: usize,
    ) -> Result<Vec<CertificateDer<'static>>, IssuanceMessageError> {
        let count = usize::from(self.byte()?);
        if count > count_max {
            return self.malformed();
        }
        (0..count).map(|_| Ok(self.field(CERTIFICATE_LEN_MAX)?.to_vec().into())).collect()
    }

    fn finish(self) -> Result<(), IssuanceMessageError> {
        if self.position == self.bytes.len() { Ok(()) } else { self.malformed() }
    }
}
