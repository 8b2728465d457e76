//! Queries over both indexes.

use super::diversity::maximal_marginal_relevance;
use super::fusion::{Fused, Fusion, fuse};
use super::hit::Hit;
use super::passage::{PassageFilter, Passages, Place};
use super::passing::Passing;
use crate::index::{Filter, Search, SearchError, VectorId, VectorReader};
use crate::lexical::LexicalIndex;

/// Lists that a query asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Both lists, fused.
    #[default]
    Hybrid,
    /// Vectors only.
    Dense,
    /// Words only.
    Lexical,
}

/// A query.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Query<'a> {
    /// The text of the query.
    pub text: &'a str,
    /// The text's vector; not needed in [`Mode::Lexical`].
    pub vector: Option<&'a [f32]>,
    /// Passages to return at most; 10 by default.
    pub k: usize,
    /// Lists to ask.
    pub mode: Mode,
    /// How the lists are fused.
    pub fusion: Fusion,
    /// Documents to choose from.
    pub filter: PassageFilter<'a>,
    /// Chunks that each list gives to the fusion; 100 by default, `k` at least.
    pub depth: usize,
    /// Share of their words from which on two chunks are near-duplicates, of which the answer cites the
    /// better one; 0.9 by default. Above 1: none are.
    pub alike_min: f32,
    /// Chooses among the best `4 * k` passages by
    /// [maximal marginal relevance](maximal_marginal_relevance) with this `lambda`; `None` by default.
    /// Likeness is that of their words.
    pub diversity: Option<f32>,
}

impl<'a> Query<'a> {
    /// A query by words and, with [`vector`](Self::vector), by meaning.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            vector: None,
            k: 10,
            mode: Mode::Hybrid,
            fusion: Fusion::default(),
            filter: PassageFilter::new(),
            depth: 100,
            alike_min: 0.9,
            diversity: None,
        }
    }

    /// Sets the text's vector.
    #[must_use]
    pub fn vector(mut self, vector: &'a [f32]) -> Self {
        self.vector = Some(vector);
        self
    }

    /// Sets the passages to return.
    #[must_use]
    pub fn k(mut self, passages: usize) -> Self {
        self.k = passages;
        self
    }

    /// Sets the lists to ask.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the fusion.
    #[must_use]
    pub fn fusion(mut self, fusion: Fusion) -> Self {
        self.fusion = fusion;
        self
    }

    /// Sets the documents to choose from.
    #[must_use]
    pub fn filter(mut self, filter: PassageFilter<'a>) -> Self {
        self.filter = filter;
        self
    }

    /// Sets the chunks of each list.
    #[must_use]
    pub fn depth(mut self, chunks: usize) -> Self {
        self.depth = chunks;
        self
    }

    /// Prefers passages that differ from those before: `lambda` from 1 (relevance alone) to 0 (novelty
    /// alone).
    #[must_use]
    pub fn diversity(mut self, lambda: f32) -> Self {
        self.diversity = Some(lambda);
        self
    }

    /// Sets the share of words from which on chunks are near-duplicates.
    #[must_use]
    pub fn alike_min(mut self, share: f32) -> Self {
        self.alike_min = share;
        self
    }
}

/// A query failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Vectors are asked and the query has none.
    #[error("the query has no vector; embed its text, or use `Mode::Lexical`")]
    NoVector,
    /// The vector index failed.
    #[error("the vector index cannot answer the query")]
    Search(#[source] SearchError),
}

/// Answers queries from a vector index, a lexical index and the places of chunks.
#[derive(Clone, Copy)]
pub struct Retriever<'a> {
    vectors: &'a dyn VectorReader,
    lexical: &'a LexicalIndex,
    passages: &'a Passages,
}

impl<'a> Retriever<'a> {
    /// A retriever over indexes that hold the chunks of `passages`.
    #[must_use]
    pub fn new(vectors: &'a dyn VectorReader, lexical: &'a LexicalIndex, passages: &'a Passages) -> Self {
        Self { vectors, lexical, passages }
    }

    /// The best passages, the best first. Those of equal score stand in the order of their chunks'
    /// identities, so that indexes over the same documents answer alike. A list by words is cut off in the
    /// order of [`LexicalIndex::insert_ordered`], in which a
    /// [`KnowledgeBase`](crate::knowledge::KnowledgeBase) gives the [prefixes](crate::chunk::ChunkId::prefix)
    /// of these identities; a list by meaning, in that of the numbers.
    ///
    /// Overlapping chunks of one document become one passage with the ranks and the score of the best of
    /// them. A chunk that stands in several documents that pass the filter is cited from the first of them by
    /// name. Of [near-duplicates](Query::alike_min), the best one is cited and names the other documents.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn query(&self, query: &Query<'_>) -> Result<Vec<Hit>, QueryError> {
        let depth = query.depth.max(query.k);
        let passing = (!query.filter.is_empty()).then(|| Passing::new(self.passages, &query.filter));
        let passes = |id: VectorId| passing.as_ref().is_none_or(|passing| passing.contains(id));
        let filter: Option<Filter<'_>> = passing.is_some().then_some(&passes as Filter<'_>);
        // Chunks of a document that is not complete yet, or of a revision that leaves, must not fill a list.
        let is_placed = |id: VectorId| self.passages.chunks.contains_key(&id);
        let placed = |len: usize| (len > self.passages.chunks_len()).then_some(&is_placed as Filter<'_>);
        let mut dense = match (query.mode, query.vector) {
            (Mode::Lexical, _) => Vec::new(),
            (_, None) => return Err(QueryError::NoVector),
            (_, Some(vector)) => {
                let mut search = Search::new(vector, depth);
                search.filter = filter.or_else(|| placed(self.vectors.len()));
                self.vectors.search(&search).map_err(QueryError::Search)?
            }
        };
        let mut lexical = match query.mode {
            Mode::Dense => Vec::new(),
            Mode::Hybrid | Mode::Lexical => {
                let filter = filter.or_else(|| placed(self.lexical.len()));
                self.lexical.search(query.text, depth, filter)
            }
        };
        // Numbers are given in the order of arrival, which is another one on each node.
        let chunk = |id: VectorId| self.passages.chunks.get(&id).map(|held| held.chunk);
        for list in [&mut dense, &mut lexical] {
            list.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| chunk(a.id).cmp(&chunk(b.id))));
        }
        let mut fused = fuse(&dense, &lexical, query.fusion);
        fused.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| chunk(a.id).cmp(&chunk(b.id))));
        let mut hits: Vec<Hit> = Vec::new();
        let candidates = query.diversity.map_or(query.k, |_| query.k.saturating_mul(4));
        for fused in fused {
            self.merge(&mut hits, fused, query, candidates);
        }
        if let Some(lambda) = query.diversity {
            hits.truncate(candidates);
            hits = self.diverse(hits, lambda, query.k);
        }
        hits.truncate(query.k);
        Ok(hits)
    }

    /// The `k` hits that maximal marginal relevance chooses, in its order.
    fn diverse(&self, hits: Vec<Hit>, lambda: f32, k: usize) -> Vec<Hit> {
        let best = hits.first().map_or(1.0, |hit| hit.score).max(f32::MIN_POSITIVE);
        let relevance: Vec<f32> = hits.iter().map(|hit| hit.score / best).collect();
        let numbers: Vec<_> = hits.iter().map(|hit| self.passages.number(&hit.chunk)).collect();
        let likeness = |a: usize, b: usize| {
            let both = numbers[a].zip(numbers[b]);
            both.and_then(|(a, b)| self.lexical.likeness(a, b)).unwrap_or_default()
        };
        let chosen = maximal_marginal_relevance(&relevance, likeness, lambda, k);
        let mut hits: Vec<Option<Hit>> = hits.into_iter().map(Some).collect();
        chosen.into_iter().filter_map(|place| hits[place].take()).collect()
    }

    /// The first place of a chunk in a document that passes.
    fn place(&self, id: VectorId, filter: &PassageFilter<'_>) -> Option<&'a Place> {
        let places = &self.passages.chunks.get(&id)?.places;
        places
            .iter()
            .filter(|place| filter.passes(self.passages, &place.document))
            .min_by(|a, b| (&a.document, a.span.start).cmp(&(&b.document, b.span.start)))
    }

    /// The hit whose chunk has nearly the same words.
    fn alike<'h>(&self, hits: &'h mut [Hit], id: VectorId, least: f32) -> Option<&'h mut Hit> {
        hits.iter_mut().find(|hit| {
            let other = self.passages.number(&hit.chunk);
            other.and_then(|other| self.lexical.likeness(other, id)).is_some_and(|found| found >= least)
        })
    }

    /// Adds a chunk, or widens the passage of the same document that it overlaps. Near-duplicates are looked
    /// for among the first `candidates`.
    fn merge(&self, hits: &mut Vec<Hit>, fused: Fused, query: &Query<'_>, candidates: usize) {
        let place = self.place(fused.id, &query.filter);
        let Some((place, held)) = place.zip(self.passages.chunks.get(&fused.id)) else {
            return;
        };
        let overlaps = |hit: &Hit| {
            // Few places of other documents pass the first two, and they cost less than a name.
            hit.span.start < place.span.end
                && place.span.start < hit.span.end
                && hit.document == place.document
        };
        if let Some(at) = hits.iter().position(overlaps) {
            hits[at].span = hits[at].span.start.min(place.span.start)..hits[at].span.end.max(place.span.end);
            // The wider passage can touch another one.
            let (span, document) = (hits[at].span.clone(), hits[at].document.clone());
            while let Some(other) = hits.iter().enumerate().position(|(n, hit)| {
                n > at && hit.document == document && hit.span.start < span.end && span.start < hit.span.end
            }) {
                let other = hits.remove(other);
                hits[at].span =
                    hits[at].span.start.min(other.span.start)..hits[at].span.end.max(other.span.end);
            }
            return;
        }
        // Later ones are cut off anyway.
        if hits.len() < candidates
            && let Some(hit) = self.alike(hits, fused.id, query.alike_min)
        {
            if hit.document != place.document && !hit.alike.contains(&place.document) {
                hit.alike.push(place.document.clone());
            }
            return;
        }
        hits.push(Hit {
            document: place.document.clone(),
            span: place.span.clone(),
            revision: self.passages.revision(&place.document).unwrap_or_default(),
            chunk: held.chunk,
            score: fused.score,
            rank_dense: fused.rank_dense,
            rank_lexical: fused.rank_lexical,
            alike: Vec::new(),
        });
    }
}

impl std::fmt::Debug for Retriever<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retriever").field("chunks", &self.passages.chunks_len()).finish()
    }
}
