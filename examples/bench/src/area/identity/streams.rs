//! 1,000 streams of the Workload API: how long a rotation takes to reach all, and the memory of the server
//! for each, beside a server of the same messages by h2, the HTTP/2 of tonic.

pub(super) mod peer;

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

const STREAMS: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(60);

const P50: Metric = Metric { name: "a rotation reaches a stream, median", unit: "ms" };
const P99: Metric = Metric { name: "a rotation reaches a stream, 99 %", unit: "ms" };
const MEMORY: Metric = Metric { name: "memory of the server for each stream", unit: "KiB" };

/// The socket of a server in the folder of its kit.
pub(super) fn socket_name(mode: Mode) -> String {
    format!("{}.sock", mode.name())
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
    fn new(kit: &Kit, mode: Mode, streams: usize) -> Result<Subscribed> {
        let server = kit.worker(mode)?;
        let path = kit.folder.path().join(socket_name(mode));
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
    let systems = ["x0-identity", "h2 0.4 on tokio"].map(str::to_owned).to_vec();
    let mut case = Case::new("identity", "streams of the Workload API", how, systems);
    let kit = Kit::new()?;
    let mut servers =
        [Subscribed::new(&kit, Mode::Workload, streams)?, Subscribed::new(&kit, Mode::WorkloadH2, streams)?];
    for (system, server) in servers.iter().enumerate() {
        case.add(MEMORY, system, server.memory / 1024.0);
    }
    for turn in 0..options.turns {
        for place in 0..servers.len() {
            let system = (place + turn) % servers.len();
            let times = servers[system].rotate()?;
            case.add(P50, system, times[times.len() / 2].as_secs_f64() * 1e3);
            case.add(P99, system, times[times.len() * 99 / 100].as_secs_f64() * 1e3);
        }
    }
    case.aim("a rotation reaches 99 % of the streams", case.median(P99, 0), 1_000.0, "ms");
    let peer = case.median(MEMORY, 1).unwrap_or_default();
    case.aim("memory of the server for each stream", case.median(MEMORY, 0), peer, "KiB");
    Ok(case)
}
