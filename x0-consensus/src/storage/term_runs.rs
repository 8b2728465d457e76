//! The terms of a log as runs of equal terms: a few runs for millions of entries.

use super::TermRun;

/// Terms of consecutive indexes. The runs ascend by `first_index`; the owner knows the last index.
#[derive(Debug, Clone, Default)]
pub(crate) struct TermRuns {
    runs: Vec<TermRun>,
}

impl TermRuns {
    pub(crate) fn as_slice(&self) -> &[TermRun] {
        &self.runs
    }

    /// The term at an index that is in the log.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|run| run.first_index <= index);
        self.runs.get(behind.checked_sub(1)?).map(|run| run.term)
    }

    /// Adds the term of the entry at `index`, which follows the last one.
    pub(crate) fn push(&mut self, index: u64, term: u64) {
        if self.runs.last().is_none_or(|run| run.term != term) {
            self.runs.push(TermRun { first_index: index, term });
        }
    }

    /// Removes the terms from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        let kept = self.runs.partition_point(|run| run.first_index < index);
        self.runs.truncate(kept);
    }

    /// Removes the terms up to `index`. The log ends at `last_index`.
    pub(crate) fn drop_through(&mut self, index: u64, last_index: u64) {
        if index >= last_index {
            self.runs.clear();
            return;
        }
        let behind = self.runs.partition_point(|run| run.first_index <= index + 1);
        self.runs.drain(..behind.saturating_sub(1));
        if let Some(first) = self.runs.first_mut() {
            first.first_index = first.first_index.max(index + 1);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::TermRuns;

    /// A plain list of terms, against which random changes are checked.
    #[test]
    fn agrees_with_a_plain_list() {
        let mut seed = 7_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut runs, mut list, mut base) = (TermRuns::default(), Vec::new(), 0_u64);
        for _ in 0..20_000 {
            let last = base + list.len() as u64;
            match draw(10) {
                0 => {
                    let from = base + 1 + draw(list.len() as u64 + 1);
                    runs.truncate_from(from);
                    list.truncate(usize::try_from(from - base - 1).unwrap());
                }
                1 => {
                    let through = base + draw(list.len() as u64 + 1);
                    runs.drop_through(through, last);
                    list.drain(..usize::try_from(through - base).unwrap());
                    base = through;
                }
                _ => {
                    let term = draw(3);
                    runs.push(last + 1, term);
                    list.push(term);
                }
            }
            for (at, term) in list.iter().enumerate() {
                assert_eq!(runs.term(base + 1 + at as u64), Some(*term));
            }
            assert!(runs.as_slice().windows(2).all(|pair| pair[0].term != pair[1].term));
            assert_eq!(
                runs.as_slice().first().map(|run| run.first_index),
                (!list.is_empty()).then_some(base + 1)
            );
        }
    }
}
