//! The event loop of a node or client: it polls services, and knows none of them.

use std::task::{Context, Poll};
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
    services: Vec<Box<dyn Service>>,
    bus: Bus,
    alarm: Alarm,
}

/// Why an event loop ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It was asked to.
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
        self.services.push(Box::new(service));
    }

    /// Does what can be done at `now`. When this is ready, callers have been answered, and the loop is to be
    /// dropped.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<End> {
        for _ in 0..ROUNDS_MAX {
            match self.round(cx, now) {
                Ok(true) => {}
                // A caller may have come after the round. The waker is set only now, so that callers that
                // come while the loop runs do not wake it.
                Ok(false) if !self.alarm.sleep(cx.waker()) => return Poll::Pending,
                Ok(false) => {}
                Err(end) => {
                    let error = match &end {
                        End::Stopped => OperationError::Closed,
                        End::Failed(error) => OperationError::failed(error.clone()),
                    };
                    self.services.iter_mut().for_each(|service| service.close(&error));
                    return Poll::Ready(end);
                }
            }
        }
        // Other tasks get a turn, then the loop goes on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn round(&mut self, cx: &mut Context<'_>, now: Duration) -> Result<bool, End> {
        let EventLoop { services, bus, alarm } = self;
        let is_raised = alarm.take();
        if alarm.is_stopping() {
            return Err(End::Stopped);
        }
        let mut is_busy = false;
        for service in services.iter_mut() {
            is_busy |= service.poll(cx, now, is_raised, bus).map_err(End::Failed)?;
        }
        if let Some(membership) = bus.membership.take() {
            services.iter_mut().for_each(|service| service.members_changed(&membership));
        }
        Ok(is_busy || !bus.is_empty())
    }

    /// When to poll again at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.services.iter().filter_map(|service| service.poll_timeout()).min()
    }
}
