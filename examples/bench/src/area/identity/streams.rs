//! 1,000 streams of the Workload API: how long a rotation takes to reach all, and the memory of the server
//! for each, beside a server of the same messages with tonic.

mod message;
mod tonic;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use x0_identity::workload_api::{ClientInput, ClientOptions, ClientOutput, ClientSession};

use super::Options;
use super::load::{Kit, Running};
use super::worker::Mode;
use crate::case::{Case, Metric};

/// The place of tonic among the systems.
const TONIC: usize = 1;
const STREAMS: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(60);

const P50: Metric = Metric { name: "a rotation reaches a stream, median", unit: "ms" };
const P99: Metric = Metric { name: "a rotation reaches a stream, 99 %", unit: "ms" };
const MEMORY: Metric = Metric { name: "memory of the server for each stream", unit: "KiB" };

/// The socket of a server in the folder of its kit.
pub(super) fn socket_name(server: &str) -> String {
    format!("{server}.sock")
}

struct Subscriber {
    socket: UnixStream,
    session: ClientSession,
    received: usize,
}

impl Subscriber {
    fn connect(path: &Path) -> Result<Subscriber> {
        let mut session = ClientSession::new(ClientOptions::default(), "localhost", 1);
        session.handle(Duration::ZERO, ClientInput::Timeout)?;
        let mut subscriber = Subscriber { socket: UnixStream::connect(path)?, session, received: 0 };
        subscriber.pump()?;
        subscriber.session.handle(Duration::ZERO, ClientInput::Connected)?;
        subscriber.pump()?;
        subscriber.socket.set_nonblocking(true)?;
        Ok(subscriber)
    }

    fn pump(&mut self) -> Result<()> {
        while let Some(output) = self.session.poll_output() {
            match output {
                ClientOutput::Send(bytes) => self.socket.write_all(&bytes)?,
                ClientOutput::X509Svids(_) => self.received += 1,
                ClientOutput::Connect => {}
                other => bail!("unexpected: {other:?}"),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.socket.read(buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(len) => {
                self.session.handle(Duration::ZERO, ClientInput::Bytes(&buffer[..len]))?;
                self.pump()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until each subscriber has so many messages, and returns when each had them.
fn wait(subscribers: &mut [Subscriber], messages: usize) -> Result<Vec<Duration>> {
    let begun = Instant::now();
    let mut buffer = [0; 16_384];
    let mut times = Vec::new();
    while times.len() < subscribers.len() {
        for subscriber in subscribers.iter_mut().filter(|subscriber| subscriber.received < messages) {
            subscriber.read(&mut buffer)?;
            if subscriber.received >= messages {
                times.push(begun.elapsed());
            }
        }
        if begun.elapsed() > WAIT_MAX {
            bail!("a rotation did not reach all streams within {WAIT_MAX:?}");
        }
    }
    times.sort();
    Ok(times)
}

/// A server with its streams.
struct Subscribed {
    server: Running,
    subscribers: Vec<Subscriber>,
    memory: f64,
    messages: usize,
}

impl Subscribed {
    fn new(kit: &Kit, server: Running, name: &str, streams: usize) -> Result<Subscribed> {
        let path = kit.folder.path().join(socket_name(name));
        let mut subscribers = Vec::new();
        let mut before = server.resident()?;
        for number in 0..=streams {
            let mut subscriber = Subscriber::connect(&path)?;
            wait(std::slice::from_mut(&mut subscriber), 1)?;
            subscribers.push(subscriber);
            if number == 0 {
                // What the first stream alone makes the server keep is not counted.
                before = server.resident()?;
            }
        }
        let memory = server.resident()?.saturating_sub(before) as f64 / streams as f64;
        Ok(Subscribed { server, subscribers, memory, messages: 1 })
    }

    fn rotate(&mut self) -> Result<Vec<Duration>> {
        self.messages += 1;
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.port))?);
        wait(&mut self.subscribers, self.messages)
    }
}

pub(super) fn run(options: &Options) -> Result<Case> {
    let streams = if options.quick { STREAMS / 10 } else { STREAMS };
    let how = format!(
        "{streams} streams of X.509-SVIDs on connections of their own over a Unix domain socket; a rotation in each turn. \
         One thread reads all streams in turn."
    );
    let systems = ["x0-identity", "tonic 0.14"].map(str::to_owned).to_vec();
    let mut case = Case::new("identity", "streams of the Workload API", how, systems);
    let kit = Kit::new()?;
    let own = Subscribed::new(&kit, kit.worker(Mode::Workload)?, Mode::Workload.name(), streams)?;
    let mut servers = vec![own];
    match tonic::start(&kit).and_then(|server| Subscribed::new(&kit, server, tonic::NAME, streams)) {
        Ok(server) => servers.push(server),
        Err(error) => case.miss(TONIC, format!("{error:#}")),
    }
    for (system, server) in servers.iter().enumerate() {
        case.add(MEMORY, system, server.memory / 1024.0);
    }
    for turn in 0..options.turns {
        for place in 0..servers.len() {
            let system = (place + turn) % servers.len();
            if system == TONIC {
                tonic::write_message(&kit)?;
            }
            let times = servers[system].rotate()?;
            case.add(P50, system, quantile(&times, 50).as_secs_f64() * 1e3);
            case.add(P99, system, quantile(&times, 99).as_secs_f64() * 1e3);
        }
    }
    case.aim("a rotation reaches 99 % of the streams", case.median(P99, 0), 1_000.0, "ms");
    if let Some(peer) = case.median(MEMORY, TONIC) {
        case.aim("memory of the server for each stream, beside tonic", case.median(MEMORY, 0), peer, "KiB");
    }
    Ok(case)
}

/// The time in which so many percent of the streams had the rotation. `times` is sorted and not empty.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=1_000).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 50), Duration::from_millis(501));
        assert_eq!(quantile(&times, 99), Duration::from_millis(991));
        assert_eq!(quantile(&times, 100), Duration::from_millis(1_000));
        assert_eq!(quantile(&times[..1], 99), Duration::from_millis(1));
    }
}
