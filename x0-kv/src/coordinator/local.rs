//! Operations of local callers: from the call to the reply.

use std::time::Duration;

use bytes::Bytes;

use super::Coordinator;
use super::call::{Ask, Call, Entry, Place};
use super::dropped::DropReason;
use super::port::Output;
use super::session::{Session, Window};
use super::slab::Key;
use crate::request::applied::decode_applied;
use crate::request::command::Command;
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::outcome::{Applied, Outcome, Refusal};
use crate::trace::Context;

impl Coordinator {
    pub(super) fn call(
        &mut self,
        caller: u64,
        operation: Operation,
        deadline: Option<Duration>,
        trace: Option<Context>,
    ) {
        // A caller that names its deadline gets its answer by then, whatever the operation waits for.
        let (deadline, limit) = match deadline {
            Some(deadline) => (deadline, deadline),
            None => {
                let deadline = self.now.saturating_add(self.options.call_timeout);
                (deadline, deadline.saturating_add(self.options.turn_timeout))
            }
        };
        if self.is_expired {
            let result = Err(OperationError::IdentityExpired { ambiguous: false });
            self.outputs.push_back(Output::Reply { token: caller, result });
            return;
        }
        let is_local = self.route.is_member() && Coordinator::is_local(&operation);
        let (ask, place) = match operation {
            Operation::Write { keyspace, mutation } => (Ask::Write { keyspace, mutation }, Place::Queued),
            read @ Operation::Read { .. } => (Ask::Read(read), Place::Parked),
        };
        let key = match self.calls < self.options.calls_max {
            true => {
                let call = Call { limit, trace, ..Call::new(Some(caller), ask, place, deadline) };
                self.entries.insert(Entry::Call(call))
            }
            false => None,
        };
        let Some(key) = key else {
            let result = Err(OperationError::Overloaded);
            self.outputs.push_back(Output::Reply { token: caller, result });
            return;
        };
        self.calls += 1;
        self.arm(key, deadline);
        if place == Place::Queued {
            self.queued.push_back(key);
            self.stamp_queued();
        } else if is_local {
            self.query(key);
        } else {
            self.route_call(key);
        }
    }

    pub(super) fn cancel(&mut self, caller: u64) {
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if self.call_mut(key).is_some_and(|call| call.caller == Some(caller)) {
                self.end_call(key);
                self.stamp_queued();
                return;
            }
        }
    }

    /// Stamps writes and sends them off, as far as the session has room; opens one if there is none.
    pub(super) fn stamp_queued(&mut self) {
        while let Some(key) = self.queued.front().copied() {
            let Some(Entry::Call(call)) = self.entries.get_mut(key) else {
                self.queued.pop_front();
                continue;
            };
            let Ask::Write { keyspace, mutation } = &call.ask else {
                self.queued.pop_front();
                continue;
            };
            match &mut self.session {
                Session::Opening => return,
                Session::None => return self.open_session(),
                Session::Open(window) => {
                    let Some(stamp) = window.begin() else { return };
                    let command = Command::encode_write(Some(stamp), keyspace, mutation);
                    call.ask = Ask::Command { session: stamp.session, sequence: stamp.sequence, command };
                }
            }
            self.queued.pop_front();
            self.route_call(key);
        }
    }

    fn open_session(&mut self) {
        // The first write that waits for the session has it in its trace.
        let first = self.queued.front().copied();
        let trace = first.and_then(|key| self.call_mut(key)).and_then(|call| call.trace);
        let call = Call { trace, ..Call::new(None, Ask::OpenSession, Place::Parked, Duration::MAX) };
        if let Some(key) = self.entries.insert(Entry::Call(call)) {
            self.session = Session::Opening;
            self.route_call(key);
        }
    }

    /// Whether this call opens a session that no write waits for any more.
    pub(super) fn is_idle_opening(&mut self, key: Key) -> bool {
        if !self.call_mut(key).is_some_and(|call| matches!(call.ask, Ask::OpenSession)) {
            return false;
        }
        let entries = &mut self.entries;
        self.queued.retain(|key| entries.get_mut(*key).is_some());
        self.queued.is_empty()
    }

    pub(super) fn give_up_opening(&mut self, key: Key) {
        self.session = Session::None;
        self.end_call(key);
    }

    /// The proposal of this token was applied here.
    pub(super) fn applied(&mut self, token: u64, outcome: Bytes) {
        let Some((key, _)) = Key::of(token) else { return };
        match self.entries.get_mut(key) {
            // The outcome of any attempt is that of the call: all attempts carry one request id, so that the
            // write is applied once.
            Some(Entry::Call(_)) => self.answered(key, &outcome),
            Some(Entry::Request(_)) => self.respond_applied(key, outcome),
            None => {}
        }
    }

    /// The replica did not take, or lost, what has this token.
    pub(super) fn dropped(&mut self, token: u64, reason: DropReason) {
        if super::reads::Reads::is_round(token) {
            let Some(reads) = self.reads.end(token) else { return };
            for key in &reads {
                self.read_dropped(*key);
            }
            return self.reads.recycle(reads);
        }
        let Some((key, attempt)) = Key::of(token) else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Entry::Call(call) = entry else { return self.respond_dropped(key, reason) };
        if call.attempt != attempt || call.place != Place::Proposed {
            return;
        }
        match reason {
            DropReason::Length => self.refused_for_good(
                key,
                OperationError::Unavailable { reason: "the write is longer than the log takes" },
            ),
            DropReason::NoSpace => self.no_space(key),
            DropReason::Unknown => {
                self.abandon_attempt(key);
                self.delay(key);
            }
            DropReason::NotLeader { .. }
            | DropReason::Full
            | DropReason::Transferring
            | DropReason::Superseded => self.delay(key),
        }
    }

    /// Ends a call that no attempt can help, with `error` unless an earlier attempt may have been applied.
    pub(super) fn refused_for_good(&mut self, key: Key, error: OperationError) {
        let is_ambiguous = self.call_mut(key).is_some_and(|call| call.is_ambiguous);
        let error = if is_ambiguous { OperationError::TimedOut { ambiguous: true } } else { error };
        self.reply(key, Err(error));
    }

    /// Ends a call for which the disks have no space. Without a session, so do all writes that wait for one.
    pub(super) fn no_space(&mut self, key: Key) {
        let is_opening = self.call_mut(key).is_some_and(|call| matches!(call.ask, Ask::OpenSession));
        if is_opening {
            self.session = Session::None;
            self.end_call(key);
        }
        let refused = if is_opening { std::mem::take(&mut self.queued) } else { [key].into() };
        for key in refused {
            let Some(call) = self.call_mut(key) else { continue };
            let ambiguous = call.is_ambiguous;
            self.reply(key, Err(OperationError::NoSpace { ambiguous }));
        }
    }

    /// An answer has come for a call.
    pub(super) fn answered(&mut self, key: Key, applied: &Bytes) {
        match decode_applied(applied) {
            Ok(applied) => self.settle(key, applied),
            Err(fault) => {
                self.reply(key, Err(OperationError::failed(fault)));
            }
        }
    }

    fn settle(&mut self, key: Key, applied: Applied) {
        let Some(call) = self.call_mut(key) else { return };
        match (&call.ask, applied) {
            (Ask::OpenSession, Ok(Outcome::SessionOpened { session })) => {
                self.session = Session::Open(Window::new(session));
                self.end_call(key);
                self.stamp_queued();
            }
            (Ask::OpenSession, _) => self.delay(key),
            (Ask::Command { session, command, .. }, Err(Refusal::SessionExpired)) => {
                let (session, command, is_ambiguous) = (*session, command.clone(), call.is_ambiguous);
                if matches!(&self.session, Session::Open(window) if window.id == session) {
                    self.session = Session::None;
                }
                match Command::decode(&command) {
                    // This was the only attempt, and it found the session gone: nothing was written.
                    Ok(Command::Write { keyspace, mutation, .. }) if !is_ambiguous => {
                        self.release(key);
                        let Some(call) = self.call_mut(key) else { return };
                        call.ask = Ask::Write { keyspace, mutation };
                        call.place = Place::Queued;
                        let deadline = call.deadline;
                        self.arm(key, deadline);
                        self.queued.push_back(key);
                        self.stamp_queued();
                    }
                    _ => self.reply(key, Err(OperationError::SessionExpired)),
                }
            }
            // Room comes as other writes of the session are acknowledged, which the new stamp does.
            (Ask::Command { .. }, Err(Refusal::WindowExceeded)) => {
                self.stamp_anew(key);
                self.delay(key);
            }
            (_, applied) => self.reply(key, applied.map_err(OperationError::from)),
        }
    }

    /// Gives a write that was not carried out its stamp as it would be now, under the same number.
    fn stamp_anew(&mut self, key: Key) {
        let Some(Entry::Call(call)) = self.entries.get_mut(key) else { return };
        if let Ask::Command { session, sequence, command } = &mut call.ask
            && let Session::Open(window) = &self.session
            && window.id == *session
            && let Ok(Command::Write { keyspace, mutation, .. }) = Command::decode(command)
        {
            *command = Command::encode_write(Some(window.stamp(*sequence)), &keyspace, &mutation);
        }
    }

    /// A round has ended well: the local state may answer its reads.
    pub(super) fn read_ready(&mut self, token: u64) {
        let Some(reads) = self.reads.end(token) else { return };
        for key in &reads {
            self.query(*key);
        }
        self.reads.recycle(reads);
    }

    /// Hands a read to the driver.
    pub(super) fn query(&mut self, key: Key) {
        let query = match self.entries.get_mut(key) {
            Some(Entry::Call(call)) => match std::mem::replace(&mut call.ask, Ask::Taken) {
                Ask::Read(Operation::Read { keyspace, query, .. }) => {
                    call.place = Place::Querying;
                    Some((keyspace, query))
                }
                other => {
                    call.ask = other;
                    None
                }
            },
            Some(Entry::Request(request)) => request.query.take(),
            None => None,
        };
        if let Some((keyspace, query)) = query {
            self.outputs.push_back(Output::Query { token: key.token(0), keyspace, query });
        }
    }

    pub(super) fn queried(&mut self, token: u64, answer: Result<Outcome, OperationError>) {
        let Some((key, _)) = Key::of(token) else { return };
        match self.entries.get_mut(key) {
            Some(Entry::Call(call)) if call.place == Place::Querying => self.reply(key, answer),
            Some(Entry::Request(_)) => self.respond_queried(key, answer),
            _ => {}
        }
    }

    /// Ends a call with its answer.
    pub(super) fn reply(&mut self, key: Key, result: Result<Outcome, OperationError>) {
        if let Some(token) = self.end_call(key) {
            self.outputs.push_back(Output::Reply { token, result });
        }
        self.stamp_queued();
    }

    /// Takes a call out. Answers its caller's token.
    fn end_call(&mut self, key: Key) -> Option<u64> {
        self.release(key);
        let Some(Entry::Call(call)) = self.entries.remove(key) else { return None };
        if let Ask::Command { session, sequence, .. } = call.ask
            && let Session::Open(window) = &mut self.session
            && window.id == session
        {
            window.end(sequence);
        }
        if call.caller.is_some() {
            self.calls -= 1;
        }
        if self.calls == 0 && !matches!(self.session, Session::Opening) {
            self.due = Duration::MAX;
        }
        call.caller
    }
}

impl Call {
    fn new(caller: Option<u64>, ask: Ask, place: Place, deadline: Duration) -> Call {
        Call {
            caller,
            ask,
            place,
            deadline,
            limit: deadline,
            turn: None,
            wake: deadline,
            attempt: 0,
            sent: None,
            sent_at: Duration::ZERO,
            timeouts: 0,
            is_relayed: false,
            delays: 0,
            redirects: 0,
            is_ambiguous: false,
            trace: None,
        }
    }
}
