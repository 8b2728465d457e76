//! The requesting side of a session: pulls deltas from the peer.

use alloc::vec::Vec;
use core::time::Duration;

use super::message::{About, Extent, Kind, Message};
use super::ranges::RangePull;
use super::replicated::{JoinSource, JoinStep, StageBegin};
use super::serve::SYMBOLS_AT_ONCE;
use super::transfer::{Incoming, Part, Progress};
use super::{Replicated, Session, SessionError, SessionOutput};
use crate::session::sketch::{CodedSymbols, SketchDecoder, SketchError};
use crate::{DeltaError, Dot, Frontier, JoinError, Version};

/// Up to so many values a complete delta is cheaper than a reconciliation.
const ITEMS_FEW: usize = 16;

/// How many coded symbols are requested first.
const SYMBOLS_FIRST: usize = 32;

/// The most pauses after an attempt that failed.
const SPENT_MAX: u32 = 64;

/// How often a pull begins again at once before it counts as failed.
const RESTARTS_MAX: u32 = 4;

/// How many times a request is repeated before the pauses grow.
const TRIES_EVEN: u32 = 4;

/// The answer of a peer whose history does not reach back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// How many values it holds, and how many of them are of events in the version of the pull.
    pub(super) items: u64,
    pub(super) common: u64,
    /// The replica has seen all of this version.
    pub(super) covers: bool,
}

/// A delta that is being pulled.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) number: u64,
    /// This side's version at the request: the delta is relative to it.
    pub(super) base: Version,
    pub(super) extent: Extent,
    /// The delta has whole keys.
    whole: bool,
    /// The first key of a range.
    from: Vec<u8>,
    pub(super) incoming: Incoming,
    pub(super) retry_at: Duration,
    /// Requests since the last answer.
    tries: u32,
    /// When the last part arrived, and the recent time between parts.
    arrived: Option<Duration>,
    gap: Duration,
    /// The progress of a reconciliation of states, where history does not help.
    sketch: Option<Sketch>,
}

/// A reconciliation of states.
#[derive(Debug)]
pub(super) struct Sketch {
    decoder: SketchDecoder,
    /// The work that is due.
    task: Option<Task>,
    /// The symbol after the last one requested.
    asked: usize,
    /// How many items differ at least, as the counts of both sides show.
    expected: usize,
    /// The version of the peer that its symbols are of.
    version: Option<u64>,
    /// When all differing items are found: the hashes of the values here that the peer does not hold,
    /// ascending.
    local_only: Option<Vec<u64>>,
    /// The values of these, and their keys.
    absent: Vec<(Vec<u8>, Dot)>,
    /// The hashes of the values there that this side does not hold, ascending.
    remote_only: Vec<u64>,
    /// The peer's version, if it is known: values of later events are not compared, because the peer cannot
    /// hold them.
    known: Option<Version>,
    /// Values of later events were left out.
    leaves_out: bool,
    /// The count of resolutions here when the reconciliation began.
    resolutions: u64,
}

/// The work of a reconciliation, which is done in bounded steps.
#[derive(Debug)]
enum Task {
    /// The values here up to this key are in the decoder.
    Visit(Option<Vec<u8>>),
    /// The decoder needs more symbols of the values here.
    Grow,
    /// The decoder looks for items.
    Peel,
    /// The values here up to this key were compared with the items that only this side has.
    Locate(Option<Vec<u8>>),
}

impl Sketch {
    fn new<R: Replicated>(expected: usize, known: Option<Version>, state: &R) -> Self {
        let mut decoder =
            SketchDecoder::new(CodedSymbols::with_capacity(state.hash_key(), state.value_count()));
        // Before there are values, symbols cost nothing.
        decoder.local_mut().begin_growth(Self::next_count(0, expected));
        Self {
            decoder,
            task: Some(Task::Visit(None)),
            asked: 0,
            expected,
            version: None,
            local_only: None,
            absent: Vec::new(),
            remote_only: Vec::new(),
            known,
            leaves_out: false,
            resolutions: state.resolutions(),
        }
    }

    /// How many symbols to request from this one on.
    fn next_count(from: usize, expected: usize) -> usize {
        let count = if from == 0 && expected > 0 {
            // So many are mostly enough for as many differing items.
            expected.saturating_add(expected / 8 * 3) + SYMBOLS_FIRST / 4
        } else if from < expected.saturating_mul(2) {
            expected / 8 + SYMBOLS_FIRST / 4
        } else {
            // Half as many again as there are: few are sent in vain, at a round trip each.
            (from / 2).max(SYMBOLS_FIRST)
        };
        count.min(SYMBOLS_AT_ONCE)
    }

    /// Whether the peer did not hold a value here when it announced itself. If it has got the value before it
    /// was sketched, this side requests it as one that it lacks, and a value that the answer lists stays.
    fn is_absent(&self, base: &Version, dot: Dot, hash: impl FnOnce() -> u64) -> bool {
        let local_only = self.local_only.as_deref().unwrap_or_default();
        let is_left_out = self.known.as_ref().is_some_and(|known| base.contains(dot) && !known.contains(dot));
        is_left_out || local_only.binary_search(&hash()).is_ok()
    }

    /// The values held now that the peer did not hold when it was sketched: those that the reconciliation
    /// found, and those that arrived here since the version `base`, with which it began.
    fn not_at_the_peer<R: Replicated>(self, base: &Version, state: &R) -> Vec<(Vec<u8>, Dot)> {
        if let Some(written) = state.written_since(base) {
            let mut absent = self.absent;
            absent.extend(written);
            return absent;
        }
        let mut absent = Vec::new();
        state.visit(&mut None, usize::MAX, |key, dot, hash| {
            // A value that was not compared came here since: it stays if the answer lists it.
            if !self.decoder.is_local(hash()) || self.is_absent(base, dot, hash) {
                absent.push((key.to_vec(), dot));
            }
        });
        absent
    }
}

/// Where a delta is from.
#[derive(Debug)]
pub(super) struct Origin {
    /// What the delta is relative to.
    pub(super) base: Version,
    /// The delta has whole keys.
    pub(super) whole: bool,
    /// The delta was pushed, with the hash of the resulting frontier.
    pub(super) push: Option<(u64, About)>,
}

/// A delta that is being joined in steps.
#[derive(Debug)]
pub(super) struct Joining<R: Replicated> {
    pub(super) origin: Origin,
    pub(super) work: R::Joining,
}

impl Pull {
    /// Whether a reconciliation has work to do.
    pub(super) fn is_due(&self) -> bool {
        self.sketch.as_ref().is_some_and(|sketch| sketch.task.is_some())
    }

    /// Repeats the request at once.
    pub(super) const fn hasten(&mut self, now: Duration) {
        self.tries = 0;
        self.retry_at = now;
    }

    pub(super) const fn pending_bytes(&self) -> usize {
        self.incoming.pending_bytes()
    }
}

impl<R: Replicated> Session<R> {
    pub(super) fn begin_pull(&mut self, now: Duration, state: &mut R) {
        // One pull at a time: a second one would get the same delta again.
        if self.pull.is_some() || self.is_working() || now < self.pull_after {
            return;
        }
        // The same delta would be refused again, however long it is.
        if self.barren.is_some()
            && self.barren == self.peer.map(|theirs| (theirs, state.frontier(), state.replica()))
        {
            return;
        }
        if self.stage.is_some() {
            self.ask_range(now, state);
            // Otherwise the state's stage was dropped.
            if self.pull.is_some() {
                return;
            }
        }
        // A stage that is left of another session, or of the time before a restart.
        if !self.is_foreign && matches!(self.begin_ranges(now, false, state), StageBegin::Ready(_)) {
            return;
        }
        match self.peer {
            // Equal versions with unequal contents: history has nothing to send.
            Some(theirs) if theirs.version == state.frontier().version => {
                self.reconcile(now, state.version(), state.value_count(), 0, state);
            }
            // The serving side decides whether its history reaches back.
            _ => self.ask(now, Extent::Since, None, state),
        }
    }

    /// Compares states where history does not help: by set reconciliation, or by a complete delta where that
    /// is shorter.
    ///
    /// `base` is a version of this side that the peer knows, or the one of both.
    fn reconcile(&mut self, now: Duration, base: Version, items: usize, expected: usize, state: &R) {
        if state.value_count() == 0 || items <= ITEMS_FEW {
            self.ask(now, Extent::Complete, None, state);
            return;
        }
        // The decoder keeps the values of events in `base`, as far as they are held when they are visited: a
        // value that is gone does not come back. `not_at_the_peer` accounts for later events.
        let known = self.peer.and_then(|theirs| self.versions.get(theirs.version)).cloned();
        let sketch = Sketch::new(expected, known, state);
        self.ask_for(now, base, Extent::Chosen, Some(sketch), Vec::new(), state);
        // All of it, if the state is small. There are no symbols yet that could be wrong.
        let _ = self.work_on_sketch(now, state);
    }

    /// Does a part of the work of a reconciliation. Returns whether there was some.
    pub(super) fn work_on_sketch(&mut self, now: Duration, state: &R) -> Option<Result<(), SessionError>> {
        let count = self.visits();
        let pull = self.pull.as_mut()?;
        let sketch = pull.sketch.as_mut()?;
        let is_more = match sketch.task.take()? {
            Task::Visit(mut at) => {
                let (base, known, leaves_out) = (&pull.base, &sketch.known, &mut sketch.leaves_out);
                let local = sketch.decoder.local_mut();
                let is_more = state.visit(&mut at, count, |_, dot, hash| {
                    if base.contains(dot) {
                        if known.as_ref().is_none_or(|known| known.contains(dot)) {
                            local.insert(hash());
                        } else {
                            *leaves_out = true;
                        }
                    }
                });
                is_more.then_some(Task::Visit(at))
            }
            Task::Grow => sketch.decoder.local_mut().step_growth(count).then_some(Task::Grow),
            Task::Peel => match sketch.decoder.peel(count) {
                Ok(true) => Some(Task::Peel),
                Ok(false) => {
                    self.on_peeled(now, state);
                    return Some(Ok(()));
                }
                Err(error) => {
                    self.give_up(now);
                    return Some(Err(error.into()));
                }
            },
            Task::Locate(mut at) => {
                let mut absent = core::mem::take(&mut sketch.absent);
                let is_more = state.visit(&mut at, count, |key, dot, hash| {
                    if sketch.is_absent(&pull.base, dot, hash) {
                        absent.push((key.to_vec(), dot));
                    }
                });
                sketch.absent = absent;
                is_more.then_some(Task::Locate(at))
            }
        };
        sketch.task = is_more;
        if sketch.task.is_none() {
            pull.retry_at = now;
            if sketch.local_only.is_some() {
                self.serve_hashes(state);
            }
            self.retry_pull(now, state);
        }
        Some(Ok(()))
    }

    fn ask(&mut self, now: Duration, extent: Extent, sketch: Option<Sketch>, state: &R) {
        self.ask_for(now, state.version(), extent, sketch, Vec::new(), state);
    }

    pub(super) fn ask_for(
        &mut self,
        now: Duration,
        base: Version,
        extent: Extent,
        sketch: Option<Sketch>,
        from: Vec<u8>,
        state: &R,
    ) {
        // Parts of an older request carry another number and are dropped.
        self.number += 1;
        self.pull = Some(Pull {
            number: self.number,
            base,
            extent,
            whole: self.whole_keys,
            from,
            incoming: Incoming::default(),
            retry_at: now,
            tries: 0,
            arrived: None,
            gap: Duration::ZERO,
            sketch,
        });
        self.retry_pull(now, state);
    }

    /// Requests, for the first time or again, if it is time to.
    pub(super) fn retry_pull(&mut self, now: Duration, state: &R) {
        let (retry_min, retry_max) = (self.options.retry_min, self.options.retry_max);
        let is_due = |pull: &&mut Pull| now >= pull.retry_at && !pull.is_due();
        let Some(pull) = self.pull.as_mut().filter(is_due) else { return };
        if let Some(sketch) = pull.sketch.as_mut().filter(|sketch| sketch.local_only.is_none()) {
            let from = sketch.decoder.len();
            let end = from + Sketch::next_count(from, sketch.expected);
            let local = sketch.decoder.local_mut();
            local.begin_growth(end);
            if local.is_growing() {
                sketch.task = Some(Task::Grow);
                return;
            }
        }
        // The first repetitions do not wait longer: on a lossy link the loss of a request says nothing about
        // the peer.
        let doublings = pull.tries.saturating_sub(TRIES_EVEN).min(16);
        // On a slow link parts arrive farther apart than `retry_min`: a repetition would double the load.
        let pause = retry_min.max(pull.gap * 2).saturating_mul(1 << doublings);
        pull.retry_at = now + pause.min(retry_max);
        if pull.tries > 0 {
            self.stats.retries += 1;
        }
        pull.tries += 1;
        let is_started = !pull.incoming.missing().is_empty() || pull.sketch.is_some();
        if !is_started && pull.tries > TRIES_EVEN && pull.tries.is_multiple_of(2) {
            // The peer does not serve this pull. It may take this side for one with another key, or have
            // changed since: its announcement decides.
            self.announce(now, state, true);
            return;
        }
        let (number, extent, whole, missing) =
            (pull.number, pull.extent, pull.whole, pull.incoming.missing());
        if let Some(sketch) = pull.sketch.as_mut().filter(|sketch| sketch.local_only.is_none()) {
            let from = sketch.decoder.len();
            let count = Sketch::next_count(from, sketch.expected);
            sketch.asked = from + count;
            let since = pull.base.hash(state.hash_key());
            self.send(&Message::Sketch { number, since, from: from as u64, count: count as u64 });
            return;
        }
        // Some parts are here, so the peer holds the transfer: only the missing ones are requested.
        if !missing.is_empty() {
            self.send(&Message::Want { kind: Kind::Delta, number, missing });
            return;
        }
        // The version at the first request, although this side may have seen more since: the number stands
        // for one delta.
        let base = pull.base.clone();
        if extent == Extent::Range {
            let from = pull.from.clone();
            self.send_range(&RangePull { number, base, from }, state);
            return;
        }
        let version = self.version_ref(&base, state);
        self.send(&Message::Pull { number, version, extent, whole, range: None });
    }

    pub(super) fn on_delta_part(
        &mut self,
        now: Duration,
        part: &Part<'_>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        let len_max = self.options.transfer_len_max;
        let retry_min = self.options.retry_min;
        // Parts of an older request: it was superseded, or its answer is complete already.
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.number == part.number) else {
            self.stats.redundant_bytes += part.bytes.len() as u64;
            return Ok(());
        };
        self.spent = self.spent.saturating_add(1);
        if part.total_len > len_max {
            // The state can come by key ranges, unless this is one.
            let begin = match pull.extent {
                Extent::Range => StageBegin::None,
                Extent::Since | Extent::Complete | Extent::Chosen | Extent::News => {
                    self.begin_ranges(now, true, state)
                }
            };
            if matches!(begin, StageBegin::Ready(_)) {
                return Ok(());
            }
            self.send(&Message::Refuse { number: part.number, limit: len_max as u64 });
            if begin == StageBegin::Busy {
                return Ok(());
            }
            self.give_up(now);
            return Err(SessionError::TooLong { len: part.total_len, limit: len_max });
        }
        match pull.incoming.take(part, len_max) {
            Ok(Progress::Whole) => {}
            Ok(progress) => {
                if let Some(arrived) = pull.arrived {
                    // Smoothed, and capped so that the pause before a repetition does not distort it.
                    let apart = now.saturating_sub(arrived).min(retry_min * 4);
                    pull.gap = if pull.gap.is_zero() { apart } else { (pull.gap * 7 + apart) / 8 };
                }
                pull.arrived = Some(now);
                // The peer is alive: the pauses start over.
                pull.tries = 0;
                if progress == Progress::None {
                    self.stats.redundant_bytes += part.bytes.len() as u64;
                } else {
                    self.progress = now;
                }
                // After the last part whatever is missing was lost, or overtaken by a little.
                let patience = if part.last { pull.gap.min(retry_min) } else { retry_min.max(pull.gap * 2) };
                pull.retry_at = now + patience;
                return Ok(());
            }
            Err(error) => {
                self.give_up(now);
                return Err(error.into());
            }
        }
        let Some(pull) = self.pull.take() else { return Ok(()) };
        if pull.extent == Extent::Range {
            return self.finish_range(now, pull, state);
        }
        self.finish_pull(now, pull, state)
    }

    fn finish_pull(&mut self, now: Duration, pull: Pull, state: &mut R) -> Result<(), SessionError> {
        if pull.sketch.as_ref().is_some_and(|sketch| sketch.resolutions != state.resolutions()) {
            // A content here has changed under its dot since the sets were compared: compare them again.
            self.pull_again(now, state);
            return Ok(());
        }
        let before = state.frontier();
        let bytes = Self::checked(&pull.incoming.into_bytes(), state);
        if pull.extent != Extent::Complete {
            let items_max = self.options.join_items_max.max(1);
            let source = match (pull.extent, pull.sketch) {
                (Extent::News, _) => JoinSource::News,
                (_, Some(sketch)) => JoinSource::Chosen(sketch.not_at_the_peer(&pull.base, state)),
                (_, None) => JoinSource::History,
            };
            let step = bytes.and_then(|bytes| state.begin_join(&bytes, &pull.base, source, items_max));
            return self.on_join_step(
                now,
                before,
                Origin { base: pull.base, whole: pull.whole, push: None },
                step,
                state,
            );
        }
        let taken = bytes.and_then(|bytes| state.join_encoded(&bytes, &pull.base, |_| Vec::new()));
        // A delta that does not fit was made for a state that is gone, or by a hostile peer; both are
        // requested again later.
        let (context, joined) = match taken {
            Ok(taken) => taken,
            Err(error) => return self.on_refused(now, before, pull.whole, error, state),
        };
        self.on_pulled(now, before, pull.base, (context, joined), state);
        Ok(())
    }

    /// Does a part of the join of a delta. Returns whether there was one to do.
    pub(super) fn work_on_join(&mut self, now: Duration, state: &mut R) -> Option<Result<(), SessionError>> {
        let Joining { origin, work } = self.joining.take()?;
        let before = state.frontier();
        let step = state.step_join(work);
        Some(self.on_join_step(now, before, origin, step, state))
    }

    /// A part of the join of a delta was done.
    pub(super) fn on_join_step(
        &mut self,
        now: Duration,
        before: Frontier,
        origin: Origin,
        step: Result<JoinStep<R::Joined, R::Joining>, SessionError>,
        state: &mut R,
    ) -> Result<(), SessionError> {
        match step {
            // The states are compared.
            Ok(JoinStep::Unfit) => self.reconcile(now, origin.base, usize::MAX, 0, state),
            Ok(JoinStep::More(work)) => self.joining = Some(Joining { origin, work }),
            Ok(JoinStep::Done(context, joined)) => {
                // What was joined in steps is merged in further ones.
                self.is_staging |= state.has_reports();
                if let Some((result, about)) = origin.push {
                    self.note_pushed(state.frontier() != before, context, joined, state);
                    self.on_pushed(now, result, about, state);
                    return Ok(());
                }
                self.on_pulled(now, before, origin.base, (context, joined), state);
            }
            Err(error) => return self.on_refused(now, before, origin.whole, error, state),
        }
        Ok(())
    }

    /// A delta for the version `base` was joined.
    fn on_pulled(
        &mut self,
        now: Duration,
        before: Frontier,
        base: Version,
        (context, joined): (Version, R::Joined),
        state: &mut R,
    ) {
        self.whole_keys = false;
        let key = state.hash_key();
        // The peer made the delta for this base, so it knows the base: the next request can name its version
        // by it.
        self.confirmed = Some(base.hash(key));
        self.versions.insert(base.hash(key), base);
        self.on_joined(now, before, context, joined, state);
    }

    /// A delta was not joined.
    fn on_refused(
        &mut self,
        now: Duration,
        before: Frontier,
        whole: bool,
        error: SessionError,
        state: &mut R,
    ) -> Result<(), SessionError> {
        if error == SessionError::Delta(DeltaError::Reference) && !whole {
            // A value was replaced on both sides at once, and is not known here any more.
            self.whole_keys = true;
            self.pull_again(now, state);
            return Ok(());
        }
        self.fail(now, before, error, state)
    }

    /// Ends a pull whose delta cannot be joined by a state with the frontier `before`.
    pub(super) fn fail(
        &mut self,
        now: Duration,
        before: Frontier,
        error: SessionError,
        state: &R,
    ) -> Result<(), SessionError> {
        if matches!(error, SessionError::Join(JoinError::Impostor { .. })) {
            // No repetition helps before one of the two has changed.
            self.barren = self.peer.map(|theirs| (theirs, before, state.replica()));
        }
        self.give_up(now);
        Err(error)
    }

    /// A delta was joined whose sender has seen `context`.
    pub(super) fn on_joined(
        &mut self,
        now: Duration,
        before: Frontier,
        context: Version,
        joined: R::Joined,
        state: &mut R,
    ) {
        self.stats.joins += 1;
        // The sender has seen what it sent.
        self.acknowledged.join(&context);
        self.versions.insert(context.hash(state.hash_key()), context);
        self.outputs.push_back(SessionOutput::Joined(joined));
        // Announces what this side has now; the peer answers if its state has changed meanwhile.
        self.announce(now, state, false);
        if state.frontier() == before {
            // A delta that brings nothing, again and again, must not go on at the pace of the round trip.
            self.give_up(now);
        } else {
            self.made_progress(now);
            self.announce_at = now + self.options.retry_min;
        }
        // The announcement of the peer may be newer than its delta: then the answer to ours decides.
        if self.peer == Some(state.frontier()) {
            self.on_equal(now, state);
        }
    }

    /// The pull failed: waits longer each time before the next, so that a peer with a damaged state costs
    /// little.
    pub(super) fn give_up(&mut self, now: Duration) {
        let (retry_min, retry_max) = (self.options.retry_min, self.options.retry_max);
        self.pull = None;
        // Doubled with each failure up to `retry_max`; `made_progress` resets it.
        self.failures += 1;
        let pause = retry_min.saturating_mul(1 << self.failures.min(16));
        let spent = core::mem::take(&mut self.spent).clamp(1, SPENT_MAX);
        if pause < retry_max {
            self.pull_after = now + pause;
            self.announce_at = self.announce_at.min(self.pull_after);
        } else {
            // A stalemate: as many pauses as the attempt took datagrams of both sides, so that it costs one
            // in each.
            self.pull_after = now + retry_max * spent;
            self.announce_at = self.pull_after;
        }
    }

    /// The peer does not hold any more what it served: pulls again at once, but not for ever.
    pub(super) fn pull_again(&mut self, now: Duration, state: &mut R) {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            self.give_up(now);
            return;
        }
        self.pull = None;
        self.begin_pull(now, state);
    }

    /// The peer's history does not reach back to this side's version.
    pub(super) fn on_behind(&mut self, now: Duration, number: u64, behind: Behind, state: &R) {
        let of_pull = |pull: &mut Pull| pull.number == number && pull.extent == Extent::Since;
        let Some(pull) = self.pull.take_if(of_pull) else { return };
        // Counted here and not in `reconcile`, which also serves divergent contents.
        self.stats.reconciliations += 1;
        let items = usize::try_from(behind.items).unwrap_or(usize::MAX);
        let common = usize::try_from(behind.common).unwrap_or(usize::MAX);
        let lost = state.value_count().saturating_sub(common);
        // If the peer has a new value for each that it has lost, it has probably overwritten them: then the
        // new ones are all.
        let is_overwritten = behind.covers && lost <= items.saturating_sub(common);
        if state.has_news() && is_overwritten && items > ITEMS_FEW && state.value_count() > 0 {
            self.ask_for(now, pull.base, Extent::News, None, Vec::new(), state);
        } else {
            self.reconcile(now, pull.base, items, lost, state);
        }
    }

    /// Coded symbols of the values that the peer held at a version.
    pub(super) fn on_symbols(
        &mut self,
        now: Duration,
        number: u64,
        version: u64,
        from: u64,
        bytes: &[u8],
        state: &R,
    ) -> Result<(), SessionError> {
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.number == number) else { return Ok(()) };
        let Some(sketch) = pull.sketch.as_mut().filter(|sketch| sketch.local_only.is_none()) else {
            return Ok(());
        };
        // Symbols of an older request, for which nothing is ready here.
        if matches!(sketch.task, Some(Task::Visit(_) | Task::Grow)) {
            return Ok(());
        }
        if *sketch.version.get_or_insert(version) != version {
            // The peer started over from another state: symbols of two states do not fit together.
            self.restarts += 1;
            if self.restarts > RESTARTS_MAX {
                self.give_up(now);
            } else {
                let base = pull.base.clone();
                self.reconcile(now, base, usize::MAX, 0, state);
            }
            return Ok(());
        }
        pull.tries = 0;
        self.progress = now;
        // A number beyond `usize` is a gap for the decoder, or too many symbols.
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        match sketch.decoder.append(from, bytes) {
            // A datagram in between was lost: the symbols from there on are requested again when no more
            // arrive.
            Ok(()) | Err(SketchError::Gap { .. }) => {}
            Err(error) => {
                self.give_up(now);
                return Err(error.into());
            }
        }
        sketch.task = Some(Task::Peel);
        self.work_on_sketch(now, state).unwrap_or(Ok(()))
    }

    /// The decoder has looked at all symbols that have arrived.
    fn on_peeled(&mut self, now: Duration, state: &R) {
        let retry_min = self.options.retry_min;
        let Some(pull) = self.pull.as_mut() else { return };
        let Some(sketch) = pull.sketch.as_mut() else { return };
        if !sketch.decoder.is_complete() {
            // More of the requested symbols are on their way.
            if sketch.decoder.len() < sketch.asked {
                pull.retry_at = now + retry_min;
            } else if sketch.decoder.len() > 2 * state.value_count() + ITEMS_FEW {
                // More items differ than are equal: a complete delta is shorter.
                self.ask(now, Extent::Complete, None, state);
            } else {
                pull.retry_at = now;
                self.retry_pull(now, state);
            }
            return;
        }
        let mut local_only: Vec<u64> = sketch.decoder.local_only().to_vec();
        local_only.sort_unstable();
        sketch.remote_only = sketch.decoder.remote_only().to_vec();
        sketch.remote_only.sort_unstable();
        // The keys of these values are looked for first.
        sketch.task = (!local_only.is_empty() || sketch.leaves_out).then_some(Task::Locate(None));
        let is_due = sketch.task.is_some();
        // Marks the reconciliation as complete: `retry_pull` now requests the delta.
        sketch.local_only = Some(local_only);
        if is_due {
            // At once, if the state is small. It cannot be an error.
            let _ = self.work_on_sketch(now, state);
        } else {
            pull.retry_at = now;
            self.serve_hashes(state);
            self.retry_pull(now, state);
        }
    }

    /// Holds the hashes of the values that this side lacks ready for the peer.
    fn serve_hashes(&mut self, state: &R) {
        let Some(pull) = self.pull.as_ref() else { return };
        let Some(sketch) = pull.sketch.as_ref() else { return };
        let (number, version) = (pull.number, sketch.version.unwrap_or(0));
        // The hashes are those of values of events that this side has seen. It needs none that it has
        // replaced, but one may be the other content of an event, without which its own content would be
        // lost.
        let mut missing = sketch.remote_only.clone();
        state.forget_replaced(&mut missing);
        // The version of the peer comes first, so that it can refuse hashes of another state.
        let bytes = [version].iter().chain(&missing).flat_map(|hash| hash.to_le_bytes()).collect();
        self.serve(Kind::Hashes, number, bytes, state);
        // The peer requests the hashes when it is ready to serve them.
        if let Some(outgoing) = &mut self.serving[Kind::Hashes as usize] {
            outgoing.pause();
        }
    }
}

// Kinds are indices into the arrays of a session.
const _: () = assert!(Kind::Members as usize == Kind::ALL.len() - 1);
