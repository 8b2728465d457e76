//! What the adapters have in common: the last readings of their subjects, and candidates from evidence.

mod readings;

pub(crate) use self::readings::Readings;
use crate::{Candidate, Diagnosis, Evidence};

/// A candidate whose confidence and utility follow from how far its evidence is beyond the thresholds.
pub(crate) fn candidate<A>(
    action: A,
    cause: &'static str,
    other: &'static str,
    evidence: Vec<Evidence>,
) -> Candidate<A> {
    // At the limit both answers are as likely; far beyond it the limit can hardly be wrong.
    let factor = evidence.iter().map(|one| one.value / one.threshold).fold(0.0, f64::max);
    let confidence = factor / (1.0 + factor);
    let diagnosis = Diagnosis { cause, confidence, runner_up: Some((other, 1.0 - confidence)) };
    Candidate { action, diagnosis, utility: factor, evidence }
}

/// A limit as a share, from `low` to 1, plus a part of `spread` that follows from the seed and the name. What
/// is no number counts as 1.
#[cfg(any(feature = "mesh", feature = "identity"))]
pub(crate) fn spread_limit(share: f64, low: f64, spread: f64, seed: u64, name: &str) -> f64 {
    let within = |share: f64, low: f64| if share.is_finite() { share.clamp(low, 1.0) } else { 1.0 };
    (within(share, low) + within(spread, 0.0) * jitter(seed, name)).min(1.0)
}

/// A number from 0 to 1 that follows from the seed and the name (FNV-1a, mixed as in SplitMix64).
#[cfg(any(feature = "mesh", feature = "identity"))]
fn jitter(seed: u64, name: &str) -> f64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    let mut hash =
        name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // The upper half has 32 bits, which a float holds exactly.
    (hash >> 32) as f64 / f64::from(u32::MAX)
}
