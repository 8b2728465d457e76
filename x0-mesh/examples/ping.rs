//! How fast messages travel between two nodes of this machine, each a thread with a runtime of its own.
//!
//! `cargo run --release -p x0-mesh --features quic --example ping [bytes] [seconds]` sends a message, waits
//! for its echo, and then keeps 64 and 1024 messages under way. The last figures are of plain TCP on the same
//! machine, without encryption, one write for each message, for orientation.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Lane, PeerEventKind, Transmit, Transport, TransportExt};

type Failure = Box<dyn Error + Send + Sync>;

const LANE: Lane = Lane::Ordered(0);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let len: usize = arguments.next().map_or(Ok(300), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let duration = Duration::from_secs_f64(seconds);

    let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
    let [server, client] = [1, 2].map(|number| NodeId::new(number).ok_or("zero names no node"));
    let (server, client) = (server?, client?);
    let server_config = config(&authority, server)?;
    let (address_to, address) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let echo = thread::spawn(move || runtime()?.block_on(echo(server_config, &address_to, stopped)));
    let config = config(&authority, client)?.peer(server, address.recv()?);
    runtime()?.block_on(async {
        let mut transport = QuicTransport::bind(config)?;
        while !matches!(transport.event().await.kind, PeerEventKind::Up { .. }) {}
        for outstanding in [1, 64, 1024] {
            // More than the queues hold would never come back: this program sends before it receives.
            if outstanding * len > 4 << 20 {
                break;
            }
            measure_quic(&mut transport, server, len, outstanding, duration).await?;
        }
        transport.close().await;
        Ok::<(), Failure>(())
    })?;
    let _ = stop.send(());
    echo.join().map_err(|_| "the echo panicked")??;

    let (address_to, address) = mpsc::channel();
    let echo = thread::spawn(move || runtime()?.block_on(echo_tcp(len, &address_to)));
    runtime()?.block_on(measure_tcp(address.recv()?, len, duration))?;
    echo.join().map_err(|_| "the echo panicked")?
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn config(authority: &Authority, node: NodeId) -> Result<QuicOptions, Failure> {
    let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node);
    let svid = authority.issue(&spiffe_id, Duration::from_secs(3600))?;
    let identity = Identity::new(svid, authority.bundle())?;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(QuicOptions::new(node, address, identity.server_config(), identity.client_config()))
}

/// Sends back what it receives.
async fn echo(
    config: QuicOptions,
    address: &mpsc::Sender<SocketAddr>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let mut transport = QuicTransport::bind(config)?;
    address.send(transport.local_addr()?)?;
    let mut payload = Vec::new();
    let mut reply = None;
    poll_fn(|cx| {
        if std::pin::Pin::new(&mut stopped).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while transport.poll_event(cx).is_ready() {}
        loop {
            if let Some((to, lane)) = reply.take()
                && transport.poll_send(cx, &Transmit { to, lane, payload: &payload }).is_pending()
            {
                reply = Some((to, lane));
                return Poll::Pending;
            }
            match transport.poll_recv(cx, &mut payload) {
                Poll::Ready(Ok(received)) => reply = Some((received.from, received.lane)),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    Ok(())
}

async fn measure_quic(
    transport: &mut QuicTransport,
    to: NodeId,
    len: usize,
    outstanding: usize,
    duration: Duration,
) -> Result<(), Failure> {
    let message = vec![7; len];
    let mut payload = Vec::new();
    let started = Instant::now();
    let cpu = cpu_time();
    let mut received = 0_usize;
    for _ in 0..outstanding {
        transport.send(&Transmit { to, lane: LANE, payload: &message }).await?;
    }
    let mut round_trips = Vec::new();
    let mut sent_at = started;
    while sent_at - started < duration {
        transport.recv(&mut payload).await?;
        received += 1;
        if outstanding == 1 {
            let now = Instant::now();
            round_trips.push(now - sent_at);
            sent_at = now;
        } else if received.is_multiple_of(64) {
            sent_at = Instant::now();
        }
        transport.send(&Transmit { to, lane: LANE, payload: &message }).await?;
    }
    report("quic", outstanding, received, started.elapsed(), cpu, &mut round_trips);
    for _ in 0..outstanding {
        transport.recv(&mut payload).await?;
    }
    Ok(())
}

async fn echo_tcp(len: usize, address: &mpsc::Sender<SocketAddr>) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    address.send(listener.local_addr()?)?;
    let (mut stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let mut message = vec![0; len];
    while stream.read_exact(&mut message).await.is_ok() {
        stream.write_all(&message).await?;
    }
    Ok(())
}

async fn measure_tcp(address: SocketAddr, len: usize, duration: Duration) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut message = vec![7; len];
    for outstanding in [1, 64] {
        let started = Instant::now();
        let cpu = cpu_time();
        let mut received = 0_usize;
        for _ in 0..outstanding {
            stream.write_all(&message).await?;
        }
        let mut round_trips = Vec::new();
        let mut sent_at = started;
        while sent_at - started < duration {
            stream.read_exact(&mut message).await?;
            received += 1;
            let now = Instant::now();
            if outstanding == 1 {
                round_trips.push(now - sent_at);
            }
            sent_at = now;
            stream.write_all(&message).await?;
        }
        report("tcp", outstanding, received, started.elapsed(), cpu, &mut round_trips);
        for _ in 0..outstanding {
            stream.read_exact(&mut message).await?;
        }
    }
    Ok(())
}

fn report(
    name: &str,
    outstanding: usize,
    received: usize,
    elapsed: Duration,
    cpu: Option<Duration>,
    round_trips: &mut [Duration],
) {
    round_trips.sort_unstable();
    let at =
        |part: usize| round_trips.get(round_trips.len() * part / 1000).map(|time| time.as_nanos() / 1000);
    let round_trip = match (at(500), at(990)) {
        (Some(half), Some(most)) => format!(", round trip {half} us (median) {most} us (99 %)"),
        _ => String::new(),
    };
    let per_second = received as f64 / elapsed.as_secs_f64();
    let cpu = match (cpu, cpu_time()) {
        (Some(before), Some(after)) => {
            format!(
                ", {:.2} us of CPU each (both nodes)",
                (after - before).as_secs_f64() * 1e6 / received as f64
            )
        }
        _ => String::new(),
    };
    println!("{name} {outstanding} under way: {per_second:.0} echoes/s{cpu}{round_trip}");
}

/// The CPU time of this process, where the system tells it as Linux does: fields 14 and 15 of `stat`, in
/// 1/100 s.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
