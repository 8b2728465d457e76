//! Seeded numbers for keys and values. Every system receives the same sequence.

/// SplitMix64 (Steele, Lea, Flood 2014): one add and three multiplies, good enough to choose keys.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound` by multiply-shift; the bias is under 2^-32 for the bounds used here.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let product = (self.next() >> 32) * u64::from(bound);
        u32::try_from(product >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_sequence_and_the_whole_range_is_hit() {
        let mut one = Random::new(7);
        let mut two = Random::new(7);
        let mut hits = [0_u32; 10];
        for _ in 0..10_000 {
            let value = one.below(10);
            assert_eq!(value, two.below(10));
            hits[value as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (900..1100).contains(hits)), "{hits:?}");
        assert_ne!(Random::new(8).next(), Random::new(7).next());
    }
}
