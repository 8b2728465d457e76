//! Brings each operation to where it can be carried out, and its answer back.
//!
//! A [`Coordinator`] stands between the callers of one node and the replicas of all. Beside a replica
//! ([`Role::Member`]) it proposes writes and begins reads where it leads, sends operations on to the leader
//! where it does not, and serves what other nodes send. Outside of the cluster ([`Role::Client`]) it asks the
//! members and follows their hints. It owns no replica, socket, clock or thread: a driver carries its
//! [`Output`]s out and tells it what became of them.
//!
//! # What it promises
//! - **An answer to every call**, at the latest at its deadline, and only one.
//! - **Once.** A write carries the stamp of a session that the coordinator opens when it first needs one.
//!   However often it is sent again, it is applied once. When the store has forgotten the session, a write
//!   that was tried only once gets a new request id; one that was tried before and of whose fate nothing is
//!   known ends in [`SessionExpired`](OperationError::SessionExpired).
//! - **Linearizable reads** from the leader, which asks a quorum whether it still leads. All reads that wait
//!   share one round.
//! - **Honest errors.** [`TimedOut`](OperationError::TimedOut) says whether the write may have been applied:
//!   it may when an attempt was made and its fate is not known.
//! - **Bounds.** At most [`Config::calls_max`] calls and [`Config::requests_max`] requests of other nodes
//!   wait, each kind apart from the other and no peer with more than its share, so that neither can crowd out
//!   the rest.
//!
//! # Ways to the leader
//! Members report the leader, and its loss, to each client that they are connected to, so that a client turns
//! to the next leader when the first member knows it. A client that does not reach the leader, or gets no
//! answer of it, sends its operations to another member, which passes them on.
//!
//! At most [`Config::in_flight_len_max`] bytes of operations are on the way to one node. A driver that
//! reports which peers are connected ([`Input::Reachable`]) has an operation sent to a peer once as long as
//! the connection lasts: it is tried elsewhere when the peer is silent for longer than round trips and length
//! explain.
//!
//! # How it is driven
//! Hand over any number of inputs with [`handle`](Coordinator::handle), then take outputs with
//! [`poll_output`](Coordinator::poll_output) until there are none, then wait for the next input or until
//! [`poll_timeout`](Coordinator::poll_timeout). What is handed over between two drains shares messages and
//! read rounds. An input that answers an output may be given between two polls. An error of `handle` leaves
//! everything else as it was.
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_kv::coordinator::{Config, Coordinator, Input, Output};
//! use x0_kv::{Bytes, Consistency, KeyspaceName, Operation, Outcome, Query, State};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeId::new(1).ok_or("zero names no node")?;
//! let reader = State::in_memory().reader();
//! let mut coordinator = Coordinator::new(Config::member(node), 42);
//! let mut now = Duration::ZERO;
//!
//! let query = Query::Get { key: Bytes::from_static(b"key") };
//! let keyspace = KeyspaceName::DEFAULT;
//! let operation = Operation::Read { keyspace, query, consistency: Consistency::Local };
//! coordinator.handle(now, Input::Call { token: 7, operation, deadline: None })?;
//! let mut replies = Vec::new();
//! while let Some(output) = coordinator.poll_output() {
//!     match output {
//!         Output::Query { token, keyspace, query } => {
//!             let answer = reader.query(&keyspace, &query);
//!             coordinator.handle(now, Input::Queried { token, answer })?;
//!         }
//!         Output::Reply { token, result } => replies.push((token, result)),
//!         other => panic!("a local read needs nobody else: {other:?}"),
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
//! driver may use those that have for what it asks of the replica itself.

mod call;
mod config;
mod dropped;
mod flight;
mod local;
mod outgoing;
mod port;
pub(crate) mod protocol;
mod random;
mod reads;
mod remote;
mod route;
mod session;
mod slab;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

pub use self::config::{Config, Role};
pub use self::dropped::DropReason;
pub use self::port::{HandleError, Input, Output};
pub use crate::coordinator::protocol::MESSAGE_LEN_MAX;

use self::call::{Call, Entry, Place};
use self::flight::Flights;
use self::outgoing::Outgoing;
use self::random::Random;
use self::reads::Reads;
use self::route::Route;
use self::session::Session;
use self::slab::{Key, Slab};
use crate::request::error::OperationError;

/// The most peers to which the leader is reported.
const WATCHERS_MAX: usize = 4096;

/// The engine: see the [module](self).
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    now: Duration,
    /// Names this coordinator among all that its node ever had, so that what was meant for an earlier one is
    /// not taken.
    instance: u64,
    random: Random,
    entries: Slab<Entry>,
    /// How many of the entries are calls of local callers.
    calls: usize,
    /// How many of the entries are requests of other nodes.
    requests: usize,
    route: Route,
    session: Session,
    /// Writes that wait for a stamp. Some may be gone.
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
    /// No entry wants to be looked at before.
    due: Duration,
}

impl Coordinator {
    /// A coordinator that knows no leader and has no session yet.
    ///
    /// The `seed` must be a new one at each start of the node, from a source of true randomness: from it
    /// comes the name by which peers tell this coordinator from the one before, whose late answers are not
    /// for it. The same seed and inputs give the same outputs.
    #[must_use]
    pub fn new(mut config: Config, seed: u64) -> Coordinator {
        let room = slab::ENTRIES_MAX / 4;
        config.calls_max = config.calls_max.min(room);
        config.requests_max = config.requests_max.min(room);
        config.batch_len = config.batch_len.min(MESSAGE_LEN_MAX);
        config.read_rounds_max = config.read_rounds_max.max(1);
        let mut random = Random::new(seed);
        let instance = random.next();
        let route = Route::new(&config.role, &mut random);
        Coordinator {
            config,
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
            due: Duration::MAX,
        }
    }

    /// Takes an input at the time `now`, which never runs backwards.
    ///
    /// # Errors
    /// When bytes of a peer are not what they should be.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        self.now = self.now.max(now);
        let mut handled = Ok(());
        match input {
            Input::Timeout => {}
            Input::Call { token, operation, deadline } => self.call(token, operation, deadline),
            Input::Cancel { token } => self.cancel(token),
            Input::Message { from, payload } => handled = self.message(from, &payload),
            Input::Unreachable { peer } => self.unreachable(peer),
            Input::Reachable { peer } => self.reachable(peer),
            Input::IdentityExpired => self.identity_expired(),
            Input::Leader { leader, term, is_self } => self.leader_changed(leader, term, is_self),
            Input::Outcome { token, index: _, outcome } => self.applied(token, outcome),
            Input::ReadReady { token, index: _ } => self.read_ready(token),
            Input::Dropped { token, reason } => self.dropped(token, reason),
            Input::Queried { token, answer } => self.queried(token, answer),
        }
        if self.due <= self.now {
            self.expire();
        }
        self.send_held();
        handled
    }

    /// The next thing to do or to know. To be called until there is none, before the next wait.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(token) = self.reads.begin(self.config.read_rounds_max) {
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

    /// Who is thought to lead.
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
                    // These wait for the deadline alone.
                    Place::Queued
                    | Place::Parked
                    | Place::Held
                    | Place::Proposed
                    | Place::Reading
                    | Place::Querying => self.arm(key, deadline),
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
