//! A server of the same messages by h2, the HTTP/2 of tonic, with one task for each stream.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::UnixListener;
use tokio::sync::watch;
use x0_identity::Authority;

use crate::area::identity::{DAY, id};

/// `X509SVIDResponse` of the Workload API.
#[derive(Clone, PartialEq, Message)]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes, tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes, tag = "3")]
    key: Vec<u8>,
    #[prost(bytes, tag = "4")]
    bundle: Vec<u8>,
}

/// The current message with its prefix.
fn message(authority: &Authority) -> Result<Bytes> {
    let svid = authority.issue(&id("web")?, DAY)?;
    let PrivateKeyDer::Pkcs8(key) = svid.key() else { anyhow::bail!("a key that is not in PKCS #8") };
    let svid = Svid {
        spiffe_id: svid.spiffe_id().to_string(),
        chain: svid.chain().iter().flat_map(|der| der.to_vec()).collect(),
        key: key.secret_pkcs8_der().to_vec(),
        bundle: authority.certificate().to_vec(),
    };
    let message = SvidResponse { svids: vec![svid] }.encode_to_vec();
    let len = u32::try_from(message.len())?.to_be_bytes();
    Ok([&[0][..], &len, &message].concat().into())
}

/// Serves on the socket; each connection to `control` but the first rotates the SVID.
pub(in crate::area::identity) fn serve(
    authority: &Authority,
    control: &TcpListener,
    socket: &Path,
) -> Result<()> {
    let (sender, receiver) = watch::channel(message(authority)?);
    let listener = std::os::unix::net::UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    let server = std::thread::spawn(move || accept(listener, &receiver));
    for (number, stream) in control.incoming().enumerate() {
        stream.context("the control connection failed")?;
        if number > 0 {
            sender.send(message(authority)?)?;
        }
    }
    server.join().map_err(|_| anyhow::anyhow!("the server failed"))?
}

fn accept(listener: std::os::unix::net::UnixListener, current: &watch::Receiver<Bytes>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        loop {
            let (socket, _) = listener.accept().await?;
            let current = current.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let response = Response::builder().header("content-type", "application/grpc").body(());
                    let Ok(stream) = response.map(|response| respond.send_response(response, false)) else {
                        return;
                    };
                    let Ok(stream) = stream else { return };
                    tokio::spawn(push(stream, current.clone()));
                }
            });
        }
    })
}

async fn push(mut stream: SendStream<Bytes>, mut current: watch::Receiver<Bytes>) {
    loop {
        let message = current.borrow_and_update().clone();
        if stream.send_data(message, false).is_err() {
            return;
        }
        if current.changed().await.is_err() {
            let status = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let _ = stream.send_trailers(status);
            return;
        }
    }
}
