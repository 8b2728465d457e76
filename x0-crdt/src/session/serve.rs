//! The serving side of a session: answers the requests of the peer.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::message::{Extent, Kind, Message, RangeRef, VersionRef};
use super::replicated::{Found, GatherStep};
use super::transfer::Outgoing;
use super::{Replicated, Session, SessionError};
use crate::Version;
use crate::codec::{ByteReader, Canonical};
use crate::map::HistoryError;
use crate::session::sketch::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX};

/// A pull that waits for the version or the hashes that it refers to.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) version: VersionRef,
    pub(super) extent: Extent,
    pub(super) whole: bool,
    pub(super) range: Option<RangeRef>,
}

/// A fuzzer finds no keyed checksum, and what is behind it must take any bytes of a member all the same.
const IS_CHECKED: bool = !cfg!(fuzzing);

/// How often a pass over the state starts over.
const RESTARTS_MAX: u32 = 4;

/// How many values a pass visits in the time of one item that is joined.
const VISITS: usize = 4;

/// The most symbols that one request is answered with.
pub(super) const SYMBOLS_AT_ONCE: usize = 1 << 14;

/// The coded symbols of the values held at a version, while the peer requests them.
#[derive(Debug)]
pub(super) struct Sketching {
    number: u64,
    symbols: CodedSymbols,
    version: Version,
    version_hash: u64,
    resolutions: u64,
    /// The values of events that the peer has not seen are left out.
    since: Version,
    /// The values up to this key are in the symbols; `None` when all are.
    at: Option<Option<Vec<u8>>>,
    /// Symbols to send.
    pub(super) queue: Range<usize>,
}

impl Sketching {
    /// Whether there is work to do before symbols can be sent.
    pub(super) const fn is_due(&self) -> bool {
        self.at.is_some() || self.symbols.is_growing()
    }

    /// Does a part of the work.
    fn step<R: Replicated>(&mut self, count: usize, state: &R) {
        let Some(mut at) = self.at.take() else {
            self.symbols.step_growth(count);
            return;
        };
        let Self { symbols, version, since, .. } = self;
        // A value that comes during the pass is left out as well: it is in the history since the version.
        let is_more = state.visit(&mut at, count, |_, dot, hash| {
            if since.contains(dot) && version.contains(dot) {
                symbols.insert(hash());
            }
        });
        self.at = is_more.then_some(at);
    }
}

/// An answer to a pull that needs a pass over the state.
#[derive(Debug)]
pub(super) struct Preparing {
    /// The number of the pull, and the version that it is relative to.
    number: u64,
    since: Version,
    answer: Answer,
    /// All keys up to this one were visited.
    at: Option<Vec<u8>>,
    found: Found,
    restarts: u32,
}

#[derive(Debug)]
enum Answer {
    /// How many values are of events in the version.
    Behind { common: u64 },
    /// The values of events that are not in it.
    News { whole: bool },
    /// The values of `News`, and the values of these hashes.
    Chosen { sketched: Version, hashes: Vec<u64>, whole: bool, resolutions: u64 },
}

/// A delta for the peer that is being made in steps.
#[derive(Debug)]
pub(super) struct Gathering<R: Replicated> {
    /// The number of the pull, and the version that it is relative to.
    number: u64,
    since: Version,
    work: R::Gathering,
}

impl<R: Replicated> Session<R> {
    /// How many values one call visits.
    pub(super) fn visits(&self) -> usize {
        self.options.join_items_max.max(1).saturating_mul(VISITS)
    }

    pub(super) fn part_len(&self) -> usize {
        // The header of a part: kind, number, lengths and index take at most 24 bytes.
        self.options.datagram_len_max - 24
    }

    pub(super) fn serve(&mut self, kind: Kind, number: u64, bytes: Vec<u8>, state: &R) {
        let part_len = self.part_len();
        let mut outgoing = Outgoing::new(number, Self::with_checksum(bytes, state), part_len);
        // The peer refuses it by the first part.
        if kind == Kind::Delta && self.peer_limit.is_some_and(|limit| outgoing.len() as u64 > limit) {
            outgoing.only_first();
        }
        self.serving[kind as usize] = Some(outgoing);
    }

    /// The bytes of a transfer with their checksum.
    pub(super) fn with_checksum(mut bytes: Vec<u8>, state: &R) -> Vec<u8> {
        // Keyed, so that two sides with different hash keys fail here, before anything is joined.
        let checksum = state.hash_key().hash(&[b"transfer", &bytes]);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The transferred bytes, if their checksum matches.
    pub(super) fn checked(bytes: &[u8], state: &R) -> Result<Vec<u8>, SessionError> {
        match bytes.split_last_chunk() {
            Some((bytes, checksum))
                if !IS_CHECKED || state.hash_key().hash(&[b"transfer", bytes]).to_le_bytes() == *checksum =>
            {
                Ok(bytes.to_vec())
            }
            _ => Err(SessionError::Checksum),
        }
    }

    pub(super) fn on_pull(&mut self, now: Duration, pull: Waiting, state: &mut R) {
        let (number, extent, whole) = (pull.number, pull.extent, pull.whole);
        let serving = self.serving[Kind::Delta as usize].as_mut();
        if let Some(outgoing) = serving.filter(|outgoing| outgoing.number == number) {
            // The request was repeated because the answer was lost; while parts are queued, it is still on
            // its way.
            if outgoing.is_idle() {
                outgoing.resend(&[]);
            }
            return;
        }
        // The answer is being made; one for an older pull is dropped.
        self.gathering.take_if(|gathering| gathering.number != number);
        self.preparing.take_if(|preparing| preparing.number != number);
        if self.gathering.is_some() || self.preparing.is_some() {
            return;
        }
        // Without the version no delta can be made: it is collected by its hash first.
        let Some(since) = self.resolve(&pull.version, state) else {
            let hash = pull.version.hash;
            self.waiting = Some(pull);
            self.collect(now, Kind::Version, hash);
            return;
        };
        // The next request may name its version by this one.
        self.versions.insert(pull.version.hash, since.clone());
        let made = match extent {
            Extent::Complete if state.is_long(&since, true) => {
                self.send(&Message::Ranges { number });
                None
            }
            Extent::Since => {
                let items_max = self.options.join_items_max.max(1);
                let step = state.begin_gather(&since, whole, items_max);
                self.on_gather_step(number, since.clone(), step, state);
                None
            }
            Extent::Complete => Some(state.encode_complete(&since)),
            Extent::News => {
                self.prepare(number, since.clone(), Answer::News { whole }, state);
                None
            }
            // The hashes may be longer than a datagram: the requesting side holds them ready as a transfer.
            Extent::Chosen => {
                self.waiting = Some(pull);
                self.collect(now, Kind::Hashes, number);
                None
            }
            Extent::Range => {
                match &pull.range {
                    Some(RangeRef { len_max, from: Some(from) }) => {
                        self.serve_range(number, &since, from, *len_max, state);
                    }
                    _ => {
                        self.waiting = Some(pull);
                        self.collect(now, Kind::Hashes, number);
                    }
                }
                None
            }
        };
        if let Some(delta) = made {
            self.serve_or_split(number, delta, state);
        }
        // The request shows a version that this side lacks something of: it need not wait for an
        // announcement.
        let news = !since.is_within(&state.version());
        // A report of the peer itself replaces this side's own conclusions. What its stage has seen does not
        // count.
        if extent != Extent::Range {
            self.acknowledged = since;
        }
        if news {
            self.begin_pull(now, state);
        }
    }

    /// Begins to make an answer.
    fn prepare(&mut self, number: u64, since: Version, answer: Answer, state: &R) {
        let found = Found { begin: state.version(), ..Found::default() };
        self.preparing = Some(Preparing { number, since, answer, at: None, found, restarts: 0 });
        // At once, if the state is small.
        self.work_on_answer(state);
    }

    /// Does a part of the work on coded symbols or on an answer. Returns whether there was some.
    pub(super) fn work_on_answer(&mut self, state: &R) -> bool {
        let count = self.visits();
        if let Some(sketching) = self.sketching.as_mut().filter(|sketching| sketching.is_due()) {
            sketching.step(count, state);
            return true;
        }
        let Some(mut preparing) = self.preparing.take() else { return false };
        let Preparing { since, answer, at, found, .. } = &mut preparing;
        let is_more = match answer {
            Answer::Behind { common } => state.visit(at, count, |_, dot, _| {
                *common += u64::from(since.contains(dot));
            }),
            Answer::News { .. } => state.visit(at, count, |key, dot, _| {
                if !since.contains(dot) {
                    found.keys.push(key.to_vec());
                }
            }),
            Answer::Chosen { hashes, .. } => state.visit(at, count, |key, dot, hash| {
                if !since.contains(dot) || !hashes.is_empty() && hashes.binary_search(&hash()).is_ok() {
                    found.keys.push(key.to_vec());
                }
            }),
        };
        if is_more {
            self.preparing = Some(preparing);
        } else {
            self.finish_answer(preparing, state);
        }
        true
    }

    fn finish_answer(&mut self, mut preparing: Preparing, state: &R) {
        let Preparing { number, since, answer, found, .. } = &preparing;
        let number = *number;
        let made = match answer {
            Answer::Behind { common } => {
                let covers = since.is_within(&state.version());
                let items = state.value_count() as u64;
                self.send(&Message::Behind { number, items, common: *common, covers });
                return;
            }
            Answer::News { whole } => state.encode_news(since, *whole, found).map(Result::ok),
            // A content that has changed under its dot is in no history.
            Answer::Chosen { resolutions, .. } if *resolutions != state.resolutions() => None,
            Answer::Chosen { sketched, hashes, whole, .. } => {
                Some(state.encode_chosen(since, sketched, hashes, *whole, found).ok())
            }
        };
        match made {
            Some(Some(delta)) => {
                if matches!(preparing.answer, Answer::Chosen { .. }) {
                    self.sketching = None;
                }
                self.serve_or_split(number, delta, state);
            }
            // History since the beginning of the pass was collected.
            Some(None) if preparing.restarts < RESTARTS_MAX => {
                preparing.restarts += 1;
                preparing.at = None;
                preparing.found = Found { begin: state.version(), ..Found::default() };
                self.preparing = Some(preparing);
            }
            // The sketched version is not held any more, or its history was collected: the peer starts over.
            Some(None) | None => self.send(&Message::Gone { number }),
        }
    }

    /// Makes a part of the delta for the peer. Returns whether there was one to make.
    pub(super) fn work_on_delta(&mut self, state: &mut R) -> bool {
        let Some(Gathering { number, since, work }) = self.gathering.take() else { return false };
        let step = state.step_gather(work);
        self.on_gather_step(number, since, step, state);
        true
    }

    fn on_gather_step(
        &mut self,
        number: u64,
        since: Version,
        step: Result<GatherStep<R::Gathering>, HistoryError>,
        state: &R,
    ) {
        match step {
            Ok(GatherStep::More(work)) => self.gathering = Some(Gathering { number, since, work }),
            Ok(GatherStep::Done(delta)) => self.serve_or_split(number, delta, state),
            Ok(GatherStep::Long) => self.send(&Message::Ranges { number }),
            // The number of values lets the peer choose between a complete delta and a reconciliation.
            Err(_) => self.prepare(number, since, Answer::Behind { common: 0 }, state),
        }
    }

    /// Serves a delta, or has the peer ask for ranges if it has refused one as long.
    fn serve_or_split(&mut self, number: u64, delta: Vec<u8>, state: &R) {
        let limit = self.peer_limit;
        // With its checksum.
        let is_refused = limit.is_some_and(|limit| delta.len() as u64 + 8 > limit);
        if state.has_ranges() && is_refused {
            self.send(&Message::Ranges { number });
        } else {
            self.serve_delta(number, delta, state);
        }
    }

    pub(super) fn serve_delta(&mut self, number: u64, delta: Vec<u8>, state: &R) {
        // The peer will have this version, so it can name its next one by it.
        let version = state.version();
        self.versions.insert(version.hash(state.hash_key()), version);
        self.serve(Kind::Delta, number, delta, state);
    }

    pub(super) fn on_want(&mut self, kind: Kind, number: u64, missing: &[Range<usize>], state: &R) {
        // An idle transfer is sent again from the start if the request names no parts: the peer has none.
        let serving = self.serving[kind as usize].as_mut();
        if let Some(outgoing) = serving.filter(|outgoing| outgoing.number == number) {
            if !missing.is_empty() || outgoing.is_idle() {
                outgoing.resend(missing);
            }
            return;
        }
        let bytes = match kind {
            Kind::Delta => {
                // A restart or another request dropped the transfer: the peer must pull again.
                self.send(&Message::Gone { number });
                None
            }
            // Only the side that reconciled holds them; it is not this one.
            Kind::Hashes => None,
            Kind::Version => self.versions.get(number).map(Self::version_bytes),
            Kind::Members => Some(Self::members_bytes(state)),
        };
        if let Some(bytes) = bytes {
            self.serve(kind, number, bytes, state);
        }
    }

    /// A version that the peer referred to.
    pub(super) fn on_version(
        &mut self,
        now: Duration,
        bytes: &[u8],
        state: &mut R,
    ) -> Result<(), SessionError> {
        let mut input = ByteReader::new(bytes);
        let version = Version::decode(&mut input)?;
        input.finish()?;
        self.versions.insert(version.hash(state.hash_key()), version);
        // Kept only if this is the version that it waits for: otherwise the peer repeats its request.
        let waiting = self.waiting.take().filter(|waiting| self.resolve(&waiting.version, state).is_some());
        if let Some(waiting) = waiting {
            self.on_pull(now, waiting, state);
        }
        Ok(())
    }

    /// The hashes of the values that the peer lacks, or the first key of a range: answers the pull that waits
    /// for them.
    pub(super) fn on_hashes(&mut self, now: Duration, number: u64, bytes: &[u8], state: &mut R) {
        let Some(mut waiting) = self.waiting.take().filter(|waiting| waiting.number == number) else {
            return;
        };
        if let Some(range) = &mut waiting.range {
            range.from = Some(bytes.to_vec());
            self.on_pull(now, waiting, state);
            return;
        }
        // The checksum has matched, so a remainder cannot come from an honest peer.
        let (hashes, _) = bytes.as_chunks::<8>();
        let mut hashes = hashes.iter().map(|hash| u64::from_le_bytes(*hash));
        // First the version that the peer reconciled with: a late request may have made this side sketch
        // another one since.
        let version = hashes.next();
        let mut hashes: Vec<u64> = hashes.collect();
        hashes.sort_unstable();
        let sketched = self.sketching.as_ref().filter(|sketching| {
            // A content that has changed under its dot is in no history: the peer would take its own copy for
            // absent here.
            version == Some(sketching.version_hash) && sketching.resolutions == state.resolutions()
        });
        let sketched = sketched.map(|sketching| sketching.version.clone());
        match sketched.zip(self.resolve(&waiting.version, state)) {
            Some((sketched, since)) => {
                let (whole, resolutions) = (waiting.whole, state.resolutions());
                self.prepare(number, since, Answer::Chosen { sketched, hashes, whole, resolutions }, state);
            }
            // The sketched version is not held any more: the peer starts over.
            None => self.send(&Message::Gone { number }),
        }
    }

    /// Coded symbols are requested: of the state as it is at the first request, without the values of events
    /// that the peer has not seen, which it gets in any case.
    pub(super) fn on_sketch(&mut self, number: u64, since: u64, from: u64, count: u64, state: &R) {
        // One sketch at a time bounds the memory that a peer can claim.
        if self.sketching.as_ref().is_none_or(|sketching| sketching.number != number) {
            let version = state.version();
            let version_hash = version.hash(state.hash_key());
            let since = if since == version_hash { Some(&version) } else { self.versions.get(since) };
            let Some(since) = since else {
                self.send(&Message::Gone { number });
                return;
            };
            let since = since.clone();
            self.sketching = Some(Sketching {
                number,
                symbols: CodedSymbols::with_capacity(state.hash_key(), state.value_count()),
                version,
                version_hash,
                resolutions: state.resolutions(),
                since,
                at: Some(None),
                queue: 0..0,
            });
        }
        let count_max = self.visits();
        if let Some(sketching) = &mut self.sketching {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            // Bounded twice: by the symbols that exist at all, and by those of one request.
            let end = from.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
            // The latest request replaces older ones: it names what the peer lacks now.
            sketching.queue = from..end.min(SYMBOLS_MAX).min(from.saturating_add(SYMBOLS_AT_ONCE));
            sketching.symbols.begin_growth(sketching.queue.end);
            // At once, if the state is small.
            if sketching.is_due() {
                sketching.step(count_max, state);
            }
        }
    }

    /// The next datagram of coded symbols, if any are queued.
    pub(super) fn next_symbols(&mut self) -> Option<Vec<u8>> {
        let count_max = (self.options.datagram_len_max - 40) / SYMBOL_LEN;
        let sketching = self.sketching.as_mut().filter(|sketching| !sketching.is_due())?;
        let count = sketching.queue.len().min(count_max);
        if count == 0 {
            return None;
        }
        let from = sketching.queue.start;
        sketching.queue.start += count;
        let bytes = sketching.symbols.encode(from, count);
        let version = sketching.version_hash;
        Some(
            Message::Symbols { number: sketching.number, version, from: from as u64, bytes: &bytes }.encode(),
        )
    }
}
