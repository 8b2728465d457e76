//! config.json.

use serde::Deserialize;

use super::LoadError;

/// Sizes of the model, bounded before anything is allocated by them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    pub(super) hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) max_position_embeddings: usize,
    pub(super) type_vocab_size: usize,
    pub(super) layer_norm_eps: f64,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Config {
    pub(super) fn read(json: &[u8]) -> Result<Self, LoadError> {
        let config: Self =
            serde_json::from_slice(json).map_err(|error| LoadError::Config { reason: error.to_string() })?;
        config.check().map_err(|reason| LoadError::Config { reason: reason.to_owned() })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.model_type != "bert"
            || self.hidden_act != "gelu"
            || self.position_embedding_type != "absolute"
        {
            return Err("only BERT with GELU and absolute positions is supported");
        }
        let sizes = [
            (self.vocab_size, 1 << 20),
            (self.hidden_size, crate::index::DIMENSIONS_MAX),
            (self.intermediate_size, 1 << 16),
            (self.num_hidden_layers, 256),
            (self.num_attention_heads, 256),
            (self.max_position_embeddings, 1 << 16),
            (self.type_vocab_size, 1 << 10),
        ];
        if sizes.iter().any(|(size, most)| *size == 0 || size > most) {
            return Err("a size is zero or too large");
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err("`hidden_size` is not a multiple of `num_attention_heads`");
        }
        if self.max_position_embeddings < 3 {
            return Err("`max_position_embeddings` leaves no token for text");
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err("`layer_norm_eps` is not between 0 and 1");
        }
        Ok(())
    }
}
