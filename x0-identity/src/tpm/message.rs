//! The messages between the machine and the issuer: buffers with their lengths in two bytes.

use std::vec::Vec;

use super::public::{EndorsementKey, KeyRole, PublicKey};
use super::wire::{Reader, put_sized};

/// The longest message, in bytes.
pub const TPM_MESSAGE_LEN_MAX: usize = 4096;

/// Bytes are not a message of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmMessageError {
    /// The message is longer than [`TPM_MESSAGE_LEN_MAX`]; it was not parsed.
    #[error(
        "the TPM message has {len} bytes, more than the {TPM_MESSAGE_LEN_MAX} allowed: check the machine"
    )]
    Length {
        /// The length, in bytes.
        len: usize,
    },
    /// The message ends early, or goes on.
    #[error("the TPM message is malformed at byte {position}: check that both sides have the same version")]
    Malformed {
        /// The offset of the byte.
        position: usize,
    },
    /// The EK is not of a template that this crate makes.
    #[error(
        "the endorsement key is not on P-256 with template L-2, nor of RSA 2048 with L-1: use a TPM that has one"
    )]
    EndorsementKey,
    /// The AK is not a restricted signing key that stays in its TPM.
    #[error(
        "the attestation key is not a restricted signing key on P-256 that its TPM made: make it with Tpm"
    )]
    AttestationKey,
}

/// What a machine presents: its endorsement key and an attestation key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmEvidence {
    pub(super) ek: EndorsementKey,
    pub(super) ak: PublicKey,
}

/// What an issuer sends back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmChallenge {
    /// `TPMS_ID_OBJECT`: the encrypted secret with its digest.
    pub(super) credential: Vec<u8>,
    /// The point from which the EK finds the key of the secret; for an EK of RSA its encrypted seed.
    pub(super) seed: Vec<u8>,
    pub(super) nonce: [u8; 32],
}

/// What a machine answers.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmAnswer {
    pub(super) secret: Vec<u8>,
    /// `TPMS_ATTEST`.
    pub(super) quote: Vec<u8>,
    /// Both numbers of the ECDSA signature, of 32 bytes each.
    pub(super) signature: [u8; 64],
}

impl TpmEvidence {
    /// The digest of the EK by which an operator enrolls the TPM.
    #[must_use]
    pub fn ek_digest(&self) -> [u8; 32] {
        self.ek.digest()
    }

    /// The message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write(&[&self.ek.bytes(), &self.ak.bytes()])
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`TpmMessageError`] names what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<TpmEvidence, TpmMessageError> {
        let [ek, ak] = read(bytes)?;
        Ok(TpmEvidence {
            ek: EndorsementKey::read(ek).ok_or(TpmMessageError::EndorsementKey)?,
            ak: PublicKey::read(KeyRole::Attestation, ak).ok_or(TpmMessageError::AttestationKey)?,
        })
    }
}

impl TpmChallenge {
    /// The message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write(&[&self.credential, &self.seed, &self.nonce])
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`TpmMessageError`] names what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<TpmChallenge, TpmMessageError> {
        let [credential, seed, nonce] = read(bytes)?;
        let nonce = nonce.try_into().map_err(|_| TpmMessageError::Malformed { position: bytes.len() })?;
        Ok(TpmChallenge { credential: credential.to_vec(), seed: seed.to_vec(), nonce })
    }
}

impl TpmAnswer {
    /// The message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write(&[&self.secret, &self.quote, &self.signature])
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`TpmMessageError`] names what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<TpmAnswer, TpmMessageError> {
        let [secret, quote, signature] = read(bytes)?;
        let signature =
            signature.try_into().map_err(|_| TpmMessageError::Malformed { position: bytes.len() })?;
        Ok(TpmAnswer { secret: secret.to_vec(), quote: quote.to_vec(), signature })
    }
}

/// Without the secret.
impl core::fmt::Debug for TpmAnswer {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("TpmAnswer").finish_non_exhaustive()
    }
}

fn write(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        put_sized(&mut bytes, part);
    }
    bytes
}

fn read<const PARTS: usize>(bytes: &[u8]) -> Result<[&[u8]; PARTS], TpmMessageError> {
    if bytes.len() > TPM_MESSAGE_LEN_MAX {
        return Err(TpmMessageError::Length { len: bytes.len() });
    }
    let mut reader = Reader::new(bytes);
    let mut parts: [&[u8]; PARTS] = [&[]; PARTS];
    for part in &mut parts {
        *part = reader.sized().ok_or(TpmMessageError::Malformed { position: reader.position() })?;
    }
    if reader.is_empty() {
        Ok(parts)
    } else {
        Err(TpmMessageError::Malformed { position: reader.position() })
    }
}
