//! The protocol engine of a CRDT keyspace on one node: its clock, and a session with each other member.
//!
//! `x0_crdt::Peers` owns the sessions of a replica as well. A keyspace has its own, for four reasons: the map
//! changes by writes that are answered only when they are durable, so that one record covers a round of
//! writes and datagrams, and a round that cannot be written is undone as a whole (`reset`). The members are
//! those of the cluster, under node ids, while a peer of `Peers` is whatever the caller adds. Heartbeats wait
//! until all members were heard, and datagrams carry the context of a traced write. What both do alike is in
//! [`Session`] and [`Renewals`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use x0_crdt::{
    CausalMap, Clock, JoinError, Joined, Renewals, ReplicaId, Session, SessionError, SessionInput,
    SessionOptions, SessionOutput, Stamp, Version, WriteError,
};
use x0_identity::NodeId;

use super::driver::CrdtReports;
use super::outcome::{Cleared, CrdtOutcome, MOMENTS_PER_MS_BITS, Timestamp};
use super::status::CrdtTotals;
use super::{CrdtOptions, CrdtStatus, Write, reading};
use crate::request::error::OperationError;
use crate::trace::Context;

/// Heartbeats of a member in a lease.
const HEARTBEATS_PER_LEASE: u32 = 8;

/// Most datagrams to a member that have the context of one write. The first one has the write as a rule;
/// after a loss it is a later one.
const TRACED_DATAGRAMS_MAX: u8 = 4;

/// An input of a [`CrdtReplica`].
#[derive(Debug)]
pub(crate) enum Input<R> {
    /// A write of a caller, who is answered at `reply`. `wall_ms` is the time since 1970 in ms, by the clock
    /// of this node. `trace` is the context of a write that is traced.
    Write { write: Write, wall_ms: u64, trace: Option<Context>, reply: R },
    /// A datagram of a node, which the transport has authenticated, with the context that it came with.
    Datagram { from: NodeId, payload: Bytes, trace: Option<Context> },
    /// A node can be reached (again).
    Up(NodeId),
    /// The members of the cluster.
    Members(BTreeSet<NodeId>),
    /// The time of `poll_timeout` has come.
    Timeout,
}

/// A datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    /// The datagram is malformed or does not fit.
    #[error(
        "a datagram of {from} is malformed or does not fit: check that both nodes run compatible releases"
    )]
    Refused {
        /// The sender.
        from: NodeId,
    },
    /// The sender has another hash key.
    #[error("{from} has another hash key, so that nothing is synchronized: give both nodes the same one")]
    KeyMismatch {
        /// The sender.
        from: NodeId,
    },
    /// The sender has events of this replica that it has not written, or has written otherwise: its folder is
    /// an old copy, or in use twice. The replica goes on as a fresh incarnation, at once or after a pause of
    /// [`Renewals`]; until then it joins nothing of such a sender.
    #[error(
        "{from} has events of this node that its CRDT keyspace does not hold, so that it goes on as a fresh incarnation, after a pause of up to a lease if it has done so before, and joins nothing of {from} until then: check that no other process uses a copy of its folder"
    )]
    Impostor {
        /// The sender.
        from: NodeId,
    },
}

/// An output of a [`CrdtReplica`], to be carried out once the changes of the map are durable.
#[derive(Debug)]
pub(crate) enum Output<R> {
    /// Send a datagram, which may be lost, with the context of a traced write that it may carry.
    Send { to: NodeId, payload: Vec<u8>, trace: Option<Context> },
    /// A datagram with a context has brought changes of so many keys, which are not durable yet.
    Merged { from: NodeId, keys: usize, trace: Context },
    /// Answer a caller.
    Reply { reply: R, result: Result<CrdtOutcome, OperationError> },
    /// Values at these keys changed.
    Changed { keys: Vec<Vec<u8>> },
}

/// A step of a state that arrives by key ranges, for the journal.
#[derive(Debug)]
pub(crate) enum Staged {
    /// The record of a range.
    Range(Vec<u8>),
    /// The ranges before count from here on. They have brought this version.
    Joined(Version),
}

/// Synchronises the map of one node with those of the other members. Does no I/O.
///
/// # The drain contract
/// Feed inputs to `handle`; take outputs with `poll_output` until there are none; make what `take_staged`
/// returns durable, and then the changes of `map`; then, and not before, carry the outputs out. Feed
/// [`Input::Timeout`] once the time of `poll_timeout` has come. An error of `handle` concerns one datagram
/// and changes nothing.
#[derive(Debug)]
pub(crate) struct CrdtReplica<R> {
    map: CausalMap,
    now: Duration,
    options: CrdtOptions,
    seed: u64,
    clock: Clock,
    sessions: BTreeMap<NodeId, Session>,
    outputs: VecDeque<Output<R>>,
    staged: Vec<Staged>,
    /// The map was changed, and the sessions except that with this member have not been notified.
    changed: Option<Option<NodeId>>,
    started: Duration,
    heartbeat_at: Duration,
    /// The context of the last traced write, by the members that may lack it, with the number of datagrams
    /// that still get it.
    traces: BTreeMap<NodeId, (Context, u8)>,
    /// The context of the datagram that is being taken.
    arrived: Option<Context>,
    totals: CrdtTotals,
    /// The totals of sessions that ended.
    past: CrdtTotals,
    /// The incarnation of the last renewal.
    renewed: Option<u32>,
    renewals: Renewals,
}

impl<R> CrdtReplica<R> {
    /// `seed` must differ from one start to the next. `now` is the first of the times to come.
    pub(crate) fn new(options: CrdtOptions, seed: u64, now: Duration, mut map: CausalMap) -> CrdtReplica<R> {
        map.members_mut().set_lease(options.lease);
        let ahead_max_ms = u64::try_from(options.clock_ahead_max.as_millis()).unwrap_or(u64::MAX);
        CrdtReplica {
            map,
            now,
            clock: Clock::new(ahead_max_ms),
            options,
            seed,
            sessions: BTreeMap::new(),
            outputs: VecDeque::new(),
            staged: Vec::new(),
            changed: None,
            started: now,
            heartbeat_at: now,
            traces: BTreeMap::new(),
            arrived: None,
            totals: CrdtTotals::default(),
            past: CrdtTotals::default(),
            renewed: None,
            renewals: Renewals::default(),
        }
    }

    /// Replaces the map by the state that is durable, after a record that could not be written. Nothing of
    /// what was undone has left the node, so that its event numbers are free. The members are the same.
    pub(crate) fn reset(&mut self, mut map: CausalMap) {
        map.members_mut().set_lease(self.options.lease);
        // A renewal among what was undone is needed again. A durable one is not: each costs an incarnation
        // for ever.
        if self.renewed.is_some_and(|incarnation| incarnation != map.replica().incarnation) {
            // The next claim is the first one again. A renewal without one would be undone again and again
            // while the disk is full.
            (self.renewed, self.renewals) = (None, Renewals::default());
            self.totals.renewals = self.totals.renewals.saturating_sub(1);
        }
        self.map = map;
        self.outputs.clear();
        self.staged.clear();
        self.traces.clear();
        self.changed = None;
        let members = self.sessions.keys().copied().collect();
        self.members(self.now, &BTreeSet::new());
        self.members(self.now, &members);
    }

    /// The map as it is now, with writes that may not be durable yet.
    pub(crate) fn map(&self) -> &CausalMap {
        &self.map
    }

    /// What has arrived by key ranges since the last call, in order.
    pub(crate) fn take_staged(&mut self) -> Vec<Staged> {
        std::mem::take(&mut self.staged)
    }

    /// Takes an input.
    ///
    /// # Errors
    /// When a datagram is malformed or does not fit. It is counted and dropped.
    pub(crate) fn handle(&mut self, now: Duration, input: Input<R>) -> Result<(), HandleError> {
        self.now = now;
        self.renew_if_due(now);
        let mut handled = Ok(());
        match input {
            Input::Write { write, wall_ms, trace, reply } => {
                let result = self.write(wall_ms, write);
                if let (Some(trace), Ok(_)) = (trace, &result) {
                    let members = self.sessions.keys();
                    self.traces.extend(members.map(|node| (*node, (trace, TRACED_DATAGRAMS_MAX))));
                }
                self.outputs.push_back(Output::Reply { reply, result });
            }
            Input::Datagram { from, payload, trace } => {
                // Only members are part of the exchange.
                if let Some(session) = self.sessions.get_mut(&from) {
                    self.arrived = trace;
                    let taken = session.handle(now, SessionInput::Datagram(&payload), &mut self.map);
                    handled = taken.map_err(|error| self.refuse(now, from, &error));
                    self.gather(from);
                    self.arrived = None;
                }
            }
            Input::Up(node) => self.notify(now, node, SessionInput::Reachable),
            Input::Members(members) => self.members(now, &members),
            Input::Timeout => {
                let due: Vec<NodeId> = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| session.poll_timeout().is_some_and(|due| due <= now))
                    .map(|(node, _)| *node)
                    .collect();
                for node in due {
                    self.notify(now, node, SessionInput::Timeout);
                }
            }
        }
        if now >= self.heartbeat_at {
            self.heartbeat(now);
        }
        handled
    }

    /// The next output, or `None` when the replica waits for inputs or the time. Outputs are carried out in
    /// order.
    pub(crate) fn poll_output(&mut self) -> Option<Output<R>> {
        if self.outputs.is_empty()
            && let Some(source) = self.changed.take()
        {
            // Once for all changes together.
            let others: Vec<NodeId> =
                self.sessions.keys().copied().filter(|node| Some(*node) != source).collect();
            for node in others {
                self.notify(self.now, node, SessionInput::Changed);
            }
        }
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let sessions = self.sessions.values().filter_map(Session::poll_timeout);
        sessions.chain([self.heartbeat_at]).chain(self.renewals.poll_timeout()).min()
    }

    /// The latest time that wins over concurrent values.
    pub(crate) fn time_max(&self, wall_ms: u64) -> u64 {
        packed(self.clock.limit(wall_ms))
    }

    pub(crate) fn status(&self) -> CrdtStatus {
        let map = &self.map;
        let mut totals = self.totals;
        let past = &self.past;
        for stats in self.sessions.values().map(Session::stats) {
            totals.joins += stats.joins;
            totals.sent_bytes += stats.sent_bytes;
            totals.received_bytes += stats.received_bytes;
            totals.redundant_bytes += stats.redundant_bytes;
            totals.reconciliations += stats.reconciliations;
            totals.divergences += stats.divergences;
        }
        totals.joins += past.joins;
        totals.sent_bytes += past.sent_bytes;
        totals.received_bytes += past.received_bytes;
        totals.redundant_bytes += past.redundant_bytes;
        totals.reconciliations += past.reconciliations;
        totals.divergences += past.divergences;
        CrdtStatus {
            frontier: map.frontier(),
            keys: map.len(),
            siblings: map.sibling_count(),
            history_events: map.history_len(),
            peers: self.sessions.iter().map(|(node, session)| (*node, session.is_in_sync())).collect(),
            mismatching: self.mismatching(),
            pending_bytes: self.sessions.values().map(Session::pending_bytes).sum(),
            totals,
        }
    }

    /// What an operator must know.
    pub(crate) fn reports(&self) -> CrdtReports {
        CrdtReports { renewed: self.renewed, mismatching: self.mismatching() }
    }

    fn mismatching(&self) -> BTreeSet<NodeId> {
        let sessions = self.sessions.iter().filter(|(_, session)| session.has_key_mismatch());
        sessions.map(|(node, _)| *node).collect()
    }

    fn write(&mut self, wall_ms: u64, write: Write) -> Result<CrdtOutcome, OperationError> {
        let (keys, outcome) = match write {
            Write::Put { key, value } => {
                let time = self.time(wall_ms, &key)?;
                self.map.put(&key, time, &value).map_err(refused)?;
                (vec![key.to_vec()], CrdtOutcome::Put(Timestamp::from_bits(time)))
            }
            Write::Add { key, amount } => {
                let time = self.time(wall_ms, &key)?;
                self.map.add(&key, time, amount).map_err(refused)?;
                let sum = self.map.get(&key).map_or(0, |entry| entry.sum());
                (vec![key.to_vec()], CrdtOutcome::Counter(sum))
            }
            Write::Delete { key } => {
                let existed = self.map.remove(&key).is_some();
                let keys = if existed { vec![key.to_vec()] } else { Vec::new() };
                (keys, CrdtOutcome::Deleted(existed))
            }
            Write::DeleteSeen { key, mut seen } => {
                let values = self.map.get(&key).into_iter().flat_map(|entry| entry.siblings());
                let mut held: Vec<u64> = values.map(|value| value.time).collect();
                held.sort_unstable();
                seen.sort_unstable();
                let is_gone = held == seen && self.map.remove(&key).is_some();
                let keys = if is_gone { vec![key.to_vec()] } else { Vec::new() };
                (keys, CrdtOutcome::Deleted(is_gone))
            }
            Write::Clear { prefix } => {
                let (keys, is_done) = reading::keys_with(&self.map, &prefix);
                for key in &keys {
                    self.map.remove(key);
                }
                let cleared = Cleared { removed: keys.len(), is_done };
                (keys, CrdtOutcome::Cleared(cleared))
            }
        };
        if !keys.is_empty() {
            self.changed = Some(None);
            self.outputs.push_back(Output::Changed { keys });
        }
        Ok(outcome)
    }

    /// A time for a write at `key`: later than all that it replaces, unless that is from a clock that is too
    /// far ahead.
    fn time(&mut self, wall_ms: u64, key: &[u8]) -> Result<u64, OperationError> {
        if let Some(seen) = self.map.get(key).and_then(|entry| entry.siblings().map(|held| held.time).max()) {
            let counter = u32::try_from(seen & ((1 << MOMENTS_PER_MS_BITS) - 1)).unwrap_or(u32::MAX);
            let stamp = Stamp::new(seen >> MOMENTS_PER_MS_BITS, counter);
            let _ = self.clock.observe(stamp, wall_ms);
        }
        let mut stamp = self.clock.tick(wall_ms);
        if stamp.as_ref().is_ok_and(|stamp| stamp.counter >> MOMENTS_PER_MS_BITS != 0) {
            let next_ms = self.clock.last().time_ms.saturating_add(1);
            stamp = self.clock.tick(next_ms);
        }
        let exhausted = |_| OperationError::failed("the clock is at the end of its range");
        stamp.map(packed).map_err(exhausted)
    }

    fn members(&mut self, now: Duration, members: &BTreeSet<NodeId>) {
        let me = self.map.replica().node;
        let others = || members.iter().copied().filter(|node| node.get() != me);
        let (past, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.sessions).into_iter().partition(|(node, _)| !members.contains(node));
        self.sessions = kept;
        self.traces.retain(|node, _| members.contains(node));
        for stats in past.values().map(Session::stats) {
            self.past.joins += stats.joins;
            self.past.sent_bytes += stats.sent_bytes;
            self.past.received_bytes += stats.received_bytes;
            self.past.redundant_bytes += stats.redundant_bytes;
            self.past.reconciliations += stats.reconciliations;
            self.past.divergences += stats.divergences;
        }
        for node in others() {
            if !self.sessions.contains_key(&node) {
                self.seed = next_seed(self.seed, node.get());
                let options: &SessionOptions = &self.options.session;
                self.sessions.insert(node, Session::new(options, self.seed));
                self.notify(now, node, SessionInput::Changed);
            }
        }
    }

    /// Says that this member is here, and forgets what all have seen, once it is known who all are.
    fn heartbeat(&mut self, now: Duration) {
        self.heartbeat_at = now + self.options.lease / HEARTBEATS_PER_LEASE;
        let leased: BTreeSet<u64> = self.map.members().leased().map(|member| member.node).collect();
        let all_heard = self.sessions.keys().all(|node| leased.contains(&node.get()));
        if all_heard || now.saturating_sub(self.started) > self.options.lease {
            self.map.heartbeat(now);
        } else {
            // A start forgets what others have seen of each other; without it history would be forgotten too
            // early, which costs them a reconciliation.
            let (me, version) = (self.map.replica(), self.map.version());
            self.map.members_mut().heartbeat(now, me, version);
        }
    }

    fn notify(&mut self, now: Duration, node: NodeId, input: SessionInput<'_>) {
        let Some(session) = self.sessions.get_mut(&node) else { return };
        // A delta of the peer that was being joined in steps may be wrong.
        if let Err(error) = session.handle(now, input, &mut self.map) {
            self.refuse(now, node, &error);
        }
        self.gather(node);
    }

    /// Counts what a session has refused, and reacts to it.
    fn refuse(&mut self, now: Duration, from: NodeId, error: &SessionError) -> HandleError {
        self.totals.refused += 1;
        match error {
            SessionError::KeyMismatch => HandleError::KeyMismatch { from },
            SessionError::Join(JoinError::Impostor { .. }) => {
                self.renewals.claim(now, self.options.lease);
                self.renew_if_due(now);
                HandleError::Impostor { from }
            }
            _ => HandleError::Refused { from },
        }
    }

    /// Goes on as a fresh incarnation: under the numbers of events that were lost, or that another process
    /// has used, no others may be written.
    fn renew_if_due(&mut self, now: Duration) {
        // A renewal writes the whole map as well: a member that goes on claiming events of this node must not
        // cause one with each datagram.
        if !self.renewals.take(now, self.options.session.retry_max, self.options.lease) {
            return;
        }
        let node = self.map.replica().node;
        let version = self.map.version();
        let incarnation = loop {
            self.seed = next_seed(self.seed, node);
            // The lower bits of such a generator repeat soon.
            let incarnation = (self.seed >> 32) as u32;
            let id = ReplicaId::with_incarnation(node, incarnation);
            if id != self.map.replica() && version.get(id) == 0 {
                break incarnation;
            }
        };
        self.map.renew(incarnation);
        self.renewed = Some(incarnation);
        self.totals.renewals += 1;
        // All sessions, that of the sender too, can go on now.
        self.changed = Some(None);
    }

    /// Takes what a session wants done.
    fn gather(&mut self, node: NodeId) {
        let Some(session) = self.sessions.get_mut(&node) else { return };
        while let Some(output) = session.poll_output() {
            match output {
                SessionOutput::Send(payload) => {
                    let trace = self.traces.get_mut(&node).map(|(trace, left)| {
                        *left -= 1;
                        (*trace, *left)
                    });
                    if trace.is_some_and(|(_, left)| left == 0) {
                        self.traces.remove(&node);
                    }
                    let trace = trace.map(|(trace, _)| trace);
                    self.outputs.push_back(Output::Send { to: node, payload, trace });
                }
                SessionOutput::Joined(Joined {
                    keys,
                    conflicts,
                    contested_removals,
                    equivocating,
                    ranges,
                    ..
                }) => {
                    self.staged.extend(ranges.map(Staged::Joined));
                    self.totals.conflicts += conflicts as u64;
                    self.totals.contested_removals += contested_removals as u64;
                    self.totals.equivocations += equivocating.len() as u64;
                    self.changed = Some(match self.changed {
                        None => Some(node),
                        Some(source) => source.filter(|source| *source == node),
                    });
                    if let Some(trace) = self.arrived
                        && !keys.is_empty()
                    {
                        self.outputs.push_back(Output::Merged { from: node, keys: keys.len(), trace });
                    }
                    self.outputs.push_back(Output::Changed { keys });
                }
                SessionOutput::Staged(record) => self.staged.push(Staged::Range(record)),
            }
        }
        // The member has confirmed what it was sent.
        if session.is_in_sync() && self.changed.is_none() {
            self.traces.remove(&node);
        }
    }
}

/// The next number of a linear congruential generator.
const fn next_seed(seed: u64, salt: u64) -> u64 {
    seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(salt | 1)
}

/// A moment in one number.
fn packed(stamp: Stamp) -> u64 {
    let counter = u64::from(stamp.counter).min((1 << MOMENTS_PER_MS_BITS) - 1);
    stamp.time_ms.min(u64::MAX >> MOMENTS_PER_MS_BITS) << MOMENTS_PER_MS_BITS | counter
}

/// The limits were checked before; what the map says on top is its own.
fn refused(error: WriteError) -> OperationError {
    OperationError::failed(error)
}
