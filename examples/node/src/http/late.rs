//! Routes whose service starts after the listener.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::problem::Problem;

/// The routes of a service, which answer 503 until they are set. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Late(Arc<OnceLock<Router>>);

impl Late {
    /// The routes answer from now on. A second call has no effect.
    pub(crate) fn set(&self, routes: Router) {
        let _ = self.0.set(super::with_problems(routes));
    }

    /// Passes the requests below `path` on.
    pub(crate) fn router(&self, path: &str) -> Router {
        let late = self.clone();
        Router::new()
            .route(&format!("{path}/{{*rest}}"), axum::routing::any(move |request| late.answer(request)))
    }

    async fn answer(self, mut request: Request) -> Response {
        let Some(routes) = self.0.get() else {
            return Problem::new(503, "the node is starting: try again when /readyz answers 200")
                .into_response();
        };
        // The rest of the path is a parameter of the outer route, and would be one of the inner routes.
        request.extensions_mut().clear();
        let Ok(response) = TowerToHyperService::new(routes.clone()).call(request).await;
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Path;
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn requests_wait_for_the_service_with_503() {
        let late = Late::default();
        let front = late.router("/api");
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            TowerToHyperService::new(front.clone()).call(request).await.unwrap().status().as_u16()
        };
        assert_eq!((ask("/api/b/a").await, ask("/other").await), (503, 404));
        late.set(Router::new().route("/api/{name}/a", get(async |Path(name): Path<String>| name)));
        assert_eq!((ask("/api/b/a").await, ask("/api/b").await), (200, 404));
    }
}
