//! Rates (token buckets).

use std::num::NonZeroU64;

/// The unit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// Bytes of the frame, including the Ethernet header.
    Bytes,
    /// Packets. A super-packet counts as the segments that it becomes on the wire.
    Packets,
}

/// A token bucket: `per_second` units flow in, and at most `burst` units accumulate.
///
/// The algorithm is the generic cell rate algorithm (ITU-T I.371). Packets above the rate are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    unit: RateUnit,
    per_second: u64,
    burst: u64,
}

/// A rate that the kernel program cannot enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// Outside the range of the kernel program's arithmetic in nanoseconds.
    #[error("a rate of {0} per second is outside 8..=1000000000000 (bytes) or 1..=1000000000 (packets)")]
    PerSecond(u64),
    /// Zero, or more than an hour of the rate.
    #[error("a burst of {burst} units at {per_second} per second is outside 1 unit..=1 hour")]
    Burst {
        /// The requested burst, in units.
        burst: u64,
        /// The requested rate.
        per_second: u64,
    },
}

const NANOS: u128 = 1_000_000_000;

impl Rate {
    /// A rate of `per_second` bytes with a burst of at most `burst` bytes.
    ///
    /// A burst smaller than the largest frame drops every such frame.
    ///
    /// # Errors
    /// [`RateError`]: a bound was exceeded.
    pub fn bytes(per_second: NonZeroU64, burst: u64) -> Result<Self, RateError> {
        Self::new(RateUnit::Bytes, per_second.get(), burst, 8, 1_000_000_000_000)
    }

    /// A rate of `per_second` packets with a burst of at most `burst` packets.
    ///
    /// # Errors
    /// [`RateError`]: a bound was exceeded.
    pub fn packets(per_second: NonZeroU64, burst: u64) -> Result<Self, RateError> {
        Self::new(RateUnit::Packets, per_second.get(), burst, 1, 1_000_000_000)
    }

    fn new(unit: RateUnit, per_second: u64, burst: u64, least: u64, most: u64) -> Result<Self, RateError> {
        if !(least..=most).contains(&per_second) {
            return Err(RateError::PerSecond(per_second));
        }
        if burst == 0 || u128::from(burst) > u128::from(per_second) * 3600 {
            return Err(RateError::Burst { burst, per_second });
        }
        Ok(Self { unit, per_second, burst })
    }

    /// The unit.
    #[must_use]
    pub fn unit(&self) -> RateUnit {
        self.unit
    }

    /// Units per second.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Units that may accumulate.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Nanoseconds per unit, times 2^16: `struct rate` of bpf/include/bucket.h. The bounds above make it fit.
    pub(crate) fn cost(&self) -> u64 {
        u64::try_from((NANOS << 16) / u128::from(self.per_second)).unwrap_or(u64::MAX)
    }

    /// Nanoseconds of saved-up rate.
    pub(crate) fn burst_ns(&self) -> u64 {
        u64::try_from(u128::from(self.burst) * NANOS / u128::from(self.per_second)).unwrap_or(u64::MAX)
    }

    pub(crate) fn encode(rate: Option<&Self>) -> [u8; 24] {
        let mut bytes = [0; 24];
        if let Some(rate) = rate {
            bytes[..8].copy_from_slice(&rate.cost().to_ne_bytes());
            bytes[8..16].copy_from_slice(&rate.burst_ns().to_ne_bytes());
            bytes[16..20].copy_from_slice(&u32::from(rate.unit == RateUnit::Packets).to_ne_bytes());
        }
        bytes
    }

    /// The rate that [`encode`](Self::encode) wrote, to within its rounding.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (cost, burst_ns) = (word(0)?, word(8)?);
        if cost == 0 {
            return None;
        }
        let packets =
            bytes.get(16).is_some_and(|&byte| byte != 0) || bytes.get(19).is_some_and(|&byte| byte != 0);
        let per_second = u64::try_from((NANOS << 16) / u128::from(cost)).unwrap_or(u64::MAX).max(1);
        let burst = u64::try_from((u128::from(burst_ns) * u128::from(per_second)).div_ceil(NANOS))
            .unwrap_or(u64::MAX);
        let unit = if packets { RateUnit::Packets } else { RateUnit::Bytes };
        Some(Self { unit, per_second, burst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).expect("not zero")
    }

    #[test]
    fn a_rate_survives_the_kernels_form() {
        for per_second in [8, 1000, 125_000, 12_500_000_000] {
            let before = Rate::bytes(rate(per_second), per_second).expect("in bounds");
            let after = Rate::decode(&Rate::encode(Some(&before))).expect("a rate");
            assert_eq!(after.unit(), RateUnit::Bytes);
            let error = after.per_second().abs_diff(per_second) as f64 / per_second as f64;
            assert!(error < 0.001, "{per_second} came back as {}", after.per_second());
        }
        let packets = Rate::packets(rate(50), 5).expect("in bounds");
        assert_eq!(Rate::decode(&Rate::encode(Some(&packets))), Some(packets));
        assert_eq!(Rate::decode(&Rate::encode(None)), None);
    }

    #[test]
    fn bounds() {
        assert_eq!(Rate::bytes(rate(7), 1), Err(RateError::PerSecond(7)));
        assert_eq!(Rate::packets(rate(2_000_000_000), 1), Err(RateError::PerSecond(2_000_000_000)));
        assert!(matches!(Rate::packets(rate(1), 0), Err(RateError::Burst { .. })));
        assert!(matches!(Rate::packets(rate(1), 3601), Err(RateError::Burst { .. })));
        // The largest frame at the slowest rate stays inside 64 bits: 2^19 bytes, 2^16 segments.
        assert!(Rate::bytes(rate(8), 1).expect("in bounds").cost().checked_mul(1 << 19).is_some());
        assert!(Rate::packets(rate(1), 1).expect("in bounds").cost().checked_mul(1 << 16).is_some());
    }
}
