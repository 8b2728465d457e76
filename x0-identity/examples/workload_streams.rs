//! One server of the Workload API and 1,000 streams: how long a rotation takes to reach all of them, and how
//! much memory a stream costs the server.
//!
//! `cargo run --release -p x0-identity --features authority,workload-api --example workload_streams`

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use x0_identity::workload_api::{
    ClientInput, ClientOptions, ClientOutput, ClientSession, EndpointAddress, Listener, Server,
    ServerOptions, SharedWorkload, Workload,
};
use x0_identity::{Authority, AuthorityOptions, SpiffeBundle, SpiffeId, TrustDomain};

const STREAMS: usize = 1000;
const ROTATIONS: usize = 20;

struct Subscriber {
    socket: UnixStream,
    session: ClientSession,
    received: usize,
}

impl Subscriber {
    fn connect(path: &std::path::Path) -> Result<Subscriber, Box<dyn Error>> {
        let mut session = ClientSession::new(ClientOptions::default(), "localhost", 1);
        session.handle(Duration::ZERO, ClientInput::Timeout)?;
        let socket = UnixStream::connect(path)?;
        let mut subscriber = Subscriber { socket, session, received: 0 };
        subscriber.pump()?;
        subscriber.session.handle(Duration::ZERO, ClientInput::Connected)?;
        subscriber.pump()?;
        subscriber.socket.set_nonblocking(true)?;
        Ok(subscriber)
    }

    fn pump(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(output) = self.session.poll_output() {
            match output {
                ClientOutput::Send(bytes) => self.socket.write_all(&bytes)?,
                ClientOutput::X509Svids(_) => self.received += 1,
                ClientOutput::Connect => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Box<dyn Error>> {
        match self.socket.read(buffer) {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(len) => {
                self.session.handle(Duration::ZERO, ClientInput::Bytes(&buffer[..len]))?;
                self.pump()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until each subscriber has so many messages, and returns when each had.
fn wait(subscribers: &mut [Subscriber], messages: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let begun = Instant::now();
    let mut buffer = [0; 16_384];
    let mut times = Vec::new();
    while times.len() < subscribers.len() {
        for subscriber in subscribers.iter_mut().filter(|subscriber| subscriber.received < messages) {
            subscriber.read(&mut buffer)?;
            if subscriber.received == messages {
                times.push(begun.elapsed());
            }
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("a rotation did not reach all streams within a minute".into());
        }
    }
    Ok(times)
}

/// Resident memory of this process, in KiB.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "a program that prints what it measured")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let address = EndpointAddress::Unix(folder.path().join("api.sock"));
    let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
    let web = SpiffeId::parse("spiffe://example.org/web")?;
    let workload = || -> Result<Workload, Box<dyn Error>> {
        let svid = authority.issue(&web, Duration::from_secs(3600))?;
        Ok(Workload::new(SpiffeBundle::new(authority.bundle())).with_svid(svid, "")?)
    };
    let callers = SharedWorkload::new();
    callers.set(Some(workload()?));
    let server =
        Server::start(Listener::bind(&address)?, Arc::new(callers.clone()), ServerOptions::default())?;
    let path = address.path().ok_or("a path")?;

    let mut subscribers: Vec<Subscriber> = Vec::new();
    let before = resident();
    for _ in 0..STREAMS {
        let mut subscriber = Subscriber::connect(path)?;
        wait(std::slice::from_mut(&mut subscriber), 1)?;
        subscribers.push(subscriber);
    }
    if let (Some(before), Some(after)) = (before, resident()) {
        let each = (after - before) * 1024 / STREAMS;
        println!(
            "{STREAMS} streams on {} connections: {each} bytes each, server and client",
            server.connections()
        );
    }
    let mut times = Vec::new();
    for rotation in 0..ROTATIONS {
        callers.set(Some(workload()?));
        server.refresh();
        times.extend(wait(&mut subscribers, rotation + 2)?);
    }
    times.sort();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{ROTATIONS} rotations: p50 {half:?}, p99 {most:?}, slowest {:?}", times[times.len() - 1]);
    Ok(())
}
