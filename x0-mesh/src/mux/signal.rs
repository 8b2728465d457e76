//! Wakers of the channels, outside of the lock of the mux.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Wake as StdWake, Waker};

use x0_identity::NodeId;

use super::engine::Wake;
use crate::Lane;

/// The waker that the transport beneath is given. It has a lock of its own, because a transport may call it
/// from inside of its methods.
///
/// A task that is woken drives the mux for all channels, so each one that waits is woken: one that is busy
/// must not keep the others waiting.
#[derive(Debug)]
pub(super) struct Signal {
    /// Whether the transport may have something.
    is_ready: AtomicBool,
    waiting: Mutex<Vec<Waiting>>,
    /// Of `Mux::poll_drive`.
    drive: Mutex<Option<Waker>>,
}

/// The wakers of one channel, as the contract of `Transport` has them: the last of each kind that was
/// pending.
#[derive(Debug, Default)]
struct Waiting {
    receiver: Option<Waker>,
    event: Option<Waker>,
    senders: BTreeMap<(NodeId, Lane), Waker>,
}

impl Signal {
    pub(super) fn new() -> Signal {
        Signal { is_ready: AtomicBool::new(true), waiting: Mutex::new(Vec::new()), drive: Mutex::new(None) }
    }

    /// A panic elsewhere leaves the list as it was.
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// Whether the transport may have something; from now on only if it says so again.
    pub(super) fn take_ready(&self) -> bool {
        self.is_ready() && self.is_ready.swap(false, Ordering::AcqRel)
    }

    fn of<R>(&self, slot: usize, change: impl FnOnce(&mut Waiting) -> R) -> R {
        let mut waiting = self.lock();
        if waiting.len() <= slot {
            waiting.resize_with(slot + 1, Waiting::default);
        }
        // Just made as long as that.
        match waiting.get_mut(slot) {
            Some(entry) => change(entry),
            None => change(&mut Waiting::default()),
        }
    }

    pub(super) fn wait_to_receive(&self, slot: usize, waker: &Waker) {
        self.of(slot, |waiting| keep(&mut waiting.receiver, waker));
    }

    pub(super) fn wait_for_event(&self, slot: usize, waker: &Waker) {
        self.of(slot, |waiting| keep(&mut waiting.event, waker));
    }

    pub(super) fn wait_for_next(&self, slot: usize, waker: &Waker) {
        self.of(slot, |waiting| {
            keep(&mut waiting.receiver, waker);
            keep(&mut waiting.event, waker);
        });
    }

    pub(super) fn wait_to_send(&self, slot: usize, to: NodeId, lane: Lane, waker: &Waker) {
        self.of(slot, |waiting| {
            waiting
                .senders
                .entry((to, lane))
                .and_modify(|kept| kept.clone_from(waker))
                .or_insert_with(|| waker.clone());
        });
    }

    pub(super) fn wait_to_drive(&self, waker: &Waker) {
        keep(&mut self.drive.lock().unwrap_or_else(PoisonError::into_inner), waker);
    }

    /// Removes every waker of a channel.
    pub(super) fn clear(&self, slot: usize) {
        self.of(slot, |waiting| *waiting = Waiting::default());
    }

    /// Removes the wakers of one kind.
    pub(super) fn take(&self, slot: usize, wake: Wake, wakers: &mut Vec<Waker>) {
        self.of(slot, |waiting| match wake {
            Wake::Receiver => wakers.extend(waiting.receiver.take()),
            Wake::Event => wakers.extend(waiting.event.take()),
            Wake::Senders => wakers.extend(std::mem::take(&mut waiting.senders).into_values()),
        });
    }

    /// Removes every waker; those of one task are returned once.
    pub(super) fn take_all(&self, wakers: &mut Vec<Waker>) {
        let mut add = |waker: Waker| {
            if !wakers.iter().any(|other| other.will_wake(&waker)) {
                wakers.push(waker);
            }
        };
        self.drive.lock().unwrap_or_else(PoisonError::into_inner).take().into_iter().for_each(&mut add);
        for waiting in self.lock().iter_mut() {
            waiting.receiver.take().into_iter().for_each(&mut add);
            waiting.event.take().into_iter().for_each(&mut add);
            if !waiting.senders.is_empty() {
                std::mem::take(&mut waiting.senders).into_values().for_each(&mut add);
            }
        }
    }
}

fn keep(kept: &mut Option<Waker>, waker: &Waker) {
    match kept {
        // Spares a clone where the task is the same.
        Some(kept) => kept.clone_from(waker),
        None => *kept = Some(waker.clone()),
    }
}

impl StdWake for Signal {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        // In this order: a task either sees the flag after it has registered its waker, or its waker is found
        // here.
        self.set_ready();
        let mut wakers = Vec::new();
        self.take_all(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}
