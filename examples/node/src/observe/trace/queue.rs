//! The queue of finished spans, and the thread that sends them.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::lines::Lines;
use crate::observe::telemetry;

/// Most finished spans that wait. Further ones are dropped.
const WAITING_MAX: usize = 2048;
/// Most spans of one request.
const BATCH_MAX: usize = 512;
/// The longest time that a span waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// Hands spans to the thread that sends them. Clones are the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    open: Arc<Open>,
}

/// The thread ends when this is dropped.
#[derive(Debug)]
struct Open(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<SpanData>,
    /// Dropped once what waited before them is sent.
    flushes: Vec<SyncSender<()>>,
    is_closed: bool,
}

impl Waiting {
    /// Whether the spans are not to wait for others.
    fn is_urgent(&self) -> bool {
        self.is_closed || !self.flushes.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds the lock can panic with a half-made change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most for `limit` while the condition holds.
    fn wait<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        limit: Duration,
        condition: impl Fn(&Waiting) -> bool,
    ) -> MutexGuard<'a, Waiting> {
        let waited = self.changed.wait_timeout_while(waiting, limit, |waiting| condition(waiting));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Queue {
    /// Starts the thread, which ends with the process or the last clone.
    pub(super) fn start(exporter: impl SpanExporter + 'static) -> io::Result<Queue> {
        let shared = Arc::new(Shared::default());
        let run = {
            let shared = Arc::clone(&shared);
            move || run(&shared, &exporter)
        };
        std::thread::Builder::new().name("traces".into()).spawn(run)?;
        Ok(Queue { open: Arc::new(Open(shared)) })
    }

    /// Adds a span, or drops it if too many wait. Never waits for the receiver.
    fn put(&self, span: SpanData) {
        let mut waiting = self.open.0.lock();
        let count = waiting.spans.len() + 1;
        if count > WAITING_MAX {
            drop(waiting);
            telemetry::spans_dropped(1);
            return;
        }
        waiting.spans.push_back(span);
        drop(waiting);
        // The first span begins the time of the batch, and another fills it. To wake the thread for each one
        // would cost more than to make the span.
        if count == 1 || count == BATCH_MAX {
            self.open.0.changed.notify_one();
        }
    }

    /// Waits until the spans that wait are sent, at most for this time.
    pub(super) fn flush(&self, limit: Duration) {
        let (flushed, done) = sync_channel(1);
        self.open.0.lock().flushes.push(flushed);
        self.open.0.changed.notify_one();
        // The other end is dropped, and nothing is sent.
        let _ = done.recv_timeout(limit);
    }
}

/// Sends spans until the queue is closed, and then those that still wait.
fn run(shared: &Shared, exporter: &impl SpanExporter) {
    loop {
        let mut waiting = shared.lock();
        while waiting.spans.is_empty() && !waiting.is_urgent() {
            waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting =
            shared.wait(waiting, GATHER, |waiting| waiting.spans.len() < BATCH_MAX && !waiting.is_urgent());
        let (is_closed, flushes) = (waiting.is_closed, std::mem::take(&mut waiting.flushes));
        // A flush sends what waited before it. Spans that end meanwhile could keep it for ever.
        let mut left = match is_closed || !flushes.is_empty() {
            true => waiting.spans.len(),
            false => waiting.spans.len().min(BATCH_MAX),
        };
        let mut is_sent = true;
        while is_sent && left > 0 {
            let count = left.min(BATCH_MAX);
            left -= count;
            let batch = waiting.spans.drain(..count).collect();
            // Spans end while the receiver takes its time.
            drop(waiting);
            is_sent = send(exporter, batch);
            waiting = shared.lock();
        }
        drop(flushes);
        if is_closed {
            return;
        }
        if !is_sent {
            // A receiver that refuses would be asked again at once. Spans wait meanwhile, as far as there is
            // room.
            drop(shared.wait(waiting, GATHER, |waiting| !waiting.is_urgent()));
        }
    }
}

/// Sends a batch. What the receiver does not accept is dropped. Whether it was accepted.
fn send(exporter: &impl SpanExporter, batch: Vec<SpanData>) -> bool {
    let count = batch.len();
    if count == 0 {
        return true;
    }
    let sent = pin!(exporter.export(batch));
    // The client blocks, so that the future is ready when it is polled.
    let is_sent = matches!(sent.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
    match is_sent {
        true => telemetry::spans_exported(count),
        false => telemetry::spans_dropped(count),
    }
    is_sent
}

/// Puts the spans of a provider into a queue, and some of them into the log.
#[derive(Debug)]
pub(super) struct Sender {
    queue: Queue,
    lines: Option<Lines>,
}

impl Sender {
    pub(super) fn new(queue: Queue, lines: Option<Lines>) -> Sender {
        Sender { queue, lines }
    }
}

impl SpanProcessor for Sender {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if let Some(lines) = &self.lines {
            lines.ended(&span);
        }
        self.queue.put(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.queue.flush(limit);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender as Channel, channel};

    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A receiver that the test controls: it reports the size of each batch, and answers as it is ordered.
    #[derive(Debug)]
    struct Ordered {
        came: Channel<usize>,
        answers: Mutex<Receiver<bool>>,
    }

    impl SpanExporter for Ordered {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.came.send(batch.len()).unwrap();
            match self.answers.lock().unwrap().recv() {
                Ok(true) => Ok(()),
                _ => Err(OTelSdkError::InternalFailure("refused".into())),
            }
        }
    }

    /// A queue, with makers of its spans, what comes to the receiver, and its answers.
    fn queue() -> (Queue, impl Fn(usize), Receiver<usize>, Channel<bool>) {
        let ((came, batches), (answer, answers)) = (channel(), channel());
        let queue = Queue::start(Ordered { came, answers: Mutex::new(answers) }).unwrap();
        let provider =
            SdkTracerProvider::builder().with_span_processor(Sender::new(queue.clone(), None)).build();
        let end = move |count| {
            for _ in 0..count {
                provider.tracer("x").start("span").end();
            }
        };
        (queue, end, batches, answer)
    }

    #[test]
    fn spans_wait_for_others_until_a_batch_is_full() {
        let (_queue, end, batches, answer) = queue();
        answer.send(true).unwrap();
        end(BATCH_MAX + 1);
        assert_eq!(batches.recv_timeout(LONG), Ok(BATCH_MAX));
        answer.send(true).unwrap();
        assert_eq!(batches.recv_timeout(LONG), Ok(1), "the last one after the time of a batch");
    }

    #[test]
    fn a_flush_sends_what_waits_and_returns_once_it_is_sent() {
        let (queue, end, batches, answer) = queue();
        end(3);
        answer.send(true).unwrap();
        queue.flush(LONG);
        assert_eq!(batches.try_recv(), Ok(3));
        // A receiver that hangs ends the flush by its limit, and nothing is lost that waits meanwhile.
        end(2);
        queue.flush(Duration::from_millis(20));
        assert_eq!(batches.recv_timeout(LONG), Ok(2));
        end(5);
        answer.send(true).unwrap();
        answer.send(true).unwrap();
        queue.flush(LONG);
        assert_eq!(batches.try_recv(), Ok(5));
    }

    #[test]
    fn a_receiver_that_hangs_costs_the_spans_above_the_room() {
        let (queue, end, batches, answer) = queue();
        end(BATCH_MAX);
        assert_eq!(batches.recv_timeout(LONG), Ok(BATCH_MAX));
        // While the first batch hangs:
        end(WAITING_MAX + 100);
        // The first is refused, and so is the next one, after a pause that a flush ends.
        answer.send(false).unwrap();
        answer.send(false).unwrap();
        queue.flush(LONG);
        assert_eq!(batches.try_recv(), Ok(BATCH_MAX));
        for _ in 2..=WAITING_MAX / BATCH_MAX {
            answer.send(true).unwrap();
        }
        queue.flush(LONG);
        let rest: usize = batches.try_iter().sum();
        assert_eq!(rest, WAITING_MAX - BATCH_MAX, "all but the refused batches and those without room");
    }

    #[test]
    fn the_end_of_the_queue_sends_what_waits() {
        let (queue, end, batches, answer) = queue();
        end(7);
        answer.send(true).unwrap();
        drop((queue, end));
        assert_eq!(batches.recv_timeout(LONG), Ok(7));
    }
}
