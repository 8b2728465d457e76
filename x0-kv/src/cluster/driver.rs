//! The pump of an event loop on a tokio runtime: it has the clock and the timer, and decides nothing.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::event_loop::{End, EventLoop};

/// Runs an event loop to its end, then drops it: its threads have ended and its files are released when this
/// returns.
pub(super) async fn run(mut event_loop: EventLoop) -> End {
    let origin = Instant::now();
    let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut wake: Option<Duration> = None;
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = event_loop.poll(cx, origin.elapsed()) {
                return Poll::Ready(end);
            }
            let Some(due) = event_loop.poll_timeout() else { return Poll::Pending };
            // A timer that fires too early costs less than moving it with each message: it is moved to a
            // later time only when it has fired.
            if wake.is_none_or(|wake| due < wake) {
                wake = Some(due);
                sleep.as_mut().reset(origin + due);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            wake = None;
        }
    })
    .await;
    // Dropping waits for threads, which may wait for a disk. Without a runtime the result has no receiver.
    let _ = tokio::task::spawn_blocking(move || drop(event_loop)).await;
    end
}
