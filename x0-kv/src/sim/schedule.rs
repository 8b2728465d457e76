//! The schedule of the simulated world.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Microseconds since the beginning.
pub(super) type Time = u64;

pub(super) const MILLISECOND: Time = 1000;
pub(super) const SECOND: Time = 1_000_000;

/// The place of a process: nodes first, then the clients outside.
pub(super) type Place = usize;

/// An event at a moment. An event with a `start` is for that start of the node only.
#[derive(Debug)]
pub(super) enum Event {
    /// The timer of a node or client may be due.
    Wake { place: Place, start: u32 },
    /// A process that stood still goes on.
    Resume { place: Place, start: u32 },
    /// The log thread has done its job.
    Logged { place: Place, start: u32 },
    /// The apply thread has done its job.
    Applied { place: Place, start: u32 },
    /// The snapshot thread has done its job.
    Copied { place: Place, start: u32 },
    /// The reading thread has done its job.
    Read { place: Place, start: u32 },
    /// The turn of the program beside a node.
    Beside { place: Place, start: u32 },
    /// A node that is down starts.
    Start { place: Place, start: u32 },
    /// A worker calls its next operation.
    Ask { worker: usize },
    /// The next fault of the storm of this number.
    Fault { storm: u64 },
    /// The next step by which a node whose folder was damaged becomes a member again.
    Recover { place: Place },
    /// A fault ends: the links, or the slowness of a node.
    Mend { storm: u64, mend: Mend },
}

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mend {
    Links,
    Slowness(Place),
    Weather,
    Space(Place),
}

#[derive(Debug)]
struct Entry {
    at: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Events by time; those of the same moment in the order in which they were put.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: BinaryHeap<Entry>,
    number: u64,
}

impl Schedule {
    pub(super) fn put(&mut self, at: Time, event: Event) {
        self.number += 1;
        self.entries.push(Entry { at, number: self.number, event });
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// The next event up to `until`.
    pub(super) fn take(&mut self, until: Time) -> Option<(Time, Event)> {
        self.entries.peek().filter(|entry| entry.at <= until)?;
        self.entries.pop().map(|entry| (entry.at, entry.event))
    }
}
