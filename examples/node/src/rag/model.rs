//! The embedding model of a node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use x0_ml::chunk::{ChunkOptions, TokenError, TokenSpans, TokenizerId, WordTokens};
use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId};

use super::config::WORDS;

/// Components of the vectors of words.
const WORD_DIMENSIONS: usize = 256;

/// A model. Copies share its weights.
#[derive(Clone)]
pub(crate) struct Model {
    name: String,
    embedder: Arc<dyn Embedder>,
    tokens: Tokens,
}

/// The vector of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Vector {
    /// Empty if the text was not embedded.
    pub(crate) components: Vec<f32>,
    /// The text has more tokens than the model takes, and those at its end were left out.
    pub(crate) is_truncated: bool,
}

impl Model {
    /// `words`, or the model in a folder.
    pub(crate) fn load(model: &Path, threads: usize) -> Result<Model> {
        if model == Path::new(WORDS) {
            let embedder = Arc::new(HashedWords::new(WORD_DIMENSIONS));
            return Ok(Model { name: WORDS.to_owned(), embedder, tokens: Tokens(Arc::new(WordTokens)) });
        }
        load_folder(model, threads)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    pub(crate) fn chunk_options(&self) -> ChunkOptions {
        ChunkOptions::new()
    }

    /// The vector of a query.
    pub(crate) fn vector(&self, text: &str) -> Result<Vector, EmbedError> {
        let mut components = vec![0.0; self.embedder.dimensions()];
        let embedded = self.embedder.embed(&[text], &mut components)?;
        Ok(Vector { components, is_truncated: embedded.truncated > 0 })
    }
}

#[cfg(feature = "minilm")]
fn load_folder(folder: &Path, threads: usize) -> Result<Model> {
    use anyhow::Context;
    use x0_ml::embed::{MiniLm, MiniLmOptions, Overflow};

    let options = MiniLmOptions::new().threads(threads).overflow(Overflow::Truncate);
    let model = MiniLm::from_folder(folder, options)
        .with_context(|| format!("cannot load the model in {}", folder.display()))?;
    let tokens = Tokens(Arc::new(model.tokens()));
    Ok(Model { name: folder.display().to_string(), embedder: Arc::new(model), tokens })
}

#[cfg(not(feature = "minilm"))]
fn load_folder(folder: &Path, _threads: usize) -> Result<Model> {
    anyhow::bail!(
        "this x0-node was built without the feature `minilm` and cannot load {}: build it with --features minilm, or set \
         `model = \"{WORDS}\"` in [rag]",
        folder.display()
    )
}

impl Embedder for Model {
    fn model(&self) -> &ModelId {
        self.embedder.model()
    }

    fn dimensions(&self) -> usize {
        self.embedder.dimensions()
    }

    fn tokens_max(&self) -> usize {
        self.embedder.tokens_max()
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        self.embedder.embed(texts, vectors)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The tokens of a model.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<dyn TokenSpans + Send + Sync>);

impl TokenSpans for Tokens {
    fn id(&self) -> TokenizerId {
        self.0.id()
    }

    fn spans(&self, text: &str, spans: &mut Vec<std::ops::Range<usize>>) -> Result<(), TokenError> {
        self.0.spans(text, spans)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::sync::Arc;

    use x0_ml::chunk::WordTokens;
    use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId, Overflow};

    use super::{Model, Tokens};

    /// Never returns from a text with the word `wait`.
    struct Blocking(HashedWords);

    impl Embedder for Blocking {
        fn model(&self) -> &ModelId {
            self.0.model()
        }
        fn dimensions(&self) -> usize {
            self.0.dimensions()
        }
        fn tokens_max(&self) -> usize {
            self.0.tokens_max()
        }
        fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
            while texts.iter().any(|text| text.contains("wait")) {
                std::thread::park();
            }
            self.0.embed(texts, vectors)
        }
    }

    impl Model {
        /// A model that takes so many words and leaves out those that follow.
        pub(crate) fn of_words(tokens_max: usize) -> Model {
            let embedder = HashedWords::new(64).with_tokens_max(tokens_max).with_overflow(Overflow::Truncate);
            let tokens = Tokens(Arc::new(WordTokens));
            Model { name: "few words".to_owned(), embedder: Arc::new(embedder), tokens }
        }

        /// A model that blocks its thread at some texts.
        pub(crate) fn that_blocks() -> Model {
            let (embedder, tokens) = (Blocking(HashedWords::new(64)), Tokens(Arc::new(WordTokens)));
            Model { name: "blocking".to_owned(), embedder: Arc::new(embedder), tokens }
        }
    }

    #[test]
    fn a_truncated_text_is_reported() {
        let model = Model::of_words(3);
        let (whole, cut) =
            (model.vector("one two three").unwrap(), model.vector("one two three four").unwrap());
        assert_eq!((whole.is_truncated, cut.is_truncated), (false, true));
        assert_eq!(whole.components, cut.components);
    }
}
