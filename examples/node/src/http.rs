//! The HTTP front of a node: `[[http]]` listeners, each with its routes and a TLS mode.
//!
//! The front runs on a thread and a runtime of its own, so that no request delays the node's event loop.
//! Headers, bodies, connections, requests and their time are bounded. A probe always finds a connection and a
//! slot, and waits at most for the answers that are being made: those to 64 requests. HTTP/1.1 only.

pub(crate) mod client;
pub(crate) mod config;
mod connections;
mod late;
pub(crate) mod problem;
mod tls;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tracing::Instrument as _;
use tracing::field::Empty;
use x0_identity::Identity;
use x0_kv::trace::Context as TraceContext;

use self::config::{HttpConfig, Route};
use self::connections::{Connections, Slot};
pub(crate) use self::late::Late;
use self::problem::Problem;
use crate::log::Log;
use crate::observe::{telemetry, trace};

/// Most connections of one listener. A further one ends the one that has been silent for longest.
const CONNECTIONS_MAX: usize = 256;
/// Most requests of one listener that are carried out at a time; further ones get the answer 429. Probes do
/// not count.
const REQUESTS_MAX: usize = 64;
const HEADERS_MAX: usize = 64;
const HEAD_LEN_MAX: usize = 16 << 10;
/// The time for a TLS handshake, and for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });
/// The time for a whole request.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The time in which a client must take some of its answer.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The running listeners. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Http {
    _stop: oneshot::Sender<()>,
}

/// Binds all listeners and serves them. `router` makes the routes of one kind. A listener with the mode
/// `mutual` needs the identity.
pub(crate) fn start(
    listeners: &[HttpConfig],
    identity: Option<&Identity>,
    log: &Log,
    router: impl Fn(Route) -> Router,
) -> Result<Http> {
    let mut bound = Vec::new();
    for listener in listeners {
        let socket = TcpListener::bind(listener.address).with_context(|| {
            format!("cannot listen on {} for HTTP: choose another `address` in [[http]]", listener.address)
        })?;
        socket.set_nonblocking(true).context("cannot configure the socket of the HTTP listener")?;
        let routes = listener.routes.iter().fold(Router::new(), |routes, route| routes.merge(router(*route)));
        bound.push((socket, tls::acceptor(listener, identity)?, bounded(routes)));
        log.event("http-listening", format!("address={} tls={}", listener.address, listener.tls.name()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the HTTP front")?;
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        runtime.block_on(async {
            for (socket, tls, routes) in bound {
                tokio::spawn(accept(socket, tls, routes));
            }
            // An error is the drop of the sender.
            let _ = stopped.await;
        });
        // Blocking tasks end by themselves.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("http".into()).spawn(serve).context("cannot start the HTTP thread")?;
    Ok(Http { _stop: stop })
}

/// The routes with the limits of requests.
pub(crate) fn bounded(routes: Router) -> Router {
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    let limit = move |request: Request, next: Next| {
        let slots = Arc::clone(&slots);
        async move {
            // A probe that is refused beside slow requests would have a healthy node restarted.
            let is_probe = telemetry::is_probe(telemetry::endpoint(request.uri().path()));
            let slot = if is_probe { None } else { slots.try_acquire().ok() };
            if slot.is_none() && !is_probe {
                return Problem::new(429, "too many requests are being carried out: try again later")
                    .into_response();
            }
            match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => {
                    Problem::new(503, "the request took too long: try again, or ask for less").into_response()
                }
            }
        }
    };
    with_problems(routes).layer(from_fn(limit)).layer(from_fn(traced)).layer(from_fn(count))
}

/// The routes, with problems for what is not there.
fn with_problems(routes: Router) -> Router {
    routes
        .fallback(|| async {
            Problem::new(404, "there is no such resource: compare the path with the documentation")
        })
        .method_not_allowed_fallback(|| async { Problem::new(405, "the resource does not have this method") })
}

/// Counts and times requests, those that the limits refuse included.
async fn count(request: Request, next: Next) -> Response {
    let (endpoint, begun) = (telemetry::endpoint(request.uri().path()), Instant::now());
    let response = next.run(request).await;
    telemetry::request(endpoint, response.status().as_u16(), begun.elapsed());
    response
}

/// Continues the trace of a request that has one (W3C Trace Context, section 3.2). Other requests are not
/// traced.
async fn traced(request: Request, next: Next) -> Response {
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(parent) = parent.filter(TraceContext::is_sampled) else { return next.run(request).await };
    let endpoint = telemetry::endpoint(request.uri().path());
    let span = tracing::info_span!(parent: None, "http.request", endpoint, status = Empty);
    span.in_scope(|| trace::adopt(&parent));
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    response
}

async fn accept(socket: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, routes: Router) {
    // Fails only outside of a runtime.
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else { return };
    let connections = Connections::new(CONNECTIONS_MAX);
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Usually no file descriptor is left. Connections end by their limits, which frees some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, routes, slot) = (tls.clone(), routes.clone(), connections.take());
        let number = slot.number();
        let task = tokio::spawn(async move {
            match tls {
                None => serve(stream, routes, &slot).await,
                Some(tls) => {
                    // A client that is refused learns it from the handshake.
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_LIMIT, tls.accept(stream)).await {
                        serve(stream, routes, &slot).await;
                    }
                }
            }
        });
        connections.serves(number, task.abort_handle());
    }
}

/// Serves one connection to its end. Its errors concern its client alone.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router, slot: &Slot) {
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    server.max_headers(HEADERS_MAX).max_buf_size(HEAD_LEN_MAX);
    let routes = TowerToHyperService::new(routes);
    let carry_out = hyper::service::service_fn(|request| {
        let (busy, answer) = (slot.busy(), routes.call(request));
        async move {
            let answer = answer.await;
            drop(busy);
            answer
        }
    });
    tokio::select! {
        _ = server.serve_connection(TokioIo::new(slot.watch(stream)), carry_out) => {}
        // A client that does not read would keep its answer in memory for ever.
        () = slot.stalled(STALL_LIMIT) => {}
    }
}

/// The body of a request, of at most `len_max` bytes.
pub(crate) async fn body(request: Request, len_max: usize) -> Result<axum::body::Bytes, Problem> {
    axum::body::to_bytes(request.into_body(), len_max).await.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return Problem::new(
                    413,
                    format!("the body is longer than the {len_max} bytes that are allowed"),
                );
            }
            cause = error.source();
        }
        Problem::new(400, "the body of the request ended before its announced length")
    })
}

/// A response with a JSON body.
pub(crate) fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([("content-type", "application/json")], body).into_response(),
        Err(_) => Problem::new(500, "the answer cannot be written as JSON").into_response(),
    }
}
