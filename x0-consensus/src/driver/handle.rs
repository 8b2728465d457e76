//! The handle of a running driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use x0_identity::NodeId;

use super::ended::Ended;
use crate::membership::MembershipChange;
use crate::replica::{Fence, FencedRequest, Input, Status};

/// Sends requests to a running replica. Clones belong to the same replica. No method blocks except
/// [`wait_ended`](Handle::wait_ended); results go to the [`Observer`](super::Observer). Once the replica has
/// stopped, requests have no result.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: Ended,
}

/// The inbox of a driver, shared by callers and its loop.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    status: Mutex<Status>,
    /// The bytes of messages in the inbox.
    messages_len: AtomicU64,
}

/// Inputs that the loop has not taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    inputs: Vec<Input>,
    stop: bool,
    /// Set while the loop sleeps.
    waker: Option<Waker>,
    closed: bool,
}

/// Messages of peers beyond this many bytes are dropped, because the loop does not keep up.
const MESSAGES_LEN_MAX: u64 = 256 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the inbox when the loop takes from it.
pub(super) enum Taken {
    /// There were inputs, which are now in the vector.
    Inputs,
    /// The inbox is empty; the waker is called when an input arrives.
    Nothing,
    /// A caller asked the driver to stop.
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

    /// Exchanges the inputs for `inputs`, which must be empty. The waker is kept only if there are none.
    pub(super) fn take(&self, inputs: &mut Vec<Input>, waker: &Waker) -> Taken {
        let mut inbox = lock(&self.inbox);
        if inbox.stop {
            return Taken::Stop;
        }
        if inbox.inputs.is_empty() {
            if !inbox.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
                inbox.waker = Some(waker.clone());
            }
            return Taken::Nothing;
        }
        std::mem::swap(&mut inbox.inputs, inputs);
        self.messages_len.store(0, Ordering::Relaxed);
        Taken::Inputs
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

    /// Closes the inbox: later inputs are dropped.
    pub(super) fn close(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        let dropped = std::mem::take(&mut inbox.inputs);
        drop(inbox);
        drop(dropped);
    }

    pub(super) fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
    }
}

impl Handle {
    /// Proposes a command. The result is [`Event::Outcome`](super::Event::Outcome) or
    /// [`Event::Dropped`](super::Event::Dropped).
    pub fn propose(&self, token: u64, payload: Bytes) {
        self.shared.put(Input::Propose { token, payload, trace: None });
    }

    /// As [`propose`](Handle::propose) for each of these, with one wake-up of the driver.
    pub fn propose_many(&self, proposals: impl IntoIterator<Item = (u64, Bytes)>) {
        let inputs =
            proposals.into_iter().map(|(token, payload)| Input::Propose { token, payload, trace: None });
        self.shared.put_with(|to| to.extend(inputs));
    }

    /// Requests a linearizable read. The result is [`Event::ReadReady`](super::Event::ReadReady), after which
    /// the state machine may be read, or [`Event::Dropped`](super::Event::Dropped).
    pub fn read_index(&self, token: u64) {
        self.shared.put(Input::ReadIndex { token });
    }

    /// Changes the membership. The result is [`Event::Changed`](super::Event::Changed) or
    /// [`Event::Dropped`](super::Event::Dropped).
    pub fn change_membership(&self, token: u64, change: MembershipChange) {
        self.shared.put(Input::ChangeMembership { token, change });
    }

    /// Transfers the leadership to another voter, if this replica is the leader.
    pub fn transfer_leadership(&self, to: NodeId) {
        self.shared.put(Input::TransferLeadership { to });
    }

    /// Campaigns in spite of the leader; see [`Input::TakeOver`].
    pub fn take_over(&self) {
        self.shared.put(Input::TakeOver);
    }

    /// Makes a request that takes effect only on the term and membership of `fence`. If it is not, the result
    /// is [`Event::Dropped`](super::Event::Dropped) with
    /// [`DropReason::Stale`](crate::DropReason::Stale).
    pub fn request_fenced(&self, token: u64, fence: Fence, request: FencedRequest) {
        self.shared.put(Input::Fenced { token, fence, request });
    }

    /// Delivers a message of an authenticated peer. It is dropped if 256 MiB of messages wait already.
    pub fn deliver(&self, from: NodeId, payload: Bytes) {
        let len = payload.len() as u64;
        if self.shared.messages_len.fetch_add(len, Ordering::Relaxed) < MESSAGES_LEN_MAX {
            self.shared.put(Input::Message { from, payload });
        }
    }

    /// Reports that messages to this peer do not arrive.
    pub fn unreachable(&self, peer: NodeId) {
        self.shared.put(Input::Unreachable { peer });
    }

    /// The status of the replica.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// Asks the replica to stop and returns at once; [`wait_ended`](Handle::wait_ended) waits. The replica
    /// stops as if the process were killed, without losing anything that was acknowledged.
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
