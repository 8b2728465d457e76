//! [`Session`]: brings two replicas of a map together over datagrams.

mod members;
mod message;
mod options;
mod pull;
mod replicated;
mod serve;
pub(crate) mod sketch;
mod transfer;
mod versions;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

pub use members::{MEMBERS_MAX, Members};
use message::{Kind, Message, VersionRef};
pub use options::SessionOptions;
use pull::Pull;
pub use replicated::Replicated;
pub use replicated::Transfer;
use serve::{Sketching, Waiting};
use transfer::{Incoming, Outgoing, Part, Progress};
use versions::Versions;

use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::map::Joined;
use crate::random::SplitMix64;
use crate::session::sketch::SketchError;
use crate::{CausalMap, DeltaError, Frontier, JoinError, Version};

/// For how many `retry_min` something long is sent on to a peer that says nothing. It says something in each.
const SILENCE: u32 = 4;

/// No link is asked to carry shorter ones, in bytes.
const DATAGRAM_LEN_MIN: usize = 128;

/// What drives a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionInput<'a> {
    /// A datagram of the peer, whole. The transport has made sure that it is from the peer.
    Datagram(&'a [u8]),
    /// The map has changed by another hand: written to, or joined with a third replica.
    Changed,
    /// The time that [`Session::poll_timeout`] named has come.
    Timeout,
}

/// What a session asks its driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOutput<J = Joined> {
    /// Send this to the peer, as one datagram. It may be lost.
    Send(Vec<u8>),
    /// The map has taken in a difference: tell those who watch it, and the sessions with others by [`SessionInput::Changed`].
    Joined(J),
}

/// What was wrong with a datagram. It had no effect; the session goes on and asks again for what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Malformed.
    #[error("a datagram of the peer is malformed: {0}")]
    Datagram(#[from] DecodeError),
    /// A transfer that is not what the peer sent, or from one with another [`HashKey`](crate::HashKey).
    #[error(
        "a transfer arrived damaged: it is fetched again; if it stays so, compare the keys of the two sides"
    )]
    Checksum,
    /// A difference that is malformed. It was dropped whole.
    #[error("a difference of the peer is malformed: {0}")]
    Delta(#[from] DeltaError),
    /// A difference that does not fit this replica. It was dropped whole.
    #[error("a difference of the peer does not fit: {0}")]
    Join(#[from] JoinError),
    /// Coded symbols that contradict each other. The reconciliation starts over.
    #[error("a set reconciliation with the peer failed: {0}")]
    Sketch(#[from] SketchError),
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Bytes sent, as datagrams without the headers below them.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes received that were there already.
    pub redundant_bytes: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Differences taken in.
    pub joins: u64,
    /// Requests that were repeated because nothing came.
    pub retries: u64,
    /// Times that equal versions had unequal contents: a writer equivocates, and the greater content is brought everywhere.
    pub divergences: u64,
    /// Times that history did not reach back far enough and states were reconciled.
    pub reconciliations: u64,
}

/// The engine of anti-entropy between two replicas: one per peer, on both sides.
///
/// Each side compares frontiers (26 bytes), and pulls what it lacks: it tells its version, as changes to one that both know, and the
/// other answers with a difference in numbered parts, of which lost ones are asked for again by number. Every datagram may be lost,
/// doubled, delayed or reordered; either side may restart at any time. Whoever asks does all the repeating, so that a server owes
/// nothing to a peer that is gone; and says that it is there as long as it is sent something, one byte at a time, so that little is sent
/// into a link that is cut.
///
/// # How to drive it
/// 1. [`handle`](Self::handle) each datagram, each change of the map, and each time-out;
/// 2. then [`poll_output`](Self::poll_output) until it gives none: it spaces datagrams to the budget, so it may give more later;
/// 3. call `handle` with [`SessionInput::Timeout`] when the time of [`poll_timeout`](Self::poll_timeout) has come, and go on with 2.
///
/// The times are since any origin and never go back. An error of `handle` concerns the one datagram and needs no answer.
///
/// ```
/// use core::time::Duration;
/// use x0_crdt::{CausalMap, HashKey, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};
///
/// let key = HashKey::new([7; 16]);
/// let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), key));
/// let mut sessions = [1, 2].map(|seed| Session::new(&SessionOptions::default(), seed));
/// maps[0].put(b"door", 1, b"open")?;
///
/// let mut now = Duration::ZERO;
/// while maps[0].frontier() != maps[1].frontier() {
///     for side in 0..2 {
///         sessions[side].handle(now, SessionInput::Timeout, &mut maps[side])?;
///         while let Some(output) = sessions[side].poll_output() {
///             if let SessionOutput::Send(datagram) = output {
///                 let other = 1 - side;
///                 sessions[other].handle(now, SessionInput::Datagram(&datagram), &mut maps[other])?;
///             }
///         }
///     }
///     now += Duration::from_millis(1);
/// }
/// assert_eq!(maps[1].get(b"door").unwrap().latest().value, b"open");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session<R: Replicated = CausalMap> {
    options: SessionOptions,
    stats: SessionStats,
    /// Small datagrams and news for the driver, in order.
    outputs: VecDeque<SessionOutput<R::Joined>>,
    /// The time of the last input.
    now: Duration,
    /// When the budget allows the next datagram.
    free_at: Duration,
    /// What this side is getting.
    pull: Option<Pull>,
    /// No pull is begun before; grows while pulls come to nothing.
    pull_after: Duration,
    failures: u32,
    /// The number of the last request, never used twice in a life; two lives differ by their seed.
    number: u64,
    /// What this side sends in parts, by kind.
    serving: [Option<Outgoing>; Kind::ALL.len()],
    /// What this side collects besides a difference, by kind, with its number and when to ask again.
    collecting: [Option<Collecting>; Kind::ALL.len()],
    /// A pull of the peer that waits for what it refers to.
    waiting: Option<Waiting>,
    /// What the peer reconciles with.
    sketching: Option<Sketching>,
    versions: Versions,
    /// The hash of a version of this side that the peer has made a difference for, and so knows.
    confirmed: Option<u64>,
    /// What the peer had seen when it last said so.
    acknowledged: Version,
    peer: Option<Frontier>,
    in_sync: bool,
    greet_at: Duration,
    greet_pause: Duration,
    /// Where this side last said that it stands, and when.
    greeted: Option<Frontier>,
    greeted_at: Duration,
    /// When the peer was heard of last, and when this side said something.
    heard: Duration,
    spoke: Duration,
}

#[derive(Debug)]
struct Collecting {
    number: u64,
    incoming: Incoming,
    retry_at: Duration,
    tries: u32,
}

impl<R: Replicated> Session<R> {
    /// A session with a peer. `seed` must differ from that of an earlier session with the same peer.
    #[must_use]
    pub fn new(options: &SessionOptions, seed: u64) -> Self {
        let greet_pause = options.retry_min;
        Self {
            options: SessionOptions {
                datagram_len_max: options.datagram_len_max.max(DATAGRAM_LEN_MIN),
                ..options.clone()
            },
            stats: SessionStats::default(),
            outputs: VecDeque::new(),
            now: Duration::ZERO,
            free_at: Duration::ZERO,
            pull: None,
            pull_after: Duration::ZERO,
            failures: 0,
            // Short as an integer, far apart for different seeds.
            number: (SplitMix64::new(seed).next() >> 44) << 8,
            serving: [const { None }; Kind::ALL.len()],
            collecting: [const { None }; Kind::ALL.len()],
            waiting: None,
            sketching: None,
            versions: Versions::default(),
            confirmed: None,
            acknowledged: Version::new(),
            peer: None,
            in_sync: false,
            greet_at: Duration::ZERO,
            greet_pause,
            greeted: None,
            greeted_at: Duration::ZERO,
            heard: Duration::ZERO,
            spoke: Duration::ZERO,
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn stats(&self) -> SessionStats {
        self.stats
    }

    /// Whether both sides stood at one frontier when the peer was last heard of.
    #[must_use]
    pub const fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// What the peer has seen, as it said itself.
    #[must_use]
    pub const fn acknowledged(&self) -> &Version {
        &self.acknowledged
    }

    /// Bytes held of transfers that are not whole yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let collecting =
            self.collecting.iter().flatten().map(|collecting| collecting.incoming.pending_bytes());
        collecting.sum::<usize>() + self.pull.as_ref().map_or(0, Pull::pending_bytes)
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// What was wrong with the datagram. The state is as it was, and the session goes on.
    pub fn handle(
        &mut self,
        now: Duration,
        input: SessionInput<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        self.now = now;
        match input {
            SessionInput::Datagram(bytes) => {
                self.stats.received_bytes += bytes.len() as u64;
                let message = Message::decode(bytes)?;
                self.heard = now;
                self.on_message(now, &message, state)
            }
            SessionInput::Changed => {
                self.in_sync = false;
                self.greet_pause = self.options.retry_min;
                // Not more often than a round trip: what is written together is told together.
                let earliest = self.greeted.map_or(now, |_| self.greeted_at + self.options.retry_min);
                self.greet_at = self.greet_at.min(earliest.max(now));
                self.on_time(now, state);
                Ok(())
            }
            SessionInput::Timeout => {
                self.on_time(now, state);
                Ok(())
            }
        }
    }

    /// What to do next, if anything; more may come at [`poll_timeout`](Self::poll_timeout).
    pub fn poll_output(&mut self) -> Option<SessionOutput<R::Joined>> {
        let now = self.now;
        let output = self.outputs.pop_front().or_else(|| {
            if now < self.free_at || now > self.silent_at() {
                return None;
            }
            self.next_part().or_else(|| self.next_symbols()).map(SessionOutput::Send)
        })?;
        if let SessionOutput::Send(datagram) = &output {
            self.stats.sent_bytes += datagram.len() as u64;
            self.stats.sent_datagrams += 1;
            self.spoke = now;
            let nanos =
                (datagram.len() as u64).saturating_mul(1_000_000_000) / self.options.bytes_per_second.max(1);
            self.free_at = self.free_at.max(now) + Duration::from_nanos(nanos);
        }
        Some(output)
    }

    /// When to call [`handle`](Self::handle) with [`SessionInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let sending = self.is_sending().then_some(self.free_at).filter(|at| *at <= self.silent_at());
        let asking = self.pull.as_ref().map(|pull| pull.retry_at);
        let collecting = self.collecting.iter().flatten().map(|collecting| collecting.retry_at).min();
        [sending, asking, collecting, self.here_at(), Some(self.greet_at)].into_iter().flatten().min()
    }

    /// Whether parts or symbols wait to be sent.
    fn is_sending(&self) -> bool {
        self.serving.iter().flatten().any(|outgoing| !outgoing.is_idle())
            || self.sketching.as_ref().is_some_and(|sketching| !sketching.queue.is_empty())
    }

    /// Until when something long is sent on to a peer that says nothing: what a cut of the link costs.
    fn silent_at(&self) -> Duration {
        self.heard + self.options.retry_min * SILENCE
    }

    /// When to say that this side is there, while it is sent something long.
    fn here_at(&self) -> Option<Duration> {
        let at = self.spoke + self.options.retry_min;
        let is_getting = self.pull.is_some() || self.collecting.iter().any(Option::is_some);
        // In silence, what is asked again says it.
        (is_getting && at <= self.silent_at()).then_some(at)
    }

    /// The next datagram of whatever is sent in parts.
    fn next_part(&mut self) -> Option<Vec<u8>> {
        let (kind, outgoing) = Kind::ALL
            .into_iter()
            .zip(&mut self.serving)
            .find_map(|(kind, serving)| serving.as_mut().filter(|s| !s.is_idle()).map(|s| (kind, s)))?;
        let part = outgoing.next()?;
        Some(Message::Part { kind, part }.encode())
    }

    fn send(&mut self, message: &Message<'_>) {
        self.outputs.push_back(SessionOutput::Send(message.encode()));
    }

    fn on_time(&mut self, now: Duration, state: &mut R) {
        self.retry_pull(now, state);
        for kind in Kind::ALL {
            self.retry_collecting(now, kind);
        }
        if self.here_at().is_some_and(|at| at <= now) {
            self.send(&Message::Here);
        }
        if now >= self.greet_at && (self.pull.is_some() || self.is_sending()) {
            // Who gets something asks for it until it is there, and greets then.
            self.greet_at = now + self.options.retry_max;
        } else if now >= self.greet_at {
            self.greet(now, state, true);
            self.greet_pause = (self.greet_pause * 2).min(self.options.retry_max);
            let pause = if self.in_sync { self.options.greet_every } else { self.greet_pause };
            self.greet_at = now + pause;
        }
    }

    fn greet(&mut self, now: Duration, state: &R, asks: bool) {
        self.greeted = Some(state.frontier());
        self.greeted_at = now;
        let members = state.members().hash(state.hash_key());
        self.send(&Message::Frontier { frontier: state.frontier(), members, asks });
    }

    fn on_message(
        &mut self,
        now: Duration,
        message: &Message<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        match message {
            Message::Frontier { frontier, members, asks } => {
                self.on_frontier(now, *frontier, *members, *asks, state);
                Ok(())
            }
            Message::Pull { number, version, extent } => {
                self.on_pull(now, *number, version, *extent, state);
                Ok(())
            }
            Message::Want { kind, number, missing } => {
                self.on_want(*kind, *number, missing, state);
                Ok(())
            }
            Message::Part { kind: Kind::Delta, part } => self.on_delta_part(now, part, state),
            Message::Part { kind, part } => self.on_part(now, *kind, part, state),
            Message::Behind { number, items } => {
                self.on_behind(now, *number, *items, state);
                Ok(())
            }
            Message::Gone { number } => {
                if self.pull.as_ref().is_some_and(|pull| pull.number == *number) {
                    self.pull = None;
                    self.begin_pull(now, state);
                }
                Ok(())
            }
            Message::Sketch { number, from, count } => {
                self.on_sketch(*number, *from, *count, state);
                Ok(())
            }
            Message::Symbols { number, version, from, bytes } => {
                self.on_symbols(now, *number, *version, *from, bytes, state)
            }
            Message::Here => Ok(()),
        }
    }

    fn on_frontier(&mut self, now: Duration, theirs: Frontier, members: u64, asks: bool, state: &mut R) {
        let mine = state.frontier();
        self.peer = Some(theirs);
        if theirs == mine {
            // A greeting of this side that is under way answers theirs. If it is lost, they ask again.
            let is_answered = self.greeted == Some(mine) && now < self.greeted_at + self.options.retry_min;
            self.on_equal(now, state);
            if asks && !is_answered {
                self.greet(now, state, false);
            }
            if members != state.members().hash(state.hash_key()) {
                self.collect(now, Kind::Members, members);
            }
            return;
        }
        self.in_sync = false;
        self.greet_pause = self.options.retry_min;
        self.greet_at = self.greet_at.min(now + self.options.retry_max);
        if theirs.version == mine.version {
            self.stats.divergences += 1;
        }
        let nothing_new = theirs.version != mine.version
            && self.versions.get(theirs.version).is_some_and(|version| version.is_within(&state.version()));
        if !nothing_new {
            self.begin_pull(now, state);
        } else if asks {
            // It has nothing for this side, but lacks something itself.
            self.greet(now, state, false);
        }
    }

    /// Both sides stand at one frontier.
    fn on_equal(&mut self, now: Duration, state: &mut R) {
        let version = state.version();
        self.in_sync = true;
        self.failures = 0;
        self.pull_after = now;
        self.pull = None;
        self.serving[Kind::Delta as usize] = None;
        self.serving[Kind::Hashes as usize] = None;
        self.sketching = None;
        self.waiting = None;
        self.collecting[Kind::Version as usize] = None;
        self.collecting[Kind::Hashes as usize] = None;
        self.greet_pause = self.options.retry_min;
        self.greet_at = now + self.options.greet_every;
        self.versions.insert(version.hash(state.hash_key()), version.clone());
        self.acknowledged = version;
    }

    /// Begins to collect something other than a difference.
    fn collect(&mut self, now: Duration, kind: Kind, number: u64) {
        let slot = &mut self.collecting[kind as usize];
        if slot.as_ref().is_some_and(|collecting| collecting.number == number) {
            return;
        }
        *slot = Some(Collecting {
            number,
            incoming: Incoming::default(),
            retry_at: now + self.options.retry_min,
            tries: 0,
        });
        self.send(&Message::Want { kind, number, missing: Vec::new() });
    }

    fn retry_collecting(&mut self, now: Duration, kind: Kind) {
        let retry_min = self.options.retry_min;
        let Some(collecting) = &mut self.collecting[kind as usize] else { return };
        if now < collecting.retry_at {
            return;
        }
        if collecting.tries >= 8 {
            // The peer is gone or has nothing of the kind any more; it will ask anew.
            self.collecting[kind as usize] = None;
            return;
        }
        collecting.tries += 1;
        collecting.retry_at = now + retry_min * (1 << collecting.tries.min(6));
        let (number, missing) = (collecting.number, collecting.incoming.missing());
        self.stats.retries += 1;
        self.send(&Message::Want { kind, number, missing });
    }

    /// A part of something other than a difference.
    fn on_part(
        &mut self,
        now: Duration,
        kind: Kind,
        part: &Part<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        let len_max = self.options.transfer_len_max;
        let retry_min = self.options.retry_min;
        let Some(collecting) = &mut self.collecting[kind as usize] else { return Ok(()) };
        if collecting.number != part.number {
            return Ok(());
        }
        let progress = collecting
            .incoming
            .take(part, len_max)
            .inspect_err(|_| collecting.incoming = Incoming::default())?;
        collecting.tries = 0;
        collecting.retry_at = if part.last { now + retry_min / 8 } else { now + retry_min };
        if progress != Progress::Whole {
            return Ok(());
        }
        let Some(collecting) = self.collecting[kind as usize].take() else { return Ok(()) };
        // Parts of two makings may have met, if the peer's state changed in between: it is asked for again when it is needed.
        let Ok(bytes) = Self::checked(&collecting.incoming.into_bytes(), state) else { return Ok(()) };
        match kind {
            Kind::Delta => Ok(()),
            Kind::Version => self.on_version(now, &bytes, state),
            Kind::Hashes => {
                self.on_hashes(collecting.number, &bytes, state);
                Ok(())
            }
            Kind::Members => {
                let mut input = ByteReader::new(&bytes);
                let hash = u64::from_le_bytes(input.array("members")?);
                let mine = state.version();
                let base =
                    if mine.hash(state.hash_key()) == hash { Some(&mine) } else { self.versions.get(hash) };
                if let Some(base) = base {
                    let me = state.replica();
                    state.members_mut().merge(now, me, base, &mut input)?;
                }
                Ok(())
            }
        }
    }

    fn version_ref(&mut self, version: &Version, state: &R) -> VersionRef {
        let key = state.hash_key();
        let hash = version.hash(key);
        self.versions.insert(hash, version.clone());
        let empty = Version::new();
        let mut anchors = alloc::vec![(0, &empty)];
        let known = self.confirmed.into_iter().chain(self.peer.map(|frontier| frontier.version));
        anchors.extend(known.filter_map(|hash| Some((hash, self.versions.get(hash)?))));
        let changes = anchors
            .into_iter()
            .map(|(anchor, base)| (anchor, version.changes_since(base)))
            .min_by_key(|(_, changes)| changes.len())
            .filter(|(_, changes)| changes.len() * 16 + 96 <= self.options.datagram_len_max);
        VersionRef { hash, changes }
    }

    /// What a reference of the peer stands for, if it can be known here.
    fn resolve(&self, reference: &VersionRef, state: &R) -> Option<Version> {
        let key = state.hash_key();
        let empty = Version::new();
        let made = reference.changes.as_ref().and_then(|(anchor, changes)| {
            let base = if *anchor == 0 { Some(&empty) } else { self.versions.get(*anchor) };
            base.map(|base| base.clone().changed(changes))
        });
        made.or_else(|| self.versions.get(reference.hash).cloned())
            .filter(|version| version.hash(key) == reference.hash)
    }

    /// What the members are told of each other.
    fn members_bytes(state: &R) -> Vec<u8> {
        let version = state.version();
        let mut bytes = version.hash(state.hash_key()).to_le_bytes().to_vec();
        state.members().encode(&version, &mut bytes);
        bytes
    }

    fn version_bytes(version: &Version) -> Vec<u8> {
        let mut bytes = Vec::new();
        version.encode(&mut bytes);
        bytes
    }
}
