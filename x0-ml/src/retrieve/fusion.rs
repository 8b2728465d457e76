//! Two rankings made into one.

use std::collections::BTreeMap;

use crate::index::{Neighbour, VectorId};

/// How two lists are fused.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Fusion {
    /// Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): a list adds `1 / (k + rank)`. Scores do not
    /// matter.
    Reciprocal {
        /// How little the first ranks count; 60 by default.
        k: f32,
    },
    /// Scores of each list moved to 0 to 1 and added with weights.
    Weighted {
        /// Weight of the dense list, from 0 to 1; the lexical list has the rest.
        dense: f32,
    },
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Reciprocal { k: 60.0 }
    }
}

/// An entry of the fused list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fused {
    /// The vector and text.
    pub id: VectorId,
    /// The fused score; greater is better.
    pub score: f32,
    /// Rank in the dense list, from 1.
    pub rank_dense: Option<usize>,
    /// Rank in the lexical list, from 1.
    pub rank_lexical: Option<usize>,
}

/// Fuses a dense and a lexical list, each the best first. Equal scores stand in the order of their numbers.
#[must_use]
pub fn fuse(dense: &[Neighbour], lexical: &[Neighbour], fusion: Fusion) -> Vec<Fused> {
    let mut fused: BTreeMap<VectorId, Fused> = BTreeMap::new();
    for (list, is_dense) in [(dense, true), (lexical, false)] {
        for (place, near) in list.iter().enumerate() {
            let entry = fused.entry(near.id).or_insert(Fused {
                id: near.id,
                score: 0.0,
                rank_dense: None,
                rank_lexical: None,
            });
            let rank = if is_dense { &mut entry.rank_dense } else { &mut entry.rank_lexical };
            // A list that names one entry twice counts its better rank.
            if rank.is_some() {
                continue;
            }
            *rank = Some(place + 1);
            entry.score += match fusion {
                Fusion::Reciprocal { k } => 1.0 / (k + (place + 1) as f32),
                Fusion::Weighted { dense } => {
                    (if is_dense { dense } else { 1.0 - dense }) * share(list, near.score)
                }
            };
        }
    }
    let mut fused: Vec<Fused> = fused.into_values().collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score));
    fused
}

/// The place of a score between the worst (0) and the best (1) of its list.
fn share(list: &[Neighbour], score: f32) -> f32 {
    let best = list.iter().map(|near| near.score).fold(f32::NEG_INFINITY, f32::max);
    let worst = list.iter().map(|near| near.score).fold(f32::INFINITY, f32::min);
    if best > worst { (score - worst) / (best - worst) } else { 1.0 }
}
