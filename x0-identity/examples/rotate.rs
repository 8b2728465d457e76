//! Rotates two identities a hundred times, replaces the authority of their trust domain, and begins and ends
//! a federation, while connections are made between them over loopback, as fast as the machine makes them:
//! `cargo run --release -p x0-identity --features rustls,authority --example rotate`.
//!
//! Prints what was seen. Exits with 1 when a connection failed, or fewer than 200 a second were made.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::collections::HashSet;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use x0_identity::{
    Authority, AuthorityOptions, Identity, NodeId, PeerRole, SpiffeId, TrustBundle, TrustDomain, X509Svid,
    peer_node_id,
};

type Failure = Box<dyn Error + Send + Sync>;

const ROTATIONS: u32 = 100;
const BETWEEN_ROTATIONS: Duration = Duration::from_millis(100);
/// Between the steps of the replacement of an authority. A handshake that begins in one ends in it.
const STEP: Duration = Duration::from_secs(1);
/// Connections from the federated trust domain.
const FOREIGN: usize = 500;
const CLIENTS: usize = 4;
const CONNECTIONS_PER_SECOND_MIN: f64 = 200.0;
const SVID_VALIDITY: Duration = Duration::from_secs(300);
/// Without an answer for so long, a connection has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The state that the connections share.
#[derive(Default)]
struct Tally {
    connections: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// The leaf certificates that peers presented.
    leaves: Mutex<HashSet<Vec<u8>>>,
    over: AtomicBool,
}

impl Tally {
    fn fail(&self, side: &str, failure: &Failure) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(format!("{side}: {failure}"));
    }

    fn saw(&self, leaf: &[u8]) {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).insert(leaf.to_vec());
    }
}

fn main() -> Result<ExitCode, Failure> {
    let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
    let (dialler, listener_identity) = (
        Identity::new(issue(&authority, 1)?, authority.bundle())?,
        Identity::new(issue(&authority, 2)?, authority.bundle())?,
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (client_config, server_config) = (dialler.client_config(), listener_identity.server_config());
    let tally = Tally::default();

    let begin = Instant::now();
    let rotated = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let listener = listener.try_clone();
            scope.spawn(|| match listener {
                Ok(listener) => serve(&listener, &server_config, &tally),
                Err(error) => tally.fail("server", &error.into()),
            });
            scope.spawn(|| {
                while !tally.over.load(Ordering::Acquire) {
                    match dial(address, &client_config, &tally) {
                        Ok(()) => _ = tally.connections.fetch_add(1, Ordering::AcqRel),
                        Err(failure) => tally.fail("client", &failure),
                    }
                }
            });
        }
        let changed = || {
            rotate(&authority, &dialler, &listener_identity)?;
            let svids = tally.connections.load(Ordering::Acquire);
            let next = replace_authority(&authority, &dialler, &listener_identity)?;
            let root = tally.connections.load(Ordering::Acquire) - svids;
            federate(&next, &listener_identity, address, &tally)?;
            println!("{svids} connections during the rotations of SVIDs, {root} during that of the root");
            Ok(())
        };
        let rotated = changed();
        let seconds = begin.elapsed().as_secs_f64();
        tally.over.store(true, Ordering::Release);
        // Once more each, so that no server waits for ever for a client that has gone.
        let woken = (0..CLIENTS).try_for_each(|_| TcpStream::connect(address).map(drop));
        rotated.and(woken.map_err(Failure::from)).map(|()| seconds)
    });
    let seconds = rotated?;

    let connections = tally.connections.load(Ordering::Acquire);
    let failures = tally.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let leaves = tally.leaves.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    let per_second = connections as f64 / seconds;
    println!("{ROTATIONS} rotations, {leaves} SVIDs seen by peers");
    println!("{connections} connections in {seconds:.1} s: {per_second:.0} per second");
    println!("{} failed", failures.len());
    for failure in failures.iter().take(10) {
        println!("  {failure}");
    }
    let held = failures.is_empty() && per_second >= CONNECTIONS_PER_SECOND_MIN && leaves > 2;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn issue(authority: &Authority, number: u64) -> Result<X509Svid, Failure> {
    let node = NodeId::new(number).ok_or("zero names no node")?;
    Ok(authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), SVID_VALIDITY)?)
}

/// The two in turn.
fn rotate(authority: &Authority, one: &Identity, two: &Identity) -> Result<(), Failure> {
    for rotation in 0..ROTATIONS {
        thread::sleep(BETWEEN_ROTATIONS);
        let (identity, number) = if rotation % 2 == 0 { (one, 1) } else { (two, 2) };
        identity.rotate(issue(authority, number)?)?;
    }
    thread::sleep(BETWEEN_ROTATIONS);
    Ok(())
}

/// The four steps of a root rotation. Returns the authority that is left.
fn replace_authority(old: &Authority, one: &Identity, two: &Identity) -> Result<Authority, Failure> {
    let next = Authority::new(old.trust_domain().clone(), &AuthorityOptions::default())?;
    let both = [old.certificate().clone(), next.certificate().clone()];
    let both = TrustBundle::new(old.trust_domain().clone(), both.to_vec())?;
    for (identity, bundle) in [(one, &both), (two, &both)] {
        identity.set_bundle(bundle.clone())?;
        thread::sleep(STEP);
    }
    for (identity, number) in [(one, 1), (two, 2)] {
        identity.rotate(issue(&next, number)?)?;
        thread::sleep(STEP);
    }
    for identity in [one, two] {
        identity.set_bundle(next.bundle())?;
        thread::sleep(STEP);
    }
    Ok(next)
}

/// A workload of another trust domain connects from the moment in which both domains trust each other, and is
/// refused from the moment in which the listener does not any more. The others connect all the time.
fn federate(
    authority: &Authority,
    listener: &Identity,
    address: SocketAddr,
    tally: &Tally,
) -> Result<(), Failure> {
    let other = Authority::new(TrustDomain::parse("example.net")?, &AuthorityOptions::default())?;
    let foreign = Identity::new(issue(&other, 1)?, other.bundle())?;
    let admits = || listener.admit(&foreign.svid_chain(), PeerRole::Client, SystemTime::now()).is_ok();
    if admits() {
        return Err("a workload of another trust domain is admitted before the federation".into());
    }
    foreign.federate(authority.bundle())?;
    listener.federate(other.bundle())?;
    let config = foreign.client_config();
    let mut connected = 0;
    for _ in 0..FOREIGN {
        match dial(address, &config, tally) {
            Ok(()) => connected += 1,
            Err(failure) => tally.fail("foreign client", &failure),
        }
    }
    println!("{connected} connections from a federated trust domain");
    listener.unfederate(other.trust_domain())?;
    if admits() {
        return Err("a workload of another trust domain is admitted after the federation".into());
    }
    thread::sleep(STEP);
    Ok(())
}

/// Answers one connection after the other until everything is over.
fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, tally: &Tally) {
    loop {
        let accepted = listener.accept();
        let over = tally.over.load(Ordering::Acquire);
        let answered = accepted.map_err(Failure::from).and_then(|(stream, _)| answer(stream, config, tally));
        match answered {
            // A connection that sends nothing after the end was made only to wake this task.
            Err(_) if over => return,
            Err(failure) => tally.fail("server", &failure),
            Ok(()) => {}
        }
    }
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>, tally: &Tally) -> Result<(), Failure> {
    prepare(&stream)?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut question = [0; 4];
    stream.read_exact(&mut question)?;
    let chain = stream.conn.peer_certificates().ok_or("the client presented no certificate")?;
    if peer_node_id(chain)?.get() != 1 {
        return Err("the client is another one".into());
    }
    tally.saw(&chain[0]);
    stream.write_all(&question)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn dial(address: SocketAddr, config: &Arc<ClientConfig>, tally: &Tally) -> Result<(), Failure> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    let connection = ClientConnection::new(Arc::clone(config), "nobody.invalid".try_into()?)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    let chain = stream.conn.peer_certificates().ok_or("the server presented no certificate")?;
    if &answer != b"ping" || peer_node_id(chain)?.get() != 2 {
        return Err("the server is another one".into());
    }
    tally.saw(&chain[0]);
    Ok(())
}

fn prepare(stream: &TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}
