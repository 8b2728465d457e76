//! [`ChainWriter`]: the chain of one writer, which sends no batch before it is durable.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::batch::Batch;
use super::checkpoint::Checkpoint;
use super::digest::Digest;
use super::error::{
    AppendError, BatchError, ChainRestoreError, OwnError, PersistedError, StartError, VerifyError,
};
use super::seam::{Signer, Verifier};
use super::statement::{Head, Statement};
use super::{BATCH_LEN_MAX, EVENT_LEN_MAX, merkle};
use crate::ReplicaId;

/// An output of a [`ChainWriter`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Make `state` durable in place of the one before, then call [`ChainWriter::persisted`] with `number`.
    Persist {
        /// Names this state in [`ChainWriter::persisted`].
        number: u64,
        /// The input of [`ChainWriter::restore`].
        state: Vec<u8>,
    },
    /// Send this batch. It is durable in the state; a copy in the driver's own store must be durable before
    /// the *next* [`Output::Persist`] is confirmed, because that state holds the next batch instead.
    Send(Batch),
}

/// The progress of the last signed batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The batch has been handed out, or there is none.
    Idle,
    /// The batch is signed, and the state with it has not been handed out.
    Persist,
    /// The state with it was handed out under this number.
    Persisting(u64),
    /// The batch is durable.
    Send,
}

/// The chain of one writer: an engine that takes the digests of its events and yields signed
/// [batches](Batch).
///
/// # Drain contract
///
/// 1. Give every event of the writer to [`append`](Self::append), in order, before its delta leaves; make the
///    digest that comes back durable together with the dot counter (40 bytes with its sequence number).
/// 2. After each append and [`flush`](Self::flush), call [`poll_output`](Self::poll_output) until it yields
///    `None`.
/// 3. At [`Output::Persist`], store the state durably, then call [`persisted`](Self::persisted) and poll on.
///    If storing fails, store the same bytes again, or stop and restart; do not confirm. Once it is durable,
///    the digests of step 1 up to [`head`](Self::head) are no longer needed.
/// 4. At [`Output::Send`], put the batch into the own store and send it.
/// 5. After a restart, [`restore`](Self::restore) from the last stored state and give the stored digests from
///    `next_seq` on to [`append_digest`](Self::append_digest). The last batch is handed out for sending once
///    more, with the same bytes: it is not known whether it left before. At [`AppendError::BatchFull`], drain
///    and go on. If no state was ever stored, nothing has left: take [`new`](Self::new) and the digests from
///    1 on. If the state is lost, damaged or from a backup, take a new incarnation.
///
/// Signing happens inside `poll_output`, at most one batch at a time: while one waits for its disk, events
/// gather in the next. A batch is never signed twice. So a crash between any two steps either drops a batch
/// that no peer has seen or sends one again that a peer may have seen; it never makes two.
pub struct ChainWriter {
    writer: ReplicaId,
    batch_len_max: usize,
    signer: Box<dyn Signer + Send>,
    head: Head,
    last: Option<Batch>,
    open: Vec<Digest>,
    flush: bool,
    stage: Stage,
    number: u64,
}

impl ChainWriter {
    /// Starts the chain of a fresh incarnation. A batch is signed when it has `batch_len_max` events.
    ///
    /// # Errors
    ///
    /// [`StartError::BatchLen`] if `batch_len_max` is outside 1 to [`BATCH_LEN_MAX`].
    pub fn new(
        writer: ReplicaId,
        batch_len_max: usize,
        signer: Box<dyn Signer + Send>,
    ) -> Result<Self, StartError> {
        if !(1..=BATCH_LEN_MAX).contains(&batch_len_max) {
            return Err(StartError::BatchLen(batch_len_max));
        }
        Ok(Self {
            writer,
            batch_len_max,
            signer,
            head: Head::GENESIS,
            last: None,
            open: Vec::new(),
            flush: false,
            stage: Stage::Idle,
            number: 0,
        })
    }

    /// Continues a chain from its stored state.
    ///
    /// # Errors
    ///
    /// [`ChainRestoreError`]; the chain must then not be continued at all, see there.
    pub fn restore(
        writer: ReplicaId,
        state: &[u8],
        batch_len_max: usize,
        signer: Box<dyn Signer + Send>,
    ) -> Result<Self, ChainRestoreError> {
        let mut chain = Self::new(writer, batch_len_max, signer)
            .map_err(|StartError::BatchLen(len)| ChainRestoreError::BatchLen(len))?;
        let (body, checksum) =
            state.split_last_chunk::<{ Digest::LEN }>().ok_or(ChainRestoreError::Damaged)?;
        // A state with one flipped bit could make an honest writer fork: better not to write at all.
        if Digest::of_state(body).0 != *checksum {
            return Err(ChainRestoreError::Damaged);
        }
        let last = Batch::decode(body).map_err(|_| ChainRestoreError::Damaged)?;
        if last.checkpoint().writer() != writer {
            return Err(ChainRestoreError::OtherWriter);
        }
        chain.head = last.checkpoint().head();
        chain.last = Some(last);
        chain.stage = Stage::Send;
        Ok(chain)
    }

    /// The writer of the chain.
    #[must_use]
    pub fn writer(&self) -> ReplicaId {
        self.writer
    }

    /// The end of the last signed batch.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The sequence number of the event that must be appended next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        // `append_digest` stops before this overflows.
        self.head.seq.wrapping_add(self.open.len() as u64).wrapping_add(1)
    }

    /// Appends the event `seq` and returns its digest. Costs one hash; signs nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the chain is then as it was.
    pub fn append(&mut self, seq: u64, event: &[u8]) -> Result<Digest, AppendError> {
        if event.len() > EVENT_LEN_MAX {
            return Err(AppendError::TooLong(event.len()));
        }
        let digest = Digest::of_event(self.writer, seq, event);
        self.append_digest(seq, digest)?;
        Ok(digest)
    }

    /// Appends the event `seq` by its digest, as when a restart reads the digests back.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the chain is then as it was.
    pub fn append_digest(&mut self, seq: u64, digest: Digest) -> Result<(), AppendError> {
        let next = self.next_seq();
        if seq != next {
            return Err(AppendError::OutOfOrder { seq, next });
        }
        if next == u64::MAX {
            return Err(AppendError::Exhausted);
        }
        if self.open.len() >= self.batch_len_max {
            return Err(AppendError::BatchFull);
        }
        self.open.push(digest);
        Ok(())
    }

    /// Asks for a batch of what has been appended, however little, as before a pause or for an urgent event.
    /// Does nothing if nothing was appended.
    pub fn flush(&mut self) {
        self.flush = !self.open.is_empty();
    }

    /// The next output; `None` when there is none, or when [`persisted`](Self::persisted) is awaited.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if a batch is due and was not signed. The events stay appended; the next call tries
    /// again.
    pub fn poll_output(&mut self) -> Result<Option<Output>, BatchError> {
        if self.stage == Stage::Idle && (self.flush || self.open.len() >= self.batch_len_max) {
            self.sign_pending()?;
        }
        match (self.stage, &self.last) {
            (Stage::Persist, Some(last)) => {
                self.number = self.number.wrapping_add(1);
                self.stage = Stage::Persisting(self.number);
                Ok(Some(Output::Persist { number: self.number, state: state(last) }))
            }
            (Stage::Send, Some(last)) => {
                self.stage = Stage::Idle;
                Ok(Some(Output::Send(last.clone())))
            }
            _ => Ok(None),
        }
    }

    /// Confirms that the state of [`Output::Persist`] `number` is durable. Only this lets its batch out.
    ///
    /// # Errors
    ///
    /// [`PersistedError`] if that state is not awaited; the chain is then as it was.
    pub fn persisted(&mut self, number: u64) -> Result<(), PersistedError> {
        if self.stage != Stage::Persisting(number) {
            return Err(PersistedError::Unexpected(number));
        }
        self.stage = Stage::Send;
        Ok(())
    }

    /// Compares a checkpoint of this writer that came from elsewhere with its state. A driver that restored
    /// calls it for the heads its peers show, before it appends: a disk that was rolled back would otherwise
    /// make an honest writer fork.
    ///
    /// A checkpoint of another writer, or one before the last batch, is no news and passes.
    ///
    /// # Errors
    ///
    /// [`OwnError::RolledBack`] or [`OwnError::Forked`]: append nothing more, take a new incarnation. A
    /// checkpoint whose signature does not hold passes, for then it says nothing.
    pub fn check_own(&self, checkpoint: &Checkpoint, verifier: &dyn Verifier) -> Result<(), OwnError> {
        if checkpoint.writer() != self.writer {
            return Ok(());
        }
        let forked = self
            .last
            .as_ref()
            .is_some_and(|last| last.checkpoint().statement().conflicts_with(checkpoint.statement()));
        let error = if forked {
            OwnError::Forked(checkpoint.seq())
        } else if checkpoint.seq() > self.head.seq {
            OwnError::RolledBack(checkpoint.seq())
        } else {
            return Ok(());
        };
        let genuine: Result<(), VerifyError> = checkpoint.verify(verifier);
        if genuine.is_ok() { Err(error) } else { Ok(()) }
    }

    /// Signs what is open and makes it the last batch. On an error nothing has changed.
    fn sign_pending(&mut self) -> Result<(), BatchError> {
        let count = u16::try_from(self.open.len()).unwrap_or(u16::MAX);
        // `append_digest` and `flush` keep `open` within what a statement may cover.
        let Ok(statement) = Statement::new(self.writer, self.head, count, merkle::root(&self.open)) else {
            return Ok(());
        };
        let signature = self.signer.sign(&statement.message())?;
        let len = signature.len();
        let checkpoint = Checkpoint::new(statement, signature).map_err(|_| BatchError::Signature(len))?;
        let Ok(batch) = Batch::new(checkpoint, self.open.clone()) else { return Ok(()) };
        self.open.clear();
        self.head = statement.head();
        self.last = Some(batch);
        self.flush = false;
        self.stage = Stage::Persist;
        Ok(())
    }
}

impl core::fmt::Debug for ChainWriter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ChainWriter")
            .field("writer", &self.writer)
            .field("head", &self.head)
            .field("open", &self.open.len())
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// The stored state: the batch, and a checksum over it.
fn state(last: &Batch) -> Vec<u8> {
    let mut bytes = last.encode();
    let checksum = Digest::of_state(&bytes);
    bytes.extend_from_slice(&checksum.0);
    bytes
}
