//! [`EquivocationProof`]: two statements of one writer that contradict each other.

use alloc::vec::Vec;
use core::mem;

use super::checkpoint::Checkpoint;
use super::error::{ChainDecodeError, VerifyError};
use super::seam::Verifier;
use super::{VERSION, read_version};
use crate::ReplicaId;
use crate::codec::ByteReader;

/// The proof that a writer equivocates: two signed statements that [conflict]. It needs nothing else: any
/// replica with a [`Verifier`] can check it.
///
/// Having one says nothing until [`verify`](Self::verify) or
/// [`ChainTracker::accept_proof`](super::ChainTracker::accept_proof) agree: [`new`](Self::new) and
/// [`decode`](Self::decode) check that the statements conflict, not that they are signed.
///
/// [conflict]: super::Statement::conflicts_with
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EquivocationProof {
    first: Checkpoint,
    second: Checkpoint,
}

impl EquivocationProof {
    /// Puts two checkpoints together, in either order. The signatures are not checked.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError::NoConflict`] if an honest writer may have signed both.
    pub fn new(first: Checkpoint, second: Checkpoint) -> Result<Self, ChainDecodeError> {
        if !first.statement().conflicts_with(second.statement()) {
            return Err(ChainDecodeError::NoConflict);
        }
        let mut proof = Self { first, second };
        if !proof.is_ordered() {
            mem::swap(&mut proof.first, &mut proof.second);
        }
        Ok(proof)
    }

    fn is_ordered(&self) -> bool {
        let key = |checkpoint: &Checkpoint| (checkpoint.previous().seq, checkpoint.statement().to_array());
        key(&self.first) < key(&self.second)
    }

    /// The equivocating writer.
    #[must_use]
    pub fn writer(&self) -> ReplicaId {
        self.first.writer()
    }

    /// The two checkpoints; the one that begins earlier comes first.
    #[must_use]
    pub fn checkpoints(&self) -> [&Checkpoint; 2] {
        [&self.first, &self.second]
    }

    /// The last event that is kept of the writer: where the earlier of the two statements begins, because
    /// neither contradicts the events before. It follows from the proof alone, so all replicas that hold it
    /// keep the same.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.first.previous().seq
    }

    /// Checks both signatures.
    ///
    /// # Errors
    ///
    /// The verifier's error for the first signature that does not hold.
    pub fn verify(&self, verifier: &dyn Verifier) -> Result<(), VerifyError> {
        self.first.verify(verifier)?;
        self.second.verify(verifier)
    }

    /// The canonical bytes: 177 and the two signatures.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![VERSION];
        self.first.write(&mut bytes);
        self.second.write(&mut bytes);
        bytes
    }

    /// Reads canonical bytes. Checks that the statements conflict, not the signatures.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError`] if the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainDecodeError> {
        let mut input = ByteReader::new(bytes);
        read_version(&mut input)?;
        let proof = Self { first: Checkpoint::read(&mut input)?, second: Checkpoint::read(&mut input)? };
        input.finish()?;
        if !proof.first.statement().conflicts_with(proof.second.statement()) {
            return Err(ChainDecodeError::NoConflict);
        }
        if proof.is_ordered() { Ok(proof) } else { Err(ChainDecodeError::Order) }
    }
}
