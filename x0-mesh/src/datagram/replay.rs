//! The window of frame numbers that were received.

/// How far below the highest number a frame may come.
const WINDOW: u64 = 1024;
const WORDS: usize = 16;

/// Takes each number once. Number 0 is never used.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    highest: u64,
    /// Bit n % 1024: the number n of the window has arrived.
    seen: [u64; WORDS],
}

impl Replay {
    pub(super) fn new() -> Replay {
        Replay { highest: 0, seen: [0; WORDS] }
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// The number with this low half that is nearest to the next one (RFC 9000 appendix A.3).
    pub(super) fn expand(&self, low: u32) -> u64 {
        const HALF: u64 = 1 << 31;
        let expected = self.highest + 1;
        let candidate = (expected & !u64::from(u32::MAX)) | u64::from(low);
        if candidate + HALF <= expected {
            candidate + (HALF << 1)
        } else if candidate > expected + HALF && candidate >= HALF << 1 {
            candidate - (HALF << 1)
        } else {
            candidate
        }
    }

    fn bit(number: u64) -> (usize, u64) {
        let position = number % WINDOW;
        // Below 16.
        (usize::try_from(position / 64).unwrap_or(0), 1 << (position % 64))
    }

    /// Whether the number is neither too old nor known.
    pub(super) fn is_new(&self, number: u64) -> bool {
        let (word, bit) = Replay::bit(number);
        number > self.highest || (number != 0 && number + WINDOW > self.highest && self.seen[word] & bit == 0)
    }

    /// Records a number of a frame that was authenticated.
    pub(super) fn record(&mut self, number: u64) {
        if number > self.highest {
            if number - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..number {
                    let (word, bit) = Replay::bit(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = number;
        }
        let (word, bit) = Replay::bit(number);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Against a set of all numbers.
    #[test]
    fn each_number_is_taken_once_within_the_window() {
        let mut random = SplitMix64::new(5);
        let mut replay = Replay::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut base = 1;
        for _ in 0..200_000 {
            base += random.next() % 3;
            if random.next().is_multiple_of(1000) {
                base += 3000;
            }
            let number = (base + random.next() % 64).saturating_sub(random.next() % 1200).max(1);
            let highest = seen.last().copied().unwrap_or(0);
            let expected = !seen.contains(&number) && number + WINDOW > highest;
            assert_eq!(replay.is_new(number), expected, "{number} of {highest}");
            if expected {
                replay.record(number);
                seen.insert(number);
            }
            assert_eq!(replay.expand(u32::try_from(number & 0xffff_ffff).unwrap()), number);
        }
        assert!(!replay.is_new(0));
    }

    #[test]
    fn numbers_continue_beyond_32_bits() {
        let mut replay = Replay::new();
        for number in [u64::from(u32::MAX) - 2, (1 << 32) + 5, (1 << 40) - 1] {
            replay = Replay { highest: number, ..replay };
            for ahead in [1, 2, 900, 1 << 20] {
                let low = u32::try_from((number + ahead) & 0xffff_ffff).unwrap();
                assert_eq!(replay.expand(low), number + ahead);
            }
            let low = u32::try_from((number - 7) & 0xffff_ffff).unwrap();
            assert_eq!(replay.expand(low), number - 7);
        }
    }
}
