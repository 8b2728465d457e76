//! The caller's side of a driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use x0_identity::NodeId;

use super::event::FatalError;
use crate::membership::MembershipChange;
use crate::replica::{Input, Status};

/// Talks to a running replica. Clones talk to the same one. Nothing here waits; what comes of it is told to the
/// [`Observer`](super::Observer). Once the replica has stopped nothing comes of anything.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// What callers, threads and the loop share.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    status: Mutex<Status>,
    /// How many bytes of messages wait in the inbox.
    messages_len: AtomicU64,
    ended: Condvar,
    has_ended: Mutex<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    ended: bool,
    wakers: Vec<Waker>,
}

/// What the loop has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    inputs: Vec<Input>,
    stop: bool,
    failure: Option<FatalError>,
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
    /// A thread has failed.
    Failed(FatalError),
}

impl Shared {
    pub(super) fn new(status: Status) -> Shared {
        Shared {
            inbox: Mutex::default(),
            status: Mutex::new(status),
            messages_len: AtomicU64::new(0),
            ended: Condvar::new(),
            has_ended: Mutex::default(),
        }
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
        if let Some(failure) = inbox.failure.take() {
            return Mail::Failed(failure);
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

    /// A thread cannot go on.
    #[cfg(feature = "tokio")]
    pub(super) fn fail(&self, failure: FatalError) {
        self.end_with(|inbox| {
            inbox.failure.get_or_insert(failure);
        });
    }

    /// What a thread has said before it ended.
    #[cfg(feature = "tokio")]
    pub(super) fn failure(&self) -> Option<FatalError> {
        lock(&self.inbox).failure.take()
    }

    pub(super) fn stop(&self) {
        self.end_with(|inbox| inbox.stop = true);
    }

    fn end_with(&self, note: impl FnOnce(&mut Inbox)) {
        let mut inbox = lock(&self.inbox);
        note(&mut inbox);
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

    /// All is released; whoever waits for that may go on.
    pub(super) fn end(&self) {
        self.close();
        let mut ended = lock(&self.has_ended);
        ended.ended = true;
        let wakers = std::mem::take(&mut ended.wakers);
        drop(ended);
        self.ended.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
    }
}

impl Handle {
    /// Puts a command into the log. Ends in [`Event::Outcome`](super::Event::Outcome) or [`Event::Dropped`](super::Event::Dropped).
    pub fn propose(&self, token: u64, payload: Bytes) {
        self.0.put(Input::Propose { token, payload });
    }

    /// As [`propose`](Handle::propose) for each of these, in one go.
    pub fn propose_many(&self, proposals: impl IntoIterator<Item = (u64, Bytes)>) {
        let inputs = proposals.into_iter().map(|(token, payload)| Input::Propose { token, payload });
        self.0.put_with(|to| to.extend(inputs));
    }

    /// Asks when a linearizable read may be answered: [`Event::ReadReady`](super::Event::ReadReady) or
    /// [`Event::Dropped`](super::Event::Dropped).
    pub fn read_index(&self, token: u64) {
        self.0.put(Input::ReadIndex { token });
    }

    /// Changes who takes part. Ends in [`Event::Changed`](super::Event::Changed) or [`Event::Dropped`](super::Event::Dropped).
    pub fn change_membership(&self, token: u64, change: MembershipChange) {
        self.0.put(Input::ChangeMembership { token, change });
    }

    /// Asks this leader to hand over.
    pub fn transfer_leadership(&self, to: NodeId) {
        self.0.put(Input::TransferLeadership { to });
    }

    /// A message of a peer, who is certain to have sent it. Dropped if the replica is far behind with reading.
    pub fn deliver(&self, from: NodeId, payload: Bytes) {
        let len = payload.len() as u64;
        if self.0.messages_len.fetch_add(len, Ordering::Relaxed) < MESSAGES_LEN_MAX {
            self.0.put(Input::Message { from, payload });
        }
    }

    /// Messages to this peer do not arrive at the moment.
    pub fn unreachable(&self, peer: NodeId) {
        self.0.put(Input::Unreachable { peer });
    }

    /// What the replica knows of itself and the group.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.0.status).clone()
    }

    /// Asks the replica to stop, and does not wait for it: see [`wait_ended`](Handle::wait_ended). It stops as if the process were killed,
    /// without losing anything that was acknowledged.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Waits until the replica has stopped and its storage is closed. Blocks the thread.
    pub fn wait_ended(&self) {
        let mut ended = lock(&self.0.has_ended);
        while !ended.ended {
            ended = self.0.ended.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait_ended`](Handle::wait_ended), for `async` code under any runtime.
    pub async fn ended(&self) {
        std::future::poll_fn(|cx| {
            let mut ended = lock(&self.0.has_ended);
            if ended.ended {
                return std::task::Poll::Ready(());
            }
            if !ended.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                ended.wakers.push(cx.waker().clone());
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

/// Tells the end when the last of those who hold it is gone.
#[derive(Debug)]
pub(super) struct EndGuard(pub(super) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}
