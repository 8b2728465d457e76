//! Client sessions, by which a retried write is applied once.
//!
//! After Ongaro, "Consensus: Bridging Theory and Practice" §6.3: the session's id is the log index of the
//! command that opened it, and the outcomes of its recent writes are part of the replicated state. Which
//! session is forgotten, and when, depends on nothing but the log, so that every replica answers a retry
//! alike.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::command::RequestId;
use crate::request::limits::{OUTCOME_LEN_MAX, SESSION_OUTCOMES_LEN_MAX, SESSION_WINDOW_MAX, SESSIONS_MAX};
use crate::request::outcome::Refusal;

/// The memory that a remembered outcome takes beyond its bytes: its place in the queue and its allocation.
const OUTCOME_OVERHEAD_LEN: usize = 64;

/// The decision about a write that carries a request id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The request is new: apply it and [`record`](Sessions::record) its outcome.
    Fresh,
    /// The request was applied before, with this outcome.
    Known(Bytes),
    /// The request must not be applied.
    Refused(Refusal),
}

/// One client's recent writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// The log index of the latest command that named it.
    last_used: u64,
    /// The client has the answers to the writes below.
    acknowledged_below: u64,
    /// Sequence and outcome, ascending by sequence.
    outcomes: VecDeque<(u64, Bytes)>,
    outcomes_len: usize,
}

/// All sessions. Each is shared with the checkpoint or snapshot that is being written, and copied when it
/// changes meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<u64, Arc<Session>>,
    outcomes_len: usize,
    /// Sessions closed or forgotten since [`take_forgotten`](Sessions::take_forgotten).
    forgotten: Vec<u64>,
    /// Sessions forgotten to make room since [`take_expired`](Sessions::take_expired).
    expired: u64,
}

impl Sessions {
    pub(crate) fn open(&mut self, index: u64) {
        while self.by_id.len() >= SESSIONS_MAX {
            self.forget_least_recently_used();
        }
        let session = Session { last_used: index, acknowledged_below: 1, ..Session::default() };
        self.by_id.insert(index, Arc::new(session));
    }

    pub(crate) fn keep(&mut self, session: u64, index: u64) -> Result<(), Refusal> {
        let session = self.by_id.get_mut(&session).ok_or(Refusal::SessionExpired)?;
        Arc::make_mut(session).last_used = index;
        Ok(())
    }

    pub(crate) fn close(&mut self, session: u64) {
        if let Some(closed) = self.by_id.remove(&session) {
            self.outcomes_len -= closed.outcomes_len;
            self.forgotten.push(session);
        }
    }

    /// Decides about the write `request_id` at log index `index`, and forgets the outcomes that its client
    /// has acknowledged.
    pub(crate) fn admit(&mut self, request_id: RequestId, index: u64) -> Admission {
        let Some(session) = self.by_id.get_mut(&request_id.session) else {
            return Admission::Refused(Refusal::SessionExpired);
        };
        let session = Arc::make_mut(session);
        session.last_used = index;
        if request_id.acknowledged_below > session.acknowledged_below {
            session.acknowledged_below = request_id.acknowledged_below;
            while let Some((sequence, outcome)) = session.outcomes.front()
                && *sequence < request_id.acknowledged_below
            {
                let len = outcome.len() + OUTCOME_OVERHEAD_LEN;
                session.outcomes_len -= len;
                self.outcomes_len -= len;
                session.outcomes.pop_front();
            }
        }
        if request_id.sequence < session.acknowledged_below {
            return Admission::Refused(Refusal::SequenceAcknowledged);
        }
        if let Ok(at) = session.outcomes.binary_search_by_key(&request_id.sequence, |(sequence, _)| *sequence)
        {
            return Admission::Known(session.outcomes[at].1.clone());
        }
        // Half of the budget for all, so that a single client cannot push every other session out.
        if request_id.sequence - session.acknowledged_below >= SESSION_WINDOW_MAX
            || session.outcomes_len > SESSION_OUTCOMES_LEN_MAX / 2
        {
            return Admission::Refused(Refusal::WindowExceeded);
        }
        Admission::Fresh
    }

    /// Remembers the outcome of a [`Fresh`](Admission::Fresh) write.
    pub(crate) fn record(&mut self, request_id: RequestId, outcome: Bytes) {
        let Some(session) = self.by_id.get_mut(&request_id.session) else {
            return;
        };
        let session = Arc::make_mut(session);
        let len = outcome.len() + OUTCOME_OVERHEAD_LEN;
        // Nearly always the newest.
        let at = session.outcomes.iter().rposition(|(sequence, _)| *sequence < request_id.sequence);
        session.outcomes.insert(at.map_or(0, |at| at + 1), (request_id.sequence, outcome));
        session.outcomes_len += len;
        self.outcomes_len += len;
        while self.outcomes_len > SESSION_OUTCOMES_LEN_MAX {
            self.forget_least_recently_used();
        }
    }

    /// The sessions forgotten to make room since this was last called.
    pub(crate) fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired)
    }

    /// Finding it looks at every session, which happens only when the store is full of them.
    fn forget_least_recently_used(&mut self) {
        if let Some((id, _)) = self.by_id.iter().min_by_key(|(_, session)| session.last_used) {
            self.close(*id);
            self.expired += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All sessions by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Session>)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    /// The sessions used by a command after log index `index`.
    #[cfg_attr(not(feature = "redb"), expect(dead_code, reason = "only a durable engine writes changes"))]
    pub(crate) fn used_after(&self, index: u64) -> Vec<(u64, Arc<Session>)> {
        let used = self.by_id.iter().filter(|(_, session)| session.last_used > index);
        used.map(|(id, session)| (*id, Arc::clone(session))).collect()
    }

    /// The sessions closed or forgotten since this was last called.
    pub(crate) fn take_forgotten(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.forgotten)
    }

    /// Puts back a session that was read from a snapshot or a checkpoint.
    ///
    /// # Errors
    /// When the id is there already, or there are more sessions or bytes than the limits allow.
    pub(crate) fn insert(&mut self, id: u64, session: Session) -> Result<(), DecodeError> {
        self.outcomes_len += session.outcomes_len;
        let len = self.outcomes_len as u64;
        if self.outcomes_len > SESSION_OUTCOMES_LEN_MAX {
            return Err(DecodeError::TooLong {
                what: "outcomes of sessions",
                len,
                max: SESSION_OUTCOMES_LEN_MAX,
            });
        }
        if self.by_id.len() >= SESSIONS_MAX || self.by_id.insert(id, Arc::new(session)).is_some() {
            let len = self.by_id.len() as u64 + 1;
            return Err(DecodeError::TooLong { what: "list of sessions", len, max: SESSIONS_MAX });
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn encode(&self, to: &mut impl BufMut) {
        codec::put_u64(to, self.last_used);
        codec::put_u64(to, self.acknowledged_below);
        codec::put_u64(to, self.outcomes.len() as u64);
        for (sequence, outcome) in &self.outcomes {
            codec::put_u64(to, *sequence);
            codec::put_bytes(to, outcome);
        }
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Session, DecodeError> {
        let mut session = Session {
            last_used: from.u64("last use of a session")?,
            acknowledged_below: from.u64("acknowledged sequence")?,
            ..Session::default()
        };
        let window = usize::try_from(SESSION_WINDOW_MAX).unwrap_or(usize::MAX);
        for _ in 0..from.len("outcomes of a session", window)? {
            let sequence = from.u64("sequence")?;
            // A copy: the slice would keep the whole block of a snapshot in memory.
            let outcome = Bytes::copy_from_slice(&from.bytes("outcome", OUTCOME_LEN_MAX)?);
            let follows = session.outcomes.back().is_none_or(|(last, _)| *last < sequence);
            if !follows || sequence < session.acknowledged_below {
                return Err(DecodeError::Order { what: "outcomes" });
            }
            session.outcomes_len += outcome.len() + OUTCOME_OVERHEAD_LEN;
            session.outcomes.push_back((sequence, outcome));
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_id(session: u64, sequence: u64, acknowledged_below: u64) -> RequestId {
        RequestId { session, sequence, acknowledged_below }
    }

    #[test]
    fn a_retry_is_answered_in_any_order_until_acknowledged() {
        let mut sessions = Sessions::default();
        sessions.open(1);
        for sequence in [3, 1, 2] {
            assert_eq!(sessions.admit(request_id(1, sequence, 1), 10), Admission::Fresh);
            sessions.record(request_id(1, sequence, 1), sequence.to_le_bytes()[..1].to_vec().into());
        }
        assert_eq!(sessions.admit(request_id(1, 2, 1), 11), Admission::Known(vec![2].into()));
        // The acknowledgement travels with a later write.
        assert_eq!(sessions.admit(request_id(1, 4, 3), 12), Admission::Fresh);
        assert_eq!(
            sessions.admit(request_id(1, 2, 1), 13),
            Admission::Refused(Refusal::SequenceAcknowledged)
        );
        assert_eq!(sessions.admit(request_id(1, 3, 1), 14), Admission::Known(vec![3].into()));
        assert_eq!(sessions.outcomes_len, 1 + OUTCOME_OVERHEAD_LEN);
        assert_eq!(sessions.admit(request_id(2, 1, 1), 15), Admission::Refused(Refusal::SessionExpired));
        sessions.close(1);
        assert_eq!(sessions.outcomes_len, 0);
        assert_eq!(sessions.admit(request_id(1, 4, 3), 16), Admission::Refused(Refusal::SessionExpired));
    }

    #[test]
    fn the_window_is_bounded() {
        let mut sessions = Sessions::default();
        sessions.open(1);
        assert_eq!(sessions.admit(request_id(1, SESSION_WINDOW_MAX, 1), 2), Admission::Fresh);
        let beyond = request_id(1, SESSION_WINDOW_MAX + 1, 1);
        assert_eq!(sessions.admit(beyond, 3), Admission::Refused(Refusal::WindowExceeded));
        assert_eq!(sessions.admit(request_id(1, u64::MAX, u64::MAX), 3), Admission::Fresh);
    }

    #[test]
    fn the_least_recently_used_session_makes_room() {
        let mut sessions = Sessions::default();
        for index in 1..=SESSIONS_MAX as u64 {
            sessions.open(index);
        }
        sessions.keep(1, SESSIONS_MAX as u64 + 1).unwrap();
        sessions.open(SESSIONS_MAX as u64 + 2);
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert!(sessions.by_id.contains_key(&1) && !sessions.by_id.contains_key(&2));
        assert_eq!(sessions.take_forgotten(), [2]);
    }

    #[test]
    fn remembered_outcomes_are_bounded_in_bytes() {
        let mut sessions = Sessions::default();
        let outcome = Bytes::from(vec![0; 1 << 20]);
        let (mut index, mut refused) = (1, 0);
        for session in 1..=4 {
            sessions.open(session);
            for sequence in 1..=40 {
                index += 1;
                match sessions.admit(request_id(session, sequence, 1), index) {
                    Admission::Fresh => sessions.record(request_id(session, sequence, 1), outcome.clone()),
                    Admission::Refused(Refusal::WindowExceeded) => refused += 1,
                    other => panic!("{other:?}"),
                }
                assert!(sessions.outcomes_len <= SESSION_OUTCOMES_LEN_MAX);
            }
        }
        assert!(refused > 0 && sessions.len() == 1, "{refused} {}", sessions.len());
    }

    #[test]
    fn a_session_shared_with_a_checkpoint_is_not_changed_beneath_it() {
        let mut sessions = Sessions::default();
        sessions.open(1);
        sessions.record(request_id(1, 1, 1), Bytes::from_static(b"one"));
        let shared = Arc::clone(&sessions.by_id[&1]);
        let before = Session::clone(&shared);
        sessions.admit(request_id(1, 2, 2), 5);
        assert_eq!(*shared, before);
        let mut encoded = Vec::new();
        sessions.by_id[&1].encode(&mut encoded);
        let encoded = Bytes::from(encoded);
        assert_eq!(Session::decode(&mut Decoder::new(&encoded)).unwrap(), *sessions.by_id[&1]);
    }
}
