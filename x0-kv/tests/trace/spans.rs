//! Spans as a test sees them, and a propagator that joins them by their numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use x0_kv::trace::{Context, Propagator};

/// A span that was made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    /// The number of the parent; 0 for a root.
    pub(crate) parent: u64,
    /// The numbers of the spans that it follows from.
    pub(crate) links: Vec<u64>,
    pub(crate) is_closed: bool,
}

/// All spans of a test, numbered from 1. A number is the span id of a context.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    spans: Vec<Seen>,
    /// The number of each span that is open, by its id in the registry.
    open: BTreeMap<u64, usize>,
}

impl Spans {
    /// Records the spans of this thread until the guard is dropped.
    pub(crate) fn record(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().spans.clone()
    }

    /// The names of a span and its ancestors, from the root on. An ancestor of another process has no name.
    pub(crate) fn path(&self, span: &Seen) -> String {
        let mut names = vec![span.name];
        let (all, mut parent) = (self.all(), span.parent);
        while let Some(at) = usize::try_from(parent).unwrap().checked_sub(1) {
            let Some(span) = all.get(at) else {
                names.push("");
                break;
            };
            names.push(span.name);
            parent = span.parent;
        }
        names.reverse();
        names.join("/")
    }

    /// The paths of all spans, sorted.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.all().iter().map(|span| self.path(span)).collect();
        paths.sort();
        paths
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id()));
        let mut state = self.0.lock().unwrap();
        let parent =
            parent.and_then(|parent| state.open.get(&parent.into_u64()).copied()).unwrap_or_default();
        let name = attributes.metadata().name();
        state.spans.push(Seen { name, parent: parent as u64, ..Seen::default() });
        let number = state.spans.len();
        state.open.insert(id.into_u64(), number);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, _: LayerContext<'_, S>) {
        let mut state = self.0.lock().unwrap();
        let (span, follows) = (state.open[&span.into_u64()], state.open[&follows.into_u64()]);
        state.spans[span - 1].links.push(follows as u64);
    }

    fn on_close(&self, id: Id, _: LayerContext<'_, S>) {
        let mut state = self.0.lock().unwrap();
        let number = state.open.remove(&id.into_u64()).unwrap();
        state.spans[number - 1].is_closed = true;
    }
}

impl Propagator for Spans {
    fn current(&self) -> Option<Context> {
        let id = tracing::Span::current().id()?;
        let number = self.0.lock().unwrap().open[&id.into_u64()];
        Context::new([7; 16], (number as u64).to_be_bytes(), Context::SAMPLED)
    }

    fn adopt(&self, parent: &Context) {
        let id = tracing::Span::current().id().unwrap();
        let mut state = self.0.lock().unwrap();
        let number = state.open[&id.into_u64()];
        state.spans[number - 1].parent = u64::from_be_bytes(parent.span_id());
    }
}
