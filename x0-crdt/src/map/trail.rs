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

/// The latest replacements, in the order in which they came here.
///
/// A trail is a hint: it may lack any step, and receivers check what they make of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    steps: VecDeque<Step>,
}

/// `new` has replaced `old`. The fields are in this order to take 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    new_seq: u64,
    new_writer: u32,
    old_writer: u32,
    old_seq: u64,
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
    pub(super) fn note(&mut self, new: Event, old: Event, keys: usize) {
        while self.steps.len() >= STEPS_MIN.max(keys / KEYS_PER_STEP) {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { new_seq: new.1, new_writer: new.0, old_writer: old.0, old_seq: old.1 });
    }

    /// Takes out all steps: the later event and the earlier one of each.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Event, Event)> + '_ {
        self.steps.drain(..).map(|step| (step.later(), step.earlier()))
    }

    /// The steps by the event that replaced.
    pub(super) fn backward(&self) -> Steps {
        Steps::new(self.steps.iter().map(|step| (step.later(), step.earlier())).collect())
    }

    /// The steps by the event that was replaced.
    pub(super) fn forward(&self) -> Steps {
        Steps::new(self.steps.iter().map(|step| (step.earlier(), step.later())).collect())
    }
}

/// The steps of a trail in one direction.
pub(super) struct Steps {
    steps: Vec<(Event, Event)>,
}

impl Steps {
    fn new(mut steps: Vec<(Event, Event)>) -> Self {
        steps.sort_unstable();
        Self { steps }
    }

    /// The first event that `found` accepts, going from `event` step by step.
    pub(super) fn find(&self, event: Event, found: impl Fn(Event) -> bool) -> Option<Event> {
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

    #[test]
    fn an_event_is_found_through_those_between_and_circles_end() {
        let mut trail = Trail::default();
        for seq in 2..6 {
            trail.note((1, seq), (1, seq - 1), 0);
        }
        assert_eq!(trail.backward().find((1, 5), |(_, seq)| seq <= 2), Some((1, 2)));
        assert_eq!(trail.forward().find((1, 1), |(_, seq)| seq == 5), Some((1, 5)));
        assert_eq!(trail.backward().find((1, 5), |_| false), None);
        assert_eq!(trail.backward().find((2, 5), |_| true), None);
        trail.note((1, 1), (1, 5), 0);
        assert_eq!(trail.backward().find((1, 5), |_| false), None);
    }

    #[test]
    fn the_latest_steps_stay() {
        assert_eq!(size_of::<Step>(), 24);
        let mut trail = Trail::default();
        for seq in 2..5_000 {
            trail.note((1, seq), (1, seq - 1), 2_048 * KEYS_PER_STEP);
        }
        assert_eq!(trail.steps.len(), 2_048);
        assert!(trail.backward().find((1, 4_999), |_| true).is_some());
        assert!(trail.backward().find((1, 100), |_| true).is_none());
    }
}
