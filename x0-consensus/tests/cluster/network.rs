//! A network that delays, loses, duplicates, reorders and cuts.

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use x0_consensus::sim::SplitMix64 as Random;

/// A random time up to `most`, in whole microseconds.
pub(crate) fn up_to(random: &mut Random, most: Duration) -> Duration {
    Duration::from_micros(random.below(u64::try_from(most.as_micros()).unwrap() + 1))
}

/// A random item.
pub(crate) fn pick<T: Copy>(random: &mut Random, from: &[T]) -> Option<T> {
    let bound = u64::try_from(from.len()).unwrap();
    from.get(usize::try_from(random.below(bound)).unwrap()).copied()
}

#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) delay_min: Duration,
    /// The random delay beyond `delay_min`, by which messages overtake each other.
    pub(crate) jitter: Duration,
    /// Lost messages of a thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Cases of a thousand in which the sender gets a report about a cut link.
    pub(crate) reported: u64,
    pub(crate) cuts: BTreeSet<(u64, u64)>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            delay_min: Duration::from_micros(200),
            jitter: Duration::from_micros(300),
            loss: 0,
            duplication: 0,
            reported: 0,
            cuts: BTreeSet::new(),
        }
    }
}

impl Network {
    /// The delays of the copies of a message.
    pub(crate) fn arrivals(&self, random: &mut Random) -> Vec<Duration> {
        let mut arrivals = Vec::new();
        if random.chance(self.loss) {
            return arrivals;
        }
        let copies = 1 + u8::from(random.chance(self.duplication));
        for _ in 0..copies {
            arrivals.push(self.delay_min + up_to(random, self.jitter));
        }
        arrivals
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.contains(&(from, to))
    }
}
