//! Jobs in order, some of which wait for what another worker opens.

use std::collections::VecDeque;

/// A queue of jobs in which a gap keeps the place of a job that is not complete yet. The jobs after a gap are
/// held back until it is filled, so that the worker sees all jobs in the order in which they were added.
#[derive(Debug)]
pub(super) struct Pipeline<J, G> {
    pub(super) ready: VecDeque<J>,
    /// Empty, or a gap first.
    held: VecDeque<Held<J, G>>,
}

#[derive(Debug)]
enum Held<J, G> {
    Job(J),
    Gap(G),
}

impl<J, G> Default for Pipeline<J, G> {
    fn default() -> Pipeline<J, G> {
        Pipeline { ready: VecDeque::new(), held: VecDeque::new() }
    }
}

impl<J, G> Pipeline<J, G> {
    pub(super) fn push(&mut self, job: J) {
        if self.held.is_empty() {
            self.ready.push_back(job);
        } else {
            self.held.push_back(Held::Job(job));
        }
    }

    pub(super) fn push_gap(&mut self, gap: G) {
        self.held.push_back(Held::Gap(gap));
    }

    /// Completes the oldest gap. Without a gap nothing happens.
    pub(super) fn fill(&mut self, complete: impl FnOnce(G) -> J) {
        let Some(Held::Gap(gap)) = self.held.pop_front() else { return };
        self.ready.push_back(complete(gap));
        while let Some(held) = self.held.pop_front() {
            match held {
                Held::Job(job) => self.ready.push_back(job),
                gap @ Held::Gap(_) => {
                    self.held.push_front(gap);
                    break;
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Pipeline;

    #[test]
    fn jobs_after_a_gap_wait_until_it_is_filled() {
        let mut pipeline = Pipeline::<u32, u32>::default();
        pipeline.push(1);
        pipeline.push_gap(2);
        pipeline.push(3);
        pipeline.push_gap(4);
        pipeline.push(5);
        assert_eq!(pipeline.ready, [1]);
        pipeline.fill(|gap| gap);
        assert_eq!(pipeline.ready, [1, 2, 3]);
        pipeline.fill(|gap| gap);
        assert_eq!(pipeline.ready, [1, 2, 3, 4, 5]);
        pipeline.fill(|gap| gap + 100);
        pipeline.push(6);
        assert_eq!(pipeline.ready, [1, 2, 3, 4, 5, 6], "without a gap there is nothing to fill");
        pipeline.push_gap(7);
        pipeline.clear();
        pipeline.push(8);
        assert_eq!(pipeline.ready, [8]);
    }
}
