//! Choice of entries that differ from each other, and the seam of models that rank pairs.

/// Maximal marginal relevance (Carbonell, Goldstein 1998): the places of `k` entries, chosen one after the
/// other by `lambda * relevance - (1 - lambda) * greatest similarity to a chosen one`.
///
/// `similarity` is called with two places. `lambda` 1 keeps the order of relevance.
#[must_use]
pub fn maximal_marginal_relevance(
    relevance: &[f32],
    similarity: impl Fn(usize, usize) -> f32,
    lambda: f32,
    k: usize,
) -> Vec<usize> {
    let mut left: Vec<(usize, f32)> = (0..relevance.len()).map(|place| (place, f32::NEG_INFINITY)).collect();
    let mut chosen = Vec::with_capacity(k.min(left.len()));
    while chosen.len() < k {
        let value = |(place, nearest): &(usize, f32)| {
            let penalty = if nearest.is_finite() { *nearest } else { 0.0 };
            lambda * relevance[*place] - (1.0 - lambda) * penalty
        };
        let best =
            left.iter().enumerate().max_by(|(a, x), (b, y)| value(x).total_cmp(&value(y)).then(b.cmp(a)));
        let Some((at, _)) = best else { break };
        let (place, _) = left.remove(at);
        for (other, nearest) in &mut left {
            *nearest = nearest.max(similarity(place, *other));
        }
        chosen.push(place);
    }
    chosen
}

/// A model that scores texts for a query, such as a cross-encoder.
///
/// # Contract
/// One finite score for each text, in their order; greater is better.
pub trait Reranker: Send + Sync {
    /// Scores each text.
    ///
    /// # Errors
    /// [`RerankError`]; the ranking before it stays.
    fn rerank(&self, query: &str, texts: &[&str]) -> Result<Vec<f32>, RerankError>;
}

/// Texts were not scored.
#[derive(Debug, thiserror::Error)]
#[error("the reranker cannot score these texts; the ranking before it stays")]
pub struct RerankError {
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl RerankError {
    /// An error with the model's own as its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into() }
    }
}
