//! [`Session`]: synchronizes a replica with one peer over datagrams.

mod meet;
mod members;
mod message;
mod options;
mod owner;
mod pull;
mod push;
mod ranges;
mod replicated;
mod serve;
pub(crate) mod sketch;
mod transfer;
mod versions;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use meet::Compared;
pub use members::{MEMBERS_MAX, Members};
use message::{Kind, Message, VersionRef};
pub use options::SessionOptions;
pub(crate) use owner::{Claim, Owner};
use pull::{Behind, Joining, Pull};
pub use replicated::Replicated;
pub(crate) use replicated::WHOLE_LEN_MAX;
pub use replicated::{Found, GatherStep, JoinSource, JoinStep, StageBegin, StageStep, StageTaken, Transfer};
use serve::{Gathering, Preparing, Sketching, Waiting};
use transfer::{Incoming, Outgoing, Part, Progress};
use versions::Versions;

use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::map::Joined;
use crate::random::SplitMix64;
use crate::session::sketch::SketchError;
use crate::{CausalMap, DeltaError, Frontier, JoinError, ReplicaId, Version};

/// For how many `retry_min` parts are sent to a silent peer. A receiving peer sends something in each.
const SILENCE: u32 = 4;

/// After so many announcements in a row without an answer a change of the state does not hasten the next one.
const UNANSWERED_MAX: u32 = 6;

/// The least limit of versions, members and hashes, which do not shrink with the transfers.
const TABLE_LEN_MAX: usize = 64 << 10;

/// The least limit of a datagram, in bytes: the longest message that is not split must fit.
const DATAGRAM_LEN_MIN: usize = 128;

/// An input of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionInput<'a> {
    /// A datagram of the peer, whole. The transport has authenticated the peer.
    Datagram(&'a [u8]),
    /// The state was changed outside this session: written to, or joined with a third replica.
    Changed,
    /// The peer can be reached again, as the transport reports: the pauses of a peer that was silent end.
    Reachable,
    /// The time of [`Session::poll_timeout`] has come.
    Timeout,
}

/// An output of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOutput<J = Joined> {
    /// Send this to the peer, as one datagram. It may be lost.
    Send(Vec<u8>),
    /// The state has joined a delta: notify watchers, and the sessions with other peers by
    /// [`SessionInput::Changed`].
    Joined(J),
    /// A part of a long state has arrived, and does not count yet. A replica with a journal may write this
    /// record to it, and then goes on from here after a restart: see
    /// [`CausalMap::replay_range`]. Nothing is lost if it does not. Of a composed type the record is empty:
    /// [`CausalReplica::save`](crate::CausalReplica::save) holds the part.
    Staged(Vec<u8>),
}

/// Why a datagram was refused. It had no effect; the session goes on and requests again what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Malformed.
    #[error("a datagram of the peer cannot be decoded; it had no effect")]
    Datagram(#[from] DecodeError),
    /// The peer has another [`HashKey`](crate::HashKey). Until it announces itself with the same one, nothing
    /// is exchanged, and this side sends one datagram in each [`SessionOptions::retry_max`].
    #[error("the peer has another hash key, so nothing is exchanged with it: set one key on both sides")]
    KeyMismatch,
    /// The checksum of a transfer does not match: it was damaged.
    #[error("the checksum of a transfer does not match: it was damaged, and is fetched again")]
    Checksum,
    /// A delta of the peer is longer than this side takes, and cannot be split. The peer was notified.
    #[error(
        "a delta of the peer has {len} bytes, above the limit of {limit}: raise SessionOptions::transfer_len_max on this side; the state is as it was"
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// [`SessionOptions::transfer_len_max`] of this side.
        limit: usize,
    },
    /// The peer refuses a delta of this side, because it is longer than the peer takes.
    #[error(
        "the peer refuses a delta of {len} bytes, above its limit of {limit}: raise SessionOptions::transfer_len_max of the peer"
    )]
    Refused {
        /// Its length in bytes.
        len: usize,
        /// [`SessionOptions::transfer_len_max`] of the peer.
        limit: u64,
    },
    /// A delta is malformed. It was dropped whole.
    #[error("a delta of the peer is malformed; the state is as it was")]
    Delta(#[from] DeltaError),
    /// A delta does not fit this replica. It was dropped whole.
    #[error("a delta of the peer does not fit this replica; the state is as it was")]
    Join(#[from] JoinError),
    /// Coded symbols contradict each other. The reconciliation starts over.
    #[error("a set reconciliation with the peer failed; it starts over")]
    Sketch(#[from] SketchError),
}

/// Counts of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Bytes sent, as datagrams without the headers below them.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes received that had arrived before.
    pub redundant_bytes: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Deltas joined.
    pub joins: u64,
    /// Requests that were repeated because no answer arrived.
    pub retries: u64,
    /// Times that equal versions had unequal contents: a writer equivocates. Both sides converge to the
    /// greater content.
    pub divergences: u64,
    /// Times that history did not reach back far enough, so that states were reconciled.
    pub reconciliations: u64,
}

/// The protocol engine of anti-entropy between two replicas: one per peer, on both sides.
///
/// A small change of a side that was in sync is pushed in one datagram with the announcement. Apart from
/// that, each side compares frontiers (26 bytes, or 14 when nothing has changed) and pulls what it lacks. It
/// sends its version, as changes to one that both sides know, and the peer answers with a delta in numbered
/// parts; lost parts are requested again by number. Every datagram may be lost, doubled, delayed or
/// reordered, and either side may restart at any time. The requesting side does all repetitions, so that a
/// serving side holds no timers for a peer that is gone. A receiver sends a keep-alive of one byte in every
/// `retry_min`, so that few parts are sent into a dead link. While no pull makes progress, each side sends at
/// most one datagram in each [`retry_max`](SessionOptions::retry_max), besides its answers to the peer's
/// requests.
///
/// A delta of many items is joined in steps of [`join_items_max`](SessionOptions::join_items_max) items,
/// which [`poll_timeout`](Self::poll_timeout) asks for at once, and becomes visible with the last one.
///
/// A map that is too long for one transfer is pulled range by range, each in one transfer of at most 512 KiB.
/// The ranges are joined beside the map, in steps that [`poll_timeout`](Self::poll_timeout) asks for at once,
/// and become visible together. Between two ranges the serving side holds nothing. A long composed type is
/// pulled in the same way, by slices of at most 1 MiB: each has the values of a range of events.
///
/// Announcements carry a check value of the hash key, so that a mismatch is an error and no endless exchange.
/// When only the members differ, one side sends four bits of each member's heartbeat count, from which the
/// other one restores the counts, and the newer rows are exchanged. As long as every member has seen all
/// events, this happens five times in a lease at most.
///
/// # Drain contract
/// 1. Call [`handle`](Self::handle) for each datagram of the peer, each other change of the state, and each
///    timeout. The state is lent to each call, because all sessions of a replica share it.
/// 2. Then call [`poll_output`](Self::poll_output) until it returns `None`. Datagrams are spaced to the
///    budget, so more may follow later. What `handle` changed in the state is durable before an output is
///    carried out; see [`CausalMap`] on durability.
/// 3. Call `handle` with [`SessionInput::Timeout`] at the time of [`poll_timeout`](Self::poll_timeout), and
///    go on with 2.
///
/// Times are since any origin and never go back. An error of `handle` concerns the one datagram: the state is
/// as it was, and the driver need not answer. A late timeout or a dropped output delays the peers and loses
/// nothing.
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
    /// Short datagrams and notices for the driver, in order.
    outputs: VecDeque<SessionOutput<R::Joined>>,
    /// The time of the last input.
    now: Duration,
    /// When the budget allows the next datagram.
    free_at: Duration,
    /// The delta that this side is getting.
    pull: Option<Pull>,
    /// No pull begins before this time; it grows while pulls fail.
    pull_after: Duration,
    failures: u32,
    /// Pulls that began again at once since the last progress, because the peer had dropped what it served.
    restarts: u32,
    /// Requests and announcements since the last progress or failure: what an attempt has cost.
    spent: u32,
    /// The number of the last request, never used twice in a session; two sessions with one peer differ by
    /// their seed.
    number: u64,
    /// The content that this side sends in parts, by kind.
    serving: [Option<Outgoing>; Kind::ALL.len()],
    /// The content that this side collects besides a delta, by kind.
    collecting: [Option<Collecting>; Kind::ALL.len()],
    /// A pull of the peer that waits for what it refers to.
    waiting: Option<Waiting>,
    /// The coded symbols that the peer reconciles with.
    sketching: Option<Sketching>,
    versions: Versions,
    /// The hash of a version of this side that the peer has made a delta for, and so knows.
    confirmed: Option<u64>,
    /// The version that the peer last reported.
    acknowledged: Version,
    peer: Option<Frontier>,
    /// The frontier that both sides had when they were last in sync.
    agreed: Option<Frontier>,
    /// The pair of frontiers, the peer's and this side's, with which a pull cannot succeed, and the writer
    /// here.
    barren: Option<(Frontier, Frontier, ReplicaId)>,
    in_sync: bool,
    /// The peer has another hash key.
    mismatch: bool,
    /// The longest delta that the peer takes, as far as it has refused one.
    peer_limit: Option<u64>,
    /// The number of the last range that this side has sent.
    range_number: Option<u64>,
    announce_at: Duration,
    announce_pause: Duration,
    /// The frontier that this side last announced, and when.
    announced: Option<Frontier>,
    announced_at: Duration,
    /// Announcements since the last datagram of the peer.
    unanswered: u32,
    /// The heartbeats that this side last sent for comparison.
    compared: Option<Compared>,
    /// While nothing waits for heartbeats, none are compared before this time.
    compare_at: Duration,
    /// The number under which this session fetches ranges.
    stage: Option<u64>,
    /// Work on the state's stage is due.
    is_staging: bool,
    /// The state has other work to do in steps, such as the collection of a long history.
    is_tidying: bool,
    /// A delta that is being joined in steps.
    joining: Option<Joining<R>>,
    /// A delta for the peer that is being made in steps.
    gathering: Option<Gathering<R>>,
    /// An answer for the peer that needs a pass over the state.
    preparing: Option<Preparing>,
    /// The state's stage is of another peer.
    is_foreign: bool,
    /// The last delta named a value that is not known here: the next one has whole keys.
    whole_keys: bool,
    /// When something that this side is getting last made progress.
    progress: Duration,
    /// When the last datagram of the peer arrived, and when this side last sent one.
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
        let announce_pause = options.retry_min;
        Self {
            options: SessionOptions {
                // `part_len` and `next_symbols` subtract their headers from it: below the minimum they would
                // underflow.
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
            restarts: 0,
            spent: 0,
            // 28 random bits and room for 256 requests below them: short as an integer, and far apart for
            // different seeds.
            number: (SplitMix64::new(seed).next() >> 44) << 8,
            serving: [const { None }; Kind::ALL.len()],
            collecting: [const { None }; Kind::ALL.len()],
            waiting: None,
            sketching: None,
            versions: Versions::default(),
            confirmed: None,
            acknowledged: Version::new(),
            peer: None,
            agreed: None,
            barren: None,
            in_sync: false,
            mismatch: false,
            peer_limit: None,
            range_number: None,
            announce_at: Duration::ZERO,
            announce_pause,
            announced: None,
            announced_at: Duration::ZERO,
            unanswered: 0,
            compared: None,
            compare_at: Duration::ZERO,
            stage: None,
            is_staging: false,
            is_tidying: false,
            joining: None,
            gathering: None,
            preparing: None,
            is_foreign: false,
            whole_keys: false,
            progress: Duration::ZERO,
            heard: Duration::ZERO,
            spoke: Duration::ZERO,
        }
    }

    /// Counts so far.
    #[must_use]
    pub const fn stats(&self) -> SessionStats {
        self.stats
    }

    /// Whether both sides had one frontier when the last datagram of the peer arrived.
    #[must_use]
    pub const fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// Whether the last announcement of the peer showed another [`HashKey`](crate::HashKey).
    #[must_use]
    pub const fn has_key_mismatch(&self) -> bool {
        self.mismatch
    }

    /// The version of the peer, as it reported itself.
    #[must_use]
    pub const fn acknowledged(&self) -> &Version {
        &self.acknowledged
    }

    /// Bytes held of transfers that are not complete yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let collecting =
            self.collecting.iter().flatten().map(|collecting| collecting.incoming.pending_bytes());
        collecting.sum::<usize>() + self.pull.as_ref().map_or(0, Pull::pending_bytes)
    }

    /// Bytes held of transfers to the peer, until the next one of their kind.
    #[must_use]
    pub fn serving_bytes(&self) -> usize {
        self.serving.iter().flatten().map(Outgoing::len).sum()
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// What was wrong with the datagram, or with a delta that was being joined in steps. The state is as it
    /// was, and the session goes on.
    pub fn handle(
        &mut self,
        now: Duration,
        input: SessionInput<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        self.now = now;
        let worked = self.work(now, state);
        let taken = self.take(now, input, state);
        self.is_tidying = state.has_reports();
        taken.and(worked)
    }

    fn take(&mut self, now: Duration, input: SessionInput<'_>, state: &mut R) -> Result<(), SessionError> {
        match input {
            SessionInput::Datagram(bytes) => {
                // Counted even if it is malformed: the bytes were spent.
                self.stats.received_bytes += bytes.len() as u64;
                let message = Message::decode(bytes)?;
                // Any well-formed datagram shows that the peer is alive, also an outdated one.
                self.heard = now;
                self.unanswered = 0;
                self.on_message(now, &message, state)
            }
            SessionInput::Changed => {
                // The peer has not confirmed the new state yet.
                self.in_sync = false;
                // A peer that has been silent for long learns of the change when it sends something again.
                if self.unanswered <= UNANSWERED_MAX {
                    self.hasten(now);
                }
                self.on_time(now, state);
                Ok(())
            }
            SessionInput::Reachable => {
                self.unanswered = 0;
                self.hasten(now);
                if let Some(pull) = &mut self.pull {
                    pull.hasten(now);
                }
                self.on_time(now, state);
                Ok(())
            }
            SessionInput::Timeout => {
                self.on_time(now, state);
                Ok(())
            }
        }
    }

    /// Announces soon.
    fn hasten(&mut self, now: Duration) {
        // Nothing but another key of the peer ends a mismatch.
        if self.mismatch {
            return;
        }
        self.announce_pause = self.options.retry_min;
        // At most once per round trip, so that changes made together are announced together.
        let earliest = self.announced.map_or(now, |_| self.announced_at + self.options.retry_min);
        self.announce_at = self.announce_at.min(earliest.max(now));
    }

    /// The next output, if there is one; more may follow at [`poll_timeout`](Self::poll_timeout).
    pub fn poll_output(&mut self) -> Option<SessionOutput<R::Joined>> {
        let now = self.now;
        let output = self.outputs.pop_front().or_else(|| {
            // Answers above are short and leave at once; only the long rest is held to the budget, and to a
            // peer that is alive.
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
            // Not before now: an unused budget is not saved up, so that a burst cannot exceed the rate.
            self.free_at = self.free_at.max(now) + Duration::from_nanos(nanos);
        }
        Some(output)
    }

    /// When to call [`handle`](Self::handle) with [`SessionInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        // A silent peer is sent nothing, so no wake-up is due for it: its next datagram is one.
        let sending = self.is_sending().then_some(self.free_at).filter(|at| *at <= self.silent_at());
        let asking = self.pull.as_ref().map(|pull| pull.retry_at);
        let collecting = self.collecting.iter().flatten().map(|collecting| collecting.retry_at).min();
        let is_due = self.is_working() || self.is_preparing() || self.is_tidying;
        let working = is_due.then_some(self.now);
        let comparing = self.compared.as_ref().map(|compared| compared.retry_at);
        let times = [sending, asking, collecting, comparing, self.here_at(), working, Some(self.announce_at)];
        times.into_iter().flatten().min()
    }

    /// Whether a delta or a range is being joined in steps.
    const fn is_working(&self) -> bool {
        self.is_staging || self.joining.is_some()
    }

    /// Whether a comparison of states or an answer needs more steps.
    fn is_preparing(&self) -> bool {
        self.gathering.is_some()
            || self.preparing.is_some()
            || self.sketching.as_ref().is_some_and(Sketching::is_due)
            || self.pull.as_ref().is_some_and(Pull::is_due)
    }

    /// Whether parts or symbols wait to be sent.
    fn is_sending(&self) -> bool {
        self.gathering.is_some()
            || self.preparing.is_some()
            || self.serving.iter().flatten().any(|outgoing| !outgoing.is_idle())
            || self.sketching.as_ref().is_some_and(|sketching| !sketching.queue.is_empty())
    }

    /// Until when parts are sent to a silent peer: this bounds what a cut of the link costs.
    fn silent_at(&self) -> Duration {
        self.heard + self.options.retry_min * SILENCE
    }

    /// When the next keep-alive is due, while this side is getting something.
    fn here_at(&self) -> Option<Duration> {
        let at = self.spoke + self.options.retry_min;
        let is_getting = self.pull.is_some() || self.collecting.iter().any(Option::is_some);
        // To a silent peer the repeated requests are sign enough, and to one that answers other things.
        let until = self.silent_at().min(self.progress + self.options.retry_min * SILENCE * SILENCE);
        (is_getting && at <= until).then_some(at)
    }

    /// The next part of what this side sends, by the order of the kinds.
    fn next_part(&mut self) -> Option<Vec<u8>> {
        let (kind, outgoing) = Kind::ALL
            .into_iter()
            .zip(&mut self.serving)
            .find_map(|(kind, serving)| serving.as_mut().filter(|s| !s.is_idle()).map(|s| (kind, s)))?;
        // Kinds earlier in `ALL` go first: members wait for deltas.
        let part = outgoing.next()?;
        Some(Message::Part { kind, part }.encode())
    }

    fn send(&mut self, message: &Message<'_>) {
        self.spent = self.spent.saturating_add(1);
        self.outputs.push_back(SessionOutput::Send(message.encode()));
    }

    fn on_time(&mut self, now: Duration, state: &mut R) {
        self.retry_pull(now, state);
        self.retry_compared(now, state);
        // Requests before the announcement below: while one is open, the announcement is deferred.
        for kind in Kind::ALL {
            self.retry_collecting(now, kind);
        }
        if self.here_at().is_some_and(|at| at <= now) {
            self.send(&Message::Here);
        }
        if now >= self.announce_at && (self.pull.is_some() || self.is_working() || self.is_sending()) {
            // During a transfer an announcement is superfluous: the receiver announces its frontier when it
            // has joined the delta.
            self.announce_at = now + self.options.retry_max;
        } else if now >= self.announce_at {
            self.announce(now, state, true);
            self.unanswered = self.unanswered.saturating_add(1);
            // Backs off while the peer is silent; any sign of it resets the pause.
            self.announce_pause = (self.announce_pause * 2).min(self.options.retry_max);
            let pause = if self.in_sync { self.options.announce_every } else { self.announce_pause };
            self.announce_at = now + pause;
        }
    }

    fn on_message(
        &mut self,
        now: Duration,
        message: &Message<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        match message {
            Message::Frontier { frontier, key_check, about } => {
                self.on_announcement(now, *frontier, *key_check, *about, state)
            }
            // Nothing but an announcement shows that the peer has the same key again.
            _ if self.mismatch => Err(SessionError::KeyMismatch),
            Message::Same { hash, about } => {
                self.on_same(now, *hash, *about, state);
                Ok(())
            }
            Message::Beats { version, hash, quiet, bytes } => {
                self.on_beats(now, *version, *hash, *quiet, bytes, state);
                Ok(())
            }
            Message::Rows { version, base, bytes } => self.on_rows(now, *version, *base, bytes, state),
            Message::Pull { number, version, extent, whole, range } => {
                let waiting = Waiting {
                    number: *number,
                    version: version.clone(),
                    extent: *extent,
                    whole: *whole,
                    range: range.clone(),
                };
                self.on_pull(now, waiting, state);
                Ok(())
            }
            Message::Want { kind, number, missing } => {
                self.on_want(*kind, *number, missing, state);
                Ok(())
            }
            Message::Part { kind: Kind::Delta, part } => self.on_delta_part(now, part, state),
            Message::Part { kind, part } => self.on_part(now, *kind, part, state),
            Message::Behind { number, items, common, covers } => {
                self.on_behind(
                    now,
                    *number,
                    Behind { items: *items, common: *common, covers: *covers },
                    state,
                );
                Ok(())
            }
            Message::Gone { number } => {
                // An answer to an older request has no meaning any more.
                if self.pull.as_ref().is_some_and(|pull| pull.number == *number) {
                    // The peer restarted, or serves another request now: this side asks again, with its
                    // current version.
                    self.pull_again(now, state);
                }
                Ok(())
            }
            Message::Sketch { number, since, from, count } => {
                self.on_sketch(*number, *since, *from, *count, state);
                Ok(())
            }
            Message::Symbols { number, version, from, bytes } => {
                self.on_symbols(now, *number, *version, *from, bytes, state)
            }
            Message::Here => Ok(()),
            Message::Push { base, result, about, bytes } => {
                self.on_push(now, *base, *result, *about, bytes, state)
            }
            Message::Refuse { number, limit } => self.on_refuse(*number, *limit, state),
            Message::Ranges { number } => {
                self.on_ranges(now, *number, state);
                Ok(())
            }
        }
    }

    /// Begins to collect something other than a delta.
    fn collect(&mut self, now: Duration, kind: Kind, number: u64) {
        let slot = &mut self.collecting[kind as usize];
        // Parts that arrived already stay; `retry_collecting` requests the others.
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
        // About 25 seconds at the default pause.
        if collecting.tries >= 8 {
            // The peer is gone or does not hold it any more; it will request again what it needs.
            self.collecting[kind as usize] = None;
            return;
        }
        collecting.tries += 1;
        // Doubled with each try: a peer that has restarted cannot answer, and nothing else waits for this.
        collecting.retry_at = now + retry_min * (1 << collecting.tries.min(6));
        let (number, missing) = (collecting.number, collecting.incoming.missing());
        self.stats.retries += 1;
        self.send(&Message::Want { kind, number, missing });
    }

    /// A part of something other than a delta.
    fn on_part(
        &mut self,
        now: Duration,
        kind: Kind,
        part: &Part<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        let len_max = self.options.transfer_len_max.max(TABLE_LEN_MAX);
        let retry_min = self.options.retry_min;
        let Some(collecting) = &mut self.collecting[kind as usize] else { return Ok(()) };
        // A part of an older transfer of this kind.
        if collecting.number != part.number {
            return Ok(());
        }
        let progress = collecting
            .incoming
            .take(part, len_max)
            // A part that does not fit may be the one honest part after forged ones: start over.
            .inspect_err(|_| collecting.incoming = Incoming::default())?;
        collecting.tries = 0;
        self.progress = now;
        // After the last part whatever is missing was lost, or overtaken by a little.
        collecting.retry_at = if part.last { now + retry_min / 8 } else { now + retry_min };
        if progress != Progress::Whole {
            return Ok(());
        }
        // Complete: the slot is free for the next transfer, whatever comes of this one.
        let Some(collecting) = self.collecting[kind as usize].take() else { return Ok(()) };
        // If the peer's state changed in between, the parts may be of two versions of the transfer: it is
        // requested again when needed.
        let Ok(bytes) = Self::checked(&collecting.incoming.into_bytes(), state) else { return Ok(()) };
        match kind {
            Kind::Delta => Ok(()),
            Kind::Version => self.on_version(now, &bytes, state),
            Kind::Hashes => {
                self.on_hashes(now, collecting.number, &bytes, state);
                Ok(())
            }
            Kind::Members => {
                let mut input = ByteReader::new(&bytes);
                // The rows are relative to the sender's version, which both know when they are equal.
                let hash = u64::from_le_bytes(input.array("members")?);
                let mine = state.version();
                let base =
                    if mine.hash(state.hash_key()) == hash { Some(&mine) } else { self.versions.get(hash) };
                // Without the base the rows cannot be read: the next equal announcements request them again.
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
        // The peer may request this version by its hash, so it must be held until then.
        let hash = version.hash(key);
        self.versions.insert(hash, version.clone());
        let empty = Version::new();
        // The base with the fewest changes, of the empty version and those that the peer is known to hold.
        let mut anchors = alloc::vec![(0, &empty)];
        let known = self.confirmed.into_iter().chain(self.peer.map(|frontier| frontier.version));
        anchors.extend(known.filter_map(|hash| Some((hash, self.versions.get(hash)?))));
        let changes = anchors
            .into_iter()
            .map(|(anchor, base)| (anchor, version.changes_since(base)))
            .min_by_key(|(_, changes)| changes.len())
            // A change takes at most 16 bytes. What does not fit one datagram is collected by the peer in
            // parts, by its hash.
            .filter(|(_, changes)| changes.len() * 16 + 96 <= self.options.datagram_len_max);
        VersionRef { hash, changes }
    }

    /// The version that a reference of the peer names, if its base is known here.
    fn resolve(&self, reference: &VersionRef, state: &R) -> Option<Version> {
        let key = state.hash_key();
        let empty = Version::new();
        let made = reference.changes.as_ref().and_then(|(anchor, changes)| {
            // The anchor 0 stands for the empty version.
            let base = if *anchor == 0 { Some(&empty) } else { self.versions.get(*anchor) };
            base.map(|base| base.clone().changed(changes))
        });
        // The hash of the result decides: a wrong base cannot yield a version that the peer does not have.
        made.or_else(|| self.versions.get(reference.hash).cloned())
            .filter(|version| version.hash(key) == reference.hash)
    }

    /// The members as bytes, relative to this side's version.
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
