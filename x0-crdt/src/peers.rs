//! [`Peers`]: one replica, and its sessions with all peers.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt::{Debug, Display};
use core::time::Duration;

use crate::map::Joined;
use crate::random::SplitMix64;
use crate::{
    CausalMap, JoinError, Renewals, ReplicaId, Replicated, Session, SessionError, SessionInput,
    SessionOptions, SessionOutput, SubscriptionId, Subscriptions,
};

/// How many heartbeats there are in a lease.
const HEARTBEATS_PER_LEASE: u32 = 5;

/// An input of [`Peers`].
#[derive(Debug, PartialEq, Eq)]
pub enum PeersInput<'a, P> {
    /// A datagram, whole. The transport has authenticated the peer.
    Datagram {
        /// The sender of the datagram.
        from: &'a P,
        /// The bytes of the datagram.
        bytes: &'a [u8],
    },
    /// A peer can be reached again, as the transport reports: the pauses of a peer that was silent end.
    Reachable(&'a P),
    /// The time of [`Peers::poll_timeout`] has come.
    Timeout,
}

// Derived ones would require that names can be copied.
impl<P> Clone for PeersInput<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PeersInput<'_, P> {}

/// An output of [`Peers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeersOutput<P, J = Joined> {
    /// Send this to a peer, as one datagram. It may be lost.
    Send {
        /// The receiver.
        to: P,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// The state has joined a delta of a peer: notify watchers. The sessions with the other peers have been
    /// notified.
    Joined {
        /// The sender of the delta.
        from: P,
        /// What the join did.
        joined: J,
    },
    /// A record for a journal, see [`SessionOutput::Staged`].
    Staged(Vec<u8>),
    /// The values at a key have changed, here or by a peer, see [`Peers::subscribe`].
    Changed {
        /// The subscription.
        subscription: SubscriptionId,
        /// The key.
        key: Vec<u8>,
    },
}

/// Why an input was refused. The state is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError<P: Debug + Display> {
    /// No peer of this name was added.
    #[error("a datagram of {peer}, which is none of the peers, was dropped: add the peer first")]
    Unknown {
        /// The sender.
        peer: P,
    },
    /// The session refused the datagram, or a delta of the peer that was being joined in steps.
    #[error("a datagram or a delta of peer {peer} was refused; the session with it goes on")]
    Session {
        /// The sender.
        peer: P,
        /// What was wrong.
        #[source]
        source: SessionError,
    },
}

/// The protocol engine of one replica in a group: the state, and a [`Session`] with each peer.
///
/// The engine notifies all sessions of a change, passes on what one peer has brought to the others, counts
/// the heartbeats of the replica, and gives each session a seed of its own. `P` is the name of a peer, for
/// instance its address; each peer has this replica among its peers, or not all changes arrive.
///
/// Any connected graph of peers brings all changes to all replicas: each need not have all others as peers.
/// Heartbeats are counted five times in a lease of the [`Members`](crate::Members). A state that was not
/// restored with its members collects no tombstones during the first lease after the start, because not all
/// members are known yet.
///
/// A replica that was restored from an old backup under its own ID goes on as a fresh incarnation
/// ([`Replicated::renew`]) when a peer shows it events of its own that it does not have. `handle` reports
/// this as [`JoinError::Impostor`]; the caller need not do anything. Writes whose event numbers were used
/// twice keep one content on all replicas, all others survive.
///
/// Renewals are spaced by [`Renewals`], from [`retry_max`](SessionOptions::retry_max) up to a lease.
/// Meanwhile nothing is joined of the peers that hold the events, and a write here whose number one of the
/// events has may be lost. A member that forges events of this replica, towards it or towards others, causes
/// both.
///
/// # Drain contract
/// 1. Call [`handle`](Self::handle) for each datagram and each timeout, and [`change`](Self::change) to
///    write.
/// 2. Then call [`poll_output`](Self::poll_output) until it returns `None`. What has changed in the state is
///    durable before an output is carried out; see [`CausalMap`] on durability.
/// 3. Call `handle` with [`PeersInput::Timeout`] at the time of [`poll_timeout`](Self::poll_timeout), and go
///    on with 2.
///
/// Times are since any origin and never go back. A late timeout or a dropped output delays the peers and
/// loses nothing.
///
/// # Example
/// Gossip of three over UDP:
/// ```
/// use std::{net::UdpSocket, time::{Duration, Instant}};
/// use x0_crdt::{CausalMap, HashKey, Peers, PeersInput, PeersOutput, ReplicaId, SessionOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let start = Instant::now();
/// let sockets = [1, 2, 3].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
/// let mut nodes = [1, 2, 3].map(|id| {
///     let map = CausalMap::new(ReplicaId::new(id), HashKey::new(*b"known to members"));
///     Peers::new(map, &SessionOptions::default(), id)
/// });
/// for (id, node) in nodes.iter_mut().enumerate() {
///     for socket in sockets.iter().enumerate().filter(|(other, _)| *other != id).map(|(_, socket)| socket) {
///         node.add(start.elapsed(), socket.local_addr()?);
///     }
///     node.change(start.elapsed(), |map| map.put(format!("node-{id}").as_bytes(), 0, b"hello"))?;
/// }
/// while nodes.iter().any(|node| node.state().len() < 3) {
///     for (node, socket) in nodes.iter_mut().zip(&sockets) {
///         while let Some(output) = node.poll_output() {
///             if let PeersOutput::Send { to, bytes } = output { socket.send_to(&bytes, to)?; }
///         }
///         socket.set_read_timeout(Some(Duration::from_millis(1)))?;
///         let mut bytes = [0; 2048];
///         if let Ok((len, from)) = socket.recv_from(&mut bytes) {
///             node.handle(start.elapsed(), PeersInput::Datagram { from: &from, bytes: &bytes[..len] })?;
///         }
///         node.handle(start.elapsed(), PeersInput::Timeout)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Peers<P, R: Replicated = CausalMap> {
    state: R,
    options: SessionOptions,
    sessions: BTreeMap<P, Session<R>>,
    random: SplitMix64,
    outputs: VecDeque<PeersOutput<P, R::Joined>>,
    subscriptions: Subscriptions,
    /// Deltas that were refused in a later step of their join, in the order in which they are reported.
    refused: VecDeque<(P, SessionError)>,
    /// The time of the first input, and of the next heartbeat.
    started: Option<Duration>,
    heartbeat_at: Duration,
    /// The members were known at the start.
    knows_members: bool,
    renewals: Renewals,
}

impl<P: Ord + Clone + Debug + Display, R: Replicated> Peers<P, R> {
    /// A replica without peers. `seed` must differ from that of an earlier start with the same peers.
    #[must_use]
    pub fn new(state: R, options: &SessionOptions, seed: u64) -> Self {
        let me = state.replica();
        let knows_members = state.members().leased().any(|member| member != me);
        Self {
            knows_members,
            renewals: Renewals::default(),
            state,
            options: options.clone(),
            sessions: BTreeMap::new(),
            random: SplitMix64::new(seed),
            outputs: VecDeque::new(),
            subscriptions: Subscriptions::default(),
            refused: VecDeque::new(),
            started: None,
            heartbeat_at: Duration::ZERO,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> &R {
        &self.state
    }

    /// The state, without the sessions.
    #[must_use]
    pub fn into_state(self) -> R {
        self.state
    }

    /// Changes the state, and notifies the peers if it has changed.
    pub fn change<T>(&mut self, now: Duration, change: impl FnOnce(&mut R) -> T) -> T {
        let before = self.state.frontier();
        let since = (!self.subscriptions.is_empty()).then(|| self.state.version());
        let result = change(&mut self.state);
        if self.state.frontier() != before {
            for key in since.map(|since| self.state.written_keys(&since)).unwrap_or_default() {
                self.subscriptions.note(&key);
            }
            self.notify(now, None);
        }
        result
    }

    /// Subscribes to the keys of a map or document that begin with `prefix`: each key whose values change, by
    /// [`change`](Self::change) or by a peer, is an output [`PeersOutput::Changed`]. A document has its
    /// prefixes from [`Document::prefix`](crate::Document::prefix); other states have no keys.
    ///
    /// A key that changes several times before it is polled is one output.
    pub fn subscribe(&mut self, prefix: &[u8]) -> SubscriptionId {
        self.subscriptions.subscribe(prefix)
    }

    /// Ends a subscription. Returns whether there was one.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> bool {
        self.subscriptions.unsubscribe(id)
    }

    /// Adds a peer, and begins a session with it. Returns whether it is new.
    pub fn add(&mut self, now: Duration, peer: P) -> bool {
        if self.sessions.contains_key(&peer) {
            return false;
        }
        let session = Session::new(&self.options, self.random.next());
        let name = peer.clone();
        self.sessions.insert(peer, session);
        // The first announcement; it cannot be an error.
        let _ = self.handle_one(now, &name, SessionInput::Timeout);
        true
    }

    /// Ends the session with a peer. Returns whether there was one.
    ///
    /// As a member of the group the peer is waited for until its lease is over.
    pub fn remove(&mut self, peer: &P) -> bool {
        self.sessions.remove(peer).is_some()
    }

    /// The peers and their sessions, ascending.
    pub fn sessions(&self) -> impl Iterator<Item = (&P, &Session<R>)> {
        self.sessions.iter()
    }

    /// Whether each session was in sync when it last received something.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.sessions.values().all(Session::is_in_sync)
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// What was wrong with a datagram, or with a delta that was being joined in steps. The state is as it
    /// was.
    pub fn handle(&mut self, now: Duration, input: PeersInput<'_, P>) -> Result<(), PeersError<P>> {
        self.beat(now);
        if self.renew(now, None) {
            self.notify(now, None);
        }
        self.take(now, input)?;
        self.refused.pop_front().map_or(Ok(()), |(peer, source)| Err(PeersError::Session { peer, source }))
    }

    fn take(&mut self, now: Duration, input: PeersInput<'_, P>) -> Result<(), PeersError<P>> {
        match input {
            PeersInput::Datagram { from, bytes } => {
                if !self.sessions.contains_key(from) {
                    return Err(PeersError::Unknown { peer: from.clone() });
                }
                self.handle_one(now, from, SessionInput::Datagram(bytes))
                    .map_err(|source| PeersError::Session { peer: from.clone(), source })
            }
            PeersInput::Reachable(peer) => {
                let result = self.handle_one(now, peer, SessionInput::Reachable);
                self.note(peer, result);
                Ok(())
            }
            PeersInput::Timeout => {
                let is_due = |session: &Session<R>| session.poll_timeout().is_some_and(|at| at <= now);
                let due: Vec<P> = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| is_due(session))
                    .map(|(peer, _)| peer.clone())
                    .collect();
                for peer in due {
                    let result = self.handle_one(now, &peer, SessionInput::Timeout);
                    self.note(&peer, result);
                }
                Ok(())
            }
        }
    }

    /// The next output, if there is one; more may follow at [`poll_timeout`](Self::poll_timeout).
    pub fn poll_output(&mut self) -> Option<PeersOutput<P, R::Joined>> {
        let output = self.outputs.pop_front();
        // After the datagrams, which are waited for elsewhere.
        let changed = |(subscription, key)| PeersOutput::Changed { subscription, key };
        output.or_else(|| self.subscriptions.poll().map(changed))
    }

    /// When to call [`handle`](Self::handle) with [`PeersInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let sessions = self.sessions.values().filter_map(Session::poll_timeout);
        sessions.chain([self.heartbeat_at]).chain(self.renewals.poll_timeout()).min()
    }

    /// Counts a heartbeat if it is time to.
    fn beat(&mut self, now: Duration) {
        let started = *self.started.get_or_insert(now);
        if now < self.heartbeat_at {
            return;
        }
        let lease = self.state.members().lease();
        self.heartbeat_at = now + lease / HEARTBEATS_PER_LEASE;
        if self.knows_members || now >= started + lease {
            self.state.heartbeat(now);
        } else {
            // Members that are not known again yet must not be taken for none.
            let (replica, version) = (self.state.replica(), self.state.version());
            self.state.members_mut().heartbeat(now, replica, version);
        }
    }

    /// Gives an input to one session, and passes on what it brings.
    fn handle_one(&mut self, now: Duration, peer: &P, input: SessionInput<'_>) -> Result<(), SessionError> {
        let Some(session) = self.sessions.get_mut(peer) else { return Ok(()) };
        let handled = session.handle(now, input, &mut self.state);
        let is_renewed = self.renew(now, handled.as_ref().err());
        if self.gather(peer) || is_renewed {
            self.notify(now, Some(peer).filter(|_| !is_renewed));
        }
        handled
    }

    /// Notifies all sessions but one of a change.
    fn notify(&mut self, now: Duration, except: Option<&P>) {
        let others = self.sessions.keys().filter(|peer| Some(*peer) != except);
        let mut due: BTreeSet<P> = others.cloned().collect();
        while let Some(peer) = due.pop_first() {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            let result = session.handle(now, SessionInput::Changed, &mut self.state);
            let is_renewed = self.renew(now, result.as_ref().err());
            self.note(&peer, result);
            // A session that completes a long transfer meanwhile changes the state in turn.
            if self.gather(&peer) || is_renewed {
                due.extend(self.sessions.keys().filter(|other| **other != peer || is_renewed).cloned());
            }
        }
    }

    /// Goes on as a fresh incarnation, when it is time to, if events of this replica have other contents
    /// elsewhere, or are missing here: it was restored from an old copy, or another process writes under its
    /// ID.
    fn renew(&mut self, now: Duration, error: Option<&SessionError>) -> bool {
        let lease = self.state.members().lease();
        if let Some(SessionError::Join(JoinError::Impostor { .. })) = error {
            self.renewals.claim(now, lease);
        }
        if !self.renewals.take(now, self.options.retry_max, lease) {
            return false;
        }
        let me = self.state.replica();
        let used = |incarnation| {
            let id = ReplicaId::with_incarnation(me.node, incarnation);
            id == me || self.state.version().get(id) > 0
        };
        // Random bits, because two copies must not choose the same.
        let mut random = || u32::try_from(self.random.next() >> 32).unwrap_or(0);
        let mut incarnation = random();
        while used(incarnation) {
            incarnation = random();
        }
        self.state.renew(incarnation);
        true
    }

    /// Notes an error, to be returned by `handle`.
    fn note(&mut self, peer: &P, result: Result<(), SessionError>) {
        // At most one of each peer is worth reporting.
        if let Err(source) = result
            && !self.refused.iter().any(|(of, _)| of == peer)
        {
            self.refused.push_back((peer.clone(), source));
        }
    }

    /// Takes the outputs of a session. Returns whether it has changed the state.
    fn gather(&mut self, peer: &P) -> bool {
        let Some(session) = self.sessions.get_mut(peer) else { return false };
        let mut is_changed = false;
        while let Some(output) = session.poll_output() {
            self.outputs.push_back(match output {
                SessionOutput::Send(bytes) => PeersOutput::Send { to: peer.clone(), bytes },
                SessionOutput::Joined(joined) => {
                    is_changed = true;
                    for key in R::changed_keys(&joined) {
                        self.subscriptions.note(key);
                    }
                    PeersOutput::Joined { from: peer.clone(), joined }
                }
                SessionOutput::Staged(record) => PeersOutput::Staged(record),
            });
        }
        is_changed
    }
}
