//! Randomness of protocol engines: a sequence that the seed of the caller decides.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// From 0 to 1, both included.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64 from the seed 0 are e220a839..., 6e789e6a... and 06c45d18....
    #[test]
    fn the_sequence_is_that_of_the_algorithm() {
        let mut random = Random::new(0);
        for high in [0xe220_a839_u32, 0x6e78_9e6a, 0x06c4_5d18] {
            let expect = f64::from(high) / f64::from(u32::MAX);
            assert!((random.fraction() - expect).abs() < 1e-12);
        }
    }
}
