//! The attestor of Unix peers, and callers of the Workload API by it. Processes that are attested are this
//! test program, started again with the name of a role in the environment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers as well"
)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use x0_identity::workload_api::{
    Client, ClientOptions, EndpointAddress, Listener, Server, ServerOptions, UnixCallers, WaitError, Workload,
};
use x0_identity::{
    Attestation, Attestor, Attestors, Authority, AuthorityOptions, EvidenceKind, IssuanceServerInput,
    MemoryRegistry, PresentedEvidence, Proof, RegistrationEntry, Selector, SpiffeBundle, SpiffeId,
    TrustDomain, UnixAttestError, UnixAttestor, UnixAttestorOptions, UnixConnection,
};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);
const ROLE: &str = "X0_UNIX_PEER_ROLE";
const SOCKET: &str = "X0_UNIX_PEER_SOCKET";

/// Not a test: what a process does that a test starts.
#[allow(clippy::zombie_processes, reason = "the process that holds the connection outlives this one")]
#[test]
fn role() {
    let (Some(role), Some(socket)) = (std::env::var_os(ROLE), std::env::var_os(SOCKET)) else { return };
    let stream = UnixStream::connect(Path::new(&socket)).unwrap();
    if role == "connects-and-leaves" {
        // Another process holds the connection now, and this one ends.
        let held = Stdio::from(OwnedFd::from(stream));
        Command::new("sleep")
            .arg("60")
            .stdin(held)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        return;
    }
    // Until the other end closes.
    drop((&stream).read(&mut [0; 1]));
}

struct Peer {
    child: Child,
    stream: UnixStream,
}

impl Peer {
    fn start(role: &str, program: &Path, arguments: &[&str]) -> Peer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env(ROLE, role)
            .env(SOCKET, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        Peer { child, stream }
    }

    fn of_this_program(role: &str) -> Peer {
        Peer::start(role, &std::env::current_exe().unwrap(), &["--exact", "role"])
    }

    fn attest(&self) -> Result<x0_identity::UnixPeer, UnixAttestError> {
        UnixAttestor::default().attest(self.stream.as_fd())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn own_sha256() -> String {
    let path = std::env::current_exe().unwrap();
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().into()
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

#[test]
fn a_process_is_attested_by_the_kernel() {
    let peer = Peer::of_this_program("waits");
    let attested = peer.attest().unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    assert_eq!((attested.user, attested.group), (own.uid(), own.gid()));
    let path = std::env::current_exe().unwrap().canonicalize().unwrap();
    let expected = [
        format!("unix:gid:{}", own.gid()),
        format!("unix:path:{}", path.to_str().unwrap()),
        format!("unix:sha256:{}", own_sha256()),
        format!("unix:uid:{}", own.uid()),
    ];
    assert_eq!(attested.selectors().iter().map(ToString::to_string).collect::<Vec<_>>(), expected);

    let plain = UnixAttestor::new(UnixAttestorOptions::default().binary(false)).attest(peer.stream.as_fd());
    assert_eq!(plain.unwrap().selectors().len(), 2);
    let short = UnixAttestor::new(UnixAttestorOptions::default().binary_len_max(1000));
    let refused = short.attest(peer.stream.as_fd());
    assert!(matches!(refused, Err(UnixAttestError::BinaryLength { binary_len_max: 1000 })), "{refused:?}");
}

/// The attestor is one of those of an issuer, for its kind of evidence.
#[test]
fn a_process_is_attested_through_the_seam() {
    let peer = Peer::of_this_program("waits");
    let expected = peer.attest().unwrap().selectors();
    let mut attestors = Attestors::new().with(UnixAttestor::default());
    assert_eq!(attestors.kinds().collect::<Vec<_>>(), [EvidenceKind::Unix]);
    let socket = UnixConnection::from(OwnedFd::from(peer.stream.try_clone().unwrap()));
    assert_eq!(socket.clone(), socket);
    assert_ne!(socket, UnixConnection::from(OwnedFd::from(peer.stream.try_clone().unwrap())));
    let evidence = PresentedEvidence::Unix(socket);
    assert_eq!(format!("{evidence:?}"), "Unix");
    let input = attestors.attest(7, &evidence, Duration::from_secs(1));
    assert!(
        matches!(&input, IssuanceServerInput::Attested { id: 7, proof: Proof::Selectors(proved), .. } if *proved == expected),
        "{input:?}"
    );
    // A process that has ended, another kind of evidence, and a socket of another family.
    drop(peer);
    let refused = |attestors: &mut Attestors, evidence: &PresentedEvidence| match attestors.attest(
        7,
        evidence,
        Duration::from_secs(1),
    ) {
        IssuanceServerInput::NotAttested { id: 7, why } => why,
        input => panic!("{input:?}"),
    };
    assert!(refused(&mut attestors, &evidence).contains("has ended"));
    let other = PresentedEvidence::Certificate(Vec::new());
    assert!(refused(&mut attestors, &other).contains("no attestor"));
    let alone = Attestor::attest(&mut UnixAttestor::default(), &other, std::time::SystemTime::now());
    assert!(matches!(alone, Attestation::Refused(_)), "{alone:?}");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = PresentedEvidence::Unix(OwnedFd::from(tcp).into());
    refused(&mut attestors, &tcp);
}

#[test]
fn a_binary_that_was_replaced_has_no_path() {
    let own = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
    let copy = folder.path().join("program");
    // A link: a file that is written while another thread starts a process cannot be started itself.
    std::fs::hard_link(own, &copy).unwrap();
    let peer = Peer::start("waits", &copy, &["--exact", "role"]);
    let before = peer.attest().unwrap();
    assert_eq!(before.path.as_deref().map(Path::new), Some(copy.canonicalize().unwrap().as_path()));
    // Another file at the same path is not what the process runs.
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "another program").unwrap();
    let after = peer.attest().unwrap();
    assert_eq!((after.path, after.sha256), (None, before.sha256));
}

/// The bytes that this thread has read from files so far.
fn bytes_read() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test]
fn a_binary_is_hashed_once() {
    let peer = Peer::of_this_program("waits");
    let attestor = UnixAttestor::default();
    let attest = || {
        let before = bytes_read();
        let sha256 = attestor.clone().attest(peer.stream.as_fd()).unwrap().sha256;
        (sha256, bytes_read().zip(before).map(|(after, before)| after - before))
    };
    let len = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    let (first, Some(read_first)) = attest() else {
        println!("skipped: the kernel does not count what a thread reads");
        return;
    };
    assert!(read_first >= len, "{read_first} of {len}");
    // A file that changed some seconds ago is not remembered: this program was linked, or got a further name.
    let begun = Instant::now();
    loop {
        let (again, read) = attest();
        assert_eq!(first, again);
        if read.is_some_and(|read| read < len / 10) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{read:?} of {len} are read each time");
    }
}

/// A file of the same path, length and time of the last change of the content is another one.
#[test]
fn a_binary_that_changed_is_hashed_again() {
    let own = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
    let program = folder.path().join("program");
    let attestor = UnixAttestor::default();
    let mut digests = Vec::new();
    for more in ["one", "two"] {
        // By a process of its own: a file that is written while another thread starts a process cannot be
        // started.
        let script = "cp $1 $2.new && printf %s $3 >> $2.new && mv $2.new $2 && touch -d 2001-01-01 $2";
        let mut copy = Command::new("sh");
        copy.args(["-c", script, "sh"]).args([&own, &program]).arg(more);
        assert!(copy.status().unwrap().success());
        let peer = Peer::start("waits", &program, &["--exact", "role"]);
        for _ in 0..2 {
            digests.push(attestor.attest(peer.stream.as_fd()).unwrap().sha256.unwrap());
        }
    }
    assert_eq!((digests[0], digests[2]), (digests[1], digests[3]));
    assert_ne!(digests[0], digests[2]);
}

#[test]
fn a_process_that_ended_is_refused_whichever_holds_its_connection() {
    let mut peer = Peer::of_this_program("connects-and-leaves");
    assert!(peer.child.wait().unwrap().success());
    // The connection lives, in the hands of `sleep`.
    (&peer.stream).write_all(b"a").unwrap();
    let refused = peer.attest();
    assert!(matches!(refused, Err(UnixAttestError::Ended)), "{refused:?}");
}

/// The number of the process is given to another one, and that one is not taken for it.
#[test]
fn a_number_that_is_given_again_is_not_mistaken() {
    let last = "/proc/sys/kernel/ns_last_pid";
    let mut peer = Peer::of_this_program("connects-and-leaves");
    let number = peer.child.id();
    assert!(peer.child.wait().unwrap().success());
    let mut successor = None;
    for _ in 0..200 {
        if std::fs::write(last, (number - 1).to_string()).is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            println!("skipped: {last} cannot be written; run as root");
            return;
        }
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        if child.id() == number {
            successor = Some(child);
            break;
        }
        // Another process of the machine was faster.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let Some(mut successor) = successor else {
        println!("skipped: other processes take the number each time");
        return;
    };
    assert!(Path::new(&format!("/proc/{number}")).exists());
    let refused = peer.attest();
    assert!(matches!(refused, Err(UnixAttestError::Ended)), "{refused:?}");
    successor.kill().unwrap();
    successor.wait().unwrap();
}

#[test]
fn what_is_not_a_unix_domain_socket_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let refused = UnixAttestor::default().attest(stream.as_fd());
    let named = matches!(
        refused,
        Err(UnixAttestError::Kernel { .. } | UnixAttestError::Ended | UnixAttestError::Namespace)
    );
    assert!(named, "{refused:?}");
}

/// A server whose callers are attested, with one registration entry.
struct Running {
    registry: Arc<RwLock<MemoryRegistry>>,
    server: Server,
    address: EndpointAddress,
    refusals: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

fn web() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

impl Running {
    fn new(attestor: UnixAttestor) -> Running {
        let authority =
            Authority::new(TrustDomain::parse("example.org").unwrap(), &AuthorityOptions::default()).unwrap();
        let registry = Arc::new(RwLock::new(MemoryRegistry::new()));
        let issue = move |entries: &[RegistrationEntry]| {
            let workload = Workload::new(SpiffeBundle::new(authority.bundle()));
            let issued = entries.iter().try_fold(workload, |workload, entry| {
                let svid = authority.issue(entry.spiffe_id(), entry.validity()).ok()?;
                workload.with_svid(svid, "").ok()
            });
            issued.map(Arc::new)
        };
        let refusals: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&refusals);
        let callers = UnixCallers::new(attestor, Arc::clone(&registry) as _, Arc::new(issue))
            .on_refusal(move |error| seen.lock().unwrap().push(error.to_string()));
        let folder = tempfile::tempdir().unwrap();
        let address = EndpointAddress::Unix(folder.path().join("api.sock"));
        let server =
            Server::start(Listener::bind(&address).unwrap(), Arc::new(callers), ServerOptions::default());
        Running { registry, server: server.unwrap(), address, refusals, _folder: folder }
    }

    fn register(&self, selectors: &[String]) {
        let entry = RegistrationEntry::new(web(), HOUR);
        let entry = selectors.iter().fold(entry, |entry, text| entry.selector(selector(text)));
        self.registry.write().unwrap().insert(entry);
        self.server.refresh();
    }

    /// Whether a client of this process receives `PermissionDenied`, and no SVID before.
    fn denies(&self) -> bool {
        let (client, begun) = (self.client(), Instant::now());
        loop {
            match client.x509_context(Duration::from_millis(20)) {
                Err(WaitError::Denied) => return true,
                Err(WaitError::TimedOut) if begun.elapsed() < PATIENCE => {}
                _ => return false,
            }
        }
    }

    fn client(&self) -> Client {
        let options = ClientOptions::default().pause_max(Duration::from_millis(50));
        Client::start(self.address.clone(), options).unwrap()
    }
}

#[test]
fn callers_receive_what_their_selectors_match() {
    let running = Running::new(UnixAttestor::default());
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let path = std::env::current_exe().unwrap().canonicalize().unwrap();
    let matching = [
        format!("unix:uid:{uid}"),
        format!("unix:path:{}", path.to_str().unwrap()),
        format!("unix:sha256:{}", own_sha256()),
    ];
    // Each selector must match.
    for (place, other) in
        ["unix:uid:4294967294", "unix:path:/usr/bin/other", "unix:sha256:00"].iter().enumerate()
    {
        let mut selectors = matching.clone();
        selectors[place] = (*other).into();
        running.register(&selectors);
        assert!(running.denies(), "{other}");
    }
    running.register(&matching);
    let client = running.client();
    let context = client.x509_context(PATIENCE).unwrap();
    assert_eq!(context.svids()[0].svid.spiffe_id(), &web());
    // The end of the entry reaches the stream that is open.
    running.registry.write().unwrap().remove(&web());
    running.server.refresh();
    let begun = Instant::now();
    while client.x509_context(Duration::from_millis(50)).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the SVID was not redacted");
    }
    assert!(running.refusals.lock().unwrap().is_empty());
}

#[test]
fn callers_that_are_not_attested_are_denied() {
    let running = Running::new(UnixAttestor::new(UnixAttestorOptions::default().binary_len_max(1)));
    running.register(&[]);
    assert!(running.denies());
    let refusals = running.refusals.lock().unwrap();
    assert!(refusals[0].contains("more than the 1 bytes"), "{refusals:?}");
}
