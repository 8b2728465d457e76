//! The errors of signed chains, one enum per operation.

use super::{BATCH_LEN_MAX, EVENT_LEN_MAX, SIGNATURE_LEN_MAX};
use crate::codec;

/// Why bytes are not a checkpoint, batch, attestation or proof. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainDecodeError {
    /// The bytes are too short, too long, or of another version.
    #[error(transparent)]
    Bytes(#[from] codec::DecodeError),
    /// A batch of no events, or of too many.
    #[error("a batch of {0} events is outside 1 to {BATCH_LEN_MAX}: the sender breaks the format")]
    Count(u16),
    /// The sequence numbers run over.
    #[error("the sequence numbers of the batch run over 2^64: the sender breaks the format")]
    Sequence,
    /// A first batch that names something before it.
    #[error("the first batch of a chain names a head before it: the sender breaks the format")]
    Genesis,
    /// A signature of this many bytes.
    #[error("a signature of {0} bytes is outside 1 to {SIGNATURE_LEN_MAX}: use a scheme with shorter ones")]
    Signature(usize),
    /// The digests do not lead to the signed root.
    #[error("the digests do not lead to the signed root: ask another replica for the batch")]
    Root,
    /// An event outside its batch.
    #[error("place {0} is outside the batch: ask another replica for the attestation")]
    Place(u16),
    /// Two statements that an honest writer may both have signed.
    #[error("the two statements do not contradict each other: this proves nothing, drop it")]
    NoConflict,
    /// A proof with its statements in the wrong order.
    #[error("the statements of the proof are not in order: the sender breaks the format")]
    Order,
}

/// Why a message was not signed. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key cannot be used now.
    #[error("the signing key cannot be used now: check the key store and try again")]
    Unavailable,
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No key is known for the writer.
    #[error("the writer is unknown: add its public key to the verifier, or refuse the writer")]
    UnknownWriter,
    /// The signature is not the writer's.
    #[error(
        "the signature is not the writer's: the signed bytes were changed; fetch them from another replica"
    )]
    BadSignature,
}

/// Why an event was not appended. The chain is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Not the next event.
    #[error("event {seq} is not the next one, which is {next}: append in order, without gaps")]
    OutOfOrder {
        /// The event that came.
        seq: u64,
        /// The event that was due.
        next: u64,
    },
    /// The open batch is full and its predecessor is not out yet.
    #[error("the batch is full: drain `poll_output`, confirm with `persisted`, and append again")]
    BatchFull,
    /// The event is over the limit.
    #[error("an event of {0} bytes is over {EVENT_LEN_MAX}: store the value as a blob and write its hash")]
    TooLong(usize),
    /// The sequence numbers are used up.
    #[error("the sequence numbers of this incarnation are used up: take a new one")]
    Exhausted,
}

/// Why a batch was not signed. The open batch is as it was; the next call tries again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The signer failed.
    #[error("the signer failed; the events stay appended, the next call tries again")]
    Sign(#[from] SignError),
    /// The signer gave a signature of this many bytes.
    #[error("a signature of {0} bytes is outside 1 to {SIGNATURE_LEN_MAX}: use a scheme with shorter ones")]
    Signature(usize),
}

/// Why [`ChainWriter::persisted`](super::ChainWriter::persisted) refused. The chain is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistedError {
    /// Nothing waits under this number.
    #[error("no state waits under number {0}: confirm the number of the last `Output::Persist`, once")]
    Unexpected(u64),
}

/// Why a chain could not be continued. Never continue it in another way: take a new incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainRestoreError {
    /// The stored state is not what was written.
    #[error(
        "the stored state of the chain is damaged: start a new incarnation, the old one cannot go on safely"
    )]
    Damaged,
    /// The stored state is of another writer.
    #[error("the stored state is of another writer: use the one stored for this incarnation")]
    OtherWriter,
    /// The batch limit is out of range.
    #[error("a batch limit of {0} is outside 1 to {BATCH_LEN_MAX}: choose one inside")]
    BatchLen(usize),
}

/// Why a chain could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The batch limit is out of range.
    #[error("a batch limit of {0} is outside 1 to {BATCH_LEN_MAX}: choose one inside")]
    BatchLen(usize),
}

/// A peer holds a checkpoint of this writer that its state does not hold. See
/// [`ChainWriter::check_own`](super::ChainWriter::check_own).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnError {
    /// The state is older than what has been sent, as after a restored backup.
    #[error(
        "a checkpoint up to event {0} left this writer, but its state ends before: take a new incarnation"
    )]
    RolledBack(u64),
    /// The state contradicts what has been sent.
    #[error("a checkpoint up to event {0} contradicts this writer's state: take a new incarnation")]
    Forked(u64),
}

/// Why a checkpoint was not accepted. The tracker is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The signature does not hold.
    #[error("the checkpoint is refused: its signature does not hold")]
    Verify(#[from] VerifyError),
    /// The writer equivocates, and this comes after what is kept of it.
    #[error("the writer equivocates: no event after {kept} is accepted")]
    Quarantined {
        /// The last event that is kept.
        kept: u64,
    },
    /// Too many checkpoints wait for a gap to close.
    #[error(
        "too many checkpoints wait for what follows event {after}: fetch that first, or adopt a later head"
    )]
    PendingFull {
        /// The last event without a gap before it.
        after: u64,
    },
    /// Too many writers.
    #[error("{0} writers are tracked, which is the limit: drop retired ones or raise the limit")]
    WritersFull(usize),
}

/// Why an event was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The event is over the limit. The tracker is as it was.
    #[error("an event of {0} bytes is over {EVENT_LEN_MAX}: refuse its sender")]
    TooLong(usize),
    /// The bytes are not what was signed. The tracker is as it was.
    #[error("event {0} is not the one that was signed: ask another replica for it")]
    Mismatch(u64),
    /// Its checkpoint was not accepted, see [`ObserveError`].
    #[error(transparent)]
    Checkpoint(#[from] ObserveError),
}

/// Why a proof was not accepted. The tracker is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A signature does not hold.
    #[error("the proof is refused: a signature in it does not hold")]
    Verify(#[from] VerifyError),
    /// Too many writers.
    #[error("{0} writers are tracked, which is the limit: drop retired ones or raise the limit")]
    WritersFull(usize),
}
