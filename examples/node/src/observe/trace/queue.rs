//! The queue of finished spans, and the thread that sends them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::lines::Lines;
use crate::observe::telemetry;

/// Most finished spans that wait. Further ones are dropped.
const WAITING_MAX: usize = 4096;
/// Most spans of one request.
const BATCH_MAX: usize = 512;
/// The longest time that a span waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// Hands spans to the thread that sends them. Clones are the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Span(Box<SpanData>),
    /// Everything before this is to be sent, then this is dropped.
    Flush(SyncSender<()>),
}

impl Queue {
    /// Starts the thread, which ends with the process or the last clone.
    pub(super) fn start(exporter: impl SpanExporter + 'static) -> io::Result<Queue> {
        Queue::with_room(WAITING_MAX, exporter)
    }

    fn with_room(waiting_max: usize, exporter: impl SpanExporter + 'static) -> io::Result<Queue> {
        let (sender, receiver) = sync_channel(waiting_max);
        let run = move || run(&receiver, &exporter);
        std::thread::Builder::new().name("traces".into()).spawn(run)?;
        Ok(Queue { sender })
    }

    /// Adds a span, or drops it if too many wait. Never waits.
    fn put(&self, span: SpanData) {
        if self.sender.try_send(Message::Span(Box::new(span))).is_err() {
            telemetry::spans_dropped(1);
        }
    }

    /// Waits until the spans that wait are sent, at most for this time.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (flushed, done) = sync_channel(1);
        let mut message = Message::Flush(flushed);
        // A full queue has room when the thread takes the next span.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            message = back;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Sends spans until there is no queue any more.
fn run(receiver: &Receiver<Message>, exporter: &impl SpanExporter) {
    let mut batch = Vec::new();
    let mut send_at: Option<Instant> = None;
    loop {
        let wait = send_at.map(|at| at.saturating_duration_since(Instant::now()));
        let message = match wait {
            // Without a span there is nothing to wait for.
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => receiver.recv_timeout(wait),
        };
        let flushed = match message {
            Ok(Message::Span(span)) => {
                batch.push(*span);
                send_at = send_at.or_else(|| Some(Instant::now() + GATHER));
                if batch.len() < BATCH_MAX {
                    continue;
                }
                None
            }
            Ok(Message::Flush(flushed)) => Some(flushed),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                send(exporter, std::mem::take(&mut batch));
                return;
            }
        };
        let is_sent = send(exporter, std::mem::take(&mut batch));
        send_at = None;
        drop(flushed);
        if !is_sent {
            // A receiver that refuses would be asked again at once. Spans wait meanwhile, as far as there is
            // room.
            pause(receiver, exporter, &mut batch, Instant::now() + GATHER);
            send_at = (!batch.is_empty()).then(Instant::now);
        }
    }
}

/// Takes spans and sends none until then, but for a flush.
fn pause(
    receiver: &Receiver<Message>,
    exporter: &impl SpanExporter,
    batch: &mut Vec<SpanData>,
    until: Instant,
) {
    while batch.len() < BATCH_MAX {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Message::Span(span)) => batch.push(*span),
            Ok(Message::Flush(flushed)) => {
                send(exporter, std::mem::take(batch));
                drop(flushed);
            }
            Err(_) => return,
        }
    }
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
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
