//! A network that delays, loses, duplicates, reorders and cuts.

use std::collections::BTreeSet;
use std::time::Duration;

/// A stream of numbers that hangs on its seed alone (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Happens in this many of a thousand cases.
    pub(crate) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).unwrap() + 1))
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let bound = u64::try_from(from.len()).unwrap();
        from.get(usize::try_from(self.below(bound)).unwrap()).copied()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) delay_min: Duration,
    /// Beyond `delay_min`: what makes messages overtake each other.
    pub(crate) jitter: Duration,
    /// Of a thousand messages.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Senders are told of a cut instead of losing messages silently, in this many of a thousand cases.
    pub(crate) told: u64,
    pub(crate) cuts: BTreeSet<(u64, u64)>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            delay_min: Duration::from_micros(200),
            jitter: Duration::from_micros(300),
            loss: 0,
            duplication: 0,
            told: 0,
            cuts: BTreeSet::new(),
        }
    }
}

impl Network {
    /// When the copies of a message arrive.
    pub(crate) fn arrivals(&self, random: &mut Random) -> Vec<Duration> {
        let mut arrivals = Vec::new();
        if random.chance(self.loss) {
            return arrivals;
        }
        let copies = 1 + u8::from(random.chance(self.duplication));
        for _ in 0..copies {
            arrivals.push(self.delay_min + random.up_to(self.jitter));
        }
        arrivals
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.contains(&(from, to))
    }
}
