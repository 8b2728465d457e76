//! Vectors of real texts: passages of Debian manuals, embedded by the model.

use anyhow::{Result, ensure};
use x0_ml::chunk::{ChunkId, ChunkOptions, Chunker};

use super::quality::corpus::Corpus;
use super::quality::dense::Dense;
use super::{Options, python};

/// The vectors of `count` different passages, in an order without meaning, and what they are.
pub(crate) fn vectors(options: &Options, count: usize) -> Result<(Vec<f32>, String)> {
    let folder = options.model.clone().map_or_else(python::model, Ok)?;
    let model = Dense::load(&folder, 1)?;
    let corpus = Corpus::make(1)?;
    let chunk = ChunkOptions::new().tokens_max(options.passage_tokens);
    let chunker = Chunker::new(chunk, model.tokens())?;
    let mut passages: Vec<(ChunkId, &str)> = Vec::new();
    for page in &corpus.pages {
        let chunks = chunker.chunks(&page.text)?;
        passages.extend(chunks.into_iter().map(|chunk| (chunk.id, &page.text[chunk.span])));
    }
    // The names are hashes: their order has nothing to do with that of the pages.
    passages.sort_unstable_by_key(|(id, _)| *id);
    passages.dedup_by_key(|(id, _)| *id);
    ensure!(
        passages.len() >= count,
        "the manuals hold {} passages of {} tokens, and {count} are needed: give fewer `--passage-tokens`",
        passages.len(),
        options.passage_tokens
    );
    passages.truncate(count);
    let vectors = model.vectors("passages.cache", &passages)?;
    let source = format!("passages of at most {} tokens of Debian manuals", options.passage_tokens);
    Ok((vectors, source))
}
