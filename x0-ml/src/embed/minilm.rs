//! all-MiniLM-L6-v2 and other BERT encoders of its kind, on candle (feature `minilm`).
//!
//! Texts of a call are packed without padding: the linear layers run over all their tokens at once, and each
//! text attends to itself. Packs are cut at a number of tokens.

mod config;
mod forward;
mod ops;
mod tokens;
mod weights;

use std::path::Path as FilePath;

use self::config::Config;
use self::forward::Model;
pub use self::tokens::MiniLmTokens;
use super::embedder::{EmbedError, Embedded, Embedder, ModelId, Overflow};

/// Settings of a [`MiniLm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MiniLmOptions {
    /// Treatment of texts that are too long; an error by default.
    pub overflow: Overflow,
    /// Threads of the matrix products; 1 by default. They belong to the model and end with it.
    pub threads: usize,
    /// Tokens of one pack; 4,096 by default. More take more memory.
    pub pack_tokens: usize,
    /// Longest file that is read, in bytes; 1 GiB by default.
    pub file_len_max: u64,
}

impl Default for MiniLmOptions {
    fn default() -> Self {
        Self { overflow: Overflow::Refuse, threads: 1, pack_tokens: 4096, file_len_max: 1 << 30 }
    }
}

impl MiniLmOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the treatment of texts that are too long.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the threads (at least 1).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets the tokens of one pack (at least 1; a longer text is a pack of its own).
    #[must_use]
    pub fn pack_tokens(mut self, tokens: usize) -> Self {
        self.pack_tokens = tokens.max(1);
        self
    }
}

/// A model was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {name} of the model; give a folder in the Hugging Face layout")]
    Io {
        /// The file.
        name: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is longer than the options allow.
    #[error("{name} has {len} bytes, more than the {len_max} that `file_len_max` allows")]
    TooLong {
        /// The file.
        name: &'static str,
        /// The length of the file.
        len: u64,
        /// The limit.
        len_max: u64,
    },
    /// The configuration is not one that this forward pass computes.
    #[error("config.json does not describe a model that can run: {reason}")]
    Config {
        /// The reason.
        reason: String,
    },
    /// The tokenizer cannot be read, or does not fit the model.
    #[error("tokenizer.json does not fit the model: {reason}")]
    Tokenizer {
        /// The reason.
        reason: String,
    },
    /// A tensor is missing, or has another type or shape than the configuration says.
    #[error("model.safetensors does not fit config.json: {reason}")]
    Weights {
        /// The reason.
        reason: String,
    },
    /// The threads cannot be started.
    #[error("the threads of the model cannot be started")]
    Threads(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A BERT encoder with mean pooling and vectors of length 1, such as all-MiniLM-L6-v2.
///
/// Configuration, tokenizer and weights are checked against each other before the model runs. Truncation and
/// padding that tokenizer.json asks for are not applied: tokens are counted, and texts of more than
/// [`tokens_max`](Embedder::tokens_max) are treated as [`MiniLmOptions::overflow`] says.
pub struct MiniLm {
    id: ModelId,
    config: Config,
    tokens: MiniLmTokens,
    model: Model,
    pool: rayon::ThreadPool,
    options: MiniLmOptions,
}

impl MiniLm {
    /// Loads `config.json`, `tokenizer.json` and `model.safetensors` from a folder.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_folder(path: impl AsRef<FilePath>, options: MiniLmOptions) -> Result<Self, LoadError> {
        let read = |name: &'static str| {
            let io = |source| LoadError::Io { name, source };
            let path = path.as_ref().join(name);
            let len = std::fs::metadata(&path).map_err(io)?.len();
            if len > options.file_len_max {
                return Err(LoadError::TooLong { name, len, len_max: options.file_len_max });
            }
            std::fs::read(&path).map_err(io)
        };
        Self::from_bytes(&read("config.json")?, &read("tokenizer.json")?, read("model.safetensors")?, options)
    }

    /// Loads a model from the bytes of its three files.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_bytes(
        config: &[u8],
        tokenizer: &[u8],
        weights: Vec<u8>,
        options: MiniLmOptions,
    ) -> Result<Self, LoadError> {
        let id = ModelId::of(&[b"bert, mean pooling, length 1", config, tokenizer, &weights]);
        let config = Config::read(config)?;
        let tokens = MiniLmTokens::read(tokenizer, config.vocab_size)?;
        let model = Model::new(&config, weights)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.max(1))
            .thread_name(|n| format!("minilm-{n}"))
            .build()
            .map_err(|error| LoadError::Threads(error.into()))?;
        Ok(Self { id, config, tokens, model, pool, options })
    }

    /// The model's tokens, for a [`Chunker`](crate::chunk::Chunker).
    #[must_use]
    pub fn tokens(&self) -> MiniLmTokens {
        self.tokens.clone()
    }

    /// The token numbers of each text, special tokens included.
    fn encode(&self, texts: &[&str]) -> Result<(Vec<Vec<u32>>, Embedded), EmbedError> {
        let tokens_max = self.config.max_position_embeddings;
        let mut embedded = Embedded::default();
        let mut all = Vec::with_capacity(texts.len());
        for (text, content) in texts.iter().enumerate() {
            let mut ids = self.tokens.ids(content).map_err(EmbedError::Model)?;
            if ids.len() > tokens_max {
                if self.options.overflow == Overflow::Refuse {
                    return Err(EmbedError::TooLong { text, tokens: ids.len(), tokens_max });
                }
                // The last special token stays the last.
                let last = ids.last().copied();
                ids.truncate(tokens_max - 1);
                ids.extend(last);
                embedded.truncated += 1;
            }
            embedded.tokens += ids.len();
            all.push(ids);
        }
        Ok((all, embedded))
    }
}

impl Embedder for MiniLm {
    fn model(&self) -> &ModelId {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.config.hidden_size
    }

    fn tokens_max(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        let dimensions = self.config.hidden_size;
        let expected = texts.len() * dimensions;
        if vectors.len() != expected {
            return Err(EmbedError::Room { expected, found: vectors.len() });
        }
        let (ids, embedded) = self.encode(texts)?;
        // Texts of like length share a pack, so that the products of the attention are of like size.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|text| ids[*text].len());
        let mut first = 0;
        while first < order.len() {
            let (mut last, mut tokens) = (first, 0);
            while last < order.len()
                && (last == first || tokens + ids[order[last]].len() <= self.options.pack_tokens)
            {
                tokens += ids[order[last]].len();
                last += 1;
            }
            let pack: Vec<&[u32]> = order[first..last].iter().map(|text| ids[*text].as_slice()).collect();
            let rows = self
                .pool
                .install(|| self.model.embed(&pack))
                .map_err(|error| EmbedError::Model(error.into()))?;
            for (text, row) in order[first..last].iter().zip(rows.chunks_exact(dimensions)) {
                vectors[text * dimensions..][..dimensions].copy_from_slice(row);
            }
            first = last;
        }
        Ok(embedded)
    }
}

impl std::fmt::Debug for MiniLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MiniLm").field("id", &self.id.to_string()).field("options", &self.options).finish()
    }
}
