//! Rotations, new roots, federation changes and a suspend while connections are made all the time: none
//! fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use common::{MINUTE, connect, domain};
use pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use x0_identity::{
    Authority, AuthorityOptions, Identity, NodeId, Renewal, RenewalInput, RenewalOptions, RenewalOutput,
    SpiffeId,
};

const ROTATIONS: usize = 100;
/// Handshakes between one rotation and the next.
const HANDSHAKES_EACH: usize = 4;

/// Ends the handshakes with the rotations, also when these panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn no_connection_fails_while_both_sides_rotate() {
    let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let issue = |number| {
        let node = NodeId::new(number).unwrap();
        authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), MINUTE).unwrap()
    };
    let [client, server] = [1, 2].map(|number| Identity::new(issue(number), authority.bundle()).unwrap());
    // Taken once, as a transport does.
    let (client_config, server_config) = (client.client_config(), server.server_config());
    let first = [&client, &server].map(Identity::svid_serial_number);

    let handshakes = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let seen = Mutex::new([HashSet::new(), HashSet::new()]);
    let issued = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    match connect(&client_config, &server_config) {
                        Ok((client, server)) => {
                            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                            // Without a certificate nothing is seen, which is asked about in the end: a panic
                            // here would leave the rotations waiting.
                            seen[0].extend(server.peer_certificates().map(|chain| chain[0].clone()));
                            seen[1].extend(client.peer_certificates().map(|chain| chain[0].clone()));
                        }
                        Err(error) => failures.lock().unwrap_or_else(PoisonError::into_inner).push(error),
                    }
                    handshakes.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        scope.spawn(|| {
            let _end = SetAtEnd(&over);
            // Paced by the handshakes, not by a clock, and from now on: they may have run ahead while an SVID
            // was issued.
            let wait = || {
                let begun = handshakes.load(Ordering::Acquire);
                while handshakes.load(Ordering::Acquire) < begun + HANDSHAKES_EACH {
                    thread::yield_now();
                }
            };
            for rotation in 1..=ROTATIONS {
                wait();
                let (identity, number) = if rotation % 2 == 0 { (&client, 1) } else { (&server, 2) };
                let svid = issue(number);
                issued.lock().unwrap_or_else(PoisonError::into_inner).push(svid.chain()[0].clone());
                identity.rotate(svid).unwrap();
            }
            wait();
        });
    });

    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(handshakes.load(Ordering::Acquire) > ROTATIONS * HANDSHAKES_EACH);
    let [seen_of_client, seen_of_server] = seen.into_inner().unwrap();
    let issued = issued.into_inner().unwrap();
    assert_eq!(issued.len(), ROTATIONS);
    // The first SVIDs and the last were presented, and most of those between: of four handshakes at most two
    // had begun before.
    assert!(seen_of_client.contains(&issued[ROTATIONS - 1]), "the client's last SVID was never presented");
    assert!(seen_of_server.contains(&issued[ROTATIONS - 2]), "the server's last SVID was never presented");
    for (seen, first) in [(&seen_of_client, &first[0]), (&seen_of_server, &first[1])] {
        assert!(
            seen.iter().any(|leaf| !issued.contains(leaf)),
            "the first SVID was never presented: {first:?}"
        );
        assert!(seen.len() > ROTATIONS / 4, "only {} SVIDs were presented", seen.len());
    }
}

/// A clock that is set.
#[derive(Debug, Clone)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn now() -> Clock {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Clock(Arc::new(AtomicU64::new(now.as_micros().try_into().unwrap())))
    }

    fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_micros().try_into().unwrap(), Ordering::Relaxed);
    }

    fn wall(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.wall()))
    }
}

/// A handshake, flight by flight.
struct Handshake {
    client: ClientConnection,
    server: ServerConnection,
    from_client: bool,
}

impl Handshake {
    /// Carries one flight over. Says whether the handshake is over.
    fn step(&mut self) -> Result<bool, rustls::Error> {
        let mut bytes = Vec::new();
        if self.from_client {
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).unwrap();
                self.server.process_new_packets()?;
            }
        } else {
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets()?;
            }
        }
        self.from_client = !self.from_client;
        Ok(!self.client.is_handshaking() && !self.server.is_handshaking())
    }
}

/// A client, a server, and a guest of a federated trust domain. 2,000 connections begin in each virtual
/// second, and some are under way at each change.
struct World {
    clock: Clock,
    clients: [Arc<ClientConfig>; 2],
    server: Arc<ServerConfig>,
    under_way: VecDeque<Handshake>,
    connections: usize,
}

impl World {
    fn new([client, server, guest]: [&Identity; 3]) -> World {
        let clock = Clock::now();
        let clients = [client, guest].map(|identity| {
            let mut config = ClientConfig::clone(&identity.client_config());
            config.time_provider = Arc::new(clock.clone());
            Arc::new(config)
        });
        let mut config = ServerConfig::clone(&server.server_config());
        config.time_provider = Arc::new(clock.clone());
        World { clock, clients, server: Arc::new(config), under_way: VecDeque::new(), connections: 0 }
    }

    /// Begins so many connections, each of which goes on with the later ones.
    #[track_caller]
    fn load(&mut self, connections: usize) {
        for number in 0..connections {
            self.clock.advance(Duration::from_micros(500));
            let client = Arc::clone(&self.clients[number % 2]);
            let name = "nobody.invalid".try_into().unwrap();
            self.under_way.push_back(Handshake {
                client: ClientConnection::new(client, name).unwrap(),
                server: ServerConnection::new(Arc::clone(&self.server)).unwrap(),
                from_client: true,
            });
            self.connections += 1;
            let failed = |error: &rustls::Error| panic!("connection {} failed: {error}", self.connections);
            self.under_way.retain_mut(|one| !one.step().inspect_err(failed).unwrap());
        }
        assert!(!self.under_way.is_empty(), "connections are under way at each change");
    }
}

/// The whole life of roots and time: a new root in four steps, a foreign trust domain that does the same and
/// is restricted, and 24 hours of suspend, after which the renewal comes late. No connection fails.
#[test]
fn no_connection_fails_over_new_roots_a_federation_change_and_a_suspend() {
    const EACH: usize = 300;
    const VALIDITY: Duration = Duration::from_secs(30 * 3600);
    let authority = |name| Authority::new(domain(name), &AuthorityOptions::default()).unwrap();
    let [(old, new), (old_abroad, new_abroad)] =
        ["example.org", "example.com"].map(|name| (authority(name), authority(name)));
    let issue = |by: &Authority, name: &str| {
        by.issue(&SpiffeId::from_segments(by.trust_domain(), &[name]).unwrap(), VALIDITY).unwrap()
    };
    let both = |one: &Authority, other: &Authority| {
        let mut both = one.bundle();
        both.extend(&other.bundle()).unwrap();
        both
    };
    let identity = |by: &Authority, name: &str| Identity::new(issue(by, name), by.bundle()).unwrap();
    let (client, server) = (identity(&old, "client"), identity(&old, "server"));
    let guest = identity(&old_abroad, "guest");
    server.federate(old_abroad.bundle()).unwrap();
    guest.federate(old.bundle()).unwrap();
    let mut world = World::new([&client, &server, &guest]);
    world.load(EACH);

    // Published: each trusts both at another moment.
    server.set_bundle(both(&old, &new)).unwrap();
    world.load(EACH);
    client.set_bundle(both(&old, &new)).unwrap();
    guest.federate(both(&old, &new)).unwrap();
    world.load(EACH);
    // Activated, retired.
    client.rotate(issue(&new, "client")).unwrap();
    world.load(EACH);
    server.rotate(issue(&new, "server")).unwrap();
    world.load(EACH);
    for identity in [&server, &client] {
        identity.set_bundle(new.bundle()).unwrap();
    }
    guest.federate(new.bundle()).unwrap();
    world.load(EACH);
    let late = identity(&old, "late");
    connect(&late.client_config(), &server.server_config()).unwrap_err();

    // The foreign root, and the restriction to the guest.
    server.federate(both(&old_abroad, &new_abroad)).unwrap();
    world.load(EACH);
    guest.set_bundle(both(&old_abroad, &new_abroad)).unwrap();
    guest.rotate(issue(&new_abroad, "guest")).unwrap();
    world.load(EACH);
    server.restrict(&domain("example.com"), Some([guest.spiffe_id().clone()].into())).unwrap();
    server.federate(new_abroad.bundle()).unwrap();
    world.load(EACH);

    // 24 hours of suspend: the half of the validity is over, and connections come before the renewal.
    let wall = world.clock.wall();
    let mut renewal = Renewal::new(RenewalOptions::default(), 7);
    let issued = |wall: Duration| RenewalInput::Issued { wall, not_before: wall, not_after: wall + VALIDITY };
    renewal.handle(Duration::ZERO, issued(wall)).unwrap();
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.load(EACH);
    let wall = world.clock.wall();
    // The clock of the engine stood still.
    renewal.handle(Duration::from_secs(1), RenewalInput::Timeout { wall }).unwrap();
    assert!(matches!(renewal.poll_output(), Some(RenewalOutput::Renew { .. })));
    for (identity, by) in [(&client, &new), (&server, &new), (&guest, &new_abroad)] {
        let name = identity.spiffe_id().path().trim_start_matches('/').to_owned();
        identity.rotate(issue(by, &name)).unwrap();
        world.load(EACH);
    }
    renewal.handle(Duration::from_secs(1), issued(wall)).unwrap();
    assert_eq!(renewal.poll_output(), None);
    assert_eq!(world.connections, 13 * EACH);
}
