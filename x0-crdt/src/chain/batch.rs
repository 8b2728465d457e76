//! [`Batch`]: a checkpoint with the digests that it covers; [`Attestation`]: the proof that one event is among them.

use alloc::vec::Vec;

use super::checkpoint::Checkpoint;
use super::digest::Digest;
use super::error::ChainDecodeError;
use super::merkle;
use crate::codec::ByteReader;

/// A [`Checkpoint`] and the digests of its events, in order; they lead to its root. Events that were
/// overwritten are in it by digest only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    checkpoint: Checkpoint,
    digests: Vec<Digest>,
}

impl Batch {
    /// Puts digests beside the checkpoint that covers them. The signature is not checked.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError::Root`] if the checkpoint has another root or another number of events.
    pub fn new(checkpoint: Checkpoint, digests: Vec<Digest>) -> Result<Self, ChainDecodeError> {
        let statement = checkpoint.statement();
        if digests.len() != usize::from(statement.count()) || merkle::root(&digests) != statement.root() {
            return Err(ChainDecodeError::Root);
        }
        Ok(Self { checkpoint, digests })
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The digests; the first is of the event `checkpoint().previous().seq + 1`.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Whether the event at `seq` has these bytes.
    #[must_use]
    pub fn covers(&self, seq: u64, event: &[u8]) -> bool {
        let statement = self.checkpoint.statement();
        let digest = statement.index_of(seq).and_then(|index| self.digests.get(index));
        digest.is_some_and(|digest| *digest == Digest::of_event(statement.writer(), seq, event))
    }

    /// The proof for the event at `seq` alone; `None` if the batch does not cover `seq`. Costs a hash per
    /// event.
    #[must_use]
    pub fn attest(&self, seq: u64) -> Option<Attestation> {
        let index = self.checkpoint.statement().index_of(seq)?;
        let path = merkle::path(&self.digests, index);
        Some(Attestation { checkpoint: self.checkpoint.clone(), seq, path })
    }

    /// The canonical bytes: the checkpoint's, and 32 for each event.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.checkpoint.encode();
        bytes.extend(self.digests.iter().flat_map(|digest| digest.0));
        bytes
    }

    /// Reads canonical bytes. The digests are checked against the root, the signature is not checked.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError`] if the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainDecodeError> {
        let mut input = ByteReader::new(bytes);
        let checkpoint = Checkpoint::read(&mut input)?;
        let count = usize::from(checkpoint.statement().count());
        let digests = read_digests(&mut input, count)?;
        input.finish()?;
        Self::new(checkpoint, digests)
    }
}

/// The proof that a writer signed one event: a [`Checkpoint`] and the hashes from the event up to its root. A
/// replica holds one for every event that is alive in its state, or the [`Batch`] that yields it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attestation {
    checkpoint: Checkpoint,
    seq: u64,
    path: Vec<Digest>,
}

impl Attestation {
    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The sequence number of the event.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether the event at [`seq`](Self::seq) has these bytes. The signature is not checked.
    #[must_use]
    pub fn covers(&self, event: &[u8]) -> bool {
        let statement = self.checkpoint.statement();
        let leaf = Digest::of_event(statement.writer(), self.seq, event);
        let root = statement
            .index_of(self.seq)
            .and_then(|index| merkle::climb(leaf, index, usize::from(statement.count()), &self.path));
        root == Some(statement.root())
    }

    /// The canonical bytes: the checkpoint's, 2 for the place, and 32 for each of log2(batch) hashes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.checkpoint.encode();
        let index = self.checkpoint.statement().index_of(self.seq);
        // Made by `attest` or `decode`, so the place exists and fits: a batch has at most 2^16 events.
        let index = index.and_then(|index| u16::try_from(index).ok()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&index.to_be_bytes());
        bytes.extend(self.path.iter().flat_map(|digest| digest.0));
        bytes
    }

    /// Reads canonical bytes. Neither the signature nor an event are checked.
    ///
    /// # Errors
    ///
    /// [`ChainDecodeError`] if the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainDecodeError> {
        let mut input = ByteReader::new(bytes);
        let checkpoint = Checkpoint::read(&mut input)?;
        let index = u16::from_be_bytes(input.array("the place of an event")?);
        let statement = checkpoint.statement();
        if index >= statement.count() {
            return Err(ChainDecodeError::Place(index));
        }
        let len = merkle::path_len(usize::from(index), usize::from(statement.count()));
        let path = read_digests(&mut input, len)?;
        input.finish()?;
        // Below `count`, and `previous.seq + count` does not overflow.
        let seq = statement.previous().seq.wrapping_add(u64::from(index)).wrapping_add(1);
        Ok(Self { checkpoint, seq, path })
    }
}

/// Takes the bytes before it allocates for them, so a short input costs nothing.
fn read_digests(input: &mut ByteReader<'_>, count: usize) -> Result<Vec<Digest>, ChainDecodeError> {
    let bytes = input.take(count.saturating_mul(Digest::LEN), "digests")?;
    let (chunks, _) = bytes.as_chunks::<{ Digest::LEN }>();
    Ok(chunks.iter().copied().map(Digest).collect())
}
