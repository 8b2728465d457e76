//! quinn by itself, with the identities, windows and packet lengths of x0-mesh: a length before each message
//! of the ordered stream, and a stream for each bulk message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig, VarInt,
};
use tokio::sync::{Notify, Semaphore, oneshot};
use x0_identity::Identity;

use super::{Found, Load, Nodes, Way, count_of, end_of, mark, runtime};
use crate::statistics::Histogram;

const ALPN: &[u8] = b"x0-bench";
const PACKET_LEN_MAX: u16 = 6500;
const WINDOW: u32 = 4 << 20;
const STREAMS: u32 = 33;
/// Bulk messages that travel at once.
const BULK_STREAMS: usize = 8;

fn transport_config() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_LEN_MAX);
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW * STREAMS))
        .send_window(32 << 20)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

pub(super) fn bind(server: Option<&Identity>) -> Result<Endpoint> {
    let mut endpoint = EndpointConfig::default();
    endpoint.max_udp_payload_size(PACKET_LEN_MAX)?;
    let server = match server {
        None => None,
        Some(identity) => {
            let mut tls = (*identity.server_config()).clone();
            tls.alpn_protocols = vec![ALPN.to_vec()];
            let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
            server.transport_config(transport_config());
            Some(server)
        }
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(Endpoint::new(endpoint, server, socket, Arc::new(quinn::TokioRuntime))?)
}

pub(super) async fn connect(endpoint: &Endpoint, client: &Identity, to: SocketAddr) -> Result<Connection> {
    let mut tls = (*client.client_config()).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    client.transport_config(transport_config());
    Ok(endpoint.connect_with(client, to, "x0-bench")?.await?)
}

pub(super) fn measure(nodes: &Nodes, load: Load) -> Result<Found> {
    thread::scope(|scope| {
        let (address_to, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = scope.spawn(move || {
            runtime()?.block_on(async {
                let endpoint = bind(Some(&nodes.server.1))?;
                address_to.send(endpoint.local_addr()?)?;
                let connection = endpoint.accept().await.context("no connection")?.await?;
                let serving = tokio::spawn(serve(connection));
                let _ = stopped.await;
                serving.abort();
                endpoint.close(VarInt::from_u32(0), b"");
                endpoint.wait_idle().await;
                Ok::<(), anyhow::Error>(())
            })
        });
        let measured = runtime()?.block_on(async {
            let endpoint = bind(None)?;
            let connection = connect(&endpoint, &nodes.client.1, address.recv()?).await?;
            let found = run(&connection, load).await;
            connection.close(VarInt::from_u32(0), b"");
            endpoint.wait_idle().await;
            found
        });
        let _ = stop.send(());
        server.join().map_err(|_| anyhow!("the server's thread panicked"))??;
        measured
    })
}

pub(super) async fn write(stream: &mut SendStream, message: &[u8]) -> Result<()> {
    stream.write_all(&u32::try_from(message.len())?.to_le_bytes()).await?;
    Ok(stream.write_all(message).await?)
}

pub(super) async fn read(stream: &mut RecvStream, message: &mut Vec<u8>) -> Result<()> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    message.resize(u32::from_le_bytes(len) as usize, 0);
    Ok(stream.read_exact(message).await?)
}

/// Does what the messages say. The first stream is the ordered one.
async fn serve(connection: Connection) -> Result<()> {
    let mut ordered = connection.accept_uni().await?;
    let mut replies = connection.open_uni().await?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::new(Notify::new());
    let bulk = {
        let (connection, count, counted) = (connection.clone(), Arc::clone(&count), Arc::clone(&counted));
        async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let (count, counted) = (Arc::clone(&count), Arc::clone(&counted));
                tokio::spawn(async move {
                    if stream.read_to_end(64 << 20).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                        counted.notify_one();
                    }
                });
            }
        }
    };
    tokio::spawn(bulk);
    let mut message = Vec::new();
    loop {
        read(&mut ordered, &mut message).await?;
        if message.first() == Some(&mark::ECHO) {
            write(&mut replies, &message).await?;
        } else if let Some(expected) = count_of(&message) {
            while count.load(Ordering::Relaxed) < expected {
                counted.notified().await;
            }
            count.store(0, Ordering::Relaxed);
            write(&mut replies, &[mark::END]).await?;
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn run(connection: &Connection, load: Load) -> Result<Found> {
    let mut ordered = connection.open_uni().await?;
    let mut replies = None;
    let mut reply = Vec::new();
    if load.is_echoed {
        let message = vec![mark::ECHO; load.len];
        let mut times = Histogram::new();
        for number in 0..load.count + load.count / 10 {
            let sent = Instant::now();
            write(&mut ordered, &message).await?;
            receive(connection, &mut replies, &mut reply).await?;
            // The first ones warm up.
            if number >= load.count / 10 {
                times.record(u64::try_from(sent.elapsed().as_nanos())?);
            }
        }
        return Ok(Found::RoundTrips(times));
    }
    let message: Arc<[u8]> = vec![mark::COUNT; load.len].into();
    let streams = Arc::new(Semaphore::new(BULK_STREAMS));
    let mut took = None;
    for count in [load.count / 10, load.count] {
        let started = Instant::now();
        for _ in 0..count {
            match load.way {
                Way::Ordered => write(&mut ordered, &message).await?,
                Way::Bulk => {
                    let permit = Arc::clone(&streams).acquire_owned().await?;
                    let mut stream = connection.open_uni().await?;
                    let message = Arc::clone(&message);
                    tokio::spawn(async move {
                        if stream.write_all(&message).await.is_ok() {
                            let _ = stream.finish();
                        }
                        drop(permit);
                    });
                }
            }
        }
        write(&mut ordered, &end_of(count)).await?;
        receive(connection, &mut replies, &mut reply).await?;
        took = Some(started.elapsed());
    }
    took.map(Found::Took).context("nothing was measured")
}

/// The stream of replies exists once there is one.
async fn receive(
    connection: &Connection,
    replies: &mut Option<RecvStream>,
    reply: &mut Vec<u8>,
) -> Result<()> {
    let mut stream = match replies.take() {
        Some(stream) => stream,
        None => connection.accept_uni().await?,
    };
    read(&mut stream, reply).await?;
    *replies = Some(stream);
    Ok(())
}
