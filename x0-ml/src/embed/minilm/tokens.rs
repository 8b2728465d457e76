//! tokenizer.json.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::template::{Piece, Sequence};

use super::LoadError;
use crate::chunk::{TokenError, TokenSpans, TokenizerId};

/// The tokens of a model, for a [`Chunker`](crate::chunk::Chunker). A copy shares the vocabulary.
#[derive(Debug, Clone)]
pub struct MiniLmTokens {
    id: TokenizerId,
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
}

/// The part of tokenizer.json that adds special tokens to a text.
#[derive(Deserialize)]
struct Template {
    single: Vec<Piece>,
    special_tokens: HashMap<String, SpecialToken>,
}

#[derive(Deserialize)]
struct SpecialToken {
    ids: Vec<u32>,
}

impl MiniLmTokens {
    /// Reads the file without its truncation and padding, and checks that its numbers are rows of the
    /// vocabulary.
    pub(super) fn read(json: &[u8], vocab_size: usize) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Tokenizer { reason };
        let used = used_parts(json).map_err(refuse)?;
        let tokenizer = Tokenizer::from_bytes(used).map_err(|error| refuse(error.to_string()))?;
        let vocabulary = tokenizer.get_vocab(true);
        if let Some((token, id)) = vocabulary.iter().find(|(_, id)| **id as usize >= vocab_size) {
            return Err(refuse(format!(
                "token {token:?} has the number {id}, and the model has {vocab_size}"
            )));
        }
        check_special_tokens(tokenizer.get_post_processor()).map_err(refuse)?;
        let id = TokenizerId::of(&[b"hugging face", json]);
        let tokens = Self { id, tokenizer: Arc::new(tokenizer), vocab_size };
        let empty = tokens.ids("").map_err(|error| refuse(error.to_string()))?;
        if empty.len() != 2 {
            return Err(refuse(format!(
                "an empty text has {} special tokens, and 2 are expected",
                empty.len()
            )));
        }
        Ok(tokens)
    }

    /// Token numbers of a text, special tokens included; each is a row of the vocabulary.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<u32>, Box<dyn std::error::Error + Send + Sync>> {
        let ids = self.tokenizer.encode_fast(text, true)?.get_ids().to_vec();
        // The post-processor has numbers of its own, which `get_vocab` does not list.
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(format!("a token has the number {id}, and the model has {}", self.vocab_size).into());
        }
        Ok(ids)
    }
}

/// The file without the parts that are not used, and only if `tokenizers` can read what is left: it panics at
/// JSON that ends too early, and at wrong values of some parts.
fn used_parts(json: &[u8]) -> Result<Vec<u8>, String> {
    let mut file: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let parts = file.as_object_mut().ok_or("it is not a JSON object")?;
    for unused in ["decoder", "padding", "truncation"] {
        parts.insert(unused.to_owned(), Value::Null);
    }
    if parts.get("model").and_then(|model| model.get("type")).is_none_or(|kind| kind != "WordPiece") {
        return Err("its model is not WordPiece".to_owned());
    }
    if parts.get("normalizer").is_some_and(is_precompiled) {
        return Err("a precompiled normalizer is not supported".to_owned());
    }
    serde_json::to_vec(&file).map_err(|error| error.to_string())
}

/// Whether a normalizer has a table in a format of its own.
fn is_precompiled(normalizer: &Value) -> bool {
    match normalizer {
        Value::Object(parts) => {
            parts.contains_key("precompiled_charsmap")
                || parts.values().any(|part| part == "Precompiled" || is_precompiled(part))
        }
        Value::Array(parts) => parts.iter().any(is_precompiled),
        _ => false,
    }
}

/// Accepts one special token before and one after the text.
///
/// `tokenizers` does not check a template that it reads: it panics at a special token that the template names
/// and does not define, and at a second text.
fn check_special_tokens(processor: Option<&PostProcessorWrapper>) -> Result<(), String> {
    let template = match processor {
        Some(PostProcessorWrapper::Bert(_)) => return Ok(()),
        Some(PostProcessorWrapper::Template(template)) => template,
        _ => return Err("`post_processor` is neither TemplateProcessing nor BertProcessing".to_owned()),
    };
    // The crate shows the parts of a template only when it is serialized.
    let template: Template = serde_json::to_value(template)
        .and_then(serde_json::from_value)
        .map_err(|error| format!("`post_processor` cannot be read: {error}"))?;
    let (first, last) = match template.single.as_slice() {
        [
            Piece::SpecialToken { id: first, .. },
            Piece::Sequence { id: Sequence::A, .. },
            Piece::SpecialToken { id: last, .. },
        ] => (first, last),
        _ => return Err("`single` of `post_processor` is not a special token, A, a special token".to_owned()),
    };
    for name in [first, last] {
        match template.special_tokens.get(name) {
            Some(token) if token.ids.len() == 1 => {}
            Some(token) => return Err(format!("special token {name:?} has {} ids, not 1", token.ids.len())),
            None => return Err(format!("`post_processor` names {name:?} and does not define it")),
        }
    }
    Ok(())
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
