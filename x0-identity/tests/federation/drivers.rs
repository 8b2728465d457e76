//! The drivers: sockets, threads and TLS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use x0_identity::federation::{
    ClientOptions, EndpointProfile, FederationHandleError, FetchError, Relationship, ServerOptions,
};

use crate::kit::{Consumer, Domain, Endpoint, Report, Web, domain, url};

#[test]
fn a_relationship_lives_and_ends() {
    let example = Domain::new("example.org");
    let endpoint = Endpoint::of(&example);
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    let consumer = Consumer::new(ClientOptions::default());
    let relationship = Relationship::new(example.name(), endpoint.url("/"), example.profile());
    consumer.establish(relationship.with_bundle(example.bundle(0)).unwrap());
    consumer.until_bundle(&example.bundle(1));
    // The endpoint stops, and the bundle stays in use.
    drop(endpoint);
    consumer.client.refresh(example.name()).unwrap();
    assert!(matches!(consumer.failure(&example.name()), FetchError::Unreachable { .. }));
    consumer.until_bundle(&example.bundle(1));
    consumer.client.terminate(example.name()).unwrap();
    let reports = consumer.reports.0.lock().unwrap().clone();
    let expected = [example.bundle(0), example.bundle(1)].map(Report::Updated);
    assert_eq!(reports[..2], expected);
    assert_eq!(reports[2..], [Report::Removed(example.name())]);
    let unknown = FederationHandleError::Unknown { trust_domain: example.name() };
    assert_eq!(consumer.client.terminate(example.name()), Err(unknown));
    assert!(format!("{:?}", consumer.client).starts_with("Client"));
}

#[test]
fn hosts_that_do_not_answer() {
    let consumer = Consumer::new(ClientOptions::default().fetch_max(Duration::from_millis(300)));
    // Accepts, and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let example = Domain::new("example.org");
    let address = url(&format!("https://{}/", silent.local_addr().unwrap()));
    let relationship = Relationship::new(example.name(), address, example.profile());
    consumer.establish(relationship.with_bundle(example.bundle(0)).unwrap());
    let failure = consumer.failure(&example.name());
    assert!(matches!(failure, FetchError::TimedOut | FetchError::Unreachable { .. }), "{failure}");
    // A name that does not exist (RFC 6761 §6.4).
    consumer.establish(Relationship::new(
        domain("b.example"),
        url("https://nobody.invalid/"),
        EndpointProfile::Web,
    ));
    let failure = consumer.failure(&domain("b.example"));
    assert!(!matches!(failure, FetchError::Response(_)), "{failure}");
    // No server of TLS.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = url(&format!("https://{}/", listener.local_addr().unwrap()));
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let relationship = Relationship::new(domain("c.example"), address, example.profile());
    consumer.establish(relationship);
    let failure = consumer.failure(&domain("c.example"));
    assert!(matches!(failure, FetchError::NotAuthenticated { .. }), "{failure}");
    plain.join().unwrap();
}

#[test]
fn a_server_bounds_its_connections() {
    let web = Web::new();
    let options = ServerOptions::default().connections_max(1).idle_max(Duration::from_millis(300));
    let endpoint = Endpoint::with_options(web.config("localhost"), options);
    let begun = Instant::now();
    // An alert may come before the end.
    let ends = |mut stream: TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let first = TcpStream::connect(endpoint.address()).unwrap();
    // A further one is closed while the first is open, whose handshake has its time.
    let second = TcpStream::connect(endpoint.address()).unwrap();
    ends(second);
    assert!(begun.elapsed() < Duration::from_millis(300));
    ends(first);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(format!("{:?}", endpoint.server).starts_with("Server"));
}

#[test]
fn a_client_that_ends_ends_its_fetches() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let example = Domain::new("example.org");
    let consumer = Consumer::new(ClientOptions::default());
    let address = url(&format!("https://{}/", silent.local_addr().unwrap()));
    let relationship = Relationship::new(example.name(), address, example.profile());
    consumer.establish(relationship.with_bundle(example.bundle(0)).unwrap());
    let (mut stream, _) = silent.accept().unwrap();
    drop(consumer);
    // The connection ends after what was sent.
    stream.set_read_timeout(Some(crate::kit::PATIENCE)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}
