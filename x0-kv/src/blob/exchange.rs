//! The exchange of blobs between nodes, as a protocol engine.

mod fetch;
mod io;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

use self::fetch::Fetch;
pub use self::io::{
    ExchangeInput, ExchangeOptions, ExchangeOutput, ExchangeTotals, FetchFailure, Misbehavior,
};
use self::serve::PeerRequests;
use super::BlobId;
use super::message::{self, Message};
use crate::request::codec::DecodeError;

/// Fetches blobs from nodes that hold them, chunk by chunk, and serves the blobs that this node holds.
///
/// The exchange owns no file, socket, clock or thread. Files belong to the driver: the exchange requests that
/// a chunk is read or kept. A chunk of a peer is handed out only after its Merkle path was verified against
/// the id of the blob.
///
/// The fetching node sends all requests and repeats them. The serving node holds nothing for it but a bounded
/// queue of chunks to send.
///
/// # The drain contract
/// 1. Feed [`handle`](Self::handle) with messages, connected and lost peers, results of the files, and
///    [`ExchangeInput::Timeout`] once [`poll_timeout`](Self::poll_timeout) has come.
/// 2. Then carry out the outputs of [`poll_output`](Self::poll_output) until it returns `None`. An output
///    that needs an answer names the input that is the answer, which may follow at once or later, in any
///    order.
///
/// `now` is the time since any origin and never goes back. An error of `handle` concerns one message, which
/// is dropped, and needs no reaction.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_kv::Bytes;
/// use x0_kv::blob::{BlobExchange, BlobStore, BlobStoreOptions, ExchangeOptions, ExchangeInput, ExchangeOutput};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let nodes = [NodeId::new(1).unwrap(), NodeId::new(2).unwrap()];
/// let open = |name| BlobStore::open(folder.path().join(name), BlobStoreOptions::default());
/// let stores = [open("one")?, open("two")?];
/// let mut engines = [1, 2].map(|seed| BlobExchange::new(ExchangeOptions::default(), seed));
/// let blob = stores[0].add(&[7; 600_000][..])?;
///
/// let now = Duration::ZERO;
/// for (engine, peer) in engines.iter_mut().zip([nodes[1], nodes[0]]) {
///     engine.handle(now, ExchangeInput::Sources(nodes.into()))?;
///     engine.handle(now, ExchangeInput::Up(peer))?;
/// }
/// engines[1].handle(now, ExchangeInput::Fetch { id: blob.id, len: blob.len, holding: None })?;
/// let mut is_complete = false;
/// while !is_complete {
///     for at in 0..2 {
///         while let Some(output) = engines[at].poll_output() {
///             let (store, other) = (&stores[at], 1 - at);
///             let answer = match output {
///                 ExchangeOutput::Send { payload, ticket, .. } => {
///                     engines[other].handle(now, ExchangeInput::Message { from: nodes[at], payload: Bytes::from(payload) })?;
///                     let Some(ticket) = ticket else { continue };
///                     ExchangeInput::Left { ticket }
///                 }
///                 ExchangeOutput::Look { to, id } => ExchangeInput::Looked { to, id, holding: store.holding(&id) },
///                 ExchangeOutput::Read { ticket, id, index } => ExchangeInput::Read { ticket, piece: store.read_piece(&id, index).ok() },
///                 ExchangeOutput::Begin { id, len, root } => ExchangeInput::Begun { id, chunks: Some(store.begin(&id, len, &root)?) },
///                 ExchangeOutput::Keep { id, index, piece } => {
///                     store.keep(&id, index, &piece)?;
///                     store.commit(&id)?;
///                     ExchangeInput::Kept { id, index, is_kept: true }
///                 }
///                 ExchangeOutput::Complete { .. } => {
///                     is_complete = true;
///                     continue;
///                 }
///                 other => panic!("{other:?}"),
///             };
///             engines[at].handle(now, answer)?;
///         }
///     }
/// }
/// assert_eq!(stores[1].read(&blob.id)?, [7; 600_000]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlobExchange {
    options: ExchangeOptions,
    random: u64,
    peers: BTreeMap<NodeId, Peer>,
    sources: BTreeSet<NodeId>,
    fetches: BTreeMap<BlobId, Fetch>,
    /// Chunks being read for others, or handed out and not taken by the transport yet.
    flights: BTreeMap<u64, serve::Flight>,
    ticket_next: u64,
    /// The peer that was served last.
    turn: Option<NodeId>,
    outputs: VecDeque<ExchangeOutput>,
    totals: ExchangeTotals,
}

/// A peer that is reached.
#[derive(Debug)]
struct Peer {
    /// The most chunks that are requested of it at once.
    window: u32,
    /// The chunks that are requested of it.
    asked: u32,
    /// The time to wait for an answer.
    patience: Duration,
    /// The peer was late: no request goes to it before this time.
    resume_at: Option<Duration>,
    requests: PeerRequests,
}

impl BlobExchange {
    /// An exchange without peers. `seed` should differ from node to node: nodes that fetch the same blob then
    /// begin at different chunks, and can serve each other.
    #[must_use]
    pub fn new(options: ExchangeOptions, seed: u64) -> BlobExchange {
        BlobExchange {
            options,
            random: seed,
            peers: BTreeMap::new(),
            sources: BTreeSet::new(),
            fetches: BTreeMap::new(),
            flights: BTreeMap::new(),
            ticket_next: 0,
            turn: None,
            outputs: VecDeque::new(),
            totals: ExchangeTotals::default(),
        }
    }

    /// The counts since the start.
    #[must_use]
    pub const fn totals(&self) -> ExchangeTotals {
        self.totals
    }

    /// The blobs that are being fetched.
    pub fn fetching(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.fetches.keys().copied()
    }

    /// The number of chunks that are requested of all peers and not overdue.
    #[must_use]
    pub fn asked_chunks(&self) -> usize {
        self.peers.values().map(|peer| peer.asked as usize).sum()
    }

    /// The bytes of chunks that were handed out to be kept or sent, and whose answer is missing.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let serving: usize = self.flights.values().map(|flight| flight.len).sum();
        let storing: usize = self.fetches.values().map(|fetch| fetch.storing.len() * super::CHUNK_LEN).sum();
        serving + storing
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// The message cannot be decoded. Nothing changed but the count of refused messages.
    pub fn handle(&mut self, now: Duration, input: ExchangeInput) -> Result<(), DecodeError> {
        match input {
            ExchangeInput::Message { from, payload } => {
                self.totals.received_bytes += payload.len() as u64;
                let message = message::decode(&payload).inspect_err(|_| self.totals.refused += 1)?;
                self.message(now, from, message);
            }
            ExchangeInput::Up(peer) => self.up(peer),
            ExchangeInput::Down(peer) => self.down(peer),
            ExchangeInput::Sources(sources) => self.sources = sources,
            ExchangeInput::Fetch { id, len, holding } => self.fetch(id, len, holding),
            ExchangeInput::Cancel { id } => self.cancel(&id),
            ExchangeInput::Begun { id, chunks } => self.begun(id, chunks),
            ExchangeInput::Kept { id, index, is_kept } => self.kept(id, index, is_kept),
            ExchangeInput::Looked { to, id, holding } => self.looked(to, id, holding),
            ExchangeInput::Read { ticket, piece } => self.was_read(ticket, piece),
            ExchangeInput::Left { ticket } => self.left(ticket),
            ExchangeInput::Timeout => {}
        }
        self.serve();
        self.expire(now);
        self.ask(now);
        Ok(())
    }

    /// The next output, or `None` when the exchange waits for inputs or the time.
    pub fn poll_output(&mut self) -> Option<ExchangeOutput> {
        self.outputs.pop_front()
    }

    /// When [`ExchangeInput::Timeout`] is due, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.fetches.values().filter_map(|fetch| self.due(fetch)).min()
    }

    fn message(&mut self, now: Duration, from: NodeId, message: Message) {
        // A peer that sends a message is reached, whatever the events said.
        self.up(from);
        match message {
            Message::Want { id, stamp, ranges } => self.wanted(from, id, stamp, &ranges),
            Message::Have { id, holding } => self.has(now, from, id, holding),
            Message::Gone { id } => self.gone(now, from, id),
            Message::Chunk { id, stamp, index, piece } => self.chunk(now, from, id, (stamp, index), piece),
        }
    }

    fn up(&mut self, peer: NodeId) {
        let patience = self.options.patience_first;
        self.peers.entry(peer).or_insert_with(|| Peer {
            window: 1,
            asked: 0,
            patience,
            resume_at: None,
            requests: PeerRequests::default(),
        });
    }

    fn down(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.flights.retain(|_, flight| flight.to != peer);
        for fetch in self.fetches.values_mut() {
            fetch.requests.retain(|_, request| request.peer != peer);
            // A reconnect does not clear the record of wrong chunks: a peer could serve more of them.
            if let Some(source) = fetch.sources.get_mut(&peer) {
                (source.chunks, source.ask_at) = (None, Duration::ZERO);
            }
        }
    }

    fn send(&mut self, to: NodeId, message: &Message, ticket: Option<u64>) {
        let payload = message::encode(message);
        self.totals.sent_bytes += payload.len() as u64;
        self.outputs.push_back(ExchangeOutput::Send { to, payload, ticket });
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
