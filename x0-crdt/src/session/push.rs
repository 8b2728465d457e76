//! Small deltas that travel with the announcement: a change arrives after one one-way trip.

use core::time::Duration;

use super::message::{About, Kind, Message};
use super::pull::{Joining, Origin};
use super::replicated::{JoinSource, JoinStep};
use super::{Replicated, Session, SessionError, SessionOutput};
use crate::{DeltaError, Version};

/// The most events of a pushed delta.
const EVENTS_MAX: u64 = 256;

/// After so many announcements in a row without an answer nothing is pushed: on a link that is down an
/// announcement is shorter.
const UNANSWERED_MAX: u32 = 3;

/// The bytes of a push besides the delta and its checksum.
const HEADER_LEN: usize = 22;

impl<R: Replicated> Session<R> {
    /// Announces a change by the change itself, if both sides were in sync before it and it fits a datagram.
    /// Returns whether it did.
    pub(super) fn push(&mut self, state: &R, result: u64, about: About) -> bool {
        let Some(agreed) = self.agreed.filter(|_| self.unanswered < UNANSWERED_MAX) else { return false };
        // The peer lacks something that it is getting already, or has something that this side lacks.
        let is_preparing = self.gathering.is_some() || self.preparing.is_some();
        if self.pull.is_some() || is_preparing || self.serving[Kind::Delta as usize].is_some() {
            return false;
        }
        let Some(base) = self.versions.get(agreed.version) else { return false };
        let version = state.version();
        let events = |(replica, seq): (_, u64)| seq.saturating_sub(base.get(replica));
        let events = version.iter().map(events).fold(0_u64, u64::saturating_add);
        // Checked before the delta is made: a long one would be made in vain.
        if events == 0 || events > EVENTS_MAX {
            return false;
        }
        let Ok(bytes) = state.encode_named_since(base) else { return false };
        let bytes = Self::with_checksum(bytes, state);
        if HEADER_LEN + bytes.len() > self.options.datagram_len_max {
            return false;
        }
        // The peer will have this version, so it can name its next one by it.
        self.versions.insert(version.hash(state.hash_key()), version);
        self.send(&Message::Push { base: agreed.version, result, about, bytes: &bytes });
        true
    }

    pub(super) fn on_push(
        &mut self,
        now: Duration,
        base: u64,
        result: u64,
        about: About,
        bytes: &[u8],
        state: &mut R,
    ) -> Result<(), SessionError> {
        if !self.has_result(result, state) {
            let delta = Self::checked(bytes, state)?;
            let seen = state.version();
            let base = self.versions.get(base).filter(|base| base.is_within(&seen) && !self.is_working());
            let Some(base) = base.cloned() else {
                // This side has restarted, has met other versions since, or is joining a long delta: it
                // compares frontiers.
                self.in_sync = false;
                self.agreed = None;
                self.announce(now, state, true);
                return Ok(());
            };
            match self.join_push(&base, &delta, (result, about), state) {
                // The delta is pulled with whole keys.
                Err(SessionError::Delta(DeltaError::Reference)) => self.whole_keys = true,
                done => done?,
            }
            if self.joining.is_some() {
                // A long search for a name: `on_pushed` follows.
                self.in_sync = false;
                return Ok(());
            }
        }
        self.on_pushed(now, result, about, state);
        Ok(())
    }

    /// The delta of a push was joined.
    pub(super) fn on_pushed(&mut self, now: Duration, result: u64, about: About, state: &mut R) {
        if self.has_result(result, state) {
            let mine = state.frontier();
            self.on_frontier(now, mine, about, state);
            return;
        }
        // This side has more than the peer: its frontier, and no push, because a push of the peer may cross
        // it.
        self.in_sync = false;
        self.agreed = None;
        self.announce(now, state, true);
    }

    fn join_push(
        &mut self,
        base: &Version,
        delta: &[u8],
        push: (u64, About),
        state: &mut R,
    ) -> Result<(), SessionError> {
        let before = state.frontier();
        let (context, joined) =
            match state.begin_join(delta, base, JoinSource::History, self.options.join_items_max.max(1))? {
                JoinStep::Done(context, joined) => (context, joined),
                // Only news and reconciliations.
                JoinStep::Unfit => return Ok(()),
                JoinStep::More(work) => {
                    let origin = Origin { base: base.clone(), whole: false, push: Some(push) };
                    self.joining = Some(Joining { origin, work });
                    return Ok(());
                }
            };
        self.note_pushed(state.frontier() != before, context, joined, state);
        Ok(())
    }

    /// Notes the join of a push.
    pub(super) fn note_pushed(&mut self, is_changed: bool, context: Version, joined: R::Joined, state: &R) {
        if is_changed {
            self.stats.joins += 1;
            self.outputs.push_back(SessionOutput::Joined(joined));
        }
        // The sender has seen what it sent.
        self.acknowledged.join(&context);
        self.versions.insert(context.hash(state.hash_key()), context);
    }

    /// The peer does not take a delta of this side. If the state has ranges, this is an error only of a
    /// range: everything else is sent by ranges from now on.
    pub(super) fn on_refuse(&mut self, number: u64, limit: u64, state: &R) -> Result<(), SessionError> {
        let serving = &mut self.serving[Kind::Delta as usize];
        let Some(refused) = serving.take_if(|outgoing| outgoing.number == number) else { return Ok(()) };
        self.peer_limit = Some(limit);
        if state.has_ranges() && self.range_number != Some(number) {
            return Ok(());
        }
        Err(SessionError::Refused { len: refused.len(), limit })
    }
}
