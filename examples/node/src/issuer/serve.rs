//! The listener of the issuer. It decides nothing: requests go to the engine.
//!
//! `x0_identity::IssuanceEndpoint` keeps one engine for all requests and reports none of them. This issuer
//! builds an engine for each request from one state of the folder, with its entries locked until the answer,
//! so that commands beside it take effect at once; it logs each outcome with the address of the peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x0_identity::{ISSUANCE_BINDING_LABEL, ISSUANCE_REQUEST_LEN_MAX, SpiffeId, peer_spiffe_id};

use super::commands::IssuerArgs;
use super::{Answered, Issuer, Step};
use crate::causes::causes;
use crate::init::Layout;
use crate::log::Log;
use crate::signals::Stops;

/// Most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// The time for a handshake, for a request to arrive, and for its answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Most requests of one connection.
const REQUESTS_MAX: usize = 64;
/// The time after which the SVID of a connection is validated again, before the next request is carried out.
const ADMITTED_FOR: Duration = Duration::from_secs(1);
/// How often the issuer takes a new SVID, and reads its files for that.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// Issues until a signal stops it.
pub(super) async fn serve(args: &IssuerArgs) -> Result<()> {
    let log = Log::start("issuer", args.log).context("cannot start the thread of the log")?;
    let grace = Duration::from_secs(u64::from(args.grace_hours) * 3600);
    let issuer = Issuer::open(Layout::new(&args.dir), grace)?;
    let mut stops = Stops::new()?;
    let listener = TcpListener::bind(args.listen).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;
    let config = issuer.identity.issuance_server_config().context("the TLS library lacks TLS 1.3")?;
    let address = listener.local_addr().context("the socket has no address")?;
    log.event("issuer-listening", format!("address={address} identity={}", issuer.identity.spiffe_id()));
    let accepting = accept(listener, TlsAcceptor::from(config), issuer.clone(), log.clone());
    tokio::select! {
        () = accepting => {}
        () = refresh(&issuer, &log) => {}
        () = stops.next() => {}
    }
    log.event("stopped", "");
    log.flush(Duration::from_secs(1));
    Ok(())
}

async fn refresh(issuer: &Issuer, log: &Log) {
    loop {
        sleep(REFRESH_EVERY).await;
        let issuer = issuer.clone();
        let refreshed = tokio::task::spawn_blocking(move || issuer.refresh()).await;
        if let Ok(Err(error)) = refreshed {
            log.event("reload-failed", format!("why={}", causes(&error)));
        }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, issuer: Issuer, log: Log) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, address)) = listener.accept().await else {
            // Out of files, mostly: some connection ends.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, issuer, log) = (tls.clone(), issuer.clone(), log.clone());
        tokio::spawn(async move {
            let refused = |why: &str| log.event("issuance-refused", format!("peer={address} why={why}"));
            match timeout(REQUEST_LIMIT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let served = |served: Result<Option<SpiffeId>>| match served {
                        Ok(Some(spiffe_id)) => {
                            log.event("issued", format!("peer={address} identity={spiffe_id}"));
                        }
                        Ok(None) => refused("the answer to the peer has the reason"),
                        Err(error) => refused(&causes(&error)),
                    };
                    connection(stream, &issuer, served).await;
                }
                Ok(Err(error)) => {
                    refused(&causes(&anyhow::Error::new(error).context("the TLS handshake failed")));
                }
                Err(_) => refused("the peer was too slow"),
            }
            drop(slot);
        });
    }
}

/// Answers the requests of a connection in their order, and reports each: the SPIFFE ID, if it was issued. A
/// peer that TLS has authenticated may send several, without waiting for the answers; any other one has one.
async fn connection(
    mut stream: TlsStream<TcpStream>,
    issuer: &Issuer,
    served: impl Fn(Result<Option<SpiffeId>>),
) {
    let (peer, binding) = match of_connection(&stream) {
        Ok(both) => both,
        Err(error) => return served(Err(error)),
    };
    let requests_max = if peer.is_some() { REQUESTS_MAX } else { 1 };
    let chain: Vec<CertificateDer<'static>> =
        stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let mut admitted = Instant::now();
    for number in 0..requests_max {
        let frame = timeout(REQUEST_LIMIT, read_frame(&mut stream, ISSUANCE_REQUEST_LEN_MAX)).await;
        let bytes = match frame {
            Ok(Ok(bytes)) => bytes,
            // The peer wants no more.
            Ok(Err(_)) | Err(_) if number > 0 => return,
            Ok(Err(error)) => {
                return served(Err(anyhow::Error::new(error).context("cannot read the request")));
            }
            Err(_) => return served(Err(anyhow::anyhow!("the peer was too slow"))),
        };
        // An SVID that expired or was revoked since the handshake renews nothing.
        if peer.is_some() && admitted.elapsed() > ADMITTED_FOR {
            if let Err(error) = issuer.admit(&chain) {
                return served(Err(error));
            }
            admitted = Instant::now();
        }
        let answered =
            timeout(REQUEST_LIMIT, request(&mut stream, issuer, peer.clone(), binding, bytes)).await;
        let answered = answered.unwrap_or_else(|_| Err(anyhow::anyhow!("the peer was too slow")));
        let is_over = !matches!(answered, Ok(Some(_)));
        served(answered);
        if is_over {
            return;
        }
    }
}

/// The SPIFFE ID that TLS has authenticated, if any, and the binding of the connection.
fn of_connection(stream: &TlsStream<TcpStream>) -> Result<(Option<SpiffeId>, [u8; 32])> {
    let (_, tls) = stream.get_ref();
    let chain = tls.peer_certificates();
    let peer = chain.map(peer_spiffe_id).transpose().context("the peer has no SPIFFE ID")?;
    let binding = tls.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None);
    Ok((peer, binding.context("the connection has no binding")?))
}

/// Answers one request, after a challenge if the evidence demands one. The SPIFFE ID, if it was issued.
async fn request(
    stream: &mut TlsStream<TcpStream>,
    issuer: &Issuer,
    peer: Option<SpiffeId>,
    binding: [u8; 32],
    bytes: Vec<u8>,
) -> Result<Option<SpiffeId>> {
    let issuer = issuer.clone();
    // Reading files waits for the disk.
    let step = tokio::task::spawn_blocking(move || issuer.begin(peer, binding, bytes)).await;
    let answered = match step.context("the issuer ended")?? {
        Step::Answered(answered) => answered,
        Step::Challenged { bytes, exchange } => {
            write_frame(stream, &bytes).await.context("cannot send the challenge")?;
            let response = read_frame(stream, ISSUANCE_REQUEST_LEN_MAX).await;
            let response = response.context("cannot read the response to the challenge")?;
            let answered = tokio::task::spawn_blocking(move || exchange.respond(response)).await;
            answered.context("the issuer ended")??
        }
    };
    let Answered { bytes, issued } = answered;
    write_frame(stream, &bytes).await.context("cannot send the answer")?;
    Ok(issued)
}

/// Reads a message that follows its length.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncReadExt + Unpin),
    len_max: usize,
) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if len > len_max {
        return Err(std::io::Error::other(format!("the message has {len} bytes, more than {len_max}")));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Writes a message after its length, and the end of the stream.
pub(crate) async fn write_frame(
    stream: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> std::io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], bytes].concat()).await?;
    stream.flush().await
}
