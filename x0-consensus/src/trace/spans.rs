//! The spans of the `tracing` facade.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use tracing::field::{Empty, display};
use tracing::{Span, info_span};
use x0_identity::NodeId;

use super::{Context, Tracing};
use crate::entry::Entry;
use crate::replica::TracedEntry;

/// Most traced entries whose spans are held at once; those of further ones are not made.
const ENTRIES_MAX: usize = 4096;
/// Most links of one span.
const LINKS_MAX: usize = 128;

/// The traced entries of a job: the spans that a worker makes belong to them. Empty for most jobs.
#[derive(Clone, Default)]
pub struct Traced {
    tracing: Tracing,
    /// The member, for the spans.
    node: Option<NodeId>,
    parents: Vec<Parent>,
}

/// A span that ends when this is dropped, although its handle has clones. Subscribers that end a span where
/// it was exited last see the end as well.
pub(crate) struct Held(Span);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.in_scope(|| {});
    }
}

/// The parent of a span: in this process, or in another one.
#[derive(Clone)]
enum Parent {
    Local(Span),
    Remote(Context),
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("entries", &self.parents.len()).finish_non_exhaustive()
    }
}

/// Begins a span under a parent. The macro needs the name at compile time.
macro_rules! begin {
    ($tracing:expr, $node:expr, $parent:expr, $name:literal $(, $field:ident = $value:expr)*) => {
        match $parent {
            Parent::Local(parent) => {
                info_span!(parent: parent, $name, node = $node.map(display) $(, $field = $value)*)
            }
            Parent::Remote(parent) => {
                let span = info_span!(parent: None, $name, node = $node.map(display) $(, $field = $value)*);
                span.in_scope(|| $tracing.adopt(parent));
                span
            }
        }
    };
}

impl Traced {
    pub(crate) fn extend(&mut self, other: Traced) {
        if !other.parents.is_empty() {
            self.tracing = other.tracing;
            self.node = other.node;
            self.parents.extend(other.parents);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.parents.clear();
    }

    /// The span of a batch of writes. `size` returns how many writes and entries it has.
    pub(crate) fn log_write(&self, size: impl FnOnce() -> (usize, usize)) -> Option<Held> {
        let parent = self.parents.first()?;
        let (writes, entries) = size();
        let span = begin!(self.tracing, self.node, parent, "log.write", writes = writes, entries = entries);
        for linked in self.parents.iter().take(LINKS_MAX) {
            if let Parent::Local(linked) = linked {
                span.follows_from(linked);
            }
        }
        Some(Held(span))
    }

    /// The spans of a batch of the state machine with so many entries: one for each traced entry, in its
    /// trace.
    pub(crate) fn apply(&self, entries: usize) -> Vec<Held> {
        let begin = |parent: &Parent| {
            Held(begin!(self.tracing, self.node, parent, "consensus.apply", entries = entries))
        };
        self.parents.iter().map(begin).collect()
    }
}

/// The spans of a replica, from its inputs and outputs.
pub(crate) struct Tracer {
    tracing: Tracing,
    node: Option<NodeId>,
    /// Proposals without an outcome, by token.
    proposals: BTreeMap<u64, Held>,
    /// Traced entries that are not applied, by index.
    entries: BTreeMap<u64, EntrySpans>,
    /// The spans of entries of another leader that are not durable here, each with the number of its write.
    appends: VecDeque<(u64, Held)>,
    election: Option<Election>,
    /// The part of this replica in an election that another one won in this term, until the next input: the
    /// entry that begins the term mostly comes in the same message, with the context of the winner's part.
    elected: Option<(u64, Held)>,
}

/// The time without a known leader.
struct Election {
    span: Held,
    /// The replica has asked for votes. Its context was read, so that it has no parent any more.
    is_root: bool,
}

struct EntrySpans {
    /// The token of the proposal, if it was made here.
    token: Option<u64>,
    parent: Parent,
    /// Ends when the entry is committed.
    _commit: Option<Held>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Tracer {
    pub(crate) fn new(tracing: Tracing, node: NodeId) -> Tracer {
        let mut tracer = Tracer {
            tracing,
            node: Some(node),
            proposals: BTreeMap::new(),
            entries: BTreeMap::new(),
            appends: VecDeque::new(),
            election: None,
            elected: None,
        };
        tracer.leader(None, 0);
        tracer
    }

    /// A command is proposed in this context. Returns the context of the entry.
    pub(crate) fn propose(&mut self, token: u64, trace: Option<Context>) -> Option<Context> {
        let parent = trace?;
        if !self.tracing.is_on() || self.proposals.len() >= ENTRIES_MAX {
            return trace;
        }
        let parent = Parent::Remote(parent);
        let span = begin!(self.tracing, self.node, &parent, "consensus.propose", index = Empty);
        if span.is_disabled() {
            return trace;
        }
        let context = span.in_scope(|| self.tracing.current());
        self.proposals.insert(token, Held(span));
        context.or(trace)
    }

    /// The write of this number has entries from `first` on, the traced ones among them.
    pub(crate) fn append<'a>(
        &mut self,
        number: u64,
        first: u64,
        traced: impl Iterator<Item = &'a TracedEntry>,
    ) -> Traced {
        // The entries replace those of an earlier leader.
        if !self.entries.is_empty() {
            self.entries.split_off(&first);
        }
        let mut job = Traced::default();
        if !self.tracing.is_on() {
            return job;
        }
        let mut elected = self.elected.take();
        for entry in traced {
            // The first entry of a term is that of its election.
            if let Some((_, part)) = elected.take_if(|(term, _)| *term == entry.term) {
                part.0.in_scope(|| self.tracing.adopt(&entry.context));
            }
            if self.appends.len() >= ENTRIES_MAX {
                break;
            }
            let proposed = entry.token.and_then(|token| self.proposals.get(&token));
            let (local, parent, commit) = match proposed {
                Some(Held(span)) => {
                    span.record("index", entry.index);
                    let commit = begin!(
                        self.tracing,
                        self.node,
                        &Parent::Local(span.clone()),
                        "consensus.commit",
                        index = entry.index
                    );
                    (span.clone(), Parent::Local(span.clone()), Some(Held(commit)))
                }
                None => {
                    let parent = Parent::Remote(entry.context);
                    let span =
                        begin!(self.tracing, self.node, &parent, "consensus.append", index = entry.index);
                    self.appends.push_back((number, Held(span.clone())));
                    (span, parent, None)
                }
            };
            job.parents.push(Parent::Local(local));
            if self.entries.len() < ENTRIES_MAX {
                let spans = EntrySpans { token: entry.token, parent, _commit: commit };
                self.entries.insert(entry.index, spans);
            }
        }
        if !job.parents.is_empty() {
            (job.tracing, job.node) = (self.tracing.clone(), self.node);
        }
        job
    }

    /// The write of this number and all before it are durable.
    pub(crate) fn persisted(&mut self, number: u64) {
        while self.appends.front().is_some_and(|(of, _)| *of <= number) {
            self.appends.pop_front();
        }
    }

    /// Takes the spans of entries that are committed, and are applied.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Traced {
        let mut job = Traced::default();
        if self.entries.is_empty() {
            return job;
        }
        let Some(last) = entries.last() else { return job };
        let later = self.entries.split_off(&last.index.saturating_add(1));
        let committed = std::mem::replace(&mut self.entries, later);
        job.parents.extend(committed.into_values().map(|spans| spans.parent));
        (job.tracing, job.node) = (self.tracing.clone(), self.node);
        job
    }

    /// The proposal of this token has its outcome, or was dropped.
    pub(crate) fn end(&mut self, token: u64, is_dropped: bool) {
        if self.proposals.is_empty() || self.proposals.remove(&token).is_none() {
            return;
        }
        if is_dropped {
            self.entries.retain(|_, spans| spans.token != Some(token));
        }
    }

    /// The replica asks for votes. Returns the context of the election, the first time.
    pub(crate) fn campaign(&mut self) -> Option<Context> {
        let Election { span: Held(span), is_root } = self.election.as_mut().filter(|one| !one.is_root)?;
        *is_root = true;
        span.in_scope(|| self.tracing.current())
    }

    /// All outputs of the last input were taken: an election that another replica won is over.
    pub(crate) fn settle(&mut self) {
        self.elected = None;
    }

    /// The leader or the term has changed.
    pub(crate) fn leader(&mut self, leader: Option<NodeId>, term: u64) {
        match leader {
            None if self.election.is_none() && self.tracing.is_on() => {
                let node = self.node.map(display);
                let span = info_span!(parent: None, "consensus.election", node, term = Empty, leader = Empty);
                self.election = Some(Election { span: Held(span), is_root: false });
            }
            None => {}
            Some(leader) => {
                let Some(Election { span, is_root }) = self.election.take() else { return };
                span.0.record("term", term);
                span.0.record("leader", display(leader));
                if !is_root {
                    self.elected = Some((term, span));
                }
            }
        }
    }
}
