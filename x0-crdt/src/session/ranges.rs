//! Transfers by key range: a state that is too long for one transfer, range by range.
//!
//! The requesting side names the version and the key from which it needs the next range, so the serving side
//! holds nothing between two requests, and either side may restart. The requesting side joins each range into
//! its stage in bounded steps, one in each call.

use core::time::Duration;

use super::message::{Extent, Kind, Message, RangeRef};
use super::replicated::{StageBegin, StageStep, StageTaken};
use super::{Pull, Replicated, Session, SessionError, SessionOutput};

impl<R: Replicated> Session<R> {
    /// Fetches ranges, the next ones of the state's stage or, with `renew`, those of a new one.
    pub(super) fn begin_ranges(&mut self, now: Duration, renew: bool, state: &mut R) -> StageBegin {
        let begin = state.begin_stage(now, self.stage, self.options.retry_max * 2, renew);
        match begin {
            StageBegin::None => {}
            // Another session fetches already. What this peer has beyond that is fetched afterwards.
            StageBegin::Busy if renew => {
                self.pull = None;
                self.pull_after = now + self.options.retry_max;
                self.announce_at = self.announce_at.min(self.pull_after);
            }
            StageBegin::Busy => {}
            StageBegin::Ready(claim) => {
                self.pull = None;
                self.stage = Some(claim);
                // A restored stage may have work left.
                self.is_staging = true;
                // Not an error of a delta: none is pulled while one is being joined.
                let _ = self.work(now, state);
            }
        }
        begin
    }

    /// Does a part of the work on the stage, and requests the next range when it is done.
    pub(super) fn work(&mut self, now: Duration, state: &mut R) -> Result<(), SessionError> {
        if let Some(worked) = self.work_on_join(now, state) {
            return worked;
        }
        if let Some(worked) = self.work_on_sketch(now, state) {
            return worked;
        }
        if self.work_on_delta(state) || self.work_on_answer(state) || !self.is_staging && !state.has_reports()
        {
            return Ok(());
        }
        let before = state.frontier();
        match state.step_stage() {
            StageStep::Busy => {}
            StageStep::Report(joined) => self.outputs.push_back(SessionOutput::Joined(joined)),
            StageStep::Idle => {
                self.is_staging = false;
                if self.stage.is_some() && self.pull.is_none() {
                    self.ask_range(now, state);
                }
            }
            StageStep::Failed(error) => {
                (self.stage, self.is_staging) = (None, false);
                return self.fail(now, before, error.into(), state);
            }
            StageStep::Done(version, joined) => {
                self.stage = None;
                self.is_foreign = false;
                self.on_joined(now, before, version, joined, state);
            }
        }
        Ok(())
    }

    /// Requests the range that the stage needs next.
    pub(super) fn ask_range(&mut self, now: Duration, state: &mut R) {
        let Some((since, from)) = state.stage_needs() else {
            // The stage was dropped, because the state has seen all that it held.
            self.stage = None;
            return;
        };
        self.ask_for(now, since, Extent::Range, None, from, state);
    }

    /// The request for a range.
    pub(super) fn send_range(&mut self, pull: &RangePull, state: &R) {
        let version = self.version_ref(&pull.base, state);
        let len_max = self.options.transfer_len_max.min(R::RANGE_LEN_MAX) as u64;
        let range = Some(RangeRef { len_max, from: Some(pull.from.clone()) });
        let (number, extent, whole) = (pull.number, Extent::Range, false);
        let message = Message::Pull { number, version, extent, whole, range };
        if message.encode().len() <= self.options.datagram_len_max {
            return self.send(&message);
        }
        // A key that is longer than a datagram: the peer collects it in parts.
        let held = self.serving[Kind::Hashes as usize].as_ref();
        if held.is_none_or(|outgoing| outgoing.number != pull.number) {
            self.serve(Kind::Hashes, pull.number, pull.from.clone(), state);
            if let Some(outgoing) = &mut self.serving[Kind::Hashes as usize] {
                outgoing.pause();
            }
        }
        let Message::Pull { version, .. } = message else { return };
        let range = Some(RangeRef { len_max, from: None });
        self.send(&Message::Pull { number, version, extent, whole, range });
    }

    /// Takes a whole range into the stage.
    pub(super) fn finish_range(
        &mut self,
        now: Duration,
        pull: Pull,
        state: &mut R,
    ) -> Result<(), SessionError> {
        let before = state.frontier();
        let bytes = Self::checked(&pull.incoming.into_bytes(), state);
        match bytes.and_then(|bytes| state.take_range(now, self.stage, &bytes)) {
            Ok(StageTaken::Taken(record)) => {
                self.outputs.push_back(SessionOutput::Staged(record));
                self.confirmed = Some(pull.base.hash(state.hash_key()));
                self.versions.insert(pull.base.hash(state.hash_key()), pull.base);
                self.made_progress(now);
                // The work begins with the next call: this one has decoded the range.
                self.is_staging = true;
                Ok(())
            }
            Ok(StageTaken::Foreign) => {
                // The peer lacks what the stage holds: a delta of its own is pulled.
                (self.stage, self.is_foreign) = (None, true);
                self.pull_again(now, state);
                Ok(())
            }
            Err(error) => self.fail(now, before, error, state),
        }
    }

    /// The peer's delta is too long for one transfer.
    pub(super) fn on_ranges(&mut self, now: Duration, number: u64, state: &mut R) {
        if self.pull.as_ref().is_none_or(|pull| pull.number != number || pull.extent == Extent::Range) {
            return;
        }
        if self.begin_ranges(now, true, state) == StageBegin::None {
            self.give_up(now);
        }
    }

    /// Answers the request for a range.
    pub(super) fn serve_range(
        &mut self,
        number: u64,
        since: &crate::Version,
        from: &[u8],
        len_max: u64,
        state: &R,
    ) {
        let len_max = usize::try_from(len_max).unwrap_or(usize::MAX).min(R::RANGE_LEN_MAX);
        if let Some(range) = state.encode_range(since, from, len_max) {
            self.range_number = Some(number);
            self.serve_delta(number, range, state);
        }
    }
}

/// The parts of a pull that the request for a range names.
pub(super) struct RangePull {
    pub(super) number: u64,
    pub(super) base: crate::Version,
    pub(super) from: alloc::vec::Vec<u8>,
}
