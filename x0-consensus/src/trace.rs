//! Distributed traces: the context of a request, and how it gets from node to node.
//!
//! A traced request is a tree of spans over the nodes that take part in it. This crate and x0-kv make the
//! spans with the crate `tracing` (feature of that name) and know no exporter. The program gives them a
//! [`Propagator`], which joins the spans of two nodes: it returns the [`Context`] of the current span, which
//! travels in messages, and makes a context that has arrived the parent of the current span.
//!
//! | span | parent | from, to |
//! |---|---|---|
//! | `consensus.propose` | the request | the proposal of a command, its outcome; on the leader |
//! | `consensus.commit` | `consensus.propose` | the entry enters the log, it is committed; on the leader |
//! | `consensus.append` | `consensus.propose` of the leader | the entry has arrived, it is durable; on a follower |
//! | `log.write` | `consensus.propose` or `consensus.append` | one write of the log with its synchronisation |
//! | `consensus.apply` | `consensus.propose` of the leader | one batch of the state machine |
//! | `consensus.election` | that of the winner, on the others | the loss of the leader, the next one is known |
//!
//! The election of a leader is a tree of its own: the span of the winner, below it those of the others, and
//! of the entry that begins the term what a command has. A member that asked for votes itself, or that learns
//! of the leader before that entry, has a span without a parent.
//!
//! The field `node` of each span is the id of the member.
//!
//! A write of the log is shared by the entries that wait. Its span has the first traced entry as its parent
//! and a link (`follows_from`) to each of them.
//!
//! # Cost
//! The decision whether a request is traced is made once, where the request enters. A request that is not
//! traced has no span, and its messages are those of a release without traces, byte for byte. The context
//! never enters the log: replicas stay byte-identical. Without a propagator, or without the feature
//! `tracing`, a request costs one branch per place where a span would begin.

mod context;
#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "trace/noop.rs"]
mod spans;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::context::{Context, ParseContextError};
pub use self::spans::Traced;
pub(crate) use self::spans::Tracer;

/// Joins the spans of several processes. The program implements it with its tracing library.
///
/// Both methods concern the span that is current on the calling thread (`tracing::Span::current`). They are
/// called for traced requests only, and on the event loop of a node: they must not wait.
pub trait Propagator: Send + Sync {
    /// The context of the current span; `None` if there is no current span. A context that is
    /// [not sampled](Context::is_sampled) keeps the requests under it from being traced.
    fn current(&self) -> Option<Context>;

    /// Makes `parent` the parent of the current span. Called before the context of the span is asked for.
    fn adopt(&self, parent: &Context);
}

/// Whether and how requests are traced. The default is off. Clones share the state of the sampler.
#[derive(Clone, Default)]
pub struct Tracing(Option<Arc<Shared>>);

struct Shared {
    propagator: Arc<dyn Propagator>,
    /// A request that enters without a context is traced if a random number is below; `None`: each one is.
    threshold: Option<u64>,
    drawn: AtomicU64,
}

impl Tracing {
    /// Traces the requests that arrive with a sampled context, or from within a span that has one.
    #[must_use]
    pub fn new(propagator: Arc<dyn Propagator>) -> Tracing {
        let drawn = AtomicU64::new(RandomState::new().hash_one("x0-consensus trace"));
        Tracing(Some(Arc::new(Shared { propagator, threshold: Some(0), drawn })))
    }

    /// Traces also this share of the requests that enter here without a context: 0 is none, 1 is all of them.
    /// The sampler of this value is a new one.
    #[must_use]
    pub fn ratio(self, ratio: f64) -> Tracing {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates, and NaN is 0"
        )]
        let threshold = if ratio >= 1.0 { None } else { Some((ratio * 18_446_744_073_709_551_616.0) as u64) };
        Tracing(self.0.map(|shared| {
            let drawn = AtomicU64::new(shared.drawn.load(Ordering::Relaxed));
            Arc::new(Shared { propagator: Arc::clone(&shared.propagator), threshold, drawn })
        }))
    }

    /// Whether there is a propagator.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The decision about a request that enters here without a context.
    #[must_use]
    pub fn draw(&self) -> bool {
        let Some(shared) = &self.0 else { return false };
        let Some(threshold) = shared.threshold else { return true };
        if threshold == 0 {
            return false;
        }
        // A sequence of SplitMix64, whose state is a counter: many threads draw without a lock.
        let step = 0x9e37_79b9_7f4a_7c15;
        let state = shared.drawn.fetch_add(step, Ordering::Relaxed);
        crate::random::SplitMix64(state).next_u64() < threshold
    }

    /// The context of the current span; `None` without a propagator or a span.
    #[must_use]
    pub fn current(&self) -> Option<Context> {
        self.0.as_ref()?.propagator.current()
    }

    /// Makes `parent` the parent of the current span. Does nothing without a propagator.
    pub fn adopt(&self, parent: &Context) {
        if let Some(shared) = &self.0 {
            shared.propagator.adopt(parent);
        }
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.0.as_ref().map(|shared| shared.threshold);
        f.debug_struct("Tracing").field("threshold", &threshold).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
