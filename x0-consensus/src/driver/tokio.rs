//! A driver on a tokio runtime: a task polls a [`Pump`], whose log, snapshots and long work of the state
//! machine are on threads, so that appending, replicating and applying overlap. It works on the
//! current-thread runtime as on the multi-threaded one; the runtime needs time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio::time::{Instant, Sleep};

use super::delivery::Delivery;
use super::event::Observer;
use super::handle::{Handle, Shared, Taken};
use super::outbox::Outbox;
use super::pump::Pump;
use super::start::OpenError;
use crate::options::Options;
use crate::replica::Input;
use crate::state_machine::StateMachine;
use crate::storage::Storage;

/// Starts a replica on the runtime that this is called in. See [`Pump`] for what happens on the task and what
/// on threads.
///
/// # Errors
/// When the storage cannot be recovered or read, does not fit the state machine, or a thread cannot be
/// started. Nothing was changed.
///
/// # Panics
/// Outside of a tokio runtime, as [`tokio::spawn`] does.
pub fn start(
    options: Options,
    storage: impl Storage + 'static,
    machine: impl StateMachine + 'static,
    outbox: impl Outbox + 'static,
    observer: impl Observer + 'static,
) -> Result<Handle, OpenError> {
    let pump = Pump::start(options, Box::new(storage), Box::new(machine), Duration::ZERO)?;
    let shared = Arc::new(Shared::new(pump.replica().status()));
    let ended = pump.ended();
    let event_loop = EventLoop {
        shared: Closing(Arc::clone(&shared)),
        delivery: Delivery::new(outbox, observer),
        inputs: Vec::new(),
        origin: Instant::now(),
        sleep: Box::pin(::tokio::time::sleep(Duration::ZERO)),
        wake: None,
        pump,
    };
    ::tokio::spawn(event_loop.run());
    Ok(Handle { shared, ended })
}

/// Closes the inbox when the task ends, even with its runtime.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct EventLoop {
    shared: Closing,
    delivery: Delivery,
    inputs: Vec<Input>,
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The time that `sleep` is set to.
    wake: Option<Duration>,
    pump: Pump,
}

/// How many times inputs are taken before other tasks get a turn.
const ROUNDS_MAX: usize = 8;

impl EventLoop {
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_MAX {
            let now = self.origin.elapsed();
            self.drain(cx, now);
            self.shared.0.with_status(|status| self.pump.refresh(status));
            if self.pump.is_failed() {
                return Poll::Ready(());
            }
            let mut inputs = std::mem::take(&mut self.inputs);
            let taken = self.shared.0.take(&mut inputs, cx.waker());
            for input in inputs.drain(..) {
                self.handle(now, input);
            }
            self.inputs = inputs;
            match taken {
                Taken::Stop => return Poll::Ready(()),
                Taken::Nothing if self.poll_timer(cx).is_pending() => return Poll::Pending,
                Taken::Inputs | Taken::Nothing => {}
            }
            let now = self.origin.elapsed();
            if self.pump.poll_timeout().is_some_and(|due| due <= now) {
                self.handle(now, Input::Timeout);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.pump.poll_timeout() else { return Poll::Pending };
        if self.wake != Some(due) {
            self.wake = Some(due);
            self.sleep.as_mut().reset(self.origin + due);
        }
        let fired = self.sleep.as_mut().poll(cx);
        if fired.is_ready() {
            self.wake = None;
        }
        fired
    }

    fn handle(&mut self, now: Duration, input: Input) {
        // A message that is refused is dropped; a failure is the pump's last event.
        let _ = self.pump.handle(now, input);
    }

    fn drain(&mut self, cx: &mut Context<'_>, now: Duration) {
        while let Poll::Ready(effect) = self.pump.poll_output(cx, now) {
            if let Err(to) = self.delivery.deliver(effect) {
                self.pump.congested(now, to);
            }
        }
        self.delivery.flush();
    }
}
