//! Requests of the command line to a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::problem::Problem;

const LIMIT: Duration = Duration::from_secs(60);
const BODY_LEN_MAX: usize = 16 << 20;

/// Sends a request and reads its JSON answer. A problem is an error with its detail.
pub(crate) async fn ask<T: DeserializeOwned>(
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Result<T> {
    match try_ask(address, method, path, content_type, body.into()).await? {
        Ok(answer) => Ok(answer),
        Err(problem) => bail!("{} ({}): {}", problem.title, problem.status, problem.detail),
    }
}

/// As [`ask`], with problems as values.
pub(crate) async fn try_ask<T: DeserializeOwned>(
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> Result<Result<T, Problem>> {
    let (status, body) = tokio::time::timeout(LIMIT, exchange(address, method, path, content_type, body))
        .await
        .with_context(|| format!("the node at {address} did not answer within {LIMIT:?}"))??;
    if status.is_success() {
        return Ok(Ok(serde_json::from_slice(&body).context("the answer of the node is not understood")?));
    }
    let problem = serde_json::from_slice(&body);
    Ok(Err(problem.unwrap_or_else(|_| Problem::new(status.as_u16(), String::from_utf8_lossy(&body)))))
}

/// Reads a path as text; over TLS, if there is a configuration.
pub(crate) async fn text(
    address: SocketAddr,
    path: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<String> {
    let asked = async {
        let stream = connect(address).await?;
        let Some(tls) = tls else {
            return exchange_over(stream, address, "GET", path, "text/plain", Bytes::new()).await;
        };
        // The SPIFFE ID is checked, and no host name.
        let name = ServerName::try_from("x0-node").context("the name of the server is not valid")?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        let stream =
            stream.with_context(|| format!("no TLS with {address}: use `tls = \"mutual\"` there"))?;
        exchange_over(stream, address, "GET", path, "text/plain", Bytes::new()).await
    };
    let (status, body) = tokio::time::timeout(LIMIT, asked)
        .await
        .with_context(|| format!("the node at {address} did not answer within {LIMIT:?}"))??;
    if !status.is_success() {
        bail!("the node at {address} answers {path} with {status}: give the listener the route");
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(address).await.with_context(|| {
        format!("cannot reach a node at http://{address}: start one with an [[http]] listener there, or name another --address")
    })
}

async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> Result<(hyper::StatusCode, Bytes)> {
    exchange_over(connect(address).await?, address, method, path, content_type, body).await
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> Result<(hyper::StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("the node does not speak HTTP")?;
    // The task ends with the sender.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("content-type", content_type)
        .body(Full::new(body))
        .context("the request cannot be made")?;
    let response = sender.send_request(request).await.context("the node closed the connection")?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer of the node cannot be read: {error}"))?;
    Ok((status, body.to_bytes()))
}

/// A part of a path, percent-encoded but for unreserved characters and `/` (RFC 3986 §2.3).
pub(crate) fn encode(part: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a/b c?ä"), "a/b%20c%3F%C3%A4");
    }
}
