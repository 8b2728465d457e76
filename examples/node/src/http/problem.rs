//! Errors as RFC 9457 problems.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A problem: `type` is about:blank, so that `title` is the phrase of the status (RFC 9457 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) title: String,
    /// The cause and the remedy.
    pub(crate) detail: String,
    /// The member of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: u16, detail: impl Into<String>) -> Problem {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Problem { status, title: title.unwrap_or("Error").to_owned(), detail: detail.into(), field: None }
    }

    /// A 400 that names the wrong member of the request.
    pub(crate) fn field(field: &str, detail: impl Into<String>) -> Problem {
        Problem { field: Some(field.to_owned()), ..Problem::new(400, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and a number are always JSON.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [("content-type", "application/problem+json")], body).into_response()
    }
}
