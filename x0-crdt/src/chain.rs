//! Signed hash chains of writers that are not trusted, and proofs against writers that equivocate.
//!
//! Version vectors identify events by dot, so they assume that a writer has one event per dot. A writer that
//! gives one event to one replica and another one, under the same dot, to a second replica *equivocates*: the
//! two replicas differ for ever, unnoticed. This module binds all events of a writer to one history. Two
//! histories are a proof that anyone can verify, after which all replicas keep the same events of that
//! writer.
//!
//! # Method
//!
//! - **Chain of signed batches.** The digest of an event covers writer, sequence number and bytes. Every so
//!   many events the writer signs a [`Statement`]: "after head `h`, my next `n` events have the Merkle root
//!   `r`". The next head is the hash of that statement. With batches of one event this is the plain chain
//!   `h' = H(h, seq, H(event))`; with larger ones the root stands for the digests. The link is made from the
//!   root, not from a second fold over the events, because a replica that lacks the events could not check
//!   whether such a fold belongs to the root. Equal heads have equal histories.
//! - **Proof of one event.** Replicas exchange states, not logs: the bytes of overwritten events are gone. An
//!   [`Attestation`] proves one live event with its checkpoint and log2(n) hashes (the shape of RFC 9162
//!   section 2.1.1). A [`Batch`] carries all digests instead, and overwritten events by digest only.
//! - **Equivocation.** The statements of an honest writer tile its sequence numbers. Two statements that
//!   overlap, or of which one begins at the other's end but not from its head, contradict each other:
//!   [`EquivocationProof`]. Two digests for one dot need no case of their own, because the checkpoints that
//!   prove them overlap.
//! - **Cryptography** is the caller's: [`Signer`] and [`Verifier`]. Every signed message begins with
//!   [`CONTEXT`].
//!
//! # Convergence
//!
//! After a proof, every replica keeps the events up to [`EquivocationProof::kept`], the beginning of the
//! earlier of its two statements. This follows from the proof alone. Of several proofs the lowest counts; the
//! minimum is commutative, associative and idempotent, so replicas that have exchanged their proofs keep the
//! same events, in whatever order the proofs arrived.
//!
//! # Chains in a map
//!
//! [`MapChains`] keeps the chains *in a map*, as entries under [`CHAIN_PREFIX`], so that sessions, journals
//! and members carry them without knowing them. [`SignedMap`](crate::SignedMap) owns both and keeps their
//! contract.
//!
//! | entry | writer | content | removed |
//! |---|---|---|---|
//! | batch | the signing writer | a checkpoint and the digests of the live events | when none of its events is live and all members have seen it |
//! | head | the signing writer | its last checkpoint | never: one per writer |
//! | proof | any replica | the proof that a writer equivocates | never: one per equivocating writer |
//! | evidence | each replica for itself | checkpoints of a writer whose chain it saw jump | when a proof exists, or all members have seen it |
//!
//! - **Digests.** A value's event is the key, the time and the value. An event that left no value when its
//!   batch was signed (a removal, an overwritten value, an entry of the chain itself) is *void* and takes two
//!   bits, so batches need no batches. Batches and proofs verify by themselves, whatever event carried them.
//!   Digests of events that are gone are pruned: one hash stands for each part of the Merkle tree without
//!   live events.
//! - **Crashes.** A batch is put into the map like any value, and the map's order (durable first, then sent)
//!   is the order that a chain needs: either one record holds both the events and the batch, or the batch has
//!   not left. After a restart the chain goes on from the head in the map.
//! - **Verification.** [`MapChains::verification`] compares a value with the digest that its writer signed. A
//!   value that does not match is dropped. Its writer is not blamed, because a carrier may have invented it.
//!   All replicas drop the same values, so a drop is no event.
//! - **Contradictions.** An honest head only advances and stays at one key, and every member sees every
//!   batch, because none is removed before all have seen it. So two replicas with equal heads of a writer
//!   have one history of it; otherwise one of them sees the head jump, go back or vanish. That replica
//!   publishes the checkpoints that it knew as *evidence*, under its own name, where no event of the writer
//!   can replace them. A replica that holds the other side makes the proof of both, and the proof descends to
//!   where the histories part, as far as checkpoints are held.
//! - **After a proof** every replica drops the values and batches after [`MapChains::kept`], and all that
//!   arrive later.
//!
//! # Limits
//!
//! - An equivocation is found only if a path exists between two replicas that hold the two sides. Until then
//!   each side is consistent.
//! - A writer can make what is kept of it fall to nothing by contradicting its first statement. It harms its
//!   own events only; what they had overwritten does not come back.
//! - A tracker that adopted a head, or has dropped a checkpoint, cannot say whether older checkpoints belong
//!   to that head ([`Standing::Unlinked`]).
//! - Digests of overwritten events stay visible: a reader that guesses an event's bytes can confirm the
//!   guess.
//! - Signatures over [`SIGNATURE_LEN_MAX`] bytes, such as post-quantum ones, need another version of the
//!   format.

mod batch;
mod checkpoint;
mod digest;
mod equivocation;
mod error;
mod history;
mod map_chains;
mod merkle;
mod seam;
mod statement;
mod tracker;
mod writer;

pub use batch::{Attestation, Batch};
pub use checkpoint::Checkpoint;
pub use digest::Digest;
pub use equivocation::EquivocationProof;
pub use error::{
    AppendError, BatchError, ChainDecodeError, ChainRestoreError, EventError, ObserveError, OwnError,
    PersistedError, ProofError, SignError, StartError, VerifyError,
};
pub use map_chains::{
    CHAIN_PREFIX, ChainOptions, ChainStats, MAP_BATCH_LEN_MAX, MapChains, Reviewed, SignBatchError,
    Verification,
};
pub use seam::{RejectAll, Signer, Verifier};
pub use statement::{Head, Statement};
pub use tracker::{ChainLimits, ChainTracker, Observed, Standing};
pub use writer::{ChainWriter, Output};

use crate::codec::{self, ByteReader};

/// The version of every encoding of this module. It opens each of them, and [`CONTEXT`] ends with it.
pub const VERSION: u8 = 1;

/// The beginning of every signed message: the protocol, the kind of content, and the version.
pub const CONTEXT: &[u8] = b"x0-crdt chain checkpoint v1\0";

/// Most bytes of an event.
pub const EVENT_LEN_MAX: usize = 64 * 1024;

/// Most events of a batch.
pub const BATCH_LEN_MAX: usize = 4096;

/// Most bytes of a signature: Ed25519 has 64, ECDSA over P-256 up to 72, over P-384 up to 104.
pub const SIGNATURE_LEN_MAX: usize = 128;

/// Reads the version byte.
fn read_version(input: &mut ByteReader<'_>) -> Result<(), ChainDecodeError> {
    match input.byte("the version")? {
        VERSION => Ok(()),
        found => Err(codec::DecodeError::Version { found }.into()),
    }
}
