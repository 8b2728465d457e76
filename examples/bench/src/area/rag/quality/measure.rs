//! What a ranking is worth.

use std::collections::HashSet;

use x0_ml::index::VectorId;

use crate::random::Random;

const FIRST: usize = 10;
const ROUNDS: usize = 2000;

/// The worth of one query's ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// 1 if a relevant chunk is among the first ten.
    pub(crate) hit: f64,
    /// 1 / rank of the first relevant chunk among these.
    pub(crate) reciprocal: f64,
    /// nDCG of these, relevance being 0 or 1.
    pub(crate) gain: f64,
}

impl Outcome {
    pub(crate) fn of(list: &[VectorId], relevant: &[usize]) -> Self {
        let relevant: HashSet<u64> = relevant.iter().map(|id| *id as u64).collect();
        let weight = |place: usize| 1.0 / (place as f64 + 2.0).log2();
        let found: Vec<usize> =
            (0..FIRST.min(list.len())).filter(|place| relevant.contains(&list[*place].0)).collect();
        let ideal: f64 = (0..FIRST.min(relevant.len())).map(weight).sum();
        Self {
            hit: if found.is_empty() { 0.0 } else { 1.0 },
            reciprocal: found.first().map_or(0.0, |place| 1.0 / (*place as f64 + 1.0)),
            gain: if ideal > 0.0 {
                found.iter().map(|place| weight(*place)).sum::<f64>() / ideal
            } else {
                0.0
            },
        }
    }
}

pub(crate) fn mean(outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(value).sum::<f64>() / outcomes.len().max(1) as f64
}

/// The 95 % interval of the mean difference of `a` and `b`, by resampling queries.
pub(crate) fn interval(a: &[Outcome], b: &[Outcome], value: fn(&Outcome) -> f64) -> (f64, f64) {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| value(a) - value(b)).collect();
    let count = u32::try_from(differences.len()).unwrap_or(u32::MAX).max(1);
    let mut random = Random::new(1);
    let mut means: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            (0..count).map(|_| differences[random.below(count) as usize]).sum::<f64>() / f64::from(count)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[ROUNDS / 40], means[ROUNDS - 1 - ROUNDS / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_those_of_the_definitions() {
        let list: Vec<VectorId> = (0..20).map(VectorId).collect();
        let first = Outcome::of(&list, &[0]);
        assert_eq!((first.hit, first.reciprocal, first.gain), (1.0, 1.0, 1.0));
        let second = Outcome::of(&list, &[1, 15]);
        assert_eq!((second.hit, second.reciprocal), (1.0, 0.5));
        let weight = 1.0 / 3_f64.log2();
        assert!((second.gain - weight / (1.0 + weight)).abs() < 1e-12);
        assert_eq!(Outcome::of(&list, &[10]), Outcome { hit: 0.0, reciprocal: 0.0, gain: 0.0 });
        let (low, high) = interval(&[first; 30], &[second; 30], |outcome| outcome.reciprocal);
        assert_eq!((low, high), (0.5, 0.5));
    }
}
