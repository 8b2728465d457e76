//! [`Checkpoint`]: a statement with its signature.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::error::{ChainDecodeError, VerifyError};
use super::seam::Verifier;
use super::statement::{Head, Statement};
use super::{SIGNATURE_LEN_MAX, VERSION, read_version};
use crate::ReplicaId;
use crate::codec::ByteReader;

/// A [`Statement`] with its writer's signature: self-contained, so any replica may carry it.
///
/// A checkpoint proves nothing until [`verify`](Self::verify) accepts it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Checkpoint {
    statement: Statement,
    signature: Box<[u8]>,
}

impl Checkpoint {
    /// Puts a signature beside a statement. The signature is not checked, only its length.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError::Signature`] if `signature` is empty or over [`SIGNATURE_LEN_MAX`].
    pub fn new(statement: Statement, signature: Vec<u8>) -> Result<Self, ChainDecodeError> {
        if signature.is_empty() || signature.len() > SIGNATURE_LEN_MAX {
            return Err(ChainDecodeError::Signature(signature.len()));
        }
        Ok(Self { statement, signature: signature.into_boxed_slice() })
    }

    /// The signed statement.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The writer that signed it, if [`verify`](Self::verify) accepts it.
    #[must_use]
    pub fn writer(&self) -> ReplicaId {
        self.statement.writer()
    }

    /// The end of the chain before it.
    #[must_use]
    pub fn previous(&self) -> Head {
        self.statement.previous()
    }

    /// The last sequence number it covers.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.statement.seq()
    }

    /// The end of the chain after it. Costs one hash.
    #[must_use]
    pub fn head(&self) -> Head {
        self.statement.head()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Checks the signature.
    ///
    /// # Errors
    ///
    /// The verifier's error.
    pub fn verify(&self, verifier: &dyn Verifier) -> Result<(), VerifyError> {
        verifier.verify(self.writer(), &self.statement.message(), &self.signature)
    }

    /// The canonical bytes: 88 and the signature.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + Statement::LEN + self.signature.len());
        self.write(&mut bytes);
        bytes
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.statement.to_array());
        // `new` keeps the signature under SIGNATURE_LEN_MAX, which fits a byte.
        bytes.push(u8::try_from(self.signature.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(&self.signature);
    }

    /// Reads canonical bytes. Neither signature nor chain are checked.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError`] if the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainDecodeError> {
        let mut input = ByteReader::new(bytes);
        let checkpoint = Self::read(&mut input)?;
        input.finish()?;
        Ok(checkpoint)
    }

    pub(super) fn read(input: &mut ByteReader<'_>) -> Result<Self, ChainDecodeError> {
        read_version(input)?;
        let statement = Statement::read(input)?;
        let len = usize::from(input.byte("a signature")?);
        if len == 0 || len > SIGNATURE_LEN_MAX {
            return Err(ChainDecodeError::Signature(len));
        }
        Self::new(statement, input.take(len, "a signature")?.to_vec())
    }
}
