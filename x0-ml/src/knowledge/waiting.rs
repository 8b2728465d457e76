//! Changed documents that are not in the indexes yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::retrieve::DocumentId;

/// A change that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The oldest revision that does not count as applied yet; `None` if all of them do, because the document
    /// was left out.
    pub(super) oldest: Option<u64>,
    /// The newest revision.
    pub(super) newest: u64,
    /// Attempts that failed.
    pub(super) attempts: u32,
}

impl Change {
    /// This change together with another one of the same document.
    fn with(self, other: Self) -> Self {
        let oldest = self.oldest.into_iter().chain(other.oldest).min();
        Self { oldest, newest: self.newest.max(other.newest), attempts: self.attempts }
    }
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
    /// The oldest revisions of all changes that are not done, each with the number of these changes.
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
    /// The oldest revision of a document stays: until it is done, no later one counts as applied. A revision
    /// that `is_applied` counts as applied already.
    pub(super) fn note(&mut self, document: DocumentId, revision: u64, is_applied: bool, max: usize) -> bool {
        if let Some((change, until, _)) = self.aside.remove(&document) {
            let key = (until, document);
            self.due.remove(&key);
            self.ready.insert(key.1.clone(), change);
            return self.note(key.1, revision, is_applied, max);
        }
        let noted = Change { oldest: (!is_applied).then_some(revision), newest: revision, attempts: 0 };
        if let Some(change) = self.ready.get_mut(&document) {
            let before = *change;
            *change = before.with(noted);
            let oldest = change.oldest;
            self.count(oldest);
            self.uncount(before.oldest);
            return true;
        }
        if self.ready.len() >= max {
            return false;
        }
        self.ready.insert(document, noted);
        self.count(noted.oldest);
        true
    }

    /// Takes the next change. It counts until [`done`](Self::done) or [`put_aside`](Self::put_aside).
    pub(super) fn take(&mut self) -> Option<(DocumentId, Change)> {
        self.ready.pop_first()
    }

    /// A change that was taken is in the indexes, or is left out.
    pub(super) fn done(&mut self, change: Change) {
        self.uncount(change.oldest);
    }

    /// A change that was taken waits until a time, or is ready at once if its document changed meanwhile.
    pub(super) fn put_aside(&mut self, document: DocumentId, change: Change, until: Duration, why: Aside) {
        if let Some(ready) = self.ready.get_mut(&document) {
            let before = *ready;
            *ready = change.with(before);
            let oldest = ready.oldest;
            self.count(oldest);
            self.uncount(before.oldest);
            self.uncount(change.oldest);
            return;
        }
        self.due.insert((until, document.clone()));
        self.aside.insert(document, (change, until, why));
    }

    /// Makes failed documents ready whose time has come. Returns the late ones, which no longer wait, each
    /// with its newest revision.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<(DocumentId, u64)> {
        let mut late = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, document)) = self.due.pop_first() else { break };
            match self.aside.remove(&document) {
                Some((change, _, Aside::Failed)) => _ = self.ready.insert(document, change),
                Some((change, _, Aside::Late)) => {
                    self.uncount(change.oldest);
                    late.push((document, change.newest));
                }
                None => {}
            }
        }
        late
    }

    fn count(&mut self, revision: Option<u64>) {
        if let Some(revision) = revision {
            *self.revisions.entry(revision).or_default() += 1;
        }
    }

    fn uncount(&mut self, revision: Option<u64>) {
        let Some(revision) = revision else { return };
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
        let mut reached = [0; 7];
        for step in 0..20_000 {
            let now = Duration::from_secs(step / 20);
            let did = match random(6) {
                0 | 1 => {
                    let (document, is_applied) = (format!("{}", random(12)), random(4) == 0);
                    let is_noted = waiting.note(document.as_str().into(), 1 + random(50), is_applied, 8);
                    if is_applied { 6 } else { usize::from(!is_noted) }
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
            let all = all.filter_map(|change| change.oldest);
            assert_eq!(waiting.oldest(), all.clone().min(), "step {step}");
            assert_eq!(waiting.revisions.values().sum::<usize>(), all.count());
            assert_eq!(waiting.due.len(), waiting.aside_len());
            assert_eq!(waiting.next_due(), waiting.aside.values().map(|(_, until, _)| *until).min());
            assert!(waiting.ready.keys().all(|document| !waiting.aside.contains_key(document)));
        }
        assert!(reached.iter().all(|count| *count > 20), "{reached:?}");
    }
}
