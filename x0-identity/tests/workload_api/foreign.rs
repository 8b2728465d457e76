//! Clients that others wrote, unmodified: `spiffe` 0.3 of PyPI (gRPC core) and `spiffe` 0.19 of crates.io
//! (tonic); and a server with tonic for ours.
//!
//! `.ci/run` installs the first, builds the second (`tests/foreign/`), and names them in `X0_SPIFFE_PYTHON`
//! (an interpreter) and `X0_SPIFFE_RUST` (the program), and the server in `X0_TONIC`. Each prints what it
//! received, and waits for what the server sends next.

use std::io::{BufRead, BufReader, Lines};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use x0_identity::X509Svid;
use x0_identity::workload_api::EndpointAddress;

use crate::drivers::{PATIENCE, Running};
use crate::kit::Domain;
use crate::proto::encode;

const ROTATIONS: usize = 20;

/// The program, or `None` outside of CI.
fn program(variable: &str, arguments: &[&str]) -> Option<Command> {
    let Some(program) = std::env::var_os(variable) else {
        assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI names the client in {variable}");
        println!("skipped: {variable} names no client; .ci/run has one");
        return None;
    };
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped());
    Some(command)
}

struct Client(Child, Lines<BufReader<ChildStdout>>);

impl Client {
    fn start(mut command: Command, running: &Running) -> Client {
        let mut child = command.arg(running.address.to_string()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Client(child, lines)
    }

    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let line = self.1.next().expect("a line").unwrap();
        assert_eq!(line, expected);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The end of the default SVID's leaf, as the clients print it.
fn tail(running: &Running) -> String {
    let workload = running.callers.get().unwrap();
    assert!(workload.spiffe_ids().next().is_some());
    // The client of this crate is the second opinion.
    let options = x0_identity::workload_api::ClientOptions::default();
    let client = x0_identity::workload_api::Client::start(running.address.clone(), options).unwrap();
    let context = client.x509_context(PATIENCE).unwrap();
    let leaf = &context.svids()[0].svid.chain()[0];
    leaf[leaf.len() - 16..].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(command: Command) {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let workload = || example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    let running = Running::new(Some(workload()));
    let mut client = Client::start(command, &running);
    let first = tail(&running);
    client.expect(&format!("svid spiffe://example.org/web {first}"));
    client.expect("svids spiffe://example.org/web spiffe://example.org/batch");
    client.expect("bundles example.com=1 example.org=1");
    client.expect("jwt-bundles example.com=1 example.org=1");
    client.expect("jwt-svid spiffe://example.org/web");
    client.expect("jwt-svids spiffe://example.org/web spiffe://example.org/batch");
    client.expect("valid spiffe://example.org/web");
    client.expect("invalid INVALID_ARGUMENT");
    client.expect(&format!("update {first}"));
    for _ in 0..ROTATIONS {
        running.set(Some(workload()));
        client.expect(&format!("update {}", tail(&running)));
    }
    running.set(None);
    client.expect("ended PERMISSION_DENIED");
    assert!(client.0.wait().unwrap().success());
}

#[test]
fn the_client_of_python() {
    if let Some(command) = program("X0_SPIFFE_PYTHON", &["tests/foreign/client.py"]) {
        serve(command);
    }
}

#[test]
fn the_client_of_rust() {
    if let Some(command) = program("X0_SPIFFE_RUST", &[]) {
        serve(command);
    }
}

/// Our client against a server with tonic (`tests/foreign/src/bin`), over rotations and a new start of the
/// server. It has one of the methods: the others are `Unimplemented`, which must not disturb the one.
#[test]
fn a_server_with_tonic() {
    let Some(command) = program("X0_TONIC", &[]) else { return };
    let program = command.get_program().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("socket"), folder.path().join("message"));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let example = Domain::new("example.org");
    let write = || {
        let svid = example.svid("web");
        let chain: Vec<u8> = svid.chain().iter().flat_map(|der| der.to_vec()).collect();
        let (id, bundle) = (svid.spiffe_id().to_string(), example.authority.certificate());
        let fields: [(u8, &[u8]); 4] =
            [(1, id.as_bytes()), (2, &chain), (3, svid.key().secret_der()), (4, bundle)];
        let whole = file.with_extension("new");
        std::fs::write(&whole, encode(&[(1, &encode(&fields))])).unwrap();
        std::fs::rename(whole, &file).unwrap();
        svid
    };
    let start = || {
        drop(std::fs::remove_file(&socket));
        let mut command = Command::new(&program);
        let child = command.arg(&socket).arg(&file).arg(port.to_string()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Client(child, lines)
    };
    let first = write();
    let server = start();
    let options = x0_identity::workload_api::ClientOptions::default();
    let client =
        x0_identity::workload_api::Client::start(EndpointAddress::Unix(socket.clone()), options).unwrap();
    let leaf = || client.x509_context(PATIENCE).unwrap().svids()[0].svid.chain()[0].clone();
    assert_eq!(leaf(), first.chain()[0]);
    assert_eq!(client.identity(None, PATIENCE).unwrap().spiffe_id(), first.spiffe_id());
    let follows = |svid: &X509Svid, rotate: &dyn Fn()| {
        let (mut seen, begun) = (client.wait_for_change(0, Duration::ZERO), Instant::now());
        rotate();
        while leaf() != svid.chain()[0] {
            assert!(begun.elapsed() < PATIENCE, "the client does not follow");
            seen = client.wait_for_change(seen, PATIENCE);
        }
    };
    for _ in 0..ROTATIONS {
        let svid = write();
        // The server listens on the port after the socket.
        follows(&svid, &|| while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {});
    }
    drop(server);
    let svid = write();
    let mut again = None;
    let restarted = std::cell::RefCell::new(&mut again);
    follows(&svid, &|| **restarted.borrow_mut() = Some(start()));
}
