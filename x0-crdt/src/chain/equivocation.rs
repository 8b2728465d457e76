//! Two statements of one writer that no honest writer signs both.

use alloc::vec::Vec;
use core::mem;

use super::checkpoint::Checkpoint;
use super::error::{DecodeError, VerifyError};
use super::seam::Verifier;
use super::{VERSION, read_version};
use crate::ReplicaId;
use crate::codec::ByteReader;

/// The proof that a writer has contradicted itself: two signed statements that [conflict]. It needs nothing else, so it can
/// be carried anywhere and checked by anyone who has a [`Verifier`].
///
/// Having one says nothing until [`verify`](Self::verify) or [`ChainTracker::convict`](super::ChainTracker::convict) agree:
/// [`new`](Self::new) and [`decode`](Self::decode) check that the statements conflict, not that they are signed.
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
    /// [`DecodeError::NoConflict`] if an honest writer may have signed both.
    pub fn new(first: Checkpoint, second: Checkpoint) -> Result<Self, DecodeError> {
        if !first.statement().conflicts_with(second.statement()) {
            return Err(DecodeError::NoConflict);
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

    /// Who contradicted itself.
    #[must_use]
    pub fn writer(&self) -> ReplicaId {
        self.first.writer()
    }

    /// The two checkpoints; the one that begins earlier comes first.
    #[must_use]
    pub fn checkpoints(&self) -> [&Checkpoint; 2] {
        [&self.first, &self.second]
    }

    /// The last event that is kept of the writer: where the earlier of the two statements begins, for neither says anything
    /// against what lies before. It follows from the proof alone, so everyone who has it keeps the same.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.first.previous().seq
    }

    /// Checks both signatures.
    ///
    /// # Errors
    ///
    /// What `verifier` says of the first one that does not hold.
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
    /// [`DecodeError`] if the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = ByteReader::new(bytes);
        read_version(&mut input)?;
        let proof = Self { first: Checkpoint::read(&mut input)?, second: Checkpoint::read(&mut input)? };
        input.finish()?;
        if !proof.first.statement().conflicts_with(proof.second.statement()) {
            return Err(DecodeError::NoConflict);
        }
        if proof.is_ordered() { Ok(proof) } else { Err(DecodeError::Order) }
    }
}
