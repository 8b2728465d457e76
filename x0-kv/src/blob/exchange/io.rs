//! What goes into an exchange and what comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::blob::{BlobId, ChunkSet, Holding, Piece};

/// What an exchange may spend, and how patient it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeOptions {
    /// Most chunks that are asked of one peer at once. It begins with 1, and adds one for each that comes in
    /// time. 8 unless set.
    pub window_max: u32,
    /// Most chunks that are asked of all peers at once, or are about to be kept: with the length of a chunk,
    /// what a fetch may hold in memory. 32 unless set.
    pub asked_max: usize,
    /// Most blobs that are fetched at once. 64 unless set.
    pub fetches_max: usize,
    /// Most chunks that wait to be served to one peer; more that it wants are not heard. 64 unless set.
    pub queue_max: usize,
    /// Most bytes that are read for one peer and not on their way yet. 2 MiB unless set.
    pub serving_bytes_max: usize,
    /// The same for all peers together. 16 MiB unless set.
    pub serving_bytes_total_max: usize,
    /// How long the first chunk of a peer is waited for; later ones four times as long as was measured. What
    /// is lost with a connection is not waited for at all, so that this is for links that lose by themselves.
    /// 30 s unless set.
    pub patience_first: Duration,
    /// How long a chunk is waited for at least, and after how long a peer that lacks a blob is asked again at
    /// first. 1 s unless set.
    pub patience_min: Duration,
    /// After how long it is asked again at most; the time doubles. 60 s unless set.
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

/// What happens to an exchange.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// A message of a peer.
    Message {
        /// Whose, as the transport has verified.
        from: NodeId,
        /// The message.
        payload: Bytes,
    },
    /// A peer can be reached.
    Up(NodeId),
    /// A peer cannot be reached any more. What was on its way to or from it may be lost.
    Down(NodeId),
    /// The peers to ask for blobs, once they are up. Others are served, and not asked.
    Sources(BTreeSet<NodeId>),
    /// A blob is to be fetched. Ends with [`Output::Complete`] or [`Output::Failed`].
    Fetch {
        /// Which.
        id: BlobId,
        /// Its length in bytes, as its reference says.
        len: u64,
        /// What is held of it already.
        holding: Option<Holding>,
    },
    /// A blob is not to be fetched any more. What was kept of it stays; nothing is answered.
    Cancel {
        /// Which.
        id: BlobId,
    },
    /// The answer to [`Output::Begin`].
    Begun {
        /// Which blob.
        id: BlobId,
        /// What is held of it; `None` if there can be no room for it.
        chunks: Option<ChunkSet>,
    },
    /// The answer to [`Output::Keep`].
    Kept {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// Whether it is held now; otherwise the fetch fails.
        is_kept: bool,
    },
    /// The answer to [`Output::Look`].
    Looked {
        /// Who wants to know.
        to: NodeId,
        /// Which blob.
        id: BlobId,
        /// What is held of it.
        holding: Option<Holding>,
    },
    /// The answer to [`Output::Read`].
    Read {
        /// That of the output.
        ticket: u64,
        /// The chunk, verified; `None` if it is not held.
        piece: Option<Piece>,
    },
    /// What had this ticket has left: the transport has taken it, or lost it.
    Left {
        /// That of [`Output::Send`].
        ticket: u64,
    },
    /// The time of [`poll_timeout`](super::BlobExchange::poll_timeout) has come.
    Timeout,
}

/// What an exchange wants done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// A message is to be sent. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        payload: Vec<u8>,
        /// If there is one, [`Input::Left`] is to follow when the message is not held any more.
        ticket: Option<u64>,
    },
    /// Look up what is held of a blob: [`Input::Looked`].
    Look {
        /// Who wants to know.
        to: NodeId,
        /// Which blob.
        id: BlobId,
    },
    /// A chunk is to be read for a peer: [`Input::Read`].
    Read {
        /// To be given back.
        ticket: u64,
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
    },
    /// Room is to be made for a blob, whose length and root are proved: [`Input::Begun`].
    Begin {
        /// Which blob.
        id: BlobId,
        /// Its length in bytes.
        len: u64,
        /// The root over its chunks.
        root: [u8; 32],
    },
    /// A chunk is to be kept, which is proved to be the blob's: [`Input::Kept`].
    Keep {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
        /// The chunk.
        piece: Piece,
    },
    /// Every chunk of a blob is kept.
    Complete {
        /// Which blob.
        id: BlobId,
    },
    /// A fetch has ended without the blob. What was kept of it stays.
    Failed {
        /// Which blob.
        id: BlobId,
        /// Why.
        failure: FetchFailure,
    },
    /// A peer has served a wrong chunk or description. It is not asked for this blob again in this fetch.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// For which blob.
        id: BlobId,
        /// What it did.
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

/// What a peer served wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Misbehavior {
    /// A chunk that is not the blob's, or a path that does not lead to the root.
    Chunk,
    /// A length and root that the blob's name does not follow from.
    Holding,
}

/// What an exchange has done so far.
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
    /// Chunks that nobody waited for any more, or came twice, or found no room: bytes for nothing.
    pub redundant_bytes: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Messages that were malformed, chunks that were wrong, and wants that found the queue full.
    pub refused: u64,
    /// Peers that were found to serve what is wrong, counted once for each blob.
    pub misbehaving: u64,
}
