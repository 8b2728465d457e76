//! The coordinator: routes the operations of callers to the leader, and their answers back.
//!
//! A [`Coordinator`] stands between the callers of one node and the replicas of all nodes. Beside a replica
//! ([`Role::Member`]) it proposes writes and begins reads if its replica is the leader, sends operations to
//! the leader otherwise, and serves the requests of other nodes. Outside of the cluster ([`Role::Client`]) it
//! sends operations to the members and follows their hints. It owns no replica, socket, clock or thread: a
//! driver carries out its [`Output`]s and reports their results.
//!
//! # Guarantees
//! - **An answer to every call**, at the latest at its deadline, and only one. Without a deadline of its own
//!   a call has [`CoordinatorOptions::call_timeout`], and [`CoordinatorOptions::turn_timeout`] to wait for
//!   its turn.
//! - **Applied once.** A write carries a request id: a session, which the coordinator opens when it first
//!   needs one, and a number (Raft thesis, §6.3). However often a write is repeated, it is applied once. If
//!   the store has expired the session, a write with one attempt gets a new request id; a write with an
//!   earlier attempt of unknown fate ends in [`SessionExpired`](OperationError::SessionExpired).
//! - **Linearizable reads** from the leader, which confirms its leadership with a quorum (Raft thesis, §6.4).
//!   All reads that wait share one round.
//! - **Precise errors.** [`TimedOut`](OperationError::TimedOut) says whether the write may have been applied:
//!   it may if an attempt was made whose fate is unknown.
//! - **Bounds.** At most [`CoordinatorOptions::calls_max`] calls of local callers and
//!   [`CoordinatorOptions::requests_max`] requests of other nodes wait. The two are counted apart, and each
//!   peer has a share of the requests, so that no caller or peer blocks the others. The limits of requests
//!   can change at any time ([`Input::Limits`]): a lower one ends no request that waits.
//!
//! # Ways to the leader
//! Members report the leader, and its loss, to each client that they are connected to, so that a client turns
//! to the next leader when the first member knows it. A client that does not reach the leader, or gets no
//! answer of it, sends its operations to another member, which passes them on.
//!
//! At most [`CoordinatorOptions::in_flight_len_max`] bytes of operations are on the way to one node. Others
//! wait for their turn, and their time stands still as long as the node answers the operations before them. A
//! driver that reports which peers are connected ([`Input::Reachable`]) has an operation sent to a peer once
//! as long as the connection lasts: it is tried elsewhere when the peer is silent for longer than round trips
//! and length explain.
//!
//! # The drain contract
//! Feed any number of inputs to [`handle`](Coordinator::handle), then take outputs with
//! [`poll_output`](Coordinator::poll_output) until there are none, then wait for the next input or until
//! [`poll_timeout`](Coordinator::poll_timeout). Inputs between two drains share messages and read rounds. An
//! input that answers an output may be fed between two polls. An error of `handle` concerns one message and
//! changes nothing else.
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_kv::coordinator::{CoordinatorOptions, Coordinator, Input, Output};
//! use x0_kv::{Bytes, Consistency, KeyspaceName, Operation, Outcome, Query, State};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeId::new(1).ok_or("zero names no node")?;
//! let reader = State::in_memory().reader();
//! let mut coordinator = Coordinator::new(CoordinatorOptions::member(node), 42);
//! let mut now = Duration::ZERO;
//!
//! let query = Query::Get { key: Bytes::from_static(b"key") };
//! let keyspace = KeyspaceName::DEFAULT;
//! let operation = Operation::Read { keyspace, query, consistency: Consistency::Local };
//! coordinator.handle(now, Input::Call { token: 7, operation, deadline: None, trace: None })?;
//! let mut replies = Vec::new();
//! while let Some(output) = coordinator.poll_output() {
//!     match output {
//!         Output::Query { token, keyspace, query } => {
//!             let answer = reader.query(&keyspace, &query);
//!             coordinator.handle(now, Input::Queried { token, answer })?;
//!         }
//!         Output::Reply { token, result } => replies.push((token, result)),
//!         other => panic!("a local read needs no other node: {other:?}"),
//!     }
//! }
//! assert_eq!(replies, [(7, Ok(Outcome::Value(None)))]);
//! assert_eq!(coordinator.poll_timeout(), None);
//! # Ok(())
//! # }
//! ```
//!
//! # Tokens
//! The tokens of [`Output::Propose`] and [`Output::ReadIndex`] never have bit 62 set (the second highest): a
//! driver may use tokens with this bit for its own requests to the replica.

mod call;
mod dropped;
mod flight;
mod limits;
mod local;
mod options;
mod outgoing;
mod port;
pub(crate) mod protocol;
mod random;
mod reads;
mod remote;
mod route;
pub(crate) mod served;
mod session;
mod slab;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

pub use self::dropped::DropReason;
pub use self::limits::{REQUESTS_MAX, RequestLimits, RequestLimitsError};
pub use self::options::{CoordinatorOptions, Role};
pub use self::port::{HandleError, Input, Output};
pub use crate::coordinator::protocol::{MESSAGE_LEN_MAX, PROTOCOL_VERSIONS};

use self::call::{Call, Entry, Place};
use self::flight::Flights;
use self::outgoing::Outgoing;
use self::random::Random;
use self::reads::Reads;
use self::route::Route;
use self::served::{Served, ServedLog};
use self::session::Session;
use self::slab::{Key, Slab};
use crate::request::error::OperationError;
use crate::trace::Context;

/// The most peers to which the leader is reported.
const WATCHERS_MAX: usize = 4096;
/// The most nodes of which unanswered attempts are counted.
pub const UNANSWERED_MAX: usize = 256;

/// The engine: see the [module](self).
#[derive(Debug)]
pub struct Coordinator {
    options: CoordinatorOptions,
    now: Duration,
    /// Distinguishes this coordinator from those of earlier starts of the node, so that an answer to an
    /// earlier one is not taken.
    instance: u64,
    random: Random,
    entries: Slab<Entry>,
    /// How many of the entries are calls of local callers.
    calls: usize,
    /// How many of the entries are requests of other nodes.
    requests: usize,
    route: Route,
    session: Session,
    /// Writes that wait for a request id. Some of the keys may be stale.
    queued: VecDeque<Key>,
    reads: Reads,
    outputs: VecDeque<Output>,
    outgoing: Outgoing,
    flights: Flights,
    /// Calls that wait for room on the way to their peer. Some may be gone.
    held: VecDeque<Key>,
    /// Peers that want to know the leader.
    watchers: BTreeSet<NodeId>,
    /// The identity of this client has expired.
    is_expired: bool,
    /// Calls that were sent again to a named leader.
    redirects: u64,
    served: ServedLog,
    /// Attempts that had no answer in time, by the node that had them.
    unanswered: BTreeMap<NodeId, u64>,
    /// The peers of which not all is at its default.
    peers: BTreeMap<NodeId, Negotiated>,
    /// No entry wants to be looked at before.
    due: Duration,
}

/// A peer as its driver has reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Negotiated {
    reads_contexts: bool,
    is_client: bool,
}

impl Coordinator {
    /// A coordinator that knows no leader and has no session yet.
    ///
    /// `seed` must come from a source of true randomness at each start of the node: by a number made from it
    /// peers distinguish this coordinator from that of an earlier start, so that it does not get the late
    /// answers of that one. The same seed and inputs give the same outputs.
    #[must_use]
    pub fn new(mut options: CoordinatorOptions, seed: u64) -> Coordinator {
        options.calls_max = options.calls_max.min(REQUESTS_MAX);
        options.requests_max = options.requests_max.min(REQUESTS_MAX);
        options.batch_len = options.batch_len.min(MESSAGE_LEN_MAX);
        options.read_rounds_max = options.read_rounds_max.max(1);
        let mut random = Random::new(seed);
        let instance = random.next();
        let route = Route::new(&options.role, &mut random);
        Coordinator {
            options,
            now: Duration::ZERO,
            instance,
            random,
            entries: Slab::new(),
            calls: 0,
            requests: 0,
            route,
            session: Session::None,
            queued: VecDeque::new(),
            reads: Reads::default(),
            outputs: VecDeque::new(),
            outgoing: Outgoing::new(instance),
            flights: Flights::default(),
            held: VecDeque::new(),
            watchers: BTreeSet::new(),
            is_expired: false,
            redirects: 0,
            served: ServedLog::default(),
            unanswered: BTreeMap::new(),
            peers: BTreeMap::new(),
            due: Duration::MAX,
        }
    }

    /// Takes an input at the time `now`, which never runs backwards.
    ///
    /// # Errors
    /// When a message of a peer cannot be decoded.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        self.now = self.now.max(now);
        let mut handled = Ok(());
        match input {
            Input::Timeout => {}
            Input::Call { token, operation, deadline, trace } => self.call(token, operation, deadline, trace),
            Input::Cancel { token } => self.cancel(token),
            Input::Message { from, payload } => handled = self.message(from, &payload),
            Input::Unreachable { peer } => self.unreachable(peer),
            Input::Reachable { peer } => self.reachable(peer),
            Input::Negotiated { peer, version, is_client } => {
                self.negotiated(peer, Negotiated { reads_contexts: version >= 2, is_client });
            }
            Input::IdentityExpired => self.identity_expired(),
            Input::Leader { leader, term, is_self } => self.leader_changed(leader, term, is_self),
            Input::Outcome { token, index: _, outcome } => self.applied(token, outcome),
            Input::ReadReady { token, index: _ } => self.read_ready(token),
            Input::Dropped { token, reason } => self.dropped(token, reason),
            Input::Queried { token, answer } => self.queried(token, answer),
            Input::Limits(limits) => {
                self.options.requests_max = limits.requests_max();
                self.options.requests_per_peer_max = limits.requests_per_peer_max();
            }
        }
        if self.due <= self.now {
            self.expire();
        }
        self.send_held();
        handled
    }

    /// The next output, or `None` when the coordinator waits for inputs or the time.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(token) = self.reads.begin(self.options.read_rounds_max) {
            return Some(Output::ReadIndex { token });
        }
        self.outgoing.take().map(|(to, payload)| Output::Send { to, payload })
    }

    /// When [`Input::Timeout`] is due, in the time that is passed to [`handle`](Coordinator::handle).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        (self.due != Duration::MAX).then_some(self.due)
    }

    /// How many calls of local callers wait for their answer.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// How many requests of other nodes are under way here.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// How many requests of other nodes may wait, all and of one node.
    #[must_use]
    pub fn request_limits(&self) -> (usize, usize) {
        (self.options.requests_max, self.options.requests_per_peer_max)
    }

    /// How many calls were sent again because a node named the leader.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.redirects
    }

    /// How many attempts of calls had no answer in time, by the node that they were sent to; of
    /// [`UNANSWERED_MAX`] nodes at most. A caller shows here what no node sees of itself: that it serves
    /// nobody.
    #[must_use]
    pub fn unanswered(&self) -> &BTreeMap<NodeId, u64> {
        &self.unanswered
    }

    /// An attempt at this node had no answer in time.
    fn note_unanswered(&mut self, node: NodeId) {
        if self.unanswered.len() < UNANSWERED_MAX || self.unanswered.contains_key(&node) {
            *self.unanswered.entry(node).or_default() += 1;
        }
    }

    /// The requests of other nodes that were answered since this was last called, for the metrics.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "the driver of a node takes them"))]
    pub(crate) fn take_served(&mut self) -> impl Iterator<Item = Served> + '_ {
        self.served.drain()
    }

    /// The leader, as far as this coordinator knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.route.leader()
    }

    fn call_mut(&mut self, key: Key) -> Option<&mut Call> {
        match self.entries.get_mut(key) {
            Some(Entry::Call(call)) => Some(call),
            _ => None,
        }
    }

    fn negotiated(&mut self, peer: NodeId, negotiated: Negotiated) {
        if negotiated == Negotiated::default() {
            self.peers.remove(&peer);
        } else {
            self.peers.insert(peer, negotiated);
        }
    }

    fn peer(&self, peer: NodeId) -> Negotiated {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    /// The context for a request to this peer, if the peer reads it.
    fn trace_to(&self, to: NodeId, trace: Option<Context>) -> Option<Context> {
        trace.filter(|_| self.peer(to).reads_contexts)
    }

    /// Sets when to look at a call again.
    fn arm(&mut self, key: Key, wake: Duration) {
        if let Some(call) = self.call_mut(key) {
            call.wake = wake.min(call.deadline);
            let wake = call.wake;
            self.due = self.due.min(wake);
        }
    }

    /// Looks at every call: what is over its time ends or is tried again.
    fn expire(&mut self) {
        self.due = Duration::MAX;
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            let now = self.now;
            let Some(call) = self.call_mut(key) else { continue };
            let (wake, deadline, place) = (call.wake, call.deadline, call.place);
            if wake > now {
                self.due = self.due.min(wake);
            } else if deadline <= now {
                self.time_out(key);
            } else {
                match place {
                    Place::Sent { to } => self.lose_patience(key, to),
                    Place::Delayed => self.route_call(key),
                    Place::Held => self.wait_for_turn(key),
                    // Calls at these places wait for the deadline alone.
                    Place::Queued | Place::Parked | Place::Proposed | Place::Reading | Place::Querying => {
                        self.arm(key, deadline);
                    }
                }
            }
        }
    }

    fn time_out(&mut self, key: Key) {
        let Some(call) = self.call_mut(key) else { return };
        let ambiguous = call.may_be_applied();
        let error = match call.place {
            Place::Parked if !ambiguous => OperationError::Unavailable { reason: "no leader is known" },
            _ => OperationError::TimedOut { ambiguous },
        };
        self.reply(key, Err(error));
    }
}
