//! [`Trail`]: of the latest events, which earlier value each has replaced at its key.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A writer's number in the map's table, and the number of its event.
pub(super) type Event = (u32, u64);

/// The least number of steps that are kept, and for how many keys of the map one more is.
const STEPS_MIN: usize = 1024;
const KEYS_PER_STEP: usize = 16;

/// The most steps back from one event.
const DEPTH_MAX: usize = 64;

/// Up to so many events are followed in one pass over the steps, without sorting them.
const FEW: usize = 8;

/// The latest replacements, in the order in which they came here.
///
/// A trail is a hint: it may lack any step, and receivers check what they make of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    steps: VecDeque<Step>,
}

/// A value that was replaced: its event and its hash.
pub(super) type Old = (Event, u64);

/// `new` has replaced `old`. The fields are in this order to take 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    new_seq: u64,
    new_writer: u32,
    old_writer: u32,
    old_seq: u64,
    old_hash: u64,
}

impl Step {
    const fn later(&self) -> Event {
        (self.new_writer, self.new_seq)
    }

    const fn earlier(&self) -> Event {
        (self.old_writer, self.old_seq)
    }
}

impl Trail {
    /// Notes a replacement in a map of so many keys.
    pub(super) fn note(&mut self, new: Event, (old, old_hash): Old, keys: usize) {
        let steps_max = STEPS_MIN.max(keys / KEYS_PER_STEP);
        while self.steps.len() >= steps_max {
            self.steps.pop_front();
        }
        // A map that has shrunk gives the memory of its former size back.
        if self.steps.capacity() > steps_max.saturating_mul(2) {
            self.steps.shrink_to(steps_max);
        }
        let (new_writer, new_seq) = new;
        let (old_writer, old_seq) = old;
        self.steps.push_back(Step { new_seq, new_writer, old_writer, old_seq, old_hash });
    }

    /// Takes out all steps: the later event of each, and what it has replaced.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Event, Old)> + '_ {
        self.steps.drain(..).map(|step| (step.later(), (step.earlier(), step.old_hash)))
    }

    /// The hashes of the values that were replaced.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.steps.iter().map(|step| step.old_hash)
    }

    /// Of each event the first earlier one at its key that `found` accepts.
    pub(super) fn backward(&self, events: &[Event], found: impl Fn(Event) -> bool) -> Vec<Option<Event>> {
        if events.len() <= FEW {
            return follow(events, self.steps.iter().rev().map(|step| (step.later(), step.earlier())), found);
        }
        let steps = Steps::new(self.steps.iter().map(|step| (step.later(), step.earlier())).collect());
        events.iter().map(|event| steps.find(*event, &found)).collect()
    }

    /// Of each event the first later one at its key that `found` accepts.
    pub(super) fn forward(&self, events: &[Event], found: impl Fn(Event) -> bool) -> Vec<Option<Event>> {
        if events.len() <= FEW {
            return follow(events, self.steps.iter().map(|step| (step.earlier(), step.later())), found);
        }
        let steps = Steps::new(self.steps.iter().map(|step| (step.earlier(), step.later())).collect());
        events.iter().map(|event| steps.find(*event, &found)).collect()
    }
}

/// Follows events through steps that are in their order: a step from an event comes after the step to it.
fn follow(
    events: &[Event],
    steps: impl Iterator<Item = (Event, Event)>,
    found: impl Fn(Event) -> bool,
) -> Vec<Option<Event>> {
    let mut reached = alloc::vec![None; events.len()];
    // The events that are still followed, with their places.
    let mut open: Vec<(Event, usize)> = events.iter().copied().zip(0..).collect();
    for (from, to) in steps {
        if open.is_empty() {
            break;
        }
        open.retain_mut(|(at, place)| {
            if *at != from {
                return true;
            }
            *at = to;
            let is_found = found(to);
            if is_found && let Some(reached) = reached.get_mut(*place) {
                *reached = Some(to);
            }
            !is_found
        });
    }
    reached
}

/// The steps of a trail in one direction, in the order of the events that they start from.
struct Steps {
    steps: Vec<(Event, Event)>,
}

impl Steps {
    fn new(mut steps: Vec<(Event, Event)>) -> Self {
        steps.sort_unstable();
        Self { steps }
    }

    /// The first event that `found` accepts, going from `event` step by step.
    fn find(&self, event: Event, found: impl Fn(Event) -> bool) -> Option<Event> {
        let mut at = event;
        // An equivocating writer can make a circle.
        for _ in 0..DEPTH_MAX {
            let place = self.steps.partition_point(|(from, _)| *from < at);
            let (_, to) = self.steps.get(place).filter(|(from, _)| *from == at)?;
            at = *to;
            if found(at) {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same event once, and among as many as are looked for in another way.
    fn both(event: Event) -> [Vec<Event>; 2] {
        [alloc::vec![event], alloc::vec![event; FEW + 1]]
    }

    #[test]
    fn an_event_is_found_through_those_between_and_circles_end() {
        let mut trail = Trail::default();
        for seq in 2..6 {
            trail.note((1, seq), ((1, seq - 1), seq), 0);
        }
        let check =
            |found: Vec<Option<Event>>, expected| assert!(found.iter().all(|found| *found == expected));
        for events in both((1, 5)) {
            check(trail.backward(&events, |(_, seq)| seq <= 2), Some((1, 2)));
            check(trail.backward(&events, |_| false), None);
        }
        for events in both((1, 1)) {
            check(trail.forward(&events, |(_, seq)| seq == 5), Some((1, 5)));
        }
        for events in both((2, 5)) {
            check(trail.backward(&events, |_| true), None);
        }
        trail.note((1, 1), ((1, 5), 1), 0);
        for events in both((1, 5)) {
            check(trail.backward(&events, |_| false), None);
        }
    }

    #[test]
    fn the_latest_steps_stay() {
        assert_eq!(size_of::<Step>(), 32);
        let mut trail = Trail::default();
        for seq in 2..5_000 {
            trail.note((1, seq), ((1, seq - 1), seq), 2_048 * KEYS_PER_STEP);
        }
        assert_eq!(trail.steps.len(), 2_048);
        // The memory of a map that has shrunk.
        let mut small = Trail::default();
        for seq in 2..10_000 {
            small.note((1, seq), ((1, seq - 1), seq), 8_192 * KEYS_PER_STEP);
        }
        assert!(small.steps.capacity() >= 8_192);
        small.note((1, 10_000), ((1, 9_999), 9_999), 0);
        assert!(small.steps.len() == STEPS_MIN && small.steps.capacity() <= 2 * STEPS_MIN);
        assert!(trail.hashes().eq(2_952..5_000));
        assert!(trail.backward(&[(1, 4_999)], |_| true)[0].is_some());
        assert!(trail.backward(&[(1, 100)], |_| true)[0].is_none());
    }
}
