//! The forward pass.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::LoadError;
use super::config::Config;
use super::ops::{BiasGelu, ResidualNorm, Softmax};
use super::weights::Weights;
use crate::simd::Path;

/// Weights in the order in which they are used.
pub(super) struct Model {
    path: Path,
    hidden: usize,
    heads: usize,
    words: Vec<f32>,
    positions: Vec<f32>,
    norm: ResidualNorm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value side by side: one product instead of three.
    qkv: Tensor,
    qkv_bias: Tensor,
    output: Tensor,
    attention_norm: ResidualNorm,
    up: Tensor,
    gelu: BiasGelu,
    down: Tensor,
    output_norm: ResidualNorm,
}

impl Model {
    pub(super) fn new(config: &Config, bytes: Vec<u8>) -> std::result::Result<Self, LoadError> {
        let mut weights = Weights::read(&bytes)?;
        drop(bytes);
        let path = Path::detect();
        let hidden = config.hidden_size;
        let words = weights.numbers("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let mut positions = weights
            .numbers("embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden])?;
        let types =
            weights.numbers("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        // Every token is of type 0, so its row can be added once and for all.
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(position, kind)| *position += kind);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a small number of which the first digits count")]
        let epsilon = config.layer_norm_eps as f32;
        let mut norm = |weights: &mut Weights, bias: Arc<[f32]>, name: &str| {
            Ok(ResidualNorm {
                path,
                bias,
                weight: weights.numbers(&format!("{name}.weight"), &[hidden])?.into(),
                shift: weights.numbers(&format!("{name}.bias"), &[hidden])?.into(),
                epsilon,
            })
        };
        let first = norm(&mut weights, vec![0.0; hidden].into(), "embeddings.LayerNorm")?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::new(config, &mut weights, &format!("encoder.layer.{layer}"), &mut norm))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { path, hidden, heads: config.num_attention_heads, words, positions, norm: first, layers })
    }

    /// The vectors of texts, one after the other.
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let tokens = texts.iter().map(|text| text.len()).sum::<usize>();
        let mut rows = Vec::with_capacity(tokens * self.hidden);
        for text in texts {
            for (position, token) in text.iter().enumerate() {
                let word = &self.words[*token as usize * self.hidden..][..self.hidden];
                let position = &self.positions[position * self.hidden..][..self.hidden];
                rows.extend(word.iter().zip(position).map(|(word, position)| word + position));
            }
        }
        let nothing = vec![0.0; rows.len()];
        let norm = (&*self.norm.weight, &*self.norm.shift);
        self.path.residual_norm(&mut rows, &nothing, &self.norm.bias, norm, self.norm.epsilon);
        let mut x = Tensor::from_vec(rows, (tokens, self.hidden), &Device::Cpu)?;
        for layer in &self.layers {
            x = self.layer(layer, &x, texts)?;
        }
        let rows = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(self.pool(&rows, texts))
    }

    fn layer(&self, layer: &Layer, x: &Tensor, texts: &[&[u32]]) -> Result<Tensor> {
        let qkv = x.matmul(&layer.qkv)?.broadcast_add(&layer.qkv_bias)?;
        let (mut start, mut attended) = (0, Vec::with_capacity(texts.len()));
        for text in texts {
            attended.push(self.attend(&qkv.narrow(0, start, text.len())?, text.len())?);
            start += text.len();
        }
        let attention = Tensor::cat(&attended, 0)?.matmul(&layer.output)?;
        attention.inplace_op2(x, &layer.attention_norm)?;
        let up = attention.matmul(&layer.up)?;
        up.inplace_op1(&layer.gelu)?;
        let down = up.matmul(&layer.down)?;
        down.inplace_op2(&attention, &layer.output_norm)?;
        Ok(down)
    }

    /// The attention of one text to itself, over all heads.
    fn attend(&self, qkv: &Tensor, len: usize) -> Result<Tensor> {
        let head = self.hidden / self.heads;
        let parts = qkv.reshape((len, 3, self.heads, head))?.permute((1, 2, 0, 3))?.contiguous()?;
        let (query, key, value) = (parts.get(0)?, parts.get(1)?, parts.get(2)?);
        let scores = query.matmul(&key.transpose(1, 2)?)?;
        scores.inplace_op1(&Softmax { path: self.path, len, scale: 1.0 / (head as f32).sqrt() })?;
        scores.matmul(&value)?.transpose(0, 1)?.contiguous()?.reshape((len, self.hidden))
    }

    /// The mean of each text's rows, with the length 1.
    fn pool(&self, rows: &[f32], texts: &[&[u32]]) -> Vec<f32> {
        let mut vectors = vec![0.0; texts.len() * self.hidden];
        let mut rows = rows.chunks_exact(self.hidden);
        for (vector, text) in vectors.chunks_exact_mut(self.hidden).zip(texts) {
            for row in rows.by_ref().take(text.len()) {
                vector.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            // The length of the mean and of the sum differ by a factor that the division takes out.
            let length = self.path.dot_f32(vector, vector).sqrt().max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vectors
    }
}

impl Layer {
    fn new(
        config: &Config,
        weights: &mut Weights,
        name: &str,
        norm: &mut impl FnMut(&mut Weights, Arc<[f32]>, &str) -> std::result::Result<ResidualNorm, LoadError>,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (mut qkv, mut qkv_bias) =
            (Vec::with_capacity(3 * hidden * hidden), Vec::with_capacity(3 * hidden));
        for part in ["query", "key", "value"] {
            qkv.extend(weights.numbers(&format!("{name}.attention.self.{part}.weight"), &[hidden, hidden])?);
            qkv_bias.extend(weights.numbers(&format!("{name}.attention.self.{part}.bias"), &[hidden])?);
        }
        let bias =
            |weights: &mut Weights, part: &str, len: usize| -> std::result::Result<Arc<[f32]>, LoadError> {
                Ok(weights.numbers(&format!("{name}.{part}.bias"), &[len])?.into())
            };
        let output = weights.numbers(&format!("{name}.attention.output.dense.weight"), &[hidden, hidden])?;
        let attention_bias = bias(weights, "attention.output.dense", hidden)?;
        let up = weights.numbers(&format!("{name}.intermediate.dense.weight"), &[inner, hidden])?;
        let up_bias = bias(weights, "intermediate.dense", inner)?;
        let down = weights.numbers(&format!("{name}.output.dense.weight"), &[hidden, inner])?;
        let down_bias = bias(weights, "output.dense", hidden)?;
        Ok(Self {
            qkv: transposed(qkv, 3 * hidden, hidden)?,
            qkv_bias: Tensor::from_vec(qkv_bias, 3 * hidden, &Device::Cpu).map_err(refuse)?,
            output: transposed(output, hidden, hidden)?,
            attention_norm: norm(weights, attention_bias, &format!("{name}.attention.output.LayerNorm"))?,
            up: transposed(up, inner, hidden)?,
            gelu: BiasGelu(Path::detect(), up_bias),
            down: transposed(down, hidden, inner)?,
            output_norm: norm(weights, down_bias, &format!("{name}.output.LayerNorm"))?,
        })
    }
}

/// The matrix by which rows are multiplied from the left.
fn transposed(numbers: Vec<f32>, rows: usize, columns: usize) -> std::result::Result<Tensor, LoadError> {
    Tensor::from_vec(numbers, (rows, columns), &Device::Cpu)
        .and_then(|tensor| tensor.t()?.contiguous())
        .map_err(refuse)
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn refuse(error: candle_core::Error) -> LoadError {
    LoadError::Weights { reason: error.to_string() }
}
