//! `/api/v1/rag`.

use std::time::Instant;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use x0_ml::embed::EmbedError;
use x0_ml::retrieve::Document;

use super::Rag;
use super::collection::Collection;
use super::message::{DocumentRequest, Mode, QueryAnswer, QueryRequest, Refused, Status, Written, parse};
use super::model::Vector;
use crate::http::problem::Problem;
use crate::http::{body, json};

/// Longest body of a query.
const QUERY_LEN_MAX: usize = 64 << 10;
/// Longest body of a document that states no length, or one up to this.
const DOCUMENT_LEN: usize = 8 << 20;
/// Longest body of a document. `LARGE_MAX` of those above [`DOCUMENT_LEN`] are read at the same time.
const DOCUMENT_LEN_MAX: usize = 32 << 20;
pub(super) const LARGE_MAX: usize = 4;
const NAME_LEN_MAX: usize = 1024;

impl Rag {
    /// The routes.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/rag/query", post(query))
            .route("/api/v1/rag/status", get(status))
            .route("/api/v1/rag/collections/{collection}/documents/{*id}", put(write).delete(remove))
            .with_state(self.clone())
    }

    fn collection(&self, name: &str) -> Result<&Collection, Problem> {
        self.collections.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.collections.keys().map(String::as_str).collect();
            let detail = format!("this node has no collection `{name}`; it has: {}", names.join(", "));
            Problem { field: Some("collection".to_owned()), ..Problem::new(404, detail) }
        })
    }
}

async fn query(State(rag): State<Rag>, request: Request) -> Result<Response, Problem> {
    let request: QueryRequest = parse(&body(request, QUERY_LEN_MAX).await?)?;
    request.check()?;
    let collection = rag.collection(&request.collection)?.clone();
    let begun = Instant::now();
    let mut vector = Vector::default();
    if request.mode != Mode::Lexical {
        let (model, text) = (rag.model.clone(), request.query.clone());
        let embedded = blocking(move || model.vector(&text)).await?;
        vector = embedded.map_err(|error| match error {
            EmbedError::TooLong { tokens, tokens_max, .. } => {
                let detail = format!("`query` has {tokens} tokens; shorten it to {tokens_max}");
                Problem::field("query", detail)
            }
            error => Problem::new(500, format!("the query cannot be embedded: {error}")),
        })?;
    }
    let answer: QueryAnswer = collection.query(request, vector, begun.elapsed()).await?;
    Ok(json(&answer))
}

async fn status(State(rag): State<Rag>) -> Result<Response, Problem> {
    let mut collections = Vec::new();
    for collection in rag.collections.values() {
        collections.push(collection.status().await?);
    }
    Ok(json(&Status { model: rag.model.name().to_owned(), collections }))
}

type Names = Result<Path<(String, String)>, PathRejection>;

async fn write(State(rag): State<Rag>, names: Names, request: Request) -> Result<Response, Problem> {
    let (collection, name) = names_of(names)?;
    let collection = rag.collection(&collection)?.clone();
    let content_type = request.headers().get("content-type").map(|value| value.as_bytes().to_vec());
    let stated = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let is_large = stated.is_some_and(|len: usize| len > DOCUMENT_LEN);
    let _slot = match is_large {
        true => Some(rag.large.try_acquire().map_err(|_| {
            Problem::new(429, "too many large documents are being received: try again later")
        })?),
        false => None,
    };
    let body = body(request, if is_large { DOCUMENT_LEN_MAX } else { DOCUMENT_LEN }).await?;
    let content = match content_type {
        Some(content_type) if content_type.starts_with(b"application/json") => {
            let DocumentRequest { text, source, tags } = parse(&body)?;
            let mut document = Document::new(text);
            (document.source, document.tags) = (source, tags);
            document
        }
        _ => Document::new(String::from_utf8(body.into()).map_err(|_| {
            Problem::field("text", "the body is not UTF-8 text: convert it, or send JSON as application/json")
        })?),
    };
    let written = blocking(move || collection.write(&name, Some(content))).await??;
    Ok(json(&Written { revision: written.unwrap_or_default() }))
}

async fn remove(State(rag): State<Rag>, names: Names) -> Result<Response, Problem> {
    let (collection, name) = names_of(names)?;
    let collection = rag.collection(&collection)?.clone();
    let missing = Problem::new(404, format!("the collection holds no document `{name}`"));
    let removed = blocking(move || collection.write(&name, None)).await??;
    Ok(json(&Written { revision: removed.ok_or(missing)? }))
}

fn names_of(names: Names) -> Result<(String, String), Problem> {
    let Path((collection, name)) = names.map_err(|error| Problem::field("id", error.to_string()))?;
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        let detail = format!("the id has {} bytes; it holds 1 to {NAME_LEN_MAX}", name.len());
        return Err(Problem::field("id", detail));
    }
    Ok((collection, name))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Problem::field(&refused.field, refused.detail)
    }
}

/// Runs what may wait on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(500, "an internal error ended the request; the node's log has the reason"))
}
