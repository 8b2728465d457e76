//! A process with an event loop: a node, or a client outside of the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::{Mux, MuxOptions};

use super::cable::{Cable, Switch};
use super::context::{Context, Trouble, violation};
use super::id_of;
use super::schedule::{Event, Place, Time};
use crate::cluster::event_loop::{End, EventLoop};
use crate::cluster::inbox::{Alarm, Inbox};
use crate::cluster::peers::Peers;
use crate::cluster::service::Bus;
use crate::cluster::services::drive;
use crate::cluster::services::operations::{self, Calls, Operations};
use crate::cluster::services::status::{self, Status};
use crate::coordinator::{self, Coordinator};
use crate::request::operation::Operation;
use crate::request::pending::Answer;

/// An operation of a worker.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) number: u64,
    pub(super) operation: Operation,
    pub(super) deadline: Time,
}

/// The processes whose event loops have something to do, one bit each.
#[derive(Debug, Clone, Default)]
pub(super) struct Ready(Arc<AtomicU64>);

impl Ready {
    /// More processes than this do not fit into a world.
    pub(super) const PLACES_MAX: usize = 64;

    pub(super) fn set(&self, place: Place) {
        self.0.fetch_or(1 << place, Ordering::Relaxed);
    }

    /// All of them, in order; none is set then.
    pub(super) fn take(&self) -> impl Iterator<Item = Place> + use<> {
        let mut bits = self.0.swap(0, Ordering::Relaxed);
        std::iter::from_fn(move || {
            let place = (bits != 0).then(|| bits.trailing_zeros() as Place)?;
            bits &= bits - 1;
            Some(place)
        })
    }

    /// A waker that sets a process.
    pub(super) fn waker(&self, place: Place) -> Waker {
        Waker::from(Arc::new(PlaceWaker { ready: self.clone(), place }))
    }
}

struct PlaceWaker {
    ready: Ready,
    place: Place,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.ready.set(self.place);
    }
}

/// See the [module](self).
pub(super) struct Process {
    place: Place,
    start: u32,
    /// `None` once the process has ended.
    event_loop: Option<EventLoop>,
    calls: Calls,
    peers: Arc<Peers>,
    switch: Switch,
    waiting: Vec<(u64, Answer)>,
    /// When a wake is scheduled.
    wake: Time,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn new(
        place: Place,
        start: u32,
        event_loop: EventLoop,
        calls: Calls,
        peers: Arc<Peers>,
        switch: Switch,
    ) -> Process {
        let waiting = Vec::new();
        Process { place, start, event_loop: Some(event_loop), calls, peers, switch, waiting, wake: Time::MAX }
    }

    /// A client outside, as [`Client::connect`](crate::Client::connect) makes it.
    pub(super) fn client(
        context: &mut Context,
        place: Place,
        members: Vec<NodeId>,
        start: u32,
    ) -> Result<Process, Trouble> {
        let (id, alarm, switch) = (id_of(place), Alarm::default(), Switch::default());
        let transport = Cable::new(context.mesh.transport(id), switch.clone(), context.traffic.clone());
        let mux = Mux::new(transport, MuxOptions::default().seed(context.random.next()));
        let config = coordinator::CoordinatorOptions::client(id, members);
        let coordinator = Coordinator::new(config, context.random.next());
        let open = |channel: &crate::cluster::ChannelSpec| {
            channel.open(&mux).map_err(|error| Trouble::Violation(format!("no channel: {error}")))
        };
        let peers = Arc::new(Peers::default());
        let calls = Calls::new(Inbox::new(alarm.clone()));
        let mut event_loop =
            EventLoop::new(alarm.clone(), Bus { peers: Arc::clone(&peers), ..Bus::default() });
        drive::start(&mut event_loop, &mux);
        event_loop.add(Operations::new(open(&operations::CHANNEL)?, coordinator, calls.clone(), None));
        event_loop.add(Status::new(id, open(&status::CHANNEL)?, Inbox::new(alarm), None));
        Ok(Process::new(place, start, event_loop, calls, peers, switch))
    }

    pub(super) fn start(&self) -> u32 {
        self.start
    }

    pub(super) fn ask(&mut self, asking: Asking) {
        let deadline = Duration::from_micros(asking.deadline);
        self.waiting.push((asking.number, self.calls.call_until(asking.operation, Some(deadline))));
    }

    /// Polls the event loop, hands answers to the world, and sees to being woken in time.
    pub(super) fn poll(&mut self, context: &mut Context, waker: &Waker) -> Result<Poll<End>, Trouble> {
        let Some(event_loop) = &mut self.event_loop else { return Ok(Poll::Pending) };
        let end = event_loop.poll(&mut std::task::Context::from_waker(waker), context.time());
        if self.peers.decode_error_count() > 0 {
            return violation(format!("{} refuses what a peer sent", id_of(self.place)));
        }
        let answers = &mut context.answers;
        if end.is_pending() {
            self.waiting.retain_mut(|(number, answer)| match answer.try_take() {
                Some(result) => {
                    answers.push((*number, result));
                    false
                }
                None => true,
            });
            let due = event_loop.poll_timeout();
            let due = due
                .map_or(Time::MAX, |due| Time::try_from(due.as_nanos().div_ceil(1000)).unwrap_or(Time::MAX));
            if due < self.wake {
                self.wake = due.max(context.now);
                context.schedule.put(self.wake, Event::Wake { place: self.place, start: self.start });
            }
        }
        Ok(end)
    }

    /// A wake has come. Whether it is the one that is waited for.
    pub(super) fn wake(&mut self, now: Time) -> bool {
        let is_due = now >= self.wake;
        if is_due {
            self.wake = Time::MAX;
        }
        is_due
    }

    /// Ends the process as if it were killed.
    pub(super) fn kill(&mut self) {
        self.switch.cut();
        self.waiting.clear();
        self.event_loop = None;
    }
}
