//! Probes at a steady rate, and the gaps in what arrives of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One millisecond, so that a gap is as many milliseconds long as probes are missing.
const INTERVAL: Duration = Duration::from_millis(1);
/// Probes that may be on their way: fewer than a gap that means anything.
const ON_THE_WAY: u64 = 30;

/// Sends a numbered probe each millisecond, on a thread of its own, until it is dropped.
pub struct Prober {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Calls `send` with the number of each probe, from 0.
    pub fn start(mut send: impl FnMut(u64) + Send + 'static) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, number) = (Arc::clone(&is_over), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !over.load(Ordering::Relaxed) {
                send(number.fetch_add(1, Ordering::Relaxed));
                // Absolute deadlines: a late probe does not delay the next.
                due += INTERVAL;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { is_over, sent, thread: Some(thread) }
    }

    /// How many probes were sent: the number of the next one.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("sent", &self.sent()).finish_non_exhaustive()
    }
}

/// The longest run of missing probes.
///
/// ```
/// use x0_ebpf::testing::Gap;
///
/// let mut gap = Gap::after(100);
/// for arrived in [101, 102, 110, 109, 111] {
///     gap.arrived(arrived);
/// }
/// assert_eq!(gap.longest(112), 7);
/// // A run that has not ended counts, except for the 30 probes that may be on their way.
/// assert_eq!(gap.longest(200), 59);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    last: u64,
    longest: u64,
}

impl Gap {
    /// Of the probes after the one with this number.
    #[must_use]
    pub const fn after(number: u64) -> Self {
        Self { last: number, longest: 0 }
    }

    /// Records a probe that has arrived. One that was overtaken counts as missing.
    pub fn arrived(&mut self, number: u64) {
        if number > self.last {
            self.longest = self.longest.max(number - self.last - 1);
            self.last = number;
        }
    }

    /// The longest run, in probes, after so many were sent ([`Prober::sent`]).
    #[must_use]
    pub fn longest(&self, sent: u64) -> u64 {
        self.longest.max(sent.saturating_sub(self.last.saturating_add(ON_THE_WAY)))
    }
}
