//! Transfers over veth pairs between namespaces: QUIC over the mesh to a direct neighbour and over relays,
//! beside the same transport without the mesh and beside plain quinn. Needs root.
//!
//! Each node is a thread with a runtime of its own, whose CPU time is counted. A node answers an ordered
//! message with the same message, or with its CPU time and the bytes of bulk messages that have arrived.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use x0_ebpf::testing::{Namespace, VethPair};
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort, address};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Lane, Transmit, Transport, TransportExt};

use super::{Options, runtime};
use crate::case::{Case, Metric};
use crate::statistics::Histogram;

const NODES: usize = 4;
const PORT: u16 = 7300;
const ORDERED: Lane = Lane::Ordered(0);
/// The payload of a UDP datagram over IPv4 on a link with an MTU of 1500.
const LINK_MTU: usize = 1472;
const MESSAGE_LEN: usize = 1 << 20;
/// The first byte of an ordered message.
const ECHO: u8 = 0;
const REPORT: u8 = 1;

const SENDER: Metric = Metric { name: "CPU of the sender", unit: "ms/MB" };
const RECEIVER: Metric = Metric { name: "CPU of the receiver", unit: "ms/MB" };
const BOTH: Metric = Metric { name: "CPU of both", unit: "ms/MB" };
const RELAY: Metric = Metric { name: "CPU of a relay", unit: "ms/MB" };
const SPEED: Metric = Metric { name: "time", unit: "ms/MB" };
const IDLE: Metric = Metric { name: "round trip, median, idle", unit: "us" };
const BUSY: Metric = Metric { name: "round trip, median, under a bulk transfer", unit: "us" };
/// The limit of the cost of the mesh, as a multiple of that of plain quinn.
const DIRECT_MOST: f64 = 1.25;
const RELAY_MOST: f64 = 1.0;
const BUSY_MOST: f64 = 10.0;

/// CPU time of the calling thread.
pub(super) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

pub(super) fn identities(count: usize) -> Result<Vec<(NodeId, Identity)>> {
    let authority = Authority::new(TrustDomain::parse("bench.example.org")?, &AuthorityOptions::default())?;
    let identity = |number: usize| {
        let node = NodeId::new(number as u64).ok_or_else(|| anyhow!("zero names no node"))?;
        let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node);
        let svid = authority.issue(&spiffe_id, Duration::from_secs(24 * 3600))?;
        Ok::<_, anyhow::Error>((node, Identity::new(svid, authority.bundle())?))
    };
    (1..=count).map(identity).collect()
}

/// Nodes in a line.
struct Line {
    namespaces: Vec<Namespace>,
    pairs: Vec<VethPair>,
    identities: Vec<(NodeId, Identity)>,
}

/// How a node reaches others: over the mesh, or straight over the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Mesh,
    Straight,
}

impl Line {
    fn new() -> Result<Line> {
        let namespaces = (0..NODES)
            .map(|_| Namespace::new().context("the line needs root"))
            .collect::<Result<Vec<Namespace>>>()?;
        let mut pairs = Vec::new();
        for ends in namespaces.windows(2) {
            let mut pair = VethPair::new(&ends[0], &ends[1])?;
            pair.assign_addresses()?;
            pairs.push(pair);
        }
        Ok(Line { namespaces, pairs, identities: identities(NODES)? })
    }

    /// The addresses of a node: on the pair to the left, and on the pair to the right.
    fn addresses(&self, at: usize) -> [Option<Ipv4Addr>; 2] {
        let left = at.checked_sub(1).map(|pair| self.pairs[pair].right().address());
        [left, self.pairs.get(at).map(|pair| pair.left().address())]
    }

    /// Called in the namespace of the node, inside of a runtime.
    fn open(&self, at: usize, way: Way) -> Result<(Option<Mesh>, QuicTransport)> {
        let (node, identity) = &self.identities[at];
        let (server, client) = (identity.server_config(), identity.client_config());
        let [left, right] = self.addresses(at);
        if way == Way::Straight {
            let own = SocketAddr::from((left.or(right).context("an address")?, PORT));
            let mut options = QuicOptions::new(*node, own, server, client);
            if at == 0 {
                let peer = self.addresses(1)[0].context("the neighbour has an address")?;
                options.peers.push((self.identities[1].0, SocketAddr::from((peer, PORT))));
            }
            return Ok((None, QuicTransport::bind(options)?));
        }
        let mut options = MeshOptions::new(*node, server.clone(), client.clone());
        for (own, is_right) in [(left, false), (right, true)] {
            let Some(own) = own else { continue };
            let link = UdpLink::open(&UdpLinkOptions::new((own, PORT).into()).mtu(LINK_MTU))?;
            let mut port = MeshPort::new(link);
            if is_right {
                port = port.neighbour((self.pairs[at].right().address(), PORT).into());
            }
            options = options.port(port);
        }
        let mesh = Mesh::start(options)?;
        let mut options = QuicOptions::new(*node, address(*node), server, client);
        if at == 0 {
            options.peers.extend(self.identities[1..].iter().map(|(node, _)| (*node, address(*node))));
        }
        let transport = QuicTransport::bind_on(options, mesh.socket())?;
        Ok((Some(mesh), transport))
    }

    /// Runs `measure` on the first node while the others serve.
    fn run<T: Send>(
        &self,
        way: Way,
        measure: impl AsyncFn(&mut QuicTransport) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        let (stop, stopped) = watch::channel(false);
        std::thread::scope(|scope| {
            let last = if way == Way::Mesh { NODES } else { 2 };
            for at in 1..last {
                let mut stopped = stopped.clone();
                scope.spawn(move || {
                    self.namespaces[at].run(|| {
                        runtime()?.block_on(async {
                            let (_mesh, mut transport) = self.open(at, way)?;
                            tokio::select! {
                                served = serve(&mut transport) => served,
                                _ = stopped.changed() => Ok(()),
                            }
                        })
                    })?
                });
            }
            let measured = self.namespaces[0].run(|| {
                runtime()?.block_on(async {
                    let (_mesh, mut transport) = self.open(0, way)?;
                    tokio::time::timeout(Duration::from_secs(300), measure(&mut transport)).await?
                })
            })?;
            let _ = stop.send(true);
            measured
        })
    }

    fn node(&self, at: usize) -> NodeId {
        self.identities[at].0
    }
}

async fn serve(transport: &mut QuicTransport) -> Result<()> {
    let (mut payload, mut bulk) = (Vec::new(), 0_u64);
    loop {
        let received = transport.recv(&mut payload).await?;
        if received.lane == Lane::Bulk {
            bulk += payload.len() as u64;
            continue;
        }
        if payload.first() == Some(&REPORT) {
            payload.truncate(1);
            payload.extend_from_slice(&u64::try_from(thread_cpu().as_nanos())?.to_le_bytes());
            payload.extend_from_slice(&bulk.to_le_bytes());
        }
        transport.send(&Transmit { to: received.from, lane: ORDERED, payload: &payload }).await?;
    }
}

async fn ask(transport: &mut QuicTransport, to: NodeId, payload: &mut Vec<u8>) -> Result<()> {
    let request = payload.clone();
    transport.send(&Transmit { to, lane: ORDERED, payload: &request }).await?;
    loop {
        let received = transport.recv(payload).await?;
        if received.from == to && received.lane == ORDERED {
            return Ok(());
        }
    }
}

/// The CPU time of a node, and the bytes of bulk messages that it has received.
async fn report(transport: &mut QuicTransport, of: NodeId) -> Result<(Duration, u64)> {
    let mut payload = vec![REPORT];
    ask(transport, of, &mut payload).await?;
    let number = |at: usize| {
        let bytes = payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).context("a report of 17 bytes")
    };
    Ok((Duration::from_nanos(number(1)?), number(9)?))
}

/// CPU times and wall time of a transfer of so many messages: of the sender, of the nodes in `of`.
async fn transfer(
    transport: &mut QuicTransport,
    to: NodeId,
    of: &[NodeId],
    messages: usize,
) -> Result<(Duration, Vec<Duration>, Duration)> {
    let payload = vec![7; MESSAGE_LEN];
    // Warm: routes, keys, congestion window.
    for _ in 0..8 {
        transport.send(&Transmit { to, lane: Lane::Bulk, payload: &payload }).await?;
    }
    let mut before = Vec::new();
    while report(transport, to).await?.1 % (8 * MESSAGE_LEN) as u64 != 0 {}
    let mut arrived = report(transport, to).await?.1;
    for node in of {
        before.push(report(transport, *node).await?.0);
    }
    let (own, begin) = (thread_cpu(), Instant::now());
    arrived += (messages * MESSAGE_LEN) as u64;
    for _ in 0..messages {
        transport.send(&Transmit { to, lane: Lane::Bulk, payload: &payload }).await?;
    }
    while report(transport, to).await?.1 < arrived {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (own, wall) = (thread_cpu() - own, begin.elapsed());
    let mut others = Vec::new();
    for (node, before) in of.iter().zip(before) {
        others.push(report(transport, *node).await?.0 - before);
    }
    Ok((own, others, wall))
}

/// Median round trips of an ordered message, idle and under a transfer, in nanoseconds.
async fn round_trips(transport: &mut QuicTransport, to: NodeId, count: usize) -> Result<[u64; 2]> {
    let mut medians = [0; 2];
    let bulk = vec![7; MESSAGE_LEN / 4];
    for (median, is_busy) in medians.iter_mut().zip([false, true]) {
        let mut times = Histogram::new();
        for _ in 0..count {
            let mut cx = TaskContext::from_waker(Waker::noop());
            let transmit = Transmit { to, lane: Lane::Bulk, payload: &bulk };
            while is_busy && matches!(transport.poll_send(&mut cx, &transmit)?, Poll::Ready(())) {}
            let (mut payload, begin) = (vec![ECHO; 100], Instant::now());
            ask(transport, to, &mut payload).await?;
            times.record(u64::try_from(begin.elapsed().as_nanos())?);
        }
        *median = times.percentile(0.5).context("round trips")?;
    }
    Ok(medians)
}

/// Plain quinn over the first pair: CPU times of sender and receiver, and the wall time.
fn plain(line: &Line, messages: usize) -> Result<(Duration, Duration, Duration)> {
    let peer = SocketAddr::from((line.pairs[0].right().address(), PORT));
    let own = SocketAddr::from((line.pairs[0].left().address(), 0));
    std::thread::scope(|scope| {
        let (ready_to, ready) = std::sync::mpsc::channel();
        let server = scope.spawn(move || {
            line.namespaces[1].run(|| {
                runtime()?.block_on(async {
                    let mut tls = (*line.identities[1].1.server_config()).clone();
                    tls.alpn_protocols = vec![b"x0-bench".to_vec()];
                    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
                    let endpoint = quinn::Endpoint::server(config, peer)?;
                    ready_to.send(())?;
                    let connection = endpoint.accept().await.context("a connection")?.await?;
                    let (mut begin, mut bytes) = (thread_cpu(), 0);
                    while let Ok(mut stream) = connection.accept_uni().await {
                        let mut len = 0;
                        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
                            len += chunk.bytes.len();
                        }
                        // The first one warms.
                        if bytes == 0 {
                            begin = thread_cpu();
                        }
                        bytes += len;
                        let mut answer = connection.open_uni().await?;
                        let cpu = u64::try_from((thread_cpu() - begin).as_nanos())?;
                        answer.write_all(&cpu.to_le_bytes()).await?;
                        answer.finish()?;
                    }
                    anyhow::Ok(())
                })
            })?
        });
        ready.recv()?;
        let measured = line.namespaces[0].run(|| {
            runtime()?.block_on(async {
                let mut tls = (*line.identities[0].1.client_config()).clone();
                tls.alpn_protocols = vec![b"x0-bench".to_vec()];
                let mut endpoint = quinn::Endpoint::client(own)?;
                let crypto = Arc::new(QuicClientConfig::try_from(tls)?);
                endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
                let connection = endpoint.connect(peer, "x0")?.await?;
                let payload = vec![7; MESSAGE_LEN];
                let (mut cpu, mut begin, mut remote) = (Duration::ZERO, Instant::now(), [0; 8]);
                for count in [8, messages] {
                    (cpu, begin) = (thread_cpu(), Instant::now());
                    let mut stream = connection.open_uni().await?;
                    for _ in 0..count {
                        stream.write_all(&payload).await?;
                    }
                    stream.finish()?;
                    let mut answer = connection.accept_uni().await?;
                    answer.read_exact(&mut remote).await?;
                }
                let found =
                    (thread_cpu() - cpu, Duration::from_nanos(u64::from_le_bytes(remote)), begin.elapsed());
                connection.close(quinn::VarInt::from_u32(0), b"");
                endpoint.wait_idle().await;
                anyhow::Ok(found)
            })
        })?;
        let served = server.join().map_err(|_| anyhow!("the server's thread panicked"))?;
        measured.and_then(|found| served.map(|()| found))
    })
}

/// The cases whose name contains the text of the options.
pub(super) fn cases(options: &Options) -> Result<Vec<Case>> {
    let names = ["line: CPU of a bulk transfer", "line: latency of an ordered message"];
    if !names.iter().any(|name| name.contains(&options.case)) {
        return Ok(Vec::new());
    }
    let (messages, turns) = if options.quick { (16, 2) } else { (96, 5) };
    let line = Line::new()?;
    let per_mb = |time: Duration| time.as_secs_f64() * 1e9 / (messages * MESSAGE_LEN) as f64;
    let how = format!(
        "{messages} messages of 1 MiB over veth pairs between namespaces; a relay is one node between the two, quinn sends \
         one stream."
    );
    let systems = [
        "QUIC over the mesh, to a neighbour",
        "QUIC over the mesh, over a relay",
        "x0-mesh's QUIC without the mesh",
        "plain quinn",
    ];
    let mut cpu = Case::new("mesh", names[0], how, systems.map(str::to_owned).to_vec());
    let mut relays = Vec::new();
    for _ in 0..turns {
        for (system, way, to) in [(0, Way::Mesh, 1), (1, Way::Mesh, 2), (2, Way::Straight, 1)] {
            let of: Vec<NodeId> = (1..=to).rev().map(|at| line.node(at)).collect();
            let (sender, others, wall) = line.run(way, async |transport: &mut QuicTransport| {
                transfer(transport, of[0], &of, messages).await
            })?;
            ensure!(others.len() == to, "a report of each node");
            cpu.add(SENDER, system, per_mb(sender));
            cpu.add(RECEIVER, system, per_mb(others[0]));
            cpu.add(BOTH, system, per_mb(sender + others[0]));
            cpu.add(SPEED, system, per_mb(wall));
            if let Some(relay) = others.get(1) {
                relays.push(per_mb(*relay));
                cpu.add(RELAY, system, per_mb(*relay));
            }
        }
        let (sender, receiver, wall) = plain(&line, messages)?;
        cpu.add(SENDER, 3, per_mb(sender));
        cpu.add(RECEIVER, 3, per_mb(receiver));
        cpu.add(BOTH, 3, per_mb(sender + receiver));
        cpu.add(SPEED, 3, per_mb(wall));
    }
    let ratio = cpu.paired_ratio(BOTH, 0, 3);
    cpu.aim("a neighbour beside plain quinn, CPU of both", ratio, DIRECT_MOST, "x");
    let relay = cpu.median(RELAY, 1).zip(cpu.median(RECEIVER, 3)).map(|(relay, quinn)| relay / quinn);
    cpu.aim("a relay beside the receiver of plain quinn", relay, RELAY_MOST, "x");

    let count = if options.quick { 200 } else { 1000 };
    let how = format!("{count} echoes of 100 bytes, one at a time; the transfer keeps the bulk lane full.");
    let systems = ["one hop", "two hops", "three hops"].map(str::to_owned).to_vec();
    let mut latency = Case::new("mesh", names[1], how, systems);
    for _ in 0..turns {
        for hops in 1..NODES {
            let to = line.node(hops);
            let medians = line.run(Way::Mesh, async |transport: &mut QuicTransport| {
                round_trips(transport, to, count).await
            })?;
            for (metric, nanoseconds) in [IDLE, BUSY].into_iter().zip(medians) {
                latency.add(metric, hops - 1, nanoseconds as f64 / 1e3);
            }
        }
    }
    for hops in 0..NODES - 1 {
        let found =
            latency.median(BUSY, hops).zip(latency.median(IDLE, hops)).map(|(busy, idle)| busy / idle);
        latency.aim(format!("under a transfer beside idle, {} hops", hops + 1), found, BUSY_MOST, "x");
    }
    Ok(vec![cpu, latency]
        .into_iter()
        .zip(names)
        .filter(|(_, name)| name.contains(&options.case))
        .map(|(case, _)| case)
        .collect())
}
