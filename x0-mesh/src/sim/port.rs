//! Messages and events that a node has not taken yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::task::Waker;

use x0_identity::NodeId;

use crate::{Lane, PeerEvent, PeerEventKind, Received};

/// One node's side of the mesh.
#[derive(Debug, Default)]
pub(super) struct Port {
    /// The number of the transport to which it belongs, among those that the node ever had.
    pub(super) life: u64,
    peers: BTreeMap<NodeId, VecDeque<Epoch>>,
    /// The peer and lane of the last turn.
    last: Option<(NodeId, Lane)>,
    /// Lanes with messages that may be received: those of the first epoch of a peer, once its `Up` is taken.
    turns: BTreeSet<(NodeId, Lane)>,
    /// Events that were not taken: most calls find none, and need not look at every peer.
    events: usize,
    pub(super) receiver: Option<Waker>,
    pub(super) watcher: Option<Waker>,
    pub(super) senders: BTreeMap<(NodeId, Lane), Waker>,
}

/// One epoch of a peer: its events and messages, in the order in which they are taken.
#[derive(Debug, Default)]
struct Epoch {
    up: Option<PeerEventKind>,
    number: u64,
    /// `Degraded`, or `Up` after it.
    change: Option<PeerEventKind>,
    /// Whether the last one of them was `Degraded`.
    is_degraded: bool,
    lanes: BTreeMap<Lane, VecDeque<Vec<u8>>>,
    down: Option<PeerEventKind>,
}

impl Epoch {
    /// Adds a change, which ends the last one if that was not taken: then nothing has changed for the owner.
    /// Returns how many events wait after it, of so many before.
    fn changed(&mut self, kind: PeerEventKind, events: usize) -> usize {
        if self.change.take().is_some() {
            return events - 1;
        }
        self.change = Some(kind);
        events + 1
    }

    fn has_messages(&self) -> bool {
        self.lanes.values().any(|lane| !lane.is_empty())
    }
}

impl Port {
    pub(super) fn new(life: u64) -> Port {
        Port { life, ..Port::default() }
    }

    pub(super) fn push_event(&mut self, event: PeerEvent) {
        let epochs = self.peers.entry(event.peer).or_default();
        match event.kind {
            kind @ PeerEventKind::Down { .. } => {
                if let Some(epoch) = epochs.back_mut() {
                    self.events += usize::from(epoch.down.replace(kind).is_none());
                }
            }
            PeerEventKind::Degraded => {
                // An epoch whose `Up` still waits is not reported as degraded.
                if let Some(epoch) = epochs.back_mut().filter(|epoch| epoch.up.is_none()) {
                    epoch.is_degraded = true;
                    self.events = epoch.changed(PeerEventKind::Degraded, self.events);
                }
            }
            PeerEventKind::Up { epoch: number } => {
                if let Some(epoch) = epochs.back_mut().filter(|epoch| epoch.number == number) {
                    if std::mem::take(&mut epoch.is_degraded) {
                        self.events = epoch.changed(event.kind, self.events);
                    }
                    return;
                }
                self.events += 1;
                epochs.push_back(Epoch { up: Some(event.kind), number, ..Epoch::default() });
            }
        }
    }

    pub(super) fn push_message(&mut self, from: NodeId, lane: Lane, payload: Vec<u8>) {
        let Some(epochs) = self.peers.get_mut(&from) else { return };
        let is_first = epochs.len() == 1;
        let Some(epoch) = epochs.back_mut() else { return };
        epoch.lanes.entry(lane).or_default().push_back(payload);
        if is_first && epoch.up.is_none() {
            self.turns.insert((from, lane));
        }
    }

    pub(super) fn pop_event(&mut self) -> Option<PeerEvent> {
        if self.events == 0 {
            return None;
        }
        for (peer, epochs) in &mut self.peers {
            let Some(epoch) = epochs.front_mut() else { continue };
            if let Some(kind) = epoch.up.take() {
                self.events -= 1;
                let lanes = epoch.lanes.iter().filter(|(_, queue)| !queue.is_empty());
                self.turns.extend(lanes.map(|(lane, _)| (*peer, *lane)));
                return Some(PeerEvent { peer: *peer, kind });
            }
            if let Some(kind) = epoch.change.take() {
                self.events -= 1;
                return Some(PeerEvent { peer: *peer, kind });
            }
            if !epoch.has_messages()
                && let Some(kind) = epoch.down.take()
            {
                // The `Up` of the next epoch is not taken, so that none of its lanes has a turn yet.
                epochs.pop_front();
                self.events -= 1;
                return Some(PeerEvent { peer: *peer, kind });
            }
        }
        None
    }

    /// Peers and lanes take turns.
    pub(super) fn pop_message(&mut self) -> Option<(Received, Vec<u8>)> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.turns.range((after, Bound::Unbounded)).next().or_else(|| self.turns.first());
        let (from, lane) = *next?;
        self.last = Some((from, lane));
        let queue = self.peers.get_mut(&from)?.front_mut()?.lanes.get_mut(&lane)?;
        let payload = queue.pop_front()?;
        if queue.is_empty() {
            self.turns.remove(&(from, lane));
        }
        Some((Received { from, lane }, payload))
    }
}
