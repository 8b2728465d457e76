//! The one source of chance.

/// SplitMix64: what every draw of a simulation comes from.
#[derive(Debug)]
pub(super) struct Random(u64);

/// Mixes a number well: the finaliser of SplitMix64.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(mix(seed ^ 0x7830_2d6b_7620_7369))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A place in a list of this length.
    pub(super) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so in `of_thousand` cases of 1000.
    pub(super) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    /// A length of time around `mean`: mostly shorter, at times several times longer.
    pub(super) fn around(&mut self, mean: u64) -> u64 {
        let stretch = [1, 2, 3, 4, 6, 8, 10, 14, 20, 32];
        let tenths = stretch[self.place(stretch.len())];
        mean * tenths / 10 + self.below(mean / 10 + 1)
    }
}
