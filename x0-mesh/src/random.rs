//! Pseudo-random numbers from a seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough for jitter, simulated delays and session
/// numbers. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`; zero if that is zero.
    #[cfg(any(
        all(test, feature = "router"),
        feature = "discovery",
        feature = "quic",
        feature = "sim",
        feature = "traversal"
    ))]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Whether something of this probability happens.
    #[cfg(any(feature = "sim", feature = "link"))]
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        const STEPS: f64 = 4_294_967_296.0;
        // 32 bits are exact in a float.
        (self.next() >> 32) as f64 / STEPS < probability
    }
}
