//! A store in memory, without log, thread or file.

use std::sync::{Mutex, PoisonError};

use crate::crdt::{self, Crdt, CrdtOutcome, Request};
use crate::request::applied::decode_applied;
use crate::request::command::Command;
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{Mutation, Operation};
use crate::request::outcome::Outcome;
use crate::request::pending::Answer;
use crate::request::watch::Watchers;
use crate::state::State;
use crate::state::storage::Reader;
use crate::store::backend::{Dispatch, no_crdt};

/// Applies each write in the thread that makes it, under a lock.
#[derive(Debug)]
pub(crate) struct Volatile {
    reader: Reader,
    /// `None` when closed.
    state: Mutex<Option<State>>,
    watchers: Watchers,
    /// `None` without the feature.
    crdt: Option<Crdt>,
}

impl Default for Volatile {
    fn default() -> Volatile {
        let state = State::in_memory();
        Volatile {
            reader: state.reader(),
            watchers: state.watchers(),
            state: Mutex::new(Some(state)),
            crdt: crdt::volatile(),
        }
    }
}

impl Volatile {
    fn write(&self, keyspace: &KeyspaceName, mutation: &Mutation) -> Result<Outcome, OperationError> {
        let payload = Command::encode_write(None, keyspace, mutation);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_mut().ok_or(OperationError::Closed)?;
        let mut outcomes = Vec::with_capacity(1);
        state
            .apply([(state.applied() + 1, Some(&payload))], &mut outcomes)
            .map_err(OperationError::failed)?;
        let outcome = outcomes.pop().and_then(|outcome| decode_applied(&outcome).ok());
        Ok(outcome.ok_or(OperationError::NotUnderstood)??)
    }
}

impl Dispatch for Volatile {
    fn submit(&self, operation: Operation) -> Answer {
        Answer::ready(match operation {
            Operation::Read { keyspace, query, .. } => {
                let closed = self.state.lock().unwrap_or_else(PoisonError::into_inner).is_none();
                if closed { Err(OperationError::Closed) } else { self.reader.query(&keyspace, &query) }
            }
            Operation::Write { keyspace, mutation } => self.write(&keyspace, &mutation),
        })
    }

    fn has_crdt(&self) -> bool {
        self.crdt.is_some()
    }

    fn submit_crdt(&self, request: Request) -> Answer<CrdtOutcome> {
        self.crdt.as_ref().map_or_else(no_crdt, |crdt| crdt.submit(request))
    }

    fn watchers(&self) -> Option<&Watchers> {
        Some(&self.watchers)
    }

    fn crdt_watchers(&self) -> Option<&Watchers> {
        self.crdt.as_ref().map(Crdt::watchers)
    }

    fn close(&self) {
        self.crdt.iter().for_each(Crdt::close);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
