//! Fusion, diversity, and filters over passages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

use x0_ml::index::{Neighbour, VectorId};
use x0_ml::retrieve::{Fusion, RerankError, Reranker, fuse, maximal_marginal_relevance};

fn list(entries: &[(u64, f32)]) -> Vec<Neighbour> {
    entries.iter().map(|(id, score)| Neighbour { id: VectorId(*id), score: *score }).collect()
}

#[test]
fn reciprocal_ranks_add() {
    let (dense, lexical) = (list(&[(1, 0.9), (2, 0.8), (3, 0.1)]), list(&[(3, 7.0), (1, 6.0), (4, 5.0)]));
    let fused = fuse(&dense, &lexical, Fusion::default());
    let ids: Vec<u64> = fused.iter().map(|fused| fused.id.0).collect();
    assert_eq!(ids, [1, 3, 2, 4]);
    assert!((fused[0].score - (1.0 / 61.0 + 1.0 / 62.0)).abs() < 1e-7);
    assert!((fused[1].score - (1.0 / 63.0 + 1.0 / 61.0)).abs() < 1e-7);
    assert_eq!((fused[2].rank_dense, fused[2].rank_lexical), (Some(2), None));
    assert_eq!((fused[3].rank_dense, fused[3].rank_lexical), (None, Some(3)));
    assert!(fuse(&[], &[], Fusion::default()).is_empty());
    // An entry that stands twice in a list counts once, with its better rank.
    let twice = fuse(&list(&[(1, 0.9), (1, 0.8)]), &[], Fusion::default());
    assert_eq!((twice.len(), twice[0].rank_dense), (1, Some(1)));
}

#[test]
fn weighted_scores_move_between_zero_and_one() {
    let (dense, lexical) = (list(&[(1, 0.9), (2, 0.7), (3, 0.5)]), list(&[(3, 20.0), (2, 10.0)]));
    let fused = fuse(&dense, &lexical, Fusion::Weighted { dense: 0.75 });
    let of = |id: u64| fused.iter().find(|fused| fused.id.0 == id).unwrap().score;
    assert!((of(1) - 0.75).abs() < 1e-6 && (of(2) - 0.375).abs() < 1e-6 && (of(3) - 0.25).abs() < 1e-6);
    assert_eq!(fused[0].id, VectorId(1));
    assert!((fuse(&list(&[(5, 3.0)]), &[], Fusion::Weighted { dense: 1.0 })[0].score - 1.0).abs() < 1e-6);
}

#[test]
fn marginal_relevance_prefers_what_is_new() {
    // 0 and 1 are twins, 2 is another matter.
    let similarity = |a: usize, b: usize| if a < 2 && b < 2 { 1.0 } else { 0.0 };
    let relevance = [0.9, 0.89, 0.5];
    assert_eq!(maximal_marginal_relevance(&relevance, similarity, 1.0, 3), [0, 1, 2]);
    assert_eq!(maximal_marginal_relevance(&relevance, similarity, 0.5, 2), [0, 2]);
    assert_eq!(maximal_marginal_relevance(&relevance, similarity, 0.5, 9).len(), 3);
    assert!(maximal_marginal_relevance(&[], similarity, 0.5, 3).is_empty());
}

#[test]
fn a_reranker_is_an_object() {
    struct Longest;
    impl Reranker for Longest {
        fn rerank(&self, query: &str, texts: &[&str]) -> Result<Vec<f32>, RerankError> {
            if query.is_empty() {
                return Err(RerankError::new("no query"));
            }
            Ok(texts.iter().map(|text| text.len() as f32).collect())
        }
    }
    let reranker: Box<dyn Reranker> = Box::new(Longest);
    assert_eq!(reranker.rerank("q", &["a", "bbb"]).unwrap(), [1.0, 3.0]);
    let error = reranker.rerank("", &[]).unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no query");
}
