//! Delay, loss and disorder of a link.

use std::time::Duration;

use crate::random::SplitMix64;

/// Delay, loss and disorder of a link in one direction. Probabilities are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkProfile {
    /// The shortest time a message takes.
    pub delay_min: Duration,
    /// The longest, unless it is lost or overtaken on the way.
    pub delay_max: Duration,
    /// How often a packet is lost. A datagram is gone then; a message of the other lanes arrives one
    /// retransmission later.
    pub loss: f64,
    /// How often a datagram arrives twice.
    pub duplication: f64,
    /// How often a datagram is held up, for up to ten times `delay_max`, so that others overtake it.
    pub reordering: f64,
}

impl Default for LinkProfile {
    /// A local network: a tenth of a millisecond to one, and nothing is lost.
    fn default() -> LinkProfile {
        LinkProfile {
            delay_min: Duration::from_micros(100),
            delay_max: Duration::from_millis(1),
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
        }
    }
}

/// More losses of one message in a row than this are not drawn: a probability of 1 would never end.
const RETRANSMISSIONS_MAX: u32 = 32;

impl LinkProfile {
    fn delay(&self, random: &mut SplitMix64) -> Duration {
        let span = self.delay_max.saturating_sub(self.delay_min);
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX - 1);
        self.delay_min + Duration::from_nanos(random.below(nanoseconds.saturating_add(1)))
    }

    /// The delays of a datagram: it arrives never, once or twice.
    pub(super) fn datagram(&self, random: &mut SplitMix64) -> [Option<Duration>; 2] {
        let mut one = || {
            if random.happens(self.loss) {
                return None;
            }
            let delay = self.delay(random);
            let held_up = random.happens(self.reordering);
            let extra = if held_up { 1 + u32::try_from(random.below(9)).unwrap_or(0) } else { 0 };
            Some(delay + self.delay_max * extra)
        };
        let first = one();
        let second = one();
        [first, second.filter(|_| random.happens(self.duplication))]
    }

    /// The delay of a message that is sent again until it arrives.
    pub(super) fn reliable(&self, random: &mut SplitMix64) -> Duration {
        let mut delay = self.delay(random);
        for _ in 0..RETRANSMISSIONS_MAX {
            if !random.happens(self.loss) {
                break;
            }
            delay += self.delay_max * 2;
        }
        delay
    }
}
