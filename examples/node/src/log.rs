//! The log: one line on standard error for each event, with time, node, event and details.
//!
//! A thread of its own writes the lines from a bounded queue. The queue accepts a line without waiting, so
//! that a full pipe or a slow terminal delays nothing but the log. Lines that find the queue full are dropped
//! and counted; the next line that fits is preceded by one that states their number. All formats leave
//! through this queue.

pub(crate) mod record;

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use x0_kv::trace::Context;

use self::record::{Format, Level};
use crate::observe::{telemetry, trace};

/// The maximum number of lines in the queue.
const LINES_MAX: usize = 1024;

/// A handle of the log. Clones write to the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    node: Arc<str>,
    format: Format,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines dropped since the last line that states their number.
    dropped: u64,
    is_writing: bool,
}

impl Log {
    /// Starts the thread that writes to standard error. It ends with the process.
    pub(crate) fn start(node: impl Display, format: Format) -> std::io::Result<Log> {
        Log::start_to(node, format, |line| {
            // One write, so that lines do not mix with those of other writers. A log that cannot be written
            // is no reason to stop.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        })
    }

    fn start_to(
        node: impl Display,
        format: Format,
        mut write: impl FnMut(&str) + Send + 'static,
    ) -> std::io::Result<Log> {
        let queue = Arc::<Queue>::default();
        let log = Log { node: node.to_string().into(), format, queue: Arc::clone(&queue) };
        std::thread::Builder::new().name("log".into()).spawn(move || {
            loop {
                let line = queue.take();
                write(&line);
                queue.written();
            }
        })?;
        Ok(log)
    }

    /// Queues a line, or counts it as dropped. Never waits for the log to be written. The line has the ids of
    /// the current span if that is exported.
    pub(crate) fn event(&self, event: &str, details: impl Display) {
        self.event_in(trace::current(), event, details);
    }

    /// As [`event`](Log::event), with the ids of this span.
    pub(crate) fn event_in(&self, span: Option<Context>, event: &str, details: impl Display) {
        if let (Level::Error, component) = record::class(event) {
            telemetry::error(component);
        }
        let line = self.line(span, event, details);
        let mut state = self.queue.lock();
        let needed = 1 + usize::from(state.dropped > 0);
        if state.lines.len() + needed > LINES_MAX {
            state.dropped += 1;
            telemetry::record_dropped();
            return;
        }
        self.state_dropped(&mut state);
        state.lines.push_back(line);
        telemetry::record_queued();
        self.queue.changed.notify_all();
    }

    /// Waits until every queued line is written, or for `limit`. Returns whether all lines were written.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.queue.lock();
        self.state_dropped(&mut state);
        self.queue.changed.notify_all();
        while !state.lines.is_empty() || state.is_writing {
            let Some(left) = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return false;
            };
            let waited = self.queue.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn state_dropped(&self, state: &mut State) {
        if state.dropped > 0 {
            let line = self.line(None, "log-lines-dropped", format!("count={}", state.dropped));
            state.lines.push_back(line);
            state.dropped = 0;
        }
    }

    fn line(&self, span: Option<Context>, event: &str, details: impl Display) -> String {
        record::line(self.format, &self.node, event, span, &details.to_string())
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next line.
    fn take(&self) -> String {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.is_writing = true;
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn written(&self) {
        self.lock().is_writing = false;
        self.changed.notify_all();
    }
}

/// Writes a last message to standard error, and gives up after `limit` if standard error is blocked.
pub(crate) fn last_words(text: &str, limit: Duration) {
    let text = text.to_owned();
    let (done, wait) = std::sync::mpsc::channel();
    let write = move || {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("last words".into()).spawn(write).is_ok() {
        let _ = wait.recv_timeout(limit);
    }
}

/// A time in RFC 3339, UTC. The calendar is that of "days from civil" (Howard Hinnant).
pub(crate) fn timestamp(unix_ms: u128) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u128::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", second % 60, unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A log whose thread waits for a permit before each line, and the lines that it wrote.
    fn gated() -> (Log, mpsc::Sender<()>, Arc<Mutex<Vec<String>>>) {
        let written = Arc::<Mutex<Vec<String>>>::default();
        let (permit, permits) = mpsc::channel();
        let lines = Arc::clone(&written);
        let log = Log::start_to("n", Format::Text, move |line| {
            if permits.recv().is_ok() {
                lines.lock().unwrap().push(line.to_owned());
            }
        });
        (log.unwrap(), permit, written)
    }

    #[test]
    fn a_blocked_writer_delays_no_caller_and_dropped_lines_are_counted() {
        let (log, permit, written) = gated();
        let count = 3 * LINES_MAX;
        for number in 0..count {
            log.event("tick", format!("number={number}"));
        }
        assert!(!log.flush(Duration::from_millis(1)), "nothing can be written yet");
        for _ in 0..count {
            permit.send(()).unwrap();
        }
        assert!(log.flush(Duration::from_secs(30)));
        log.event("after", "");
        permit.send(()).unwrap();
        assert!(log.flush(Duration::from_secs(30)));
        let lines = written.lock().unwrap();
        let dropped: usize = lines
            .iter()
            .filter_map(|line| {
                line.trim_end().split_once("event=log-lines-dropped count=")?.1.parse::<usize>().ok()
            })
            .sum();
        let ticks = lines.iter().filter(|line| line.contains("event=tick")).count();
        assert!(dropped > 0 && ticks + dropped == count, "{ticks} written and {dropped} dropped of {count}");
        assert!(lines.last().unwrap().ends_with("node=n event=after\n"));
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        let (log, ..) = gated();
        let line = log.line(None, "e", "a\nb");
        assert!(line.ends_with("event=e a | b\n") && line.matches('\n').count() == 1, "{line}");
    }

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_827_696_123), "2000-02-29T12:34:56.123Z");
        assert_eq!(timestamp(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(timestamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
