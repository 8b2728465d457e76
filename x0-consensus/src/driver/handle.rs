//! The caller's side of a driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use x0_identity::NodeId;

use super::ended::Ended;
use crate::membership::MembershipChange;
use crate::replica::{Input, Status};

/// Talks to a running replica. Clones talk to the same one. Nothing here waits; what comes of it is told to the
/// [`Observer`](super::Observer). Once the replica has stopped nothing comes of anything.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: Ended,
}

/// What callers, threads and the loop share.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    status: Mutex<Status>,
    /// How many bytes of messages wait in the inbox.
    messages_len: AtomicU64,
}

/// What the loop has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    inputs: Vec<Input>,
    stop: bool,
    /// Set while the loop sleeps.
    waker: Option<Waker>,
    closed: bool,
}

/// Messages from peers beyond this many bytes are dropped: the loop cannot follow.
const MESSAGES_LEN_MAX: u64 = 256 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the loop finds when it looks.
pub(super) enum Mail {
    /// Inputs have come, into the vector given.
    Inputs,
    /// Nothing; the waker is called when something comes.
    Nothing,
    /// It is to stop.
    Stop,
}

impl Shared {
    pub(super) fn new(status: Status) -> Shared {
        Shared { inbox: Mutex::default(), status: Mutex::new(status), messages_len: AtomicU64::new(0) }
    }

    pub(super) fn put(&self, input: Input) {
        self.put_with(|inputs| inputs.push(input));
    }

    pub(super) fn put_with(&self, put: impl FnOnce(&mut Vec<Input>)) {
        let mut inbox = lock(&self.inbox);
        if inbox.closed {
            return;
        }
        put(&mut inbox.inputs);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the inputs for `inputs`, which must be empty. `waker` is kept only if there is nothing.
    pub(super) fn take(&self, inputs: &mut Vec<Input>, waker: &Waker) -> Mail {
        let mut inbox = lock(&self.inbox);
        if inbox.stop {
            return Mail::Stop;
        }
        if inbox.inputs.is_empty() {
            if !inbox.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
                inbox.waker = Some(waker.clone());
            }
            return Mail::Nothing;
        }
        std::mem::swap(&mut inbox.inputs, inputs);
        self.messages_len.store(0, Ordering::Relaxed);
        Mail::Inputs
    }

    pub(super) fn stop(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.stop = true;
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        let forgotten = std::mem::take(&mut inbox.inputs);
        drop(inbox);
        drop(forgotten);
    }

    pub(super) fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
    }
}

impl Handle {
    /// Puts a command into the log. Ends in [`Event::Outcome`](super::Event::Outcome) or [`Event::Dropped`](super::Event::Dropped).
    pub fn propose(&self, token: u64, payload: Bytes) {
        self.shared.put(Input::Propose { token, payload });
    }

    /// As [`propose`](Handle::propose) for each of these, in one go.
    pub fn propose_many(&self, proposals: impl IntoIterator<Item = (u64, Bytes)>) {
        let inputs = proposals.into_iter().map(|(token, payload)| Input::Propose { token, payload });
        self.shared.put_with(|to| to.extend(inputs));
    }

    /// Asks when a linearizable read may be answered: [`Event::ReadReady`](super::Event::ReadReady) or
    /// [`Event::Dropped`](super::Event::Dropped).
    pub fn read_index(&self, token: u64) {
        self.shared.put(Input::ReadIndex { token });
    }

    /// Changes who takes part. Ends in [`Event::Changed`](super::Event::Changed) or [`Event::Dropped`](super::Event::Dropped).
    pub fn change_membership(&self, token: u64, change: MembershipChange) {
        self.shared.put(Input::ChangeMembership { token, change });
    }

    /// Asks this leader to hand over.
    pub fn transfer_leadership(&self, to: NodeId) {
        self.shared.put(Input::TransferLeadership { to });
    }

    /// A message of a peer, who is certain to have sent it. Dropped if the replica is far behind with reading.
    pub fn deliver(&self, from: NodeId, payload: Bytes) {
        let len = payload.len() as u64;
        if self.shared.messages_len.fetch_add(len, Ordering::Relaxed) < MESSAGES_LEN_MAX {
            self.shared.put(Input::Message { from, payload });
        }
    }

    /// Messages to this peer do not arrive at the moment.
    pub fn unreachable(&self, peer: NodeId) {
        self.shared.put(Input::Unreachable { peer });
    }

    /// What the replica knows of itself and the group.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// Asks the replica to stop, and does not wait for it: see [`wait_ended`](Handle::wait_ended). It stops as if the process were killed,
    /// without losing anything that was acknowledged.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits until the replica has stopped and its storage is closed. Blocks the thread.
    pub fn wait_ended(&self) {
        self.ended.wait();
    }

    /// Waits until the replica has stopped and its storage is closed, under any runtime.
    pub async fn ended(&self) {
        self.ended.ended().await;
    }
}
