//! Fetching: which peers to ask for which chunks, and how answers are verified.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use x0_identity::NodeId;

use super::{BlobExchange, ExchangeOutput, FetchFailure, Misbehavior};
use crate::blob::message::{Message, RANGES_MAX};
use crate::blob::{BlobId, ChunkSet, Holding, Piece, merkle};

/// The longest time that is waited for a chunk: as long as one takes at 218 bytes a second.
const CHUNK_PATIENCE_MAX: Duration = Duration::from_secs(1200);

/// A blob that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    len: u64,
    /// The chunks that are held, and the root, once they are known and there is space.
    held: Option<(ChunkSet, [u8; 32])>,
    /// The driver makes room.
    is_beginning: bool,
    /// Handed out to be kept.
    pub(super) storing: BTreeSet<u32>,
    pub(super) requests: BTreeMap<u32, Request>,
    pub(super) sources: BTreeMap<NodeId, Source>,
    /// The first chunk to look at; those before it, as far as where the fetch began, are held.
    cursor: u32,
}

/// A chunk that was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) peer: NodeId,
    due: Duration,
    /// The chunk may still come, but another peer may be asked for it.
    is_overdue: bool,
}

/// The state of a peer as a source of one blob.
#[derive(Debug)]
pub(super) struct Source {
    /// The peer served a wrong chunk.
    pub(super) is_misbehaving: bool,
    /// The chunks that the peer has reported to hold.
    pub(super) chunks: Option<ChunkSet>,
    /// When it is asked (again), unless it holds all.
    pub(super) ask_at: Duration,
    /// How long after that it is asked again; grows while nothing new comes.
    pub(super) pause: Duration,
}

impl BlobExchange {
    pub(super) fn fetch(&mut self, id: BlobId, len: u64, holding: Option<Holding>) {
        if self.fetches.contains_key(&id) {
            return;
        }
        let holding = holding.filter(|holding| BlobId::new(holding.len, &holding.root) == id);
        let failure = match &holding {
            _ if self.fetches.len() >= self.options.fetches_max => Some(FetchFailure::TooMany),
            Some(holding) if holding.len != len => Some(FetchFailure::Length { actual: holding.len }),
            _ => None,
        };
        if let Some(failure) = failure {
            self.outputs.push_back(ExchangeOutput::Failed { id, failure });
            return;
        }
        let count = merkle::chunk_count(len);
        let cursor = u32::try_from(self.random() % u64::from(count.max(1))).unwrap_or(0);
        let held = holding.map(|holding| (holding.chunks, holding.root));
        self.fetches.insert(
            id,
            Fetch {
                len,
                held,
                is_beginning: false,
                storing: BTreeSet::new(),
                requests: BTreeMap::new(),
                sources: BTreeMap::new(),
                cursor,
            },
        );
        self.complete(id);
    }

    pub(super) fn cancel(&mut self, id: &BlobId) {
        if let Some(fetch) = self.fetches.remove(id) {
            self.release(&fetch);
        }
    }

    /// Nothing is waited for any more.
    fn release(&mut self, fetch: &Fetch) {
        for request in fetch.requests.values().filter(|request| !request.is_overdue) {
            if let Some(peer) = self.peers.get_mut(&request.peer) {
                peer.asked = peer.asked.saturating_sub(1);
            }
        }
    }

    fn fail(&mut self, id: BlobId, failure: FetchFailure) {
        self.cancel(&id);
        self.outputs.push_back(ExchangeOutput::Failed { id, failure });
    }

    /// Ends the fetch if all is held.
    fn complete(&mut self, id: BlobId) {
        let is_whole = self
            .fetches
            .get(&id)
            .is_some_and(|fetch| fetch.held.as_ref().is_some_and(|(held, _)| held.is_whole()));
        if is_whole {
            self.cancel(&id);
            self.outputs.push_back(ExchangeOutput::Complete { id });
        }
    }

    pub(super) fn begun(&mut self, id: BlobId, chunks: Option<ChunkSet>) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.is_beginning = false;
        match (chunks, &mut fetch.held) {
            (Some(chunks), Some((held, _))) => *held = chunks,
            _ => return self.fail(id, FetchFailure::Storage),
        }
        self.complete(id);
    }

    pub(super) fn kept(&mut self, id: BlobId, index: u32, is_kept: bool) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if !fetch.storing.remove(&index) {
            return;
        }
        if !is_kept {
            return self.fail(id, FetchFailure::Storage);
        }
        if let Some((held, _)) = &mut fetch.held {
            held.insert(index);
        }
        self.complete(id);
    }

    pub(super) fn gone(&mut self, now: Duration, from: NodeId, id: BlobId) {
        let Some(source) = self.fetches.get_mut(&id).and_then(|fetch| fetch.sources.get_mut(&from)) else {
            return;
        };
        source.chunks = None;
        source.ask_at = now + source.pause;
        self.forget(from, id, |_| true);
    }

    pub(super) fn has(&mut self, now: Duration, from: NodeId, id: BlobId, holding: Holding) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        // Only peers that were asked are taken into account, so that their number bounds the state of
        // sources.
        let Some(source) = fetch.sources.get_mut(&from).filter(|source| !source.is_misbehaving) else {
            return;
        };
        if BlobId::new(holding.len, &holding.root) != id {
            return self.misbehaved(from, id, Misbehavior::Holding);
        }
        if holding.len != fetch.len {
            // The name proves it: not the peer is wrong, the reference is.
            return self.fail(id, FetchFailure::Length { actual: holding.len });
        }
        if source.chunks.as_ref().is_none_or(|chunks| chunks.held() < holding.chunks.held()) {
            source.pause = self.options.patience_min;
        }
        let chunks = holding.chunks.clone();
        source.chunks = Some(holding.chunks);
        source.ask_at = now + source.pause;
        if fetch.held.is_none() {
            fetch.held = Some((ChunkSet::none(merkle::chunk_count(fetch.len)), holding.root));
            fetch.is_beginning = true;
            self.outputs.push_back(ExchangeOutput::Begin { id, len: holding.len, root: holding.root });
        }
        self.forget(from, id, |index| !chunks.contains(index));
    }

    /// These chunks do not come from this peer.
    fn forget(&mut self, peer: NodeId, id: BlobId, is_over: impl Fn(u32) -> bool) {
        let (Some(fetch), Some(asked)) = (self.fetches.get_mut(&id), self.peers.get_mut(&peer)) else {
            return;
        };
        fetch.requests.retain(|index, request| {
            let is_over = request.peer == peer && is_over(*index);
            if is_over && !request.is_overdue {
                asked.asked = asked.asked.saturating_sub(1);
            }
            !is_over
        });
    }

    pub(super) fn chunk(
        &mut self,
        now: Duration,
        from: NodeId,
        id: BlobId,
        (stamp, index): (u64, u32),
        piece: Piece,
    ) {
        let len = piece.bytes.len() as u64;
        let asked_max = self.options.asked_max;
        let storing: usize = self.fetches.values().map(|fetch| fetch.storing.len()).sum();
        let Some(fetch) = self.fetches.get_mut(&id) else {
            self.totals.redundant_bytes += len;
            return;
        };
        let is_misbehaving = fetch.sources.get(&from).is_none_or(|source| source.is_misbehaving);
        let Some((held, root)) = fetch.held.as_ref().filter(|_| !fetch.is_beginning) else {
            self.totals.redundant_bytes += len;
            return;
        };
        // A late chunk is as good as any other, if there is room for chunks without a request.
        let is_wanted = !held.contains(index) && !fetch.storing.contains(&index) && storing < 2 * asked_max;
        if is_misbehaving || !is_wanted {
            self.totals.redundant_bytes += len;
            return;
        }
        if !piece.is_right(fetch.len, root, index) {
            self.totals.refused += 1;
            return self.misbehaved(from, id, Misbehavior::Chunk);
        }
        if let Some(request) = fetch.requests.remove(&index)
            && let Some(peer) = self.peers.get_mut(&request.peer)
        {
            if !request.is_overdue {
                peer.asked = peer.asked.saturating_sub(1);
            }
            if request.peer == from {
                // The stamp says which want it answers, if there were several. Down in steps: one that found
                // the way free says little of eight that wait for each other.
                let took = Duration::from_millis(millis(now).saturating_sub(stamp));
                let patience = took.saturating_mul(4).max(peer.patience / 4);
                peer.patience = patience.clamp(self.options.patience_min, CHUNK_PATIENCE_MAX);
                peer.resume_at = None;
                if !request.is_overdue {
                    peer.window = (peer.window + 1).min(self.options.window_max);
                }
            }
        }
        fetch.storing.insert(index);
        self.totals.received_chunks += 1;
        self.totals.received_chunk_bytes += len;
        self.outputs.push_back(ExchangeOutput::Keep { id, index, piece });
    }

    /// The peer is not asked for this blob again.
    fn misbehaved(&mut self, peer: NodeId, id: BlobId, misbehavior: Misbehavior) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if let Some(source) = fetch.sources.get_mut(&peer) {
            (source.is_misbehaving, source.chunks) = (true, None);
        }
        self.forget(peer, id, |_| true);
        self.totals.misbehaving += 1;
        self.outputs.push_back(ExchangeOutput::Misbehaved { peer, id, misbehavior });
    }

    /// When something of this fetch is due.
    pub(super) fn due(&self, fetch: &Fetch) -> Option<Duration> {
        let requests =
            fetch.requests.values().filter(|request| !request.is_overdue).map(|request| request.due);
        let sources = fetch.sources.iter().filter(|(peer, _)| self.may_ask(peer));
        let asked =
            sources.clone().filter(|(_, source)| source.is_to_be_asked()).map(|(_, source)| source.ask_at);
        let resumed = sources.filter_map(|(peer, source)| {
            source.chunks.as_ref()?;
            self.peers.get(peer)?.resume_at
        });
        requests.chain(asked).chain(resumed).min()
    }

    fn may_ask(&self, peer: &NodeId) -> bool {
        self.sources.contains(peer) && self.peers.contains_key(peer)
    }

    /// Gives up waiting for what is overdue, and asks who is to be asked what there is.
    pub(super) fn expire(&mut self, now: Duration) {
        for peer in self.peers.values_mut() {
            peer.resume_at = peer.resume_at.filter(|resume_at| *resume_at > now);
        }
        let mut late = BTreeSet::new();
        for fetch in self.fetches.values_mut() {
            for request in fetch.requests.values_mut() {
                if !request.is_overdue && request.due <= now {
                    request.is_overdue = true;
                    self.totals.timeouts += 1;
                    late.insert(request.peer);
                    if let Some(peer) = self.peers.get_mut(&request.peer) {
                        peer.asked = peer.asked.saturating_sub(1);
                    }
                }
            }
        }
        for late in late {
            // Up to a quarter more, so that those who failed together do not come back together.
            let spread = self.random() % 256;
            if let Some(peer) = self.peers.get_mut(&late) {
                peer.window = (peer.window / 2).max(1);
                peer.patience = (peer.patience * 2).min(CHUNK_PATIENCE_MAX);
                let spread = u32::try_from(spread).unwrap_or(0);
                peer.resume_at = Some(now + peer.patience + peer.patience * spread / 1024);
            }
        }
        let reached: Vec<NodeId> = self.peers.keys().filter(|peer| self.may_ask(peer)).copied().collect();
        let (pause_min, pause_max) = (self.options.patience_min, self.options.patience_max);
        let mut asked = Vec::new();
        for (id, fetch) in &mut self.fetches {
            for peer in &reached {
                let source = fetch.sources.entry(*peer).or_insert_with(|| Source::new(pause_min));
                if source.is_to_be_asked() && source.ask_at <= now {
                    source.ask_at = now + source.pause;
                    source.pause = (source.pause * 2).min(pause_max);
                    asked.push((*peer, *id));
                }
            }
        }
        for (peer, id) in asked {
            self.send(peer, &Message::Want { id, stamp: 0, ranges: Vec::new() }, None);
        }
    }

    /// Asks for chunks, as many as may be under way: peer after peer, so that they share the work.
    pub(super) fn ask(&mut self, now: Duration) {
        let storing: usize = self.fetches.values().map(|fetch| fetch.storing.len()).sum();
        let mut room = self.options.asked_max.saturating_sub(self.asked_chunks() + storing);
        let mut wants = Vec::new();
        for (id, fetch) in &mut self.fetches {
            let mut found: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
            let mut is_more = true;
            while is_more {
                is_more = false;
                for (peer_id, peer) in &mut self.peers {
                    let may = self.sources.contains(peer_id)
                        && peer.resume_at.is_none()
                        && peer.asked < self.options.window_max.min(peer.window);
                    if !may || room == 0 {
                        continue;
                    }
                    let Some(index) = fetch.next_chunk(peer_id) else { continue };
                    let due = now + peer.patience;
                    let request = Request { peer: *peer_id, due, is_overdue: false };
                    fetch.requests.insert(index, request);
                    found.entry(*peer_id).or_default().push(index);
                    peer.asked += 1;
                    room -= 1;
                    self.totals.asked_chunks += 1;
                    is_more = true;
                }
            }
            wants.extend(found.into_iter().map(|(peer, indexes)| (peer, *id, indexes)));
        }
        for (peer, id, mut indexes) in wants {
            indexes.sort_unstable();
            for ranges in ranges(&indexes).chunks(RANGES_MAX) {
                self.send(peer, &Message::Want { id, stamp: millis(now), ranges: ranges.to_vec() }, None);
            }
        }
    }
}

impl Source {
    fn new(pause: Duration) -> Source {
        Source { is_misbehaving: false, chunks: None, ask_at: Duration::ZERO, pause }
    }

    /// Whether it may hold more than it said.
    fn is_to_be_asked(&self) -> bool {
        !self.is_misbehaving && !self.chunks.as_ref().is_some_and(ChunkSet::is_whole)
    }
}

impl Fetch {
    /// The next chunk to ask this peer for, if there is one.
    fn next_chunk(&mut self, peer: &NodeId) -> Option<u32> {
        let (held, _) = self.held.as_ref().filter(|_| !self.is_beginning)?;
        let offered = self.sources.get(peer).filter(|source| !source.is_misbehaving)?.chunks.as_ref()?;
        let count = held.count();
        let passed = (0..count).take_while(|offset| held.contains((self.cursor + offset) % count)).count();
        self.cursor = (self.cursor + u32::try_from(passed).unwrap_or(0)) % count.max(1);
        (0..count).map(|offset| (self.cursor + offset) % count).find(|index| {
            !held.contains(*index)
                && offered.contains(*index)
                && !self.storing.contains(index)
                && self.requests.get(index).is_none_or(|request| request.is_overdue)
        })
    }
}

/// Stamps count milliseconds.
fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The runs of neighbours in a sorted list.
fn ranges(indexes: &[u32]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some(last) if last.end == *index => last.end += 1,
            _ => ranges.push(*index..index + 1),
        }
    }
    ranges
}
