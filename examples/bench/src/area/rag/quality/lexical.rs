//! x0-ml's BM25 beside tantivy and bm25s: the same words, the same ranking up to ties.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use x0_ml::index::VectorId;
use x0_ml::lexical::{LexicalIndex, LexicalOptions, words};

use super::super::python;
use super::Chunks;
use super::corpus::Corpus;

const SCRIPT: &str = include_str!("lexical.py");
pub(crate) const PEERS: [(&str, &str); 2] = [("bm25s", "bm25s"), ("tantivy", "tantivy")];
/// Entries of a list that are compared.
const FIRST: usize = 10;
/// Entries that a peer gives, so that a tie at the end of the compared ones is known as one.
const GIVEN: usize = 200;
/// Scores that differ by less than this share are ties: the peers compute in other orders and widths.
const TIE: f64 = 1e-5;
/// A word that fills documents up and that no query holds.
const FILLER: usize = 0;

/// Documents and queries as numbers of words.
struct Words {
    documents: Vec<Vec<usize>>,
    queries: Vec<Vec<usize>>,
}

impl Words {
    fn new(corpus: &Corpus, chunks: &Chunks) -> Self {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut of = |text: &str| {
            let mut list = Vec::new();
            words(text, &mut |word| {
                let next = numbers.len() + 1;
                list.push(*numbers.entry(word.to_owned()).or_insert(next));
            });
            list
        };
        let mut documents: Vec<Vec<usize>> = Vec::new();
        for (page, chunk) in &chunks.chunks {
            documents.push(of(&corpus.pages[*page].text[chunk.span.clone()]));
        }
        for document in &mut documents {
            // tantivy keeps a length in one byte: a length that this byte holds exactly is the same for all.
            document.resize(exact_len(document.len()), FILLER);
        }
        let mut queries: Vec<Vec<usize>> = corpus.queries.iter().map(|query| of(&query.text)).collect();
        for query in &mut queries {
            query.sort_unstable();
            query.dedup();
        }
        Self { documents, queries }
    }
}

/// The least length from `len` on that Lucene's and tantivy's byte holds: all up to 40, then eight steps for
/// each doubling of the step.
fn exact_len(len: usize) -> usize {
    let (mut last, mut step) = (40, 2);
    if len <= last {
        return len;
    }
    loop {
        for _ in 0..8 {
            last += step;
            if len <= last {
                return last;
            }
        }
        step *= 2;
    }
}

/// The share of queries, in percent, whose first 10 a peer ranks otherwise, by peer.
pub(crate) fn differences(corpus: &Corpus, chunks: &Chunks) -> Vec<Result<f64>> {
    let words = Words::new(corpus, chunks);
    let text = |list: &[usize]| list.iter().map(|word| format!("t{word}")).collect::<Vec<_>>().join(" ");
    let mut index = LexicalIndex::new(LexicalOptions::new());
    for (id, document) in words.documents.iter().enumerate() {
        index.insert(VectorId(id as u64), &text(document));
    }
    let own: Vec<Vec<u64>> = words
        .queries
        .iter()
        .map(|query| index.search(&text(query), FIRST, None).iter().map(|near| near.id.0).collect())
        .collect();
    let differing = |package: &str, name: &str| -> Result<f64> {
        let peer = ask(&words, package, name)?;
        let count = own.iter().zip(&peer).filter(|(own, peer)| !is_same(own, peer)).count();
        Ok(100.0 * count as f64 / own.len().max(1) as f64)
    };
    PEERS.iter().map(|(name, package)| differing(package, name)).collect()
}

fn ask(words: &Words, package: &str, name: &str) -> Result<Vec<Vec<(u64, f64)>>> {
    let python = python::with(&["numpy", package])?;
    let file = tempfile::NamedTempFile::new_in("/var/tmp")?;
    let data = json!({"documents": words.documents, "queries": words.queries});
    std::fs::write(file.path(), serde_json::to_vec(&data)?)?;
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, name]).arg(file.path()).arg(GIVEN.to_string());
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed no lists"))
}

/// Whether the peer gives the document at each place of the own list the score of its own document at that
/// place.
fn is_same(own: &[u64], peer: &[(u64, f64)]) -> bool {
    let score_of: BTreeMap<u64, f64> = peer.iter().copied().collect();
    own.len() == FIRST.min(peer.len())
        && own.iter().zip(peer).all(|(id, (_, score))| {
            score_of.get(id).is_some_and(|found| (found - score).abs() <= TIE * score.abs())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_that_a_byte_holds() {
        assert_eq!([0, 40, 41, 55, 57, 153, 530].map(exact_len), [0, 40, 42, 56, 60, 168, 536]);
    }

    #[test]
    fn ties_may_change_places() {
        assert!(is_same(&[2, 1], &[(1, 3.0), (2, 3.0)]));
        assert!(!is_same(&[2, 1], &[(1, 3.1), (2, 3.0)]));
        assert!(!is_same(&[1], &[(1, 3.1), (2, 3.0)]));
    }
}
