//! Wakers of the channels, outside of the lock of the mux.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake as StdWake, Waker};

use x0_identity::NodeId;

use super::engine::Wake;
use crate::Lane;

/// The waker that the transport beneath is given. It has a lock of its own, because a transport may call it
/// from inside of its methods.
///
/// A task that is woken drives the mux for all channels, so each one that waits is woken: one that is busy
/// must not keep the others waiting. With a `MuxDriver` it is woken alone, beside those that wait to send,
/// because the transport may have room for them.
#[derive(Debug)]
pub(super) struct Signal {
    /// Whether the transport may have something.
    is_ready: AtomicBool,
    waiting: Mutex<AllWaiting>,
}

#[derive(Debug, Default)]
struct AllWaiting {
    /// By slot.
    channels: Vec<Waiting>,
    /// The waker of `Mux::poll_drive` and of `MuxDriver::poll`.
    drive: Option<Waker>,
    /// There is a `MuxDriver`, which moves messages for all channels.
    has_driver: bool,
}

/// The wakers of one channel, as the contract of `Transport` has them: the last of each kind that was
/// pending.
#[derive(Debug, Default)]
struct Waiting {
    receiver: Option<Waker>,
    /// Whether the receiver waits for events too: one waker is cheaper than two.
    is_for_events: bool,
    event: Option<Waker>,
    senders: BTreeMap<(NodeId, Lane), Waker>,
}

impl Waiting {
    fn take_receiver(&mut self) -> Option<Waker> {
        self.is_for_events = false;
        self.receiver.take()
    }
}

/// Wakers to be called once no lock is held. Most often there is one, which takes no allocation.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    /// Adds a waker, unless its task is woken already.
    pub(super) fn add(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(first) if first.will_wake(&waker) => {}
            Some(_) if self.rest.iter().any(|other| other.will_wake(&waker)) => {}
            Some(_) => self.rest.push(waker),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.rest).for_each(Waker::wake);
    }
}

impl Signal {
    pub(super) fn new() -> Signal {
        Signal { is_ready: AtomicBool::new(true), waiting: Mutex::default() }
    }

    /// A panic elsewhere leaves the list as it was.
    fn lock(&self) -> MutexGuard<'_, AllWaiting> {
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

    fn of(&self, slot: usize, change: impl FnOnce(&mut Waiting)) {
        let waiting = &mut self.lock().channels;
        if waiting.len() <= slot {
            waiting.resize_with(slot + 1, Waiting::default);
        }
        if let Some(entry) = waiting.get_mut(slot) {
            change(entry);
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
            waiting.is_for_events = true;
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
        keep(&mut self.lock().drive, waker);
    }

    /// From now on a driver moves messages. Whether there was none.
    pub(super) fn begin_driving(&self) -> bool {
        !std::mem::replace(&mut self.lock().has_driver, true)
    }

    /// The driver is gone. Returns the wakers of those who move what it may have left.
    pub(super) fn end_driving(&self) -> Wakers {
        self.lock().has_driver = false;
        let mut wakers = Wakers::default();
        self.take_all(&mut wakers);
        wakers
    }

    /// Removes every waker of a channel.
    pub(super) fn clear(&self, slot: usize) {
        self.of(slot, |waiting| *waiting = Waiting::default());
    }

    /// Removes the wakers of one kind.
    pub(super) fn take(&self, slot: usize, wake: Wake, wakers: &mut Wakers) {
        self.of(slot, |waiting| match wake {
            Wake::Receiver => waiting.take_receiver().into_iter().for_each(|waker| wakers.add(waker)),
            Wake::Event => {
                waiting.event.take().into_iter().for_each(|waker| wakers.add(waker));
                if waiting.is_for_events {
                    waiting.take_receiver().into_iter().for_each(|waker| wakers.add(waker));
                }
            }
            Wake::Senders => {
                std::mem::take(&mut waiting.senders).into_values().for_each(|waker| wakers.add(waker));
            }
        });
    }

    /// Removes every waker that the transport concerns: with a driver, its own and those of senders.
    fn take_concerned(&self, wakers: &mut Wakers) {
        let mut all = self.lock();
        if !all.has_driver {
            drop(all);
            return self.take_all(wakers);
        }
        all.drive.take().into_iter().for_each(|waker| wakers.add(waker));
        for waiting in all.channels.iter_mut().filter(|waiting| !waiting.senders.is_empty()) {
            std::mem::take(&mut waiting.senders).into_values().for_each(|waker| wakers.add(waker));
        }
    }

    /// Removes every waker.
    pub(super) fn take_all(&self, wakers: &mut Wakers) {
        let mut all = self.lock();
        all.drive.take().into_iter().for_each(|waker| wakers.add(waker));
        for waiting in &mut all.channels {
            waiting.take_receiver().into_iter().for_each(|waker| wakers.add(waker));
            waiting.event.take().into_iter().for_each(|waker| wakers.add(waker));
            if !waiting.senders.is_empty() {
                std::mem::take(&mut waiting.senders).into_values().for_each(|waker| wakers.add(waker));
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
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: a task either sees the flag after it has registered its waker, or its waker is found
        // here.
        self.set_ready();
        let mut wakers = Wakers::default();
        self.take_concerned(&mut wakers);
        wakers.wake();
    }
}
