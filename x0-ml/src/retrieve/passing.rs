//! The chunks of documents that pass a filter.

use std::collections::HashSet;

use super::passage::{PassageFilter, Passages};
use crate::index::VectorId;

/// Words of bits for each number, above which the numbers are kept one by one.
const SPREAD_MAX: usize = 4;
/// The least number of words of a bit set: 8 KiB.
const WORDS_MIN: usize = 1024;

/// Numbers of chunks. An index asks for up to all of its numbers in one search.
#[derive(Debug)]
pub(super) enum Passing {
    /// A bit for each number from `first` on.
    Bits { first: u64, words: Vec<u64> },
    /// Numbers that lie far apart: chunks that came and went have left few of many.
    Each(HashSet<u64>),
}

impl Passing {
    /// Asks the filter once for each document.
    pub(super) fn new(passages: &Passages, filter: &PassageFilter<'_>) -> Self {
        let documents = passages.documents.iter().filter(|(document, known)| filter.takes(document, known));
        Self::of(documents.flat_map(|(_, known)| &known.chunks).map(|(id, _)| id.0).collect())
    }

    fn of(numbers: Vec<u64>) -> Self {
        let (first, last) = numbers
            .iter()
            .fold((u64::MAX, 0), |(first, last), number| (first.min(*number), last.max(*number)));
        let len_max = SPREAD_MAX * numbers.len() + WORDS_MIN;
        // No number at all: `first` is above `last`.
        let len = usize::try_from(last.saturating_sub(first) / 64).unwrap_or(usize::MAX);
        if len >= len_max {
            return Self::Each(numbers.into_iter().collect());
        }
        let mut words = vec![0; len + 1];
        for number in numbers {
            let (word, bit) = place(number - first);
            words[word] |= bit;
        }
        Self::Bits { first, words }
    }

    pub(super) fn contains(&self, id: VectorId) -> bool {
        match self {
            Self::Bits { first, words } => id.0.checked_sub(*first).is_some_and(|number| {
                let (word, bit) = place(number);
                words.get(word).is_some_and(|word| word & bit != 0)
            }),
            Self::Each(numbers) => numbers.contains(&id.0),
        }
    }
}

/// The word of a number, and its bit.
fn place(number: u64) -> (usize, u64) {
    (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::{Passing, SPREAD_MAX, WORDS_MIN};
    use crate::index::VectorId;

    #[test]
    fn numbers_near_and_far_are_found() {
        let near: Vec<u64> = (1_000_000..1_003_000).step_by(3).collect();
        let bound = (WORDS_MIN + 2 * SPREAD_MAX) as u64 * 64;
        let sets =
            [vec![], vec![7], near, vec![5, 5 + bound - 1], vec![5, 5 + bound], vec![0, 1 << 40, u64::MAX]];
        for (place, numbers) in sets.into_iter().enumerate() {
            let passing = Passing::of(numbers.clone());
            assert_eq!(matches!(passing, Passing::Each(_)), place >= 4, "{numbers:?}");
            for number in &numbers {
                let around =
                    [number.saturating_sub(1), *number, number.saturating_add(1), number ^ (1 << 30)];
                for asked in around {
                    assert_eq!(passing.contains(VectorId(asked)), numbers.contains(&asked), "{asked}");
                }
            }
            assert_eq!(passing.contains(VectorId(0)), numbers.contains(&0));
        }
    }
}
