//! Moves the messages of all channels between the transport and the mux.
//!
//! The channels of a node belong to one event loop. With a driver, a message wakes the service whose channel
//! received it; without one, each message would wake every service.

use std::task::Context;
use std::time::Duration;

use x0_mesh::{Mux, MuxDriver};

use super::super::NodeError;
use super::super::event_loop::EventLoop;
use super::super::service::{Bus, Service};

/// The driver of the mux, polled like a service and before all of them.
struct Drive(MuxDriver);

/// Lets the event loop drive the mux, unless the owner of the mux does. To be called before the first service
/// is added.
pub(crate) fn start(event_loop: &mut EventLoop, mux: &Mux) {
    if let Some(driver) = mux.driver() {
        event_loop.add(Drive(driver));
    }
}

impl Service for Drive {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
        _is_raised: bool,
        _bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        // Never ready. The services that received something are woken, and polled later in this round.
        let _ = self.0.poll(cx);
        Ok(false)
    }
}
