//! Latency histograms and medians.

/// Sub-buckets per power of two; 128 keep the error of a reported percentile under 0.8 %.
const STEPS_BITS: u32 = 7;
const STEPS: usize = 1 << STEPS_BITS;

/// Counts of values (nanoseconds here) in logarithmic buckets, each split into equal steps. Recording is a
/// shift and an add, whose cost in the load generator is negligible.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; (64 - STEPS_BITS as usize + 1) * STEPS], total: 0 }
    }

    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value that at least `share` (0 to 1) of the recorded values do not exceed, to within the
    /// width of its bucket; `None` when nothing was recorded.
    pub(crate) fn percentile(&self, share: f64) -> Option<u64> {
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= share * self.total as f64 {
                return Some(middle(index));
            }
        }
        None
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEPS_BITS + 1);
    // Below 2 * STEPS a value is its own bucket; above, its leading STEPS_BITS + 1 bits choose the step.
    let step = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    (shift as usize) * STEPS + step
}

fn middle(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    let step = (index - shift * STEPS) as u64;
    (step << shift) + (1 << shift) / 2
}

/// The median; for an even count, the mean of the middle two. `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

/// The spread of the windows of one cell: (largest - smallest) / median. `None` without values or for a
/// median of zero.
pub(crate) fn spread(values: &[f64]) -> Option<f64> {
    let middle = median(values).filter(|middle| *middle > 0.0)?;
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    Some((largest - smallest) / middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_monotonic_and_hold_their_middle() {
        let mut last = 0;
        for exponent in 0..64 {
            for offset in [0, 1, 3] {
                let value = (1_u64 << exponent) + (offset << exponent) / 4;
                let index = bucket(value);
                assert!(index >= last, "{value}");
                last = index;
                assert_eq!(bucket(middle(index)), index, "{value}");
            }
        }
        assert!(bucket(u64::MAX) < Histogram::new().counts.len());
    }

    #[test]
    fn percentiles_are_within_a_step() {
        let mut histogram = Histogram::new();
        for value in 1..=100_000_u64 {
            histogram.record(value);
        }
        for (share, expect) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let got = histogram.percentile(share).unwrap() as f64;
            assert!((got - expect).abs() / expect < 0.008, "{share}: {got}");
        }
        assert_eq!(histogram.total(), 100_000);
        assert_eq!(Histogram::new().percentile(0.5), None);
    }

    #[test]
    fn one_outlier_in_a_hundred_does_not_move_the_p99_but_two_do() {
        let mut histogram = Histogram::new();
        (0..99).for_each(|_| histogram.record(100));
        histogram.record(10_000);
        assert_eq!(histogram.percentile(0.99), Some(100));
        histogram.record(10_000);
        assert!(histogram.percentile(0.99).unwrap() > 9_900);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 3.0, 5.0]), Some(4.0));
        assert_eq!(spread(&[9.0, 10.0, 12.0]), Some(0.3));
        assert_eq!(spread(&[]), None);
    }
}
