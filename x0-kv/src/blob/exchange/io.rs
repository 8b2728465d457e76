//! Options, inputs and outputs of an exchange.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::blob::{BlobId, ChunkSet, Holding, Piece};

/// Settings of a [`BlobExchange`](super::super::BlobExchange): bounds on memory, and how long it waits for
/// peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeOptions {
    /// The most chunks that are requested of one peer at once. A peer begins with 1, and each chunk that
    /// comes in time adds one. 8 unless set.
    pub window_max: u32,
    /// The most chunks that are requested of all peers at once or wait to be kept. Times the length of a
    /// chunk, this bounds the memory of all fetches. 32 unless set.
    pub asked_max: usize,
    /// The most blobs that are fetched at once. 64 unless set.
    pub fetches_max: usize,
    /// The most chunks that wait to be served to one peer; requests for more are dropped. 64 unless set.
    pub queue_max: usize,
    /// The most bytes of chunks that are read for one peer and not sent yet. 2 MiB unless set.
    pub serving_bytes_max: usize,
    /// The same for all peers together. 16 MiB unless set.
    pub serving_bytes_total_max: usize,
    /// The time to wait for the first chunk of a peer; for later ones it is four times the measured time. A
    /// chunk that was lost with its connection is requested again at once, so that this matters only on links
    /// that lose messages. 30 s unless set.
    pub patience_first: Duration,
    /// The shortest time to wait for a chunk, and the first pause before a peer that lacks a blob is asked
    /// again. 1 s unless set.
    pub patience_min: Duration,
    /// The longest such pause; the pause doubles each time. 60 s unless set.
    pub patience_max: Duration,
}

impl Default for ExchangeOptions {
    fn default() -> ExchangeOptions {
        ExchangeOptions {
            window_max: 8,
            asked_max: 32,
            fetches_max: 64,
            queue_max: 64,
            serving_bytes_max: 2 << 20,
            serving_bytes_total_max: 16 << 20,
            patience_first: Duration::from_secs(30),
            patience_min: Duration::from_secs(1),
            patience_max: Duration::from_secs(60),
        }
    }
}

/// An input of a [`BlobExchange`](super::super::BlobExchange).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ExchangeInput {
    /// A message of a peer.
    Message {
        /// The sender, as the transport has authenticated it.
        from: NodeId,
        /// The message.
        payload: Bytes,
    },
    /// A peer can be reached.
    Up(NodeId),
    /// A peer cannot be reached any more. Messages on the way to or from it may be lost.
    Down(NodeId),
    /// The peers to ask for blobs, once they are up. Others are served, and not asked.
    Sources(BTreeSet<NodeId>),
    /// A request to fetch a blob. Ends with [`ExchangeOutput::Complete`] or [`ExchangeOutput::Failed`].
    Fetch {
        /// The blob.
        id: BlobId,
        /// Its length in bytes, as its reference says.
        len: u64,
        /// The chunks that are held already.
        holding: Option<Holding>,
    },
    /// The end of a request to fetch a blob. The chunks that were kept stay; there is no output.
    Cancel {
        /// The blob.
        id: BlobId,
    },
    /// The answer to [`ExchangeOutput::Begin`].
    Begun {
        /// The blob.
        id: BlobId,
        /// The chunks that are held; `None` if there is no space for the blob.
        chunks: Option<ChunkSet>,
    },
    /// The answer to [`ExchangeOutput::Keep`].
    Kept {
        /// The blob.
        id: BlobId,
        /// The number of the chunk.
        index: u32,
        /// Whether it is held now; otherwise the fetch fails.
        is_kept: bool,
    },
    /// The answer to [`ExchangeOutput::Look`].
    Looked {
        /// The peer that asks.
        to: NodeId,
        /// The blob.
        id: BlobId,
        /// The chunks that are held of it.
        holding: Option<Holding>,
    },
    /// The answer to [`ExchangeOutput::Read`].
    Read {
        /// The ticket of the output.
        ticket: u64,
        /// The chunk, verified; `None` if it is not held.
        piece: Option<Piece>,
    },
    /// The message with this ticket is not held any more: the transport has sent it or dropped it.
    Left {
        /// The ticket of [`ExchangeOutput::Send`].
        ticket: u64,
    },
    /// The time of [`poll_timeout`](super::BlobExchange::poll_timeout) has come.
    Timeout,
}

/// An output of a [`BlobExchange`](super::super::BlobExchange).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ExchangeOutput {
    /// A message is to be sent. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        payload: Vec<u8>,
        /// If there is one, [`ExchangeInput::Left`] is to follow when the message is not held any more.
        ticket: Option<u64>,
    },
    /// Look up what is held of a blob: [`ExchangeInput::Looked`].
    Look {
        /// The peer that asks.
        to: NodeId,
        /// The blob.
        id: BlobId,
    },
    /// A chunk is to be read for a peer: [`ExchangeInput::Read`].
    Read {
        /// To be given back.
        ticket: u64,
        /// The blob.
        id: BlobId,
        /// The number of the chunk.
        index: u32,
    },
    /// Room is to be made for a blob, whose length and root are proved: [`ExchangeInput::Begun`].
    Begin {
        /// The blob.
        id: BlobId,
        /// Its length in bytes.
        len: u64,
        /// The root over its chunks.
        root: [u8; 32],
    },
    /// A chunk is to be kept, which is proved to be the blob's: [`ExchangeInput::Kept`].
    Keep {
        /// The blob.
        id: BlobId,
        /// The number of the chunk.
        index: u32,
        /// The chunk.
        piece: Piece,
    },
    /// Every chunk of a blob is kept.
    Complete {
        /// The blob.
        id: BlobId,
    },
    /// A fetch has ended without the blob. What was kept of it stays.
    Failed {
        /// The blob.
        id: BlobId,
        /// Why.
        failure: FetchFailure,
    },
    /// A peer has served a wrong chunk or description. It is not asked for this blob again in this fetch.
    Misbehaved {
        /// The peer.
        peer: NodeId,
        /// For which blob.
        id: BlobId,
        /// The kind of misbehaviour.
        misbehavior: Misbehavior,
    },
}

/// Why a fetch ended without its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchFailure {
    /// The reference is wrong about the length: the blob of this name is proved to have another.
    Length {
        /// The length that it has, in bytes.
        actual: u64,
    },
    /// There was no room, or the files failed.
    Storage,
    /// Too many are being fetched already.
    TooMany,
}

/// A kind of wrong message of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Misbehavior {
    /// A chunk that is not the blob's, or a path that does not lead to the root.
    Chunk,
    /// A length and root that the blob's name does not follow from.
    Holding,
}

/// Counts of an exchange since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExchangeTotals {
    /// Bytes of messages sent.
    pub sent_bytes: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// Chunks received, proved and handed out to be kept.
    pub received_chunks: u64,
    /// Bytes of these chunks.
    pub received_chunk_bytes: u64,
    /// Chunks sent.
    pub served_chunks: u64,
    /// Bytes of these chunks.
    pub served_chunk_bytes: u64,
    /// Chunks asked for, those asked for again included.
    pub asked_chunks: u64,
    /// Bytes of chunks that were not needed any more, came twice, or found no room.
    pub redundant_bytes: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Messages that were malformed, chunks that were wrong, and wants that found the queue full.
    pub refused: u64,
    /// Peers that were found to serve what is wrong, counted once for each blob.
    pub misbehaving: u64,
}
