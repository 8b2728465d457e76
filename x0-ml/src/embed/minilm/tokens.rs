//! tokenizer.json.

use std::ops::Range;
use std::sync::Arc;

use tokenizers::Tokenizer;

use super::LoadError;
use crate::chunk::{TokenError, TokenSpans, TokenizerId};

/// The tokens of a model, for a [`Chunker`](crate::chunk::Chunker). A copy shares the vocabulary.
#[derive(Debug, Clone)]
pub struct MiniLmTokens {
    id: TokenizerId,
    tokenizer: Arc<Tokenizer>,
}

impl MiniLmTokens {
    /// Reads the file without its truncation and padding, and checks that its numbers are rows of the
    /// vocabulary.
    pub(super) fn read(json: &[u8], vocab_size: usize) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Tokenizer { reason };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| refuse(error.to_string()))?;
        tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        tokenizer.with_padding(None);
        let vocabulary = tokenizer.get_vocab(true);
        if let Some((token, id)) = vocabulary.iter().find(|(_, id)| **id as usize >= vocab_size) {
            return Err(refuse(format!(
                "token {token:?} has the number {id}, and the model has {vocab_size}"
            )));
        }
        let tokens = Self { id: TokenizerId::of(&[b"hugging face", json]), tokenizer: Arc::new(tokenizer) };
        let empty = tokens.ids("").map_err(|error| refuse(error.to_string()))?;
        if empty.len() != 2 {
            return Err(refuse(format!(
                "an empty text has {} special tokens, and 2 are expected",
                empty.len()
            )));
        }
        Ok(tokens)
    }

    /// Token numbers of a text, special tokens included.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<u32>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.tokenizer.encode_fast(text, true)?.get_ids().to_vec())
    }
}

impl TokenSpans for MiniLmTokens {
    fn id(&self) -> TokenizerId {
        self.id
    }

    fn spans(&self, text: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError> {
        let encoding = self.tokenizer.encode(text, false).map_err(TokenError::new)?;
        spans.extend(encoding.get_offsets().iter().map(|(start, end)| *start..*end));
        Ok(())
    }
}
