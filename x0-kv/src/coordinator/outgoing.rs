//! Frames that gather until the next drain, by peer.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use x0_identity::NodeId;

use crate::coordinator::protocol::{self, Body, Header};
use crate::trace::Context;

/// Most bytes that gather for one peer between two drains, but for the last frame.
const GATHERED_LEN_MAX: usize = 16 << 20;
/// Frames of at most this length are always taken: a request is never left without any answer.
const SMALL_LEN: usize = 64;
/// How many peers keep their buffer while there is nothing to do for them.
const IDLE_PEERS_MAX: usize = 64;

/// The frames that wait to be sent, and the count of requests of each peer that are being carried out here.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The number of this coordinator's start.
    local: u64,
    peers: BTreeMap<NodeId, Peer>,
    /// Peers with something to send, in the order in which they got it.
    ready: VecDeque<NodeId>,
}

#[derive(Debug, Default)]
struct Peer {
    open: BytesMut,
    closed: VecDeque<Bytes>,
    gathered_len: usize,
    requests: usize,
    /// A report of the leader may be due at any time, and needs the number below.
    is_watcher: bool,
    /// The number of the start of the peer's coordinator in its last message; 0 before the first.
    instance: u64,
}

impl Outgoing {
    pub(super) fn new(local: u64) -> Outgoing {
        Outgoing { local, peers: BTreeMap::new(), ready: VecDeque::new() }
    }

    /// A message of this peer has come, from the coordinator of this start.
    pub(super) fn received_from(&mut self, from: NodeId, instance: u64) {
        let peer = self.peers.entry(from).or_default();
        if peer.instance != instance {
            // A message is for one coordinator.
            if !peer.open.is_empty() {
                peer.closed.push_back(peer.open.split().freeze());
            }
            peer.instance = instance;
        }
    }

    /// The start of this peer's coordinator is remembered until the peer is [`down`](Outgoing::down).
    pub(super) fn watch(&mut self, peer: NodeId) {
        self.peers.entry(peer).or_default().is_watcher = true;
    }

    /// The connection to this peer is lost.
    pub(super) fn down(&mut self, peer: NodeId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.is_watcher = false;
        // Clients of one command would stay, and push out the peers that are connected.
        if state.requests == 0 && state.gathered_len == 0 && state.closed.is_empty() {
            self.peers.remove(&peer);
        }
    }

    /// The number of the start of this peer's coordinator; 0 before its first message.
    pub(super) fn instance(&self, of: NodeId) -> u64 {
        self.peers.get(&of).map_or(0, |peer| peer.instance)
    }

    /// Adds a frame for `to`. Answers `false`, and adds nothing, when too much has gathered for it already.
    pub(super) fn put(&mut self, to: NodeId, batch_len: usize, request: u64, body: &Body) -> bool {
        self.put_traced(to, batch_len, request, body, None)
    }

    /// As [`put`](Outgoing::put), with the trace that the request belongs to.
    pub(super) fn put_traced(
        &mut self,
        to: NodeId,
        batch_len: usize,
        request: u64,
        body: &Body,
        trace: Option<&Context>,
    ) -> bool {
        let peer = self.peers.entry(to).or_default();
        if peer.gathered_len > GATHERED_LEN_MAX && body.len_max() > SMALL_LEN {
            return false;
        }
        if peer.gathered_len == 0 {
            self.ready.push_back(to);
        }
        let len_max = body.len_max() + trace.map_or(0, |_| protocol::CONTEXT_LEN);
        if !peer.open.is_empty() && peer.open.len() + len_max > batch_len {
            peer.closed.push_back(peer.open.split().freeze());
        }
        let before = peer.open.len();
        let header = Header { from: self.local, to: peer.instance };
        protocol::put_traced(&mut peer.open, header, request, body, trace);
        peer.gathered_len += peer.open.len() - before;
        true
    }

    /// The next message to send.
    pub(super) fn take(&mut self) -> Option<(NodeId, Bytes)> {
        let to = *self.ready.front()?;
        let idle_max = self.peers.len() <= IDLE_PEERS_MAX;
        let peer = self.peers.get_mut(&to)?;
        if let Some(closed) = peer.closed.pop_front() {
            return Some((to, closed));
        }
        let message = peer.open.split().freeze();
        peer.gathered_len = 0;
        if message.is_empty() {
            self.ready.pop_front();
            return self.take();
        }
        if peer.requests == 0 && !peer.is_watcher && !idle_max {
            self.peers.remove(&to);
        }
        self.ready.pop_front();
        Some((to, message))
    }

    /// How many requests of this peer are under way here.
    pub(super) fn requests(&self, from: NodeId) -> usize {
        self.peers.get(&from).map_or(0, |peer| peer.requests)
    }

    pub(super) fn begin_request(&mut self, from: NodeId) {
        self.peers.entry(from).or_default().requests += 1;
    }

    pub(super) fn end_request(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.requests = peer.requests.saturating_sub(1);
        }
    }
}
