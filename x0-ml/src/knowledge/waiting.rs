//! Changed documents that are not in the indexes yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::retrieve::DocumentId;

/// A change that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// Attempts that failed.
    pub(super) attempts: u32,
}

/// Why a document waits aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// Parts of it are on their way to this node.
    Late,
    /// A step failed, and is tried again.
    Failed,
}

/// Changes by document. A change that was taken counts until it is done or comes back.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    ready: BTreeMap<DocumentId, Change>,
    aside: BTreeMap<DocumentId, (Change, Duration, Aside)>,
    /// The times of `aside`.
    due: BTreeSet<(Duration, DocumentId)>,
    /// Revisions of all changes that are not done, each with the number of these changes.
    revisions: BTreeMap<u64, usize>,
}

impl Waiting {
    /// Documents that wait, without the one that was taken.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.aside.len()
    }

    pub(super) fn aside_len(&self) -> usize {
        self.aside.len()
    }

    pub(super) fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The oldest revision of a change that is not done.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.revisions.first_key_value().map(|(revision, _)| *revision)
    }

    /// The first time at which a document aside is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Remembers a change. `false`: there are `max` others already, and it is not remembered.
    ///
    /// The oldest revision of a document stays: until it is done, no later one counts as applied.
    pub(super) fn note(&mut self, document: DocumentId, revision: u64, max: usize) -> bool {
        if let Some((change, until, _)) = self.aside.remove(&document) {
            let key = (until, document);
            self.due.remove(&key);
            self.ready.insert(key.1.clone(), change);
            return self.note(key.1, revision, max);
        }
        if let Some(change) = self.ready.get_mut(&document) {
            let before = change.revision;
            let oldest = before.min(revision);
            change.revision = oldest;
            self.count(oldest);
            self.uncount(before);
            return true;
        }
        if self.ready.len() >= max {
            return false;
        }
        self.ready.insert(document, Change { revision, attempts: 0 });
        self.count(revision);
        true
    }

    /// Takes the next change. It counts until [`done`](Self::done) or [`put_aside`](Self::put_aside).
    pub(super) fn take(&mut self) -> Option<(DocumentId, Change)> {
        self.ready.pop_first()
    }

    /// A change that was taken is in the indexes, or is left out.
    pub(super) fn done(&mut self, change: Change) {
        self.uncount(change.revision);
    }

    /// A change that was taken waits until a time, or is ready at once if its document changed meanwhile.
    pub(super) fn put_aside(&mut self, document: DocumentId, change: Change, until: Duration, why: Aside) {
        if let Some(ready) = self.ready.get_mut(&document) {
            let newer = ready.revision.max(change.revision);
            ready.revision = ready.revision.min(change.revision);
            ready.attempts = change.attempts;
            self.uncount(newer);
            return;
        }
        self.due.insert((until, document.clone()));
        self.aside.insert(document, (change, until, why));
    }

    /// Makes failed documents ready whose time has come. Returns the late ones, which no longer wait.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<DocumentId> {
        let mut late = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, document)) = self.due.pop_first() else { break };
            match self.aside.remove(&document) {
                Some((change, _, Aside::Failed)) => _ = self.ready.insert(document, change),
                Some((change, _, Aside::Late)) => {
                    self.uncount(change.revision);
                    late.push(document);
                }
                None => {}
            }
        }
        late
    }

    fn count(&mut self, revision: u64) {
        *self.revisions.entry(revision).or_default() += 1;
    }

    fn uncount(&mut self, revision: u64) {
        if let Some(count) = self.revisions.get_mut(&revision) {
            *count -= 1;
            if *count == 0 {
                self.revisions.remove(&revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Aside, Change, Waiting};

    /// Any order of calls: the oldest revision is that of all changes that are not done.
    #[test]
    fn the_oldest_revision_is_that_of_any_order() {
        let mut state = 5_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let (mut waiting, mut taken) = (Waiting::default(), None::<(_, Change)>);
        let mut reached = [0; 6];
        for step in 0..20_000 {
            let now = Duration::from_secs(step / 20);
            let did = match random(6) {
                0 | 1 => {
                    usize::from(!waiting.note(format!("{}", random(12)).as_str().into(), 1 + random(50), 8))
                }
                2 if taken.is_none() => {
                    taken = waiting.take();
                    2
                }
                3 => taken.take().map_or(5, |(_, change)| {
                    waiting.done(change);
                    3
                }),
                4 => taken.take().map_or(5, |(document, change)| {
                    let why = if random(2) == 0 { Aside::Late } else { Aside::Failed };
                    let change = Change { attempts: change.attempts + 1, ..change };
                    waiting.put_aside(document, change, now + Duration::from_secs(random(9)), why);
                    4
                }),
                _ => {
                    waiting.take_due(now);
                    5
                }
            };
            reached[did] += 1;
            let aside = waiting.aside.values().map(|(change, ..)| change);
            let all = waiting.ready.values().chain(aside).chain(taken.iter().map(|(_, change)| change));
            assert_eq!(waiting.oldest(), all.clone().map(|change| change.revision).min(), "step {step}");
            assert_eq!(waiting.revisions.values().sum::<usize>(), all.count());
            assert_eq!(waiting.due.len(), waiting.aside_len());
            assert_eq!(waiting.next_due(), waiting.aside.values().map(|(_, until, _)| *until).min());
            assert!(waiting.ready.keys().all(|document| !waiting.aside.contains_key(document)));
        }
        assert!(reached.iter().all(|count| *count > 20), "{reached:?}");
    }
}
