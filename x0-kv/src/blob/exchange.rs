//! The exchange of blobs, as an engine.

mod fetch;
mod io;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

use self::fetch::Fetch;
pub use self::io::{ExchangeOptions, ExchangeTotals, FetchFailure, Input, Misbehavior, Output};
use self::serve::Customer;
use super::BlobId;
use super::message::{self, Message};
use crate::request::codec::DecodeError;

/// Brings blobs from nodes that hold them, chunk by chunk, and serves those that are held here.
///
/// It owns no file, socket, clock or thread. Files are the driver's: the exchange says which chunk is to be
/// read or kept, and what comes from a peer is only handed out to be kept when it was proved to be what the
/// blob's name says.
///
/// The fetching peer does all the asking and repeating. The serving peer holds nothing for it but a bounded
/// queue of chunks to send.
///
/// # How to drive it
/// 1. [`handle`](Self::handle) what happens: messages, peers that come and go, what the files answered, the
///    time of [`poll_timeout`](Self::poll_timeout);
/// 2. then carry out what [`poll_output`](Self::poll_output) gives until it gives none. Outputs that ask for
///    an answer name the input that is the answer; it may come at once or later, and in any order.
///
/// The times are since any origin and never go back. An error of `handle` concerns one message and needs no
/// answer.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_kv::Bytes;
/// use x0_kv::blob::{BlobExchange, BlobStore, BlobStoreOptions, ExchangeOptions, Input, Output};
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
///     engine.handle(now, Input::Sources(nodes.into()))?;
///     engine.handle(now, Input::Up(peer))?;
/// }
/// engines[1].handle(now, Input::Fetch { id: blob.id, len: blob.len, holding: None })?;
/// let mut is_complete = false;
/// while !is_complete {
///     for at in 0..2 {
///         while let Some(output) = engines[at].poll_output() {
///             let (store, other) = (&stores[at], 1 - at);
///             let answer = match output {
///                 Output::Send { payload, ticket, .. } => {
///                     engines[other].handle(now, Input::Message { from: nodes[at], payload: Bytes::from(payload) })?;
///                     let Some(ticket) = ticket else { continue };
///                     Input::Left { ticket }
///                 }
///                 Output::Look { to, id } => Input::Looked { to, id, holding: store.holding(&id) },
///                 Output::Read { ticket, id, index } => Input::Read { ticket, piece: store.read_piece(&id, index).ok() },
///                 Output::Begin { id, len, root } => Input::Begun { id, chunks: Some(store.begin(&id, len, &root)?) },
///                 Output::Keep { id, index, piece } => {
///                     store.keep(&id, index, &piece)?;
///                     store.commit(&id)?;
///                     Input::Kept { id, index, is_kept: true }
///                 }
///                 Output::Complete { .. } => {
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
    outputs: VecDeque<Output>,
    totals: ExchangeTotals,
}

/// A peer that is reached.
#[derive(Debug)]
struct Peer {
    /// How many chunks may be asked of it at once.
    window: u32,
    /// How many are.
    asked: u32,
    /// How long an answer is waited for.
    patience: Duration,
    /// It is not asked before: it was late.
    resume_at: Option<Duration>,
    customer: Customer,
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

    /// What was done so far.
    #[must_use]
    pub const fn totals(&self) -> ExchangeTotals {
        self.totals
    }

    /// The blobs that are being fetched.
    pub fn fetching(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.fetches.keys().copied()
    }

    /// How many chunks are asked of all peers and may still come in time.
    #[must_use]
    pub fn asked_chunks(&self) -> usize {
        self.peers.values().map(|peer| peer.asked as usize).sum()
    }

    /// Bytes of chunks that are handed out to be kept, or to be sent, and not done with.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let serving: usize = self.flights.values().map(|flight| flight.len).sum();
        let storing: usize = self.fetches.values().map(|fetch| fetch.storing.len() * super::CHUNK_LEN).sum();
        serving + storing
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// The message could not be read. Nothing changed but the count of refused ones.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), DecodeError> {
        match input {
            Input::Message { from, payload } => {
                self.totals.received_bytes += payload.len() as u64;
                let message = message::decode(&payload).inspect_err(|_| self.totals.refused += 1)?;
                self.message(now, from, message);
            }
            Input::Up(peer) => self.up(peer),
            Input::Down(peer) => self.down(peer),
            Input::Sources(sources) => self.sources = sources,
            Input::Fetch { id, len, holding } => self.fetch(id, len, holding),
            Input::Cancel { id } => self.cancel(&id),
            Input::Begun { id, chunks } => self.begun(id, chunks),
            Input::Kept { id, index, is_kept } => self.kept(id, index, is_kept),
            Input::Looked { to, id, holding } => self.looked(to, id, holding),
            Input::Read { ticket, piece } => self.was_read(ticket, piece),
            Input::Left { ticket } => self.left(ticket),
            Input::Timeout => {}
        }
        self.serve();
        self.expire(now);
        self.ask(now);
        Ok(())
    }

    /// What to do next, if anything.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, if ever.
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
            customer: Customer::default(),
        });
    }

    fn down(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.flights.retain(|_, flight| flight.to != peer);
        for fetch in self.fetches.values_mut() {
            fetch.requests.retain(|_, request| request.peer != peer);
            // What it served wrongly is not forgotten because it went away.
            if let Some(source) = fetch.sources.get_mut(&peer) {
                (source.chunks, source.ask_at) = (None, Duration::ZERO);
            }
        }
    }

    fn send(&mut self, to: NodeId, message: &Message, ticket: Option<u64>) {
        let payload = message::encode(message);
        self.totals.sent_bytes += payload.len() as u64;
        self.outputs.push_back(Output::Send { to, payload, ticket });
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
