//! etcd's v3 API: gRPC straight on HTTP/2.
//!
//! A gRPC call is one HTTP/2 stream: a request with a five-byte prefix before the message, a response with
//! the same and the status in the trailers (gRPC over HTTP2, "Requests" and "Responses").

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri, Version, header};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::etcd_messages::{PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse};
use super::serve::{Client, System};
use crate::peer::etcd::TlsFiles;

/// Larger than every response here.
const MESSAGE_LEN_MAX: usize = 1 << 20;

pub(crate) struct Etcd {
    endpoints: Vec<u16>,
    tls: Option<TlsConnector>,
    leader: Option<u16>,
    connections: Vec<Connection>,
}

impl Etcd {
    pub(crate) fn new(endpoints: Vec<u16>, tls: Option<&TlsFiles>) -> Result<Self> {
        let tls = tls.map(connector).transpose()?;
        Ok(Self { endpoints, tls, leader: None, connections: Vec::new() })
    }

    /// The port of the leader, as both it and the queried member report.
    async fn find_leader(&self) -> Result<(u16, String)> {
        let mut statuses = Vec::new();
        for port in &self.endpoints {
            let connection = Connection::open(*port, self.tls.as_ref()).await?;
            statuses.push((*port, connection.status().await?));
        }
        let leads = |status: &StatusResponse| {
            status.header.as_ref().is_some_and(|own| own.member_id == status.leader)
        };
        let (port, status) = statuses.iter().find(|(_, status)| leads(status)).context("no member leads")?;
        if statuses.iter().any(|(_, other)| other.leader != status.leader) {
            bail!("the members do not agree on a leader");
        }
        Ok((*port, status.version.clone()))
    }
}

impl System for Etcd {
    type Client = Connection;

    async fn ready(&mut self) -> Result<String> {
        Ok(self.find_leader().await?.1)
    }

    async fn connections(&mut self, count: usize) -> Result<&[Connection]> {
        let (leader, _) = self.find_leader().await?;
        if self.leader != Some(leader) {
            self.connections.clear();
            self.leader = Some(leader);
        }
        while self.connections.len() < count {
            self.connections.push(Connection::open(leader, self.tls.as_ref()).await?);
        }
        Ok(&self.connections)
    }
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    put: Uri,
    range: Uri,
    status: Uri,
}

impl Connection {
    async fn open(port: u16, tls: Option<&TlsConnector>) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("etcd does not answer")?;
        stream.set_nodelay(true)?;
        let requests = match tls {
            None => handshake(stream).await?,
            Some(tls) => {
                let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from([127, 0, 0, 1])));
                handshake(tls.connect(name, stream).await?).await?
            }
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uri = |path| Uri::try_from(format!("{scheme}://127.0.0.1:{port}/etcdserverpb.{path}"));
        Ok(Self {
            requests,
            put: uri("KV/Put")?,
            range: uri("KV/Range")?,
            status: uri("Maintenance/Status")?,
        })
    }

    async fn status(&self) -> Result<StatusResponse> {
        Ok(StatusResponse::decode(self.call(&self.status, &StatusRequest {}).await?)?)
    }

    /// A unary call: one request and one response.
    async fn call(&self, uri: &Uri, message: &impl Message) -> Result<Bytes> {
        let mut body = BytesMut::with_capacity(5 + message.encoded_len());
        body.put_u8(0); // not compressed
        body.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut body)?;

        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, header::HeaderValue::from_static("trailers"));

        let mut requests = self.requests.clone().ready().await?;
        let (response, mut upload) = requests.send_request(request, false)?;
        upload.send_data(body.freeze(), true)?;
        let response = response.await?;
        if response.status() != http::StatusCode::OK {
            bail!("etcd answered HTTP {}", response.status());
        }
        if response.headers().contains_key("grpc-status") {
            check_status(response.headers())?;
        }
        let mut download = response.into_body();
        let mut answer = Bytes::new();
        while let Some(chunk) = download.data().await {
            let chunk = chunk?;
            download.flow_control().release_capacity(chunk.len())?;
            answer = if answer.is_empty() { chunk } else { joined(&answer, &chunk)? };
        }
        check_status(&download.trailers().await?.context("etcd's answer has no trailers")?)?;
        unframed(answer)
    }
}

impl Client for Connection {
    async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
        self.call(&self.put, &PutRequest { key, value }).await.map(drop)
    }

    async fn get(&self, key: Bytes) -> Result<Option<usize>> {
        let answer = self.call(&self.range, &RangeRequest { key, serializable: false }).await?;
        let response = RangeResponse::decode(answer)?;
        Ok(response.kvs.first().map(|found| found.value.len()))
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Result<SendRequest<Bytes>> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24).enable_push(false);
    let (requests, connection) = builder.handshake(Gathered(stream)).await?;
    // Its errors reach the callers of the requests in flight.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(requests)
}

fn check_status(trailers: &HeaderMap) -> Result<()> {
    let field = |name| {
        trailers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok()).unwrap_or("none")
    };
    match field("grpc-status") {
        "0" => Ok(()),
        status => Err(anyhow!("etcd refused: gRPC status {status}, {}", field("grpc-message"))),
    }
}

fn joined(one: &Bytes, two: &Bytes) -> Result<Bytes> {
    if one.len() + two.len() > MESSAGE_LEN_MAX {
        bail!("etcd's answer is longer than {MESSAGE_LEN_MAX} bytes");
    }
    Ok(Bytes::from([&one[..], &two[..]].concat()))
}

/// The message after its prefix.
fn unframed(mut answer: Bytes) -> Result<Bytes> {
    let Some(&[compressed, a, b, c, d]) = answer.first_chunk() else { bail!("etcd's answer is cut short") };
    let message = answer.split_off(5);
    if compressed != 0 || message.len() as u64 != u64::from(u32::from_be_bytes([a, b, c, d])) {
        bail!("etcd's answer is not one uncompressed message");
    }
    Ok(message)
}

fn connector(files: &TlsFiles) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority)?)?;
    let chain = vec![CertificateDer::from_pem_file(&files.certificate)?];
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A stream that does not offer vectored writes. h2 then copies every frame of this size into one buffer and
/// writes them together; otherwise each request of more than 256 bytes would be a system call of its own.
struct Gathered<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_out_of_its_frame() {
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\x03abc")).unwrap(), "abc");
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\0")).unwrap(), "");
        for broken in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x04abc",
            b"\0\0\0\0\x02abc",
            b"\x01\0\0\0\x03abc",
            b"\0\xff\xff\xff\xffabc",
        ] {
            assert!(unframed(Bytes::copy_from_slice(broken)).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn only_status_0_is_success() {
        let status = |value: &'static str| {
            let mut map = HeaderMap::new();
            map.insert("grpc-status", header::HeaderValue::from_static(value));
            check_status(&map)
        };
        status("0").unwrap();
        assert!(status("14").is_err());
        assert!(check_status(&HeaderMap::new()).is_err());
    }
}
