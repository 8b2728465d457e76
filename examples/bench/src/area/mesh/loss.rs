//! A steady service over a path that loses packets by chance: ordered messages of x0-mesh beside those of
//! plain quinn.
//!
//! Both ends are in this process, and a program between them passes their UDP packets on, except for those
//! that it loses. The same seed loses the same places of the two series of packets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use x0_mesh::{Lane, PeerEventKind, Transmit, TransportExt};

use super::{Nodes, Options, plain, runtime, x0};
use crate::case::{Case, Metric};
use crate::random::Random;

/// Of a hundred packets of each direction, how many are lost.
const LOST: u32 = 30;
const MESSAGES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(5);
const LEN: usize = 500;
/// A message is late after this time.
const LATE: Duration = Duration::from_millis(250);
/// How long the last messages are awaited.
const PATIENCE: Duration = Duration::from_secs(5);
const SYSTEMS: [&str; 2] = ["x0-mesh transport", "quinn"];
const TURNS: usize = 5;

const LATE_SHARE: Metric = Metric { name: "messages later than 250 ms", unit: "%" };
const P50: Metric = Metric { name: "latency, median", unit: "ms" };
const P99: Metric = Metric { name: "latency, 99 %", unit: "ms" };
/// The most messages that may be late, in percent.
const LATE_MOST: f64 = 1.0;

/// Passes packets of one client on to a server, and those of the server to the client.
struct Path {
    address: SocketAddr,
    lost: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Path {
    fn to(server: SocketAddr, seed: u64) -> Result<Path> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let [near, far] = [UdpSocket::bind(any)?, UdpSocket::bind(any)?];
        far.connect(server)?;
        let (lost, is_over) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let address = near.local_addr()?;
        // The client is known with its first packet.
        let client = Arc::new(std::sync::OnceLock::new());
        let threads = [false, true].map(|is_back| {
            let (near, far, client) = (near.try_clone(), far.try_clone(), Arc::clone(&client));
            let (lost, is_over) = (Arc::clone(&lost), Arc::clone(&is_over));
            let mut random = Random::new(seed * 2 + u64::from(is_back));
            let (near, far) = (near?, far?);
            let from = if is_back { far.try_clone()? } else { near.try_clone()? };
            from.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok::<_, anyhow::Error>(thread::spawn(move || {
                let mut packet = vec![0; 1 << 16];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((len, sender)) = from.recv_from(&mut packet) else { continue };
                    if random.below(100) < lost.load(Ordering::Relaxed) {
                        continue;
                    }
                    // A packet that cannot be passed on is lost.
                    let _ = match (is_back, client.get()) {
                        (true, Some(client)) => near.send_to(&packet[..len], client),
                        (true, None) => Ok(0),
                        (false, _) => {
                            let _ = client.set(sender);
                            far.send(&packet[..len])
                        }
                    };
                }
            }))
        });
        let threads = threads.into_iter().collect::<Result<_>>()?;
        Ok(Path { address, lost, is_over, threads })
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The latencies of messages that arrive, counted from the time at which each was to be sent.
struct Latencies {
    begin: Instant,
    found: Vec<Duration>,
}

impl Latencies {
    fn new() -> Latencies {
        Latencies { begin: Instant::now(), found: Vec::with_capacity(MESSAGES as usize) }
    }

    /// Whether more messages are to come.
    fn note(&mut self, message: &[u8]) -> bool {
        let number = message.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
        self.found.push(self.begin.elapsed().saturating_sub(PAUSE * number));
        self.found.len() < MESSAGES as usize
    }
}

fn message(number: u32) -> Vec<u8> {
    let mut message = vec![0; LEN];
    message[..4].copy_from_slice(&number.to_le_bytes());
    message
}

fn pace() -> tokio::time::Interval {
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    pace
}

async fn of_x0(nodes: &Nodes, seed: u64) -> Result<Vec<Duration>> {
    let mut receiver = x0::bind(&nodes.server, None)?;
    let path = Path::to(receiver.local_addr()?, seed)?;
    let mut sender = x0::bind(&nodes.client, Some((nodes.server.0, path.address)))?;
    while !matches!(sender.event().await.kind, PeerEventKind::Up { .. }) {}
    path.lost.store(LOST, Ordering::Relaxed);
    let mut latencies = Latencies::new();
    let receive = async {
        let mut payload = Vec::new();
        loop {
            // Epochs that end are seen by the messages that do not arrive.
            receiver.recv(&mut payload).await?;
            if !latencies.note(&payload) {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    let send = async {
        let mut pace = pace();
        for number in 0..MESSAGES {
            pace.tick().await;
            let payload = message(number);
            sender.send(&Transmit { to: nodes.server.0, lane: Lane::Ordered(0), payload: &payload }).await?;
        }
        std::future::pending::<Result<()>>().await
    };
    over(receive, send).await?;
    Ok(latencies.found)
}

async fn of_quinn(nodes: &Nodes, seed: u64) -> Result<Vec<Duration>> {
    let server = plain::bind(Some(&nodes.server.1))?;
    let path = Path::to(server.local_addr()?, seed)?;
    let client = plain::bind(None)?;
    let accept = async { Ok::<_, anyhow::Error>(server.accept().await.context("no connection")?.await?) };
    let connect = plain::connect(&client, &nodes.client.1, path.address);
    let (accepted, connected) = tokio::try_join!(accept, connect)?;
    path.lost.store(LOST, Ordering::Relaxed);
    let mut latencies = Latencies::new();
    let receive = async {
        let (mut stream, mut payload) = (accepted.accept_uni().await?, Vec::new());
        loop {
            plain::read(&mut stream, &mut payload).await?;
            if !latencies.note(&payload) {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    let send = async {
        let (mut stream, mut pace) = (connected.open_uni().await?, pace());
        for number in 0..MESSAGES {
            pace.tick().await;
            plain::write(&mut stream, &message(number)).await?;
        }
        std::future::pending::<Result<()>>().await
    };
    over(receive, send).await?;
    Ok(latencies.found)
}

/// Until everything has arrived, or it is too late.
async fn over(
    receive: impl Future<Output = Result<()>>,
    send: impl Future<Output = Result<()>>,
) -> Result<()> {
    let both = async {
        tokio::select! {
            received = receive => received,
            sent = send => sent,
        }
    };
    // A connection that carries nothing any more is a result: the messages are late.
    timeout(PAUSE * MESSAGES + PATIENCE, both).await.unwrap_or(Ok(()))
}

pub(super) fn cases(options: &Options) -> Result<Vec<Case>> {
    let name = "steady service over a lossy path";
    if !name.contains(&options.case) {
        return Ok(Vec::new());
    }
    let how = format!(
        "{MESSAGES} ordered messages of {LEN} bytes, one each {} ms, while {LOST} % of the packets of each direction are lost; {TURNS} turns. \
         A latency counts from the time at which the message was to be sent. Messages that have not arrived {} s after the last one are late.",
        PAUSE.as_millis(),
        PATIENCE.as_secs()
    );
    let mut case = Case::new("mesh", name, how, SYSTEMS.map(str::to_owned).to_vec());
    let nodes = Nodes::new()?;
    for turn in 0..TURNS {
        for place in 0..SYSTEMS.len() {
            let system = (place + turn) % SYSTEMS.len();
            let seed = turn as u64 + 1;
            let mut found = runtime()?.block_on(async {
                match system {
                    0 => of_x0(&nodes, seed).await,
                    _ => of_quinn(&nodes, seed).await,
                }
            })?;
            let in_time = found.iter().filter(|latency| **latency <= LATE).count();
            case.add(LATE_SHARE, system, (1.0 - in_time as f64 / f64::from(MESSAGES)) * 100.0);
            // Messages that did not arrive took at least this long.
            found.resize(MESSAGES as usize, PATIENCE);
            found.sort_unstable();
            for (metric, share) in [(P50, 50), (P99, 99)] {
                let latency = found.get(found.len() * share / 100).ok_or_else(|| anyhow!("no message"))?;
                case.add(metric, system, latency.as_secs_f64() * 1e3);
            }
        }
    }
    case.aim(LATE_SHARE.name, case.median(LATE_SHARE, 0), LATE_MOST, LATE_SHARE.unit);
    Ok(vec![case])
}
