//! Cutting a text into chunks.

use std::ops::Range;

use super::boundary::{Boundary, boundary};
use super::identity::ChunkId;
use super::tokens::{TokenError, TokenSpans};

/// Version of the rules by which texts are cut. It is a part of every [`ChunkId`].
pub const CHUNKER_VERSION: u32 = 1;

/// Settings of a [`Chunker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkOptions {
    /// Tokens of a chunk, the model's special ones included; 512 by default.
    pub tokens_max: usize,
    /// Special tokens that the model adds to each text; 2 by default.
    pub special_tokens: usize,
    /// Share of a chunk that the next one repeats, in percent; 20 by default, at most 50.
    pub overlap_percent: usize,
    /// Longest text that is cut, in bytes; 64 MiB by default.
    pub text_len_max: usize,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { tokens_max: 512, special_tokens: 2, overlap_percent: 20, text_len_max: 64 << 20 }
    }
}

impl ChunkOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the tokens of a chunk, special ones included.
    #[must_use]
    pub fn tokens_max(mut self, tokens: usize) -> Self {
        self.tokens_max = tokens;
        self
    }

    /// Sets the number of special tokens.
    #[must_use]
    pub fn special_tokens(mut self, tokens: usize) -> Self {
        self.special_tokens = tokens;
        self
    }

    /// Sets the overlap in percent of a chunk.
    #[must_use]
    pub fn overlap_percent(mut self, percent: usize) -> Self {
        self.overlap_percent = percent;
        self
    }

    /// Sets the longest text in bytes.
    #[must_use]
    pub fn text_len_max(mut self, bytes: usize) -> Self {
        self.text_len_max = bytes;
        self
    }
}

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Name of the chunk.
    pub id: ChunkId,
    /// The chunk's bytes in the document; both ends are character boundaries.
    pub span: Range<usize>,
    /// Tokens of the chunk when it is read alone, special ones not counted.
    pub tokens: usize,
}

/// A text was not cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The options contradict each other.
    #[error("chunk options do not fit together: {reason}; change them")]
    Options {
        /// The contradiction.
        reason: &'static str,
    },
    /// The text is too long.
    #[error("a text of {len} bytes is longer than {len_max}; split the document or raise `text_len_max`")]
    TextTooLong {
        /// Length of the text in bytes.
        len: usize,
        /// The limit.
        len_max: usize,
    },
    /// The tokenizer failed.
    #[error("the text was not cut")]
    Tokens(#[source] TokenError),
    /// The tokenizer broke the contract of [`TokenSpans`].
    #[error("the tokenizer returned token {index} outside of the text or out of order; fix the tokenizer")]
    BadSpan {
        /// Number of the token in the text.
        index: usize,
    },
}

/// Cuts texts into chunks of a bounded number of tokens, each overlapping the one before.
///
/// For every text: the spans are byte ranges on character boundaries, cover the text without gap, start in
/// strictly ascending order and end in strictly ascending order (the last chunk is never a mere copy of the
/// overlap). A chunk ends where a paragraph or else a sentence ends, if one ends in its last fifth. No chunk
/// has more tokens than the options allow when it is tokenized alone, but for one whose single token becomes
/// more of them. An empty text has no chunks.
#[derive(Debug, Clone)]
pub struct Chunker<T> {
    tokens: T,
    /// Tokens of text in a chunk.
    size: usize,
    overlap: usize,
    text_len_max: usize,
}

impl<T: TokenSpans> Chunker<T> {
    /// A chunker over a tokenizer.
    ///
    /// # Errors
    /// [`ChunkError::Options`] if no text token is left beside the special ones, or if the overlap is above
    /// 50 %.
    pub fn new(options: ChunkOptions, tokens: T) -> Result<Self, ChunkError> {
        let size = options.tokens_max.saturating_sub(options.special_tokens);
        if size == 0 {
            return Err(ChunkError::Options { reason: "`tokens_max` leaves no token for text" });
        }
        if options.overlap_percent > 50 {
            return Err(ChunkError::Options { reason: "`overlap_percent` is above 50" });
        }
        let overlap = size.saturating_mul(options.overlap_percent) / 100;
        Ok(Self { tokens, size, overlap, text_len_max: options.text_len_max })
    }

    /// The tokenizer.
    pub fn tokens(&self) -> &T {
        &self.tokens
    }

    /// The chunks of a text, in its order.
    ///
    /// # Errors
    /// [`ChunkError`] if the text is too long or the tokenizer fails.
    pub fn chunks(&self, text: &str) -> Result<Vec<Chunk>, ChunkError> {
        if text.len() > self.text_len_max {
            return Err(ChunkError::TextTooLong { len: text.len(), len_max: self.text_len_max });
        }
        let mut chunks = Vec::new();
        if text.is_empty() {
            return Ok(chunks);
        }
        let spans = self.spans(text)?;
        let (mut first, mut covered) = (0, 0);
        loop {
            let (tokens, chunk) = self.chunk(text, &spans, first, covered)?;
            chunks.push(chunk);
            if tokens.end >= spans.len() {
                return Ok(chunks);
            }
            first = self.start(text, &spans, &tokens);
            covered = tokens.end;
        }
    }

    /// The chunk that ends after `covered`, the tokens that earlier chunks hold, and its tokens. It begins at
    /// token `first`, or at `covered` where no chunk from `first` on is short enough.
    fn chunk(
        &self,
        text: &str,
        spans: &[Range<usize>],
        mut first: usize,
        covered: usize,
    ) -> Result<(Range<usize>, Chunk), ChunkError> {
        let mut end = self.end(text, spans, first);
        loop {
            let from = if first == 0 { 0 } else { spans[first].start };
            // White space after a token belongs to the chunk of that token, so that the chunks leave no gap.
            let to = spans.get(end).map_or(text.len(), |span| span.start);
            let part = &text[from..to];
            let tokens = self.spans(part)?.len();
            // A word that is cut has other tokens, often more, when its parts are read alone.
            if let Some(excess) = tokens.checked_sub(self.size).filter(|excess| *excess > 0) {
                let shorter = end.saturating_sub(excess).max(covered + 1);
                if shorter < end {
                    end = shorter;
                    continue;
                }
                if first < covered {
                    first = covered;
                    continue;
                }
            }
            let id = ChunkId::of(self.tokens.id(), part);
            return Ok((first..end, Chunk { id, span: from..to, tokens }));
        }
    }

    /// The best end of a chunk from token `first`: the last paragraph, sentence or word that ends in its last
    /// fifth.
    fn end(&self, text: &str, spans: &[Range<usize>], first: usize) -> usize {
        let most = first + self.size;
        if most >= spans.len() {
            return spans.len();
        }
        let least = (most - self.size / 5).max(first + 1);
        (least..=most)
            .max_by_key(|end| (boundary(text, &spans[end - 1], spans[*end].start), *end))
            .unwrap_or(most)
    }

    /// The start of the chunk after the one of `tokens`: in the overlap, at a word if there is one.
    fn start(&self, text: &str, spans: &[Range<usize>], tokens: &Range<usize>) -> usize {
        // Starts ascend also where the overlap is as long as the chunk itself.
        let earliest = tokens.end.saturating_sub(self.overlap).max(tokens.start + 1).min(tokens.end);
        (earliest..tokens.end)
            .find(|start| boundary(text, &spans[start - 1], spans[*start].start) > Boundary::Inside)
            .unwrap_or(earliest)
    }

    /// Tokens on character boundaries, checked against the contract of the seam. Tokens that start in one
    /// character are one.
    fn spans(&self, text: &str) -> Result<Vec<Range<usize>>, ChunkError> {
        let mut spans = Vec::new();
        self.tokens.spans(text, &mut spans).map_err(ChunkError::Tokens)?;
        let mut previous = 0;
        for (index, span) in spans.iter_mut().enumerate() {
            if span.start < previous || span.end < span.start || span.end > text.len() {
                return Err(ChunkError::BadSpan { index });
            }
            previous = span.start;
            span.start = floor(text, span.start);
            span.end = ceil(text, span.end);
        }
        spans.dedup_by(|span, before| span.start == before.start);
        Ok(spans)
    }
}

/// The start of the character that the byte `at` is in.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The end of the character that the byte before `at` is in.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}
