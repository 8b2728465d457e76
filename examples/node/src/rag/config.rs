//! The section `[rag]` of node.toml.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use x0_ml::knowledge::ExactVectors;
use x0_ml::knowledge::kv::CollectionKind;

/// Retrieval on this node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RagConfig {
    /// `words`, or the folder of a model in the Hugging Face layout. The same on all nodes.
    #[serde(default = "words")]
    pub(crate) model: PathBuf,
    /// Threads of the model.
    #[serde(default = "one")]
    pub(crate) threads: usize,
    /// Longest text that the store itself keeps, in KiB. Longer ones are blobs: the node that is asked to
    /// write one keeps it, and the others fetch it.
    #[serde(default = "pieces_kib")]
    pub(crate) pieces_kib: usize,
    /// Where each collection keeps the exact vectors of its chunks.
    #[serde(default)]
    pub(crate) vectors: VectorPlace,
    /// The collections of this node.
    pub(crate) collections: Vec<CollectionConfig>,
}

/// A collection. It is created at the first start of a node that names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionConfig {
    pub(crate) name: String,
    /// The store that it is kept in, which cannot be changed later.
    #[serde(default)]
    pub(crate) store: StoreKind,
}

/// The place of exact vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VectorPlace {
    /// In the memory of the index.
    #[default]
    Memory,
    /// In the file of the embedding cache, from which each query reads the best candidates.
    File,
}

impl VectorPlace {
    pub(crate) fn exact(self) -> ExactVectors {
        match self {
            VectorPlace::Memory => ExactVectors::Memory,
            VectorPlace::File => ExactVectors::Cache,
        }
    }
}

/// The store of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// A write needs a majority of the nodes.
    #[default]
    Linearizable,
    /// Every node can always write; needs `crdt_key`.
    Crdt,
}

impl StoreKind {
    pub(crate) fn kind(self) -> CollectionKind {
        match self {
            StoreKind::Linearizable => CollectionKind::Linearizable,
            StoreKind::Crdt => CollectionKind::Crdt,
        }
    }
}

/// 1 GiB in KiB, above any text that a collection takes.
const PIECES_KIB_MAX: usize = 1 << 20;

/// The value of `model` for words without meaning.
pub(crate) const WORDS: &str = "words";

fn words() -> PathBuf {
    WORDS.into()
}

fn one() -> usize {
    1
}

fn pieces_kib() -> usize {
    8 << 10
}

impl RagConfig {
    /// Makes the path of the model relative to `folder`, and returns the first rule that the section breaks.
    pub(crate) fn check(&mut self, folder: &Path, has_crdt: bool) -> Result<(), String> {
        if self.model != Path::new(WORDS) {
            self.model = folder.join(&self.model);
            if !self.model.join("model.safetensors").is_file() {
                return Err(format!(
                    "`model` of [rag] names {}, which holds no model.safetensors; `x0-node rag model` fetches one, and \"{WORDS}\" needs \
                     none",
                    self.model.display()
                ));
            }
        }
        if self.pieces_kib > PIECES_KIB_MAX {
            return Err(format!("`pieces_kib` of [rag] is {}, more than {PIECES_KIB_MAX}", self.pieces_kib));
        }
        if self.collections.is_empty() {
            return Err("[rag] has no `collections`; name one, such as {name = \"manuals\"}".to_owned());
        }
        for (place, CollectionConfig { name, store }) in self.collections.iter().enumerate() {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed) {
                return Err(format!(
                    "the collection name `{name}` is not valid: it holds 1 to 64 ASCII letters, digits, `-` or `_`"
                ));
            }
            if self.collections[..place].iter().any(|other| other.name == *name) {
                return Err(format!(
                    "the collection {name} is listed twice in [rag]; give each a name of its own"
                ));
            }
            if *store == StoreKind::Crdt && !has_crdt {
                return Err(format!("the collection {name} has `store = \"crdt\"`; set `crdt_key`"));
            }
        }
        Ok(())
    }
}
