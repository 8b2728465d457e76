//! What reaches the hub from other tasks and threads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use x0_consensus::{Class, Event};
use x0_identity::NodeId;

use super::membership::Change;
#[cfg(feature = "crdt")]
use super::outgoing::Road;
#[cfg(feature = "crdt")]
use crate::crdt::{CrdtOutcome, Request};
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::pending::{Answer, Completion};

/// Most operations that may lie here; the coordinator has a bound of its own for those it has taken.
const CALLS_MAX: usize = 1 << 16;

/// Everything that came since the hub looked last.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) calls: Vec<(Operation, Completion)>,
    pub(super) events: Vec<Event>,
    pub(super) messages: VecDeque<(NodeId, Class, Bytes)>,
    pub(super) questions: Vec<Question>,
    pub(super) changes: Vec<Change>,
    #[cfg(feature = "crdt")]
    pub(super) crdt: CrdtLetters,
    #[cfg(feature = "blob")]
    pub(super) blobs: Vec<(NodeId, Bytes)>,
    pub(super) is_stopping: bool,
}

/// What concerns CRDT keyspaces.
#[cfg(feature = "crdt")]
#[derive(Debug, Default)]
pub(super) struct CrdtLetters {
    pub(super) calls: Vec<(Request, Completion<CrdtOutcome>)>,
    pub(super) messages: Vec<(NodeId, Road, Bytes)>,
}

#[cfg(feature = "crdt")]
impl CrdtLetters {
    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.messages.is_empty()
    }
}

/// Somebody asks how a node is.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) node: NodeId,
    pub(crate) answer: tokio::sync::oneshot::Sender<super::NodeStatus>,
}

impl Letters {
    fn is_empty(&self) -> bool {
        #[cfg(feature = "crdt")]
        if !self.crdt.is_empty() {
            return false;
        }
        #[cfg(feature = "blob")]
        if !self.blobs.is_empty() {
            return false;
        }
        self.calls.is_empty()
            && self.events.is_empty()
            && self.messages.is_empty()
            && self.questions.is_empty()
            && self.changes.is_empty()
            && !self.is_stopping
    }
}

/// Where letters are put. Clones are the same one. One lock for all kinds: the hub takes everything at once, so that a crowd of
/// callers costs it one wake-up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    letters: Letters,
    /// Set while the hub sleeps.
    waker: Option<Waker>,
    /// Why nothing is taken any more.
    closed: Option<OperationError>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, put: impl FnOnce(&mut Letters)) {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return;
        }
        put(&mut inner.letters);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// An operation of a local caller.
    pub(crate) fn call(&self, operation: Operation) -> Answer {
        let mut inner = self.lock();
        if let Some(error) = &inner.closed {
            return Answer::ready(Err(error.clone()));
        }
        if inner.letters.calls.len() >= CALLS_MAX {
            return Answer::ready(Err(OperationError::Overloaded));
        }
        let (completion, answer) = Answer::waiting();
        inner.letters.calls.push((operation, completion));
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        answer
    }

    /// A request of a local caller to a CRDT keyspace.
    #[cfg(feature = "crdt")]
    pub(crate) fn crdt_call(&self, request: Request) -> Answer<CrdtOutcome> {
        let (completion, answer) = Answer::waiting();
        let mut inner = self.lock();
        let refusal = match &inner.closed {
            Some(error) => Some(error.clone()),
            None if inner.letters.crdt.calls.len() >= CALLS_MAX => Some(OperationError::Overloaded),
            None => None,
        };
        if let Some(error) = refusal {
            return Answer::ready(Err(error));
        }
        inner.letters.crdt.calls.push((request, completion));
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        answer
    }

    /// A message of a CRDT keyspace, to be sent.
    #[cfg(feature = "crdt")]
    pub(super) fn crdt_message(&self, to: NodeId, road: Road, payload: Bytes) {
        self.put(|letters| letters.crdt.messages.push((to, road, payload)));
    }

    /// A message of the exchange of blobs, to be sent.
    #[cfg(feature = "blob")]
    pub(super) fn blob_message(&self, to: NodeId, payload: Bytes) {
        self.put(|letters| letters.blobs.push((to, payload)));
    }

    pub(super) fn event(&self, event: Event) {
        self.put(|letters| letters.events.push(event));
    }

    pub(super) fn message(&self, to: NodeId, class: Class, payload: Bytes) {
        self.put(|letters| letters.messages.push_back((to, class, payload)));
    }

    pub(crate) fn question(&self, question: Question) {
        self.put(|letters| letters.questions.push(question));
    }

    pub(super) fn change(&self, change: Change) {
        self.put(|letters| letters.changes.push(change));
    }

    pub(crate) fn stop(&self) {
        self.put(|letters| letters.is_stopping = true);
    }

    /// Takes what there is in exchange for `letters`, which must be empty: their allocations are used again. If there is nothing,
    /// `waker` is woken when there is, and `false` is returned.
    pub(super) fn take(&self, letters: &mut Letters, waker: &Waker) -> bool {
        let mut inner = self.lock();
        if inner.letters.is_empty() {
            if !inner.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
                inner.waker = Some(waker.clone());
            }
            return false;
        }
        std::mem::swap(&mut inner.letters, letters);
        true
    }

    /// Takes nothing any more. What lies here is forgotten, which answers callers that the store is closed; callers from now on get
    /// `error`.
    pub(super) fn close(&self, error: OperationError) {
        let letters = {
            let mut inner = self.lock();
            inner.closed.get_or_insert(error);
            inner.waker = None;
            std::mem::take(&mut inner.letters)
        };
        drop(letters);
    }
}
