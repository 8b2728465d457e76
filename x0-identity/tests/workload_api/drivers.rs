//! The drivers: real sockets and threads.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ServerConfig};
use x0_identity::workload_api::{
    Caller, Callers, Client, ClientError, ClientIdentityError, ClientOptions, Code, EndpointAddress,
    IdentityFeedError, Listener, Peer, Server, ServerOptions, SharedWorkload, Subscription, WaitError,
    Workload,
};

use crate::kit::{Domain, domain, id};

/// Longer than any step takes on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
    crate::common::connect(client, server).map(drop)
}

/// A server on a socket in a folder of its own.
pub(crate) struct Running {
    pub(crate) callers: SharedWorkload,
    pub(crate) server: Option<Server>,
    pub(crate) address: EndpointAddress,
    options: ServerOptions,
    _folder: tempfile::TempDir,
}

impl Running {
    pub(crate) fn new(workload: Option<Workload>) -> Running {
        Running::with_options(workload, ServerOptions::default())
    }

    pub(crate) fn with_options(workload: Option<Workload>, options: ServerOptions) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let address = EndpointAddress::Unix(folder.path().join("api.sock"));
        let callers = SharedWorkload::new();
        callers.set(workload);
        let mut running = Running { callers, server: None, address, options, _folder: folder };
        running.start();
        running
    }

    pub(crate) fn start(&mut self) {
        let listener = Listener::bind(&self.address).unwrap();
        let callers = Arc::new(self.callers.clone());
        let server = Server::start(listener, callers, self.options.clone()).unwrap();
        assert_eq!(server.address(), Some(&self.address));
        self.server = Some(server);
    }

    pub(crate) fn set(&self, workload: Option<Workload>) {
        self.callers.set(workload);
        self.server.as_ref().unwrap().refresh();
    }

    pub(crate) fn client(&self, options: ClientOptions) -> Client {
        Client::start(self.address.clone(), options.pause_max(Duration::from_millis(200))).unwrap()
    }
}

fn until(mut done: impl FnMut() -> bool, client: &Client) {
    let begun = Instant::now();
    let mut seen = 0;
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come");
        seen = client.wait_for_change(seen, Duration::from_millis(20));
    }
}

#[test]
fn an_identity_follows_its_workload_api() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let mut running = Running::new(Some(example.workload(&["web"])));
    let client = running.client(ClientOptions::default().x509_bundles(true).jwt_bundles(true));
    let identity = client.identity(Some("web"), PATIENCE).unwrap();
    assert_eq!(identity.spiffe_id(), &id("spiffe://example.org/web"));
    assert_eq!(client.x509_bundles(PATIENCE).unwrap().bundles().len(), 1);
    assert!(client.jwt_bundles(PATIENCE).unwrap().get(&domain("example.org")).is_some());
    let (server, dialer) = (identity.server_config(), identity.client_config());
    handshake(&dialer, &server).unwrap();

    // A rotation of the SVID and of the root.
    let next = Domain::new("example.org");
    let serial = identity.svid_serial_number();
    running.set(Some(next.workload(&["web"]).with_federated(foreign.bundle()).unwrap()));
    until(|| identity.svid_serial_number() != serial, &client);
    assert_eq!(identity.trust_bundle(), next.authority.bundle());
    handshake(&dialer, &server).unwrap();
    assert_eq!(client.identity_problem(), None);

    // The server restarts, and the client returns by itself.
    running.server = None;
    let serial = identity.svid_serial_number();
    until(|| client.problem(Subscription::X509Svids).is_some(), &client);
    handshake(&dialer, &server).expect("the SVID stays in use");
    running.callers.set(Some(next.workload(&["web"])));
    running.start();
    until(|| identity.svid_serial_number() != serial, &client);
    assert_eq!(client.problem(Subscription::X509Svids), None);

    // Another identity only, then none at all, then again.
    running.set(Some(next.workload(&["batch"])));
    until(|| client.identity_problem().is_some(), &client);
    assert!(matches!(client.identity_problem(), Some(IdentityFeedError::Redacted { .. })));
    assert!(handshake(&dialer, &server).is_err());
    assert!(matches!(
        client.identity(Some("web"), PATIENCE),
        Err(ClientIdentityError::Identity(IdentityFeedError::NoHint { .. }))
    ));
    running.set(None);
    until(|| client.problem(Subscription::X509Svids) == Some(WaitError::Denied), &client);
    assert_eq!(client.x509_context(Duration::ZERO).unwrap_err(), WaitError::Denied);
    running.set(Some(next.workload(&["web"])));
    until(|| client.identity_problem().is_none() && handshake(&dialer, &server).is_ok(), &client);
}

#[test]
fn tokens_are_fetched_and_validated() {
    let running = Running::new(Some(Domain::new("example.org").workload(&["web", "batch"])));
    let client = running.client(ClientOptions::default().x509_svids(false));
    let batch = id("spiffe://example.org/batch");
    let svids = client.fetch_jwt_svids(&["reports"], Some(&batch), PATIENCE).unwrap();
    assert_eq!((svids.len(), &svids[0].spiffe_id), (1, &batch));
    assert_eq!(client.fetch_jwt_svids(&["reports"], None, PATIENCE).unwrap().len(), 2);
    let valid = client.validate_jwt_svid("reports", &svids[0].token, PATIENCE).unwrap();
    assert_eq!(valid.spiffe_id, batch);
    let error = client.validate_jwt_svid("other", &svids[0].token, PATIENCE).unwrap_err();
    assert!(matches!(&error, ClientError::Status(status) if status.code == Code::InvalidArgument), "{error}");
    assert_eq!(client.x509_context(Duration::ZERO).unwrap_err(), WaitError::TimedOut);
    assert!(format!("{client:?} {:?}", running.server).contains("api.sock"));
}

#[test]
fn an_endpoint_of_tcp_and_one_that_is_missing() {
    let example = Domain::new("example.org");
    let callers = SharedWorkload::new();
    callers.set(Some(example.workload(&["web"])));
    let listener = Listener::from_tcp(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let address = listener.address().unwrap();
    let server = Server::start(listener, Arc::new(callers), ServerOptions::default()).unwrap();
    let client = Client::start(address.clone(), ClientOptions::default()).unwrap();
    client.x509_context(PATIENCE).unwrap();
    drop((client, server));

    let client = Client::start(address, ClientOptions::default()).unwrap();
    until(|| client.problem(Subscription::X509Svids).is_some(), &client);
    let error = client.x509_context(Duration::ZERO).unwrap_err();
    assert!(matches!(error, WaitError::Failed { .. }), "{error}");
    let error = client.fetch_jwt_svids(&["a"], None, Duration::from_millis(10)).unwrap_err();
    assert!(matches!(error, ClientError::Status(status) if status.code == Code::DeadlineExceeded));
}

/// Callers by what the kernel says of them.
struct ByKernel {
    workload: Arc<Workload>,
    seen: Arc<Mutex<BTreeSet<(i32, u32)>>>,
}

struct Known(Option<Arc<Workload>>);

impl Caller for Known {
    fn workload(&self) -> Option<Arc<Workload>> {
        self.0.clone()
    }
}

impl Callers for ByKernel {
    fn identify(&self, peer: &Peer<'_>) -> Box<dyn Caller> {
        assert!(peer.address.is_none());
        let Some(credentials) = peer.credentials else { return Box::new(Known(None)) };
        self.seen.lock().unwrap().insert((credentials.process, credentials.user));
        let own = i32::try_from(std::process::id()).unwrap();
        Box::new(Known((credentials.process == own).then(|| Arc::clone(&self.workload))))
    }
}

#[test]
fn endpoint_5_callers_are_known_by_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let seen = Arc::default();
    let workload = Arc::new(Domain::new("example.org").workload(&["web"]));
    let callers = ByKernel { workload, seen: Arc::clone(&seen) };
    let listener = Listener::from_unix(UnixListener::bind(&path).unwrap()).unwrap();
    let _server = Server::start(listener, Arc::new(callers), ServerOptions::default()).unwrap();
    let client = Client::start(EndpointAddress::Unix(path), ClientOptions::default()).unwrap();
    // Nothing but the connection and the call: no credential was sent.
    if cfg!(target_os = "linux") {
        client.x509_context(PATIENCE).unwrap();
        assert_eq!(seen.lock().unwrap().iter().next().unwrap().0, i32::try_from(std::process::id()).unwrap());
    }
}

#[test]
fn connections_are_bounded_and_return() {
    let folder = tempfile::tempdir().unwrap();
    let address = EndpointAddress::Unix(folder.path().join("api.sock"));
    let callers = SharedWorkload::new();
    callers.set(Some(Domain::new("example.org").workload(&["web"])));
    let listener = Listener::bind(&address).unwrap();
    let options = ServerOptions::default().connections_max(2);
    let server = Server::start(listener, Arc::new(callers), options).unwrap();
    let path = address.path().unwrap();
    // The server's settings are the sign that a connection is served.
    let connect = || {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let served = |stream: &mut UnixStream| stream.read_exact(&mut [0; 9]).is_ok();
    let mut streams = [connect(), connect(), connect()];
    assert!(served(&mut streams[0]) && served(&mut streams[1]));
    assert_eq!(server.connections(), 2);
    streams[2].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(!served(&mut streams[2]), "the third one waits");
    let [first, _second, mut third] = streams;
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(served(&mut third));
}

/// 50 streams receive each of 20 rotations: the newest message, complete.
#[test]
fn many_streams_receive_every_rotation() {
    let example = Domain::new("example.org");
    let running = Running::new(Some(example.workload(&["web"])));
    let clients: Vec<Client> = (0..50).map(|_| running.client(ClientOptions::default())).collect();
    for client in &clients {
        client.x509_context(PATIENCE).unwrap();
    }
    for _ in 0..20 {
        let svid = example.svid("web");
        let serial = svid.serial_number().to_vec();
        running.set(Some(Workload::new(example.bundle()).with_svid(svid, "").unwrap()));
        for client in &clients {
            let current = || client.x509_context(PATIENCE).unwrap().svids()[0].svid.serial_number() == serial;
            until(current, client);
        }
    }
    assert_eq!(running.server.as_ref().unwrap().connections(), 50);
}
