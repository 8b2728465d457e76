//! The event loop of a node or client: it polls services, and knows none of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::NodeError;
use super::inbox::Alarm;
use super::service::{Bus, Service};
use crate::request::error::OperationError;

/// How often all services are polled before other tasks get a turn.
const ROUNDS_MAX: usize = 8;

/// A list of services, polled until none of them has anything to do. It has no clock and no runtime: the
/// owner passes `now`, and polls again when it is woken or when [`poll_timeout`](EventLoop::poll_timeout) has
/// come.
pub(crate) struct EventLoop {
    services: Vec<Slot>,
    bus: Bus,
    alarm: Alarm,
}

/// A service, and what says that it must be polled.
struct Slot {
    service: Box<dyn Service>,
    ready: Arc<Ready>,
    /// Sets `ready` and wakes the event loop.
    waker: Waker,
    /// The last poll did something, so that there may be more to do.
    is_busy: bool,
}

/// Whether the channel of a service has something for it.
struct Ready {
    is_set: AtomicBool,
    alarm: Alarm,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_set.store(true, Ordering::SeqCst);
        self.alarm.wake();
    }
}

/// Why an event loop ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The caller asked for it.
    Stopped,
    /// A service cannot go on.
    Failed(NodeError),
}

impl EventLoop {
    /// An event loop that `alarm` wakes.
    pub(crate) fn new(alarm: Alarm, bus: Bus) -> EventLoop {
        EventLoop { services: Vec::new(), bus, alarm }
    }

    /// Adds a service. Services are polled in the order in which they were added.
    pub(crate) fn add(&mut self, service: impl Service + 'static) {
        let ready = Arc::new(Ready { is_set: AtomicBool::new(true), alarm: self.alarm.clone() });
        let waker = Waker::from(Arc::clone(&ready));
        self.services.push(Slot { service: Box::new(service), ready, waker, is_busy: false });
    }

    /// Does what can be done at `now`. When this is ready, callers have been answered, and the loop is to be
    /// dropped.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<End> {
        for _ in 0..ROUNDS_MAX {
            match self.round(now) {
                Ok(true) => {}
                // A caller may have come after the round. The waker is set only now, so that callers that
                // come while the loop runs do not wake it.
                Ok(false) if !self.alarm.sleep(cx.waker()) && !self.is_ready() => return Poll::Pending,
                Ok(false) => {}
                Err(end) => {
                    let error = match &end {
                        End::Stopped => OperationError::Closed,
                        End::Failed(error) => OperationError::failed(error.clone()),
                    };
                    self.services.iter_mut().for_each(|slot| slot.service.close(&error));
                    return Poll::Ready(end);
                }
            }
        }
        // Other tasks get a turn, then the loop goes on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_ready(&self) -> bool {
        self.services.iter().any(|slot| slot.ready.is_set.load(Ordering::SeqCst))
    }

    /// Polls the services that may have something to do: their channel was woken, their time has come,
    /// another service has left something for them, or an inbox was filled.
    fn round(&mut self, now: Duration) -> Result<bool, End> {
        let EventLoop { services, bus, alarm } = self;
        let is_raised = alarm.take();
        if alarm.is_stopping() {
            return Err(End::Stopped);
        }
        let mut is_busy = false;
        for Slot { service, ready, waker, is_busy: was_busy } in services.iter_mut() {
            let is_ready = ready.is_set.swap(false, Ordering::SeqCst);
            let is_due = || service.poll_timeout().is_some_and(|due| due <= now);
            if is_ready || is_raised || *was_busy || service.wants(bus) || is_due() {
                let mut cx = Context::from_waker(waker);
                *was_busy = service.poll(&mut cx, now, is_raised, bus).map_err(End::Failed)?;
                is_busy |= *was_busy;
            }
        }
        if let Some(membership) = bus.membership.take() {
            services.iter_mut().for_each(|slot| slot.service.members_changed(&membership));
        }
        Ok(is_busy || !bus.is_empty())
    }

    /// When to poll again at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.services.iter().filter_map(|slot| slot.service.poll_timeout()).min()
    }
}
