//! The seam between a chunker and a tokenizer.

use std::ops::Range;

use crate::hash::{Digest, digest_of};

/// Name of a tokenizer: the SHA-256 of its vocabulary and settings.
///
/// Two tokenizers of one name cut every text alike. The name is a part of every [`ChunkId`](super::ChunkId).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenizerId(Digest);

impl TokenizerId {
    /// The name of the tokenizer that `parts` describe completely. Each part is hashed with its length.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(digest_of("x0-ml tokenizer", parts))
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// A tokenizer, as far as a [`Chunker`](super::Chunker) needs one: text to byte ranges of tokens.
///
/// # Contract
/// The ranges lie inside the text, start in ascending order and do not count special tokens. Equal text gives
/// equal ranges. A range may begin inside a character (byte-level tokenizers do that); the chunker moves such
/// a cut to the start of the character.
pub trait TokenSpans {
    /// The name of the tokenizer.
    fn id(&self) -> TokenizerId;

    /// Appends the byte range of every token of `text` to `spans`.
    ///
    /// # Errors
    /// [`TokenError`] if the tokenizer cannot read this text. `spans` may then hold some of the ranges.
    fn spans(&self, text: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError>;
}

impl<T: TokenSpans + ?Sized> TokenSpans for &T {
    fn id(&self) -> TokenizerId {
        (**self).id()
    }

    fn spans(&self, text: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError> {
        (**self).spans(text, spans)
    }
}

/// A tokenizer refused a text.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer cannot read this text; no chunk of it was made")]
pub struct TokenError {
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl TokenError {
    /// An error with the tokenizer's own as its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: cause.into() }
    }
}

/// Tokens without a vocabulary: runs of letters and digits, and single other characters that are not white
/// space.
///
/// The tokenizer for lexical-only collections and tests. A model's own tokenizer makes more tokens of the
/// same text.
#[derive(Debug, Clone, Copy, Default)]
pub struct WordTokens;

impl TokenSpans for WordTokens {
    fn id(&self) -> TokenizerId {
        TokenizerId::of(&[b"words", b"1"])
    }

    fn spans(&self, text: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError> {
        let mut word: Option<usize> = None;
        for (at, character) in text.char_indices() {
            if character.is_alphanumeric() {
                word.get_or_insert(at);
                continue;
            }
            if let Some(start) = word.take() {
                spans.push(start..at);
            }
            if !character.is_whitespace() {
                spans.push(at..at + character.len_utf8());
            }
        }
        if let Some(start) = word {
            spans.push(start..text.len());
        }
        Ok(())
    }
}
