//! Requests and answers of `/api/v1/rag`, as JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest text of a query.
const TEXT_LEN_MAX: usize = 8 << 10;
/// Most passages of an answer.
const K_MAX: usize = 100;

/// A body that is refused: the field, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) field: String,
    pub(crate) detail: String,
}

impl Refused {
    fn new(field: &str, detail: impl Into<String>) -> Refused {
        Refused { field: field.to_owned(), detail: detail.into() }
    }
}

/// Reads a body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        // serde names the field between backticks.
        let field = text.split('`').nth(1).unwrap_or("body").to_owned();
        Refused::new(&field, format!("the body is not the expected JSON: {text}; correct it"))
    })
}

/// The body of `POST /api/v1/rag/query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRequest {
    pub(crate) collection: String,
    pub(crate) query: String,
    #[serde(default = "ten")]
    pub(crate) k: usize,
    #[serde(default)]
    pub(crate) filter: Filter,
    #[serde(default)]
    pub(crate) mode: Mode,
    /// The index must hold every change up to this revision.
    #[serde(default)]
    pub(crate) min_revision: u64,
    /// Whether the answer has timings and the state of the index.
    #[serde(default)]
    pub(crate) explain: bool,
}

impl QueryRequest {
    /// Returns the first rule that the request breaks.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.query.trim().is_empty() {
            return Err(Refused::new("query", "`query` is empty: write what to search for"));
        }
        if self.query.len() > TEXT_LEN_MAX {
            let len = self.query.len();
            let detail = format!("`query` has {len} bytes; shorten it to {TEXT_LEN_MAX}");
            return Err(Refused::new("query", detail));
        }
        if !(1..=K_MAX).contains(&self.k) {
            return Err(Refused::new("k", format!("`k` is {}; ask for 1 to {K_MAX} passages", self.k)));
        }
        if let (Some(min), Some(max)) = (self.filter.revision_min, self.filter.revision_max)
            && min > max
        {
            return Err(Refused::new("filter", "`revision_min` is above `revision_max`: exchange them"));
        }
        Ok(())
    }
}

fn ten() -> usize {
    10
}

/// Conditions on documents; all that are present must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Filter {
    pub(crate) source: Option<String>,
    pub(crate) tag: Option<String>,
    /// The lowest revision of a document.
    pub(crate) revision_min: Option<u64>,
    /// The highest revision of a document.
    pub(crate) revision_max: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Hybrid,
    Dense,
    Lexical,
}

impl Mode {
    pub(crate) fn mode(self) -> x0_ml::retrieve::Mode {
        match self {
            Mode::Hybrid => x0_ml::retrieve::Mode::Hybrid,
            Mode::Dense => x0_ml::retrieve::Mode::Dense,
            Mode::Lexical => x0_ml::retrieve::Mode::Lexical,
        }
    }
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueryAnswer {
    /// Every change up to this revision was in the index.
    pub(crate) applied: u64,
    /// The best first.
    pub(crate) hits: Vec<Hit>,
    /// The query has more tokens than the model takes: the search by meaning did not see those at its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explain>,
}

/// A passage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) document: String,
    pub(crate) revision: u64,
    /// The passage's bytes in the text of the document.
    pub(crate) span: [usize; 2],
    pub(crate) score: f32,
    /// Rank by meaning, from 1.
    pub(crate) rank_dense: Option<usize>,
    /// Rank by words, from 1.
    pub(crate) rank_lexical: Option<usize>,
    /// The text of the passage; absent if the document changed since it was indexed, or if the documents of
    /// the hits before it are too long to read them all.
    pub(crate) text: Option<String>,
    /// Other documents with nearly the same passage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) alike: Vec<String>,
}

/// Where the time of a query went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explain {
    pub(crate) embed_us: u64,
    /// The wait for queries before this one, and for `min_revision`.
    pub(crate) wait_us: u64,
    pub(crate) search_us: u64,
    /// The reading of the passages from the store.
    pub(crate) read_us: u64,
    pub(crate) documents: usize,
    pub(crate) chunks: usize,
    /// Changed documents that are not indexed yet.
    pub(crate) pending: usize,
}

/// The JSON body of `PUT …/documents/{id}`. A body of another type is the text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentRequest {
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) tags: std::collections::BTreeSet<String>,
}

/// The answer to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Use it as `min_revision` to ask an index that holds the write.
    pub(crate) revision: u64,
}

/// The answer to `GET /api/v1/rag/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) model: String,
    pub(crate) collections: Vec<CollectionStatus>,
}

/// The state of a collection on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct CollectionStatus {
    pub(crate) name: String,
    /// `linearizable` or `crdt`.
    pub(crate) store: String,
    /// Why the collection cannot be used; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unavailable: Option<String>,
    pub(crate) documents: usize,
    pub(crate) chunks: usize,
    pub(crate) applied: u64,
    pub(crate) pending: usize,
    pub(crate) chunks_embedded: u64,
    pub(crate) cached: usize,
    /// Documents that the index leaves out, because they are not complete on this node or failed too often.
    pub(crate) documents_left_out: u64,
    /// Why the index was built again at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rebuild: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

    use super::{DocumentRequest, QueryRequest};

    /// Bodies damaged in any byte, cut, and mixed: an error or a request, never a panic.
    #[test]
    fn damaged_bodies_are_errors_or_requests() {
        let query = r#"{"collection":"manuals","query":"\u00e4 link","k":7,"filter":{"source":"a","revision_min":3},
            "mode":"dense","min_revision":18446744073709551615,"explain":true}"#;
        let document = r#"{"text":"a\n\ud83d\ude00","source":"b","tags":["c","d"]}"#;
        serde_json::from_str::<QueryRequest>(query).unwrap();
        serde_json::from_str::<DocumentRequest>(document).unwrap();
        let read = |bytes: &[u8]| {
            let _ = serde_json::from_slice::<QueryRequest>(bytes);
            let _ = serde_json::from_slice::<DocumentRequest>(bytes);
        };
        for body in [query, document] {
            for at in 0..body.len() {
                read(&body.as_bytes()[..at]);
                for byte in 0..=u8::MAX {
                    let mut damaged = body.as_bytes().to_vec();
                    damaged[at] = byte;
                    read(&damaged);
                }
            }
        }
        // Deep nesting is refused by its depth, not by the end of the stack.
        read("[".repeat(60_000).as_bytes());
        read(format!("{{\"filter\":{}", "{\"source\":".repeat(5_000)).as_bytes());
    }
}
