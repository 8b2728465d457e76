//! Issuing over TLS and TCP, with the drivers of the crate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use common::{CLIENT_AUTH, Recipe, domain};
use pki_types::PrivateKeyDer;
use x0_identity::{
    Attestation, Attestor, Attestors, Authority, AuthorityOptions, CaSigner, CaSignerOptions,
    CertificateAttestor, Evidence, EvidenceKind, Identity, IssuanceAnswer, IssuanceClient, IssuanceEndpoint,
    IssuanceEndpointOptions, IssuanceFailure, IssuanceMessageError, IssuanceRequest, IssuanceServer,
    IssuanceServerOptions, IssuanceSource, IssuanceSourceError, JoinTokens, MemoryRegistry,
    PresentedEvidence, Proof, RegistrationEntry, RenewalOptions, RequestKey, RevocationView, Revoked,
    Selector, SpiffeId, SvidAttestor, SvidFollower, SvidSource, SvidSourceError, TrustBundle,
};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap()
}

/// A challenge of its own, in the place of a TPM.
struct Riddle;

impl Attestor for Riddle {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Tpm
    }

    fn attest(&mut self, evidence: &PresentedEvidence, _now: SystemTime) -> Attestation {
        assert!(matches!(evidence, PresentedEvidence::Tpm { .. }));
        let examine = |response: &[u8]| {
            if response != b"an answer" {
                return Attestation::Refused("wrong: think again".into());
            }
            Attestation::Proved(Proof::Selectors([Selector::parse("riddle:solved").unwrap()].into()))
        };
        Attestation::Challenge { challenge: b"a question".to_vec(), examine: Box::new(examine) }
    }
}

struct Running {
    authority: Arc<Authority>,
    endpoint: IssuanceEndpoint<MemoryRegistry>,
    tokens: Vec<String>,
    /// The same that the endpoint has.
    store: Arc<Mutex<JoinTokens>>,
    identity: Identity,
}

impl Running {
    fn new(validity: Duration, devices: TrustBundle, options: IssuanceEndpointOptions) -> Running {
        let before = SystemTime::now() - 24 * HOUR;
        let authority = Authority::new_at(domain("example.org"), &AuthorityOptions::default(), before);
        let authority = Arc::new(authority.unwrap());
        let signer =
            CaSigner::new(authority.certificate().clone(), Vec::new(), CaSignerOptions::default()).unwrap();
        let mut registry = MemoryRegistry::new();
        for (path, selector) in [
            ("web", "join_token:web"),
            ("device", "x509pop:subject:cn:device-7"),
            ("machine", "riddle:solved"),
        ] {
            let entry = RegistrationEntry::new(id(path), validity);
            registry.insert(entry.selector(Selector::parse(selector).unwrap()));
        }
        let server =
            IssuanceServer::new(signer, registry, authority.bundle(), IssuanceServerOptions::default());
        let mut tokens = JoinTokens::new();
        let texts = (0..4).map(|_| tokens.issue("web", SystemTime::now() + HOUR).unwrap()).collect();
        let identity =
            Identity::new(authority.issue(&id("issuer"), HOUR).unwrap(), authority.bundle()).unwrap();
        let store = Arc::new(Mutex::new(tokens));
        let attestors = Attestors::new()
            .with(Arc::clone(&store))
            .with(SvidAttestor::new(identity.verifier(), HOUR))
            .with(CertificateAttestor::new(devices))
            .with(Riddle);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sign = {
            let authority = Arc::clone(&authority);
            Box::new(move |bytes: &[u8]| authority.sign(bytes).ok())
        };
        let endpoint = IssuanceEndpoint::start(listener, &identity, server, attestors, sign, options);
        Running { authority, endpoint: endpoint.unwrap(), tokens: texts, store, identity }
    }

    fn plain(validity: Duration) -> Running {
        let devices = TrustBundle::empty(domain("devices.example"));
        Running::new(validity, devices, IssuanceEndpointOptions::default())
    }

    fn source(&self, client: IssuanceClient) -> IssuanceSource {
        let address = self.endpoint.address().to_string();
        IssuanceSource::new(client, address, id("issuer"), self.authority.bundle())
    }
}

fn client(path: &str) -> IssuanceClient {
    let pauses = Duration::from_millis(20);
    IssuanceClient::new(id(path), RenewalOptions::default().pauses(pauses, pauses), 7)
}

/// Asks a source until it fails.
fn failure(mut source: IssuanceSource) -> SvidSourceError {
    let begun = Instant::now();
    loop {
        match source.poll(SystemTime::now(), Waker::noop()).change {
            Err(error) => return error,
            Ok(None) => std::thread::park_timeout(Duration::from_millis(5)),
            Ok(Some(state)) => panic!("{state:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "it does not fail");
    }
}

/// Asks a source until it fails, and returns the reason.
fn fails(source: IssuanceSource) -> String {
    let error = failure(source);
    let causes = std::iter::successors(error.source.source(), |error| (**error).source());
    let text = |text: String, cause: &dyn Error| format!("{text}: {cause}");
    causes.fold(error.source.to_string(), text)
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The first SVID by a join token, whose key is stored before, and the next one over mutual TLS at half of
/// its validity.
#[test]
fn a_workload_is_attested_once_and_renews() {
    let running = Running::plain(Duration::from_secs(4));
    let stored = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&stored);
    let source = running.source(client("web").token(running.tokens[0].clone()));
    let source = source.store_key(Box::new(move |pkcs8| {
        keep.lock().unwrap().push(pkcs8.to_vec());
        true
    }));
    let follower = SvidFollower::start(source, PATIENCE).unwrap();
    assert_eq!(follower.identity().spiffe_id(), &id("web"));
    assert_eq!(stored.lock().unwrap().len(), 1);
    let first = follower.identity().svid_serial_number();
    until(|| follower.identity().svid_serial_number() != first);
    // Without the token, whose key would have been stored again.
    assert_eq!(stored.lock().unwrap().len(), 1);
    // The endpoint serves.
    let identity = follower.identity();
    common::connect(&identity.client_config(), &running.identity.server_config()).unwrap();
}

/// Every kind of evidence, and a challenge that is answered on its connection.
#[test]
fn every_kind_of_evidence_is_taken() {
    let root = Recipe::signer("", "devices").with(|root| root.names.clear()).self_signed();
    let device = Recipe::leaf("").with(|device| {
        device.names.clear();
        device.subject = Some("device-7".into());
        device.extended_key_usage = Some(vec![CLIENT_AUTH]);
    });
    let device = device.signed_by(&root);
    let devices = TrustBundle::new(domain("devices.example"), vec![root.certificate.clone()]).unwrap();
    let running = Running::new(HOUR, devices, IssuanceEndpointOptions::default());
    let key = PrivateKeyDer::Pkcs8(device.key.serialize_der().into());
    let source = running.source(client("device").certificate(vec![device.certificate.clone()], key));
    let follower = SvidFollower::start(source, PATIENCE).unwrap();
    assert_eq!(follower.identity().spiffe_id(), &id("device"));

    let solve = |answer: &'static [u8]| {
        running.source(client("machine").tpm(vec![1])).tpm(Box::new(move |challenge, _| {
            assert_eq!(challenge, b"a question");
            Some(answer.to_vec())
        }))
    };
    let follower = SvidFollower::start(solve(b"an answer"), PATIENCE).unwrap();
    assert_eq!(follower.identity().spiffe_id(), &id("machine"));
    let refused = fails(solve(b"another one"));
    assert!(refused.contains("think again"), "{refused}");

    // An earlier SVID, expired at the start: it is of no use as it is, and proves its holder.
    let past = SystemTime::now() - HOUR / 2;
    let expired = running.authority.issue_at(&id("web"), HOUR / 4, past).unwrap();
    let follower =
        SvidFollower::start(running.source(client("web")).holds(expired.clone()), PATIENCE).unwrap();
    assert_ne!(follower.identity().svid_serial_number(), expired.serial_number());
    // One that is valid is given at once.
    let valid = running.authority.issue(&id("web"), HOUR).unwrap();
    let follower = SvidFollower::start(running.source(client("web")).holds(valid.clone()), PATIENCE).unwrap();
    assert_eq!(follower.identity().svid_serial_number(), valid.serial_number());
}

#[test]
fn what_is_not_proved_gets_no_svid() {
    let running = Running::plain(HOUR);
    let says = |source: IssuanceSource, words: &str| {
        let why = fails(source);
        assert!(why.contains(words), "{why}");
    };
    says(running.source(client("web").token("guess".into())), "refused");
    says(running.source(client("web")), "to attest with");
    // A key that is not stored is not sent, and the token serves still.
    let token = running.tokens[0].clone();
    let unstored = running.source(client("web").token(token.clone())).store_key(Box::new(|_| false));
    says(unstored, "cannot be stored");
    // Other evidence does not need a stored key, also after one that could not be stored.
    let both = client("machine").tpm(vec![1]).token(token.clone());
    let both = running.source(both).store_key(Box::new(|_| false));
    let mut answers = [None, None, Some(b"an answer".to_vec())].into_iter();
    let both = both.tpm(Box::new(move |_, _| answers.next().flatten()));
    SvidFollower::start(both, PATIENCE).unwrap();
    // Another issuer than the one that is named, and another authority.
    let address = running.endpoint.address().to_string();
    let bundle = running.authority.bundle();
    let other = IssuanceSource::new(client("web").token(token.clone()), address.clone(), id("other"), bundle);
    says(other, "spiffe://example.org/issuer");
    let stranger = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let trusting =
        IssuanceSource::new(client("web").token(token.clone()), address, id("issuer"), stranger.bundle());
    says(trusting, "certificate");
    SvidFollower::start(running.source(client("web").token(token)), PATIENCE).unwrap();
    // An entry that is removed, while the endpoint runs.
    running.endpoint.change(|server| server.registry_mut().remove(&id("web")));
    says(running.source(client("web").token(running.tokens[1].clone())), "refused");
    // Another authority signs from now on, and its bundle comes with the SVID.
    let next = Arc::new(stranger);
    let mut both = next.bundle();
    both.extend(&running.authority.bundle()).unwrap();
    let signer = CaSigner::new(next.certificate().clone(), Vec::new(), CaSignerOptions::default()).unwrap();
    let entry = RegistrationEntry::new(id("web"), HOUR).selector(Selector::parse("join_token:web").unwrap());
    let sign = {
        let next = Arc::clone(&next);
        Box::new(move |bytes: &[u8]| next.sign(bytes).ok())
    };
    running.endpoint.replace_signer(sign, |server| {
        server.registry_mut().insert(entry);
        server.set_authority(signer, both.clone());
    });
    let source = running.source(client("web").token(running.tokens[2].clone()));
    let follower = SvidFollower::start(source, PATIENCE).unwrap();
    assert_eq!(follower.identity().trust_bundle(), both);
    assert_eq!(both.authority_of(&follower.identity().svid_chain()), Some(next.certificate()));
}

/// An issuer that answers one request, with one byte.
fn one_answer(running: &Running, answer: u8) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = running.identity.issuance_server_config().unwrap();
    let serve = move || {
        let (stream, _) = listener.accept().unwrap();
        let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream);
        let mut len = [0; 4];
        tls.read_exact(&mut len).unwrap();
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        tls.read_exact(&mut request).unwrap();
        tls.write_all(&[0, 0, 0, 1, answer]).unwrap();
        tls.flush().unwrap();
    };
    (address, std::thread::spawn(serve))
}

/// A failure has the type of its cause: of the answer, and of the connection.
#[test]
fn a_failure_keeps_its_causes() {
    let running = Running::plain(HOUR);
    let (address, issuer) = one_answer(&running, 9);
    let fails = || {
        let client = client("web").token(running.tokens[0].clone());
        let bundle = running.authority.bundle();
        let error = failure(IssuanceSource::new(client, address.clone(), id("issuer"), bundle));
        error.source.downcast_ref::<IssuanceSourceError>().unwrap().clone()
    };
    let unreadable = fails();
    assert!(matches!(unreadable.failure, IssuanceFailure::Message(_)), "{unreadable:?}");
    assert!(unreadable.source().unwrap().is::<IssuanceMessageError>());
    issuer.join().unwrap();
    // The endpoint has ended.
    let unreachable = fails();
    assert_eq!(unreachable.failure, IssuanceFailure::Unreachable);
    assert!(unreachable.source().unwrap().is::<std::io::Error>());
}

/// A connection that has a place of the endpoint: it has answered the begin of a handshake.
fn held(running: &Running) -> TcpStream {
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(running.endpoint.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "issuer".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(running.identity.client_config(), name).unwrap();
        let sent = tls.write_tls(&mut stream);
        // The connections before may have their places still.
        if sent.is_ok() && matches!(stream.read(&mut [0]), Ok(1)) {
            return stream;
        }
        assert!(begun.elapsed() < PATIENCE, "no place became free");
    }
}

/// Join tokens are issued while the endpoint runs.
#[test]
fn a_token_that_is_issued_later_serves() {
    let running = Running::plain(HOUR);
    let token = running.store.lock().unwrap().issue("web", SystemTime::now() + HOUR).unwrap();
    SvidFollower::start(running.source(client("web").token(token)), PATIENCE).unwrap();
}

/// A connection that renewed keeps its place, and frees it when it ends.
#[test]
fn connections_that_have_asked_keep_their_places() {
    let devices = TrustBundle::empty(domain("devices.example"));
    let running = Running::new(HOUR, devices, IssuanceEndpointOptions::default().connections_max(1));
    // The endpoint closes a connection that is silent for ten seconds: on a machine that takes so long for
    // one attempt the test begins again.
    let begun = Instant::now();
    let first = loop {
        let mut first = Renewing::new(&running, "web");
        let asked = Instant::now();
        if matches!(first.renew(), Ok(IssuanceAnswer::Issued { .. })) {
            fails(running.source(client("web").token(running.tokens[0].clone())));
            match first.renew() {
                Ok(IssuanceAnswer::Issued { .. }) => break first,
                answer => assert!(asked.elapsed() > Duration::from_secs(9), "{answer:?}"),
            }
        }
        assert!(begun.elapsed() < 4 * PATIENCE, "no connection renewed twice");
    };
    drop(first);
    SvidFollower::start(running.source(client("web").token(running.tokens[0].clone())), PATIENCE).unwrap();
}

/// A workload that renews as often as a test says, over one connection.
struct Renewing {
    tls: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    path: &'static str,
}

impl Renewing {
    fn new(running: &Running, path: &'static str) -> Renewing {
        let svid = running.authority.issue(&id(path), HOUR).unwrap();
        let workload = Identity::new(svid, running.authority.bundle()).unwrap();
        let stream = TcpStream::connect(running.endpoint.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = workload.issuance_client_config(id("issuer"));
        let tls = rustls::ClientConnection::new(config, "issuer".try_into().unwrap()).unwrap();
        Renewing { tls: rustls::StreamOwned::new(tls, stream), path }
    }

    fn renew(&mut self) -> std::io::Result<IssuanceAnswer> {
        let bytes = request(self.path);
        self.send(&bytes)?;
        self.answer()
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    fn answer(&mut self) -> std::io::Result<IssuanceAnswer> {
        let mut len = [0; 4];
        self.tls.read_exact(&mut len)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        self.tls.read_exact(&mut answer)?;
        Ok(IssuanceAnswer::from_bytes(&answer).unwrap())
    }
}

/// A renewal of the SVID at this path, after its length.
fn request(path: &str) -> Vec<u8> {
    let key = RequestKey::generate().unwrap();
    let request = IssuanceRequest::new(id(path), key.request().to_vec(), Evidence::CurrentSvid).to_bytes();
    [&u32::try_from(request.len()).unwrap().to_be_bytes()[..], &request].concat()
}

/// Requests ahead of their answers: each is answered in its turn, and none waits for the rest of a later one.
#[test]
fn requests_that_arrive_together_are_answered() {
    let running = Running::plain(HOUR);
    let mut workload = Renewing::new(&running, "web");
    let last = request("web");
    let (begin, end) = last.split_at(last.len() / 2);
    // More than the buffer of a connection holds of their answers.
    let ahead: Vec<u8> = (0..60).flat_map(|_| request("web")).collect();
    workload.send(&[&ahead, begin].concat()).unwrap();
    for _ in 0..60 {
        assert!(matches!(workload.answer(), Ok(IssuanceAnswer::Issued { .. })));
    }
    workload.send(end).unwrap();
    assert!(matches!(workload.answer(), Ok(IssuanceAnswer::Issued { .. })));
    // Answers from before an error arrive: here a request that is too long.
    let too_long = [&request("web")[..], &[0xff; 4]].concat();
    workload.send(&too_long).unwrap();
    assert!(matches!(workload.answer(), Ok(IssuanceAnswer::Issued { .. })));
    assert!(workload.answer().is_err());
}

/// A connection that stays open renews nothing after its SVID was revoked, and another one goes on.
#[test]
fn a_revoked_svid_renews_nothing_on_its_connection() {
    let running = Running::plain(HOUR);
    let mut revoked = Renewing::new(&running, "web");
    let mut other = Renewing::new(&running, "device");
    for workload in [&mut revoked, &mut other] {
        assert!(matches!(workload.renew(), Ok(IssuanceAnswer::Issued { .. })));
    }
    let mut view = RevocationView::new();
    view.insert(Revoked::SpiffeId(id("web")), SystemTime::now() + HOUR).unwrap();
    running.identity.set_revocations(view);
    // Fewer than the requests of a connection.
    for _ in 0..60 {
        let renewed = revoked.renew();
        // Asked after it: no limit of a connection has ended this one either.
        let answer = other.renew();
        assert!(matches!(answer, Ok(IssuanceAnswer::Issued { .. })), "{answer:?}");
        match renewed {
            Ok(answer) => assert!(matches!(answer, IssuanceAnswer::Issued { .. }), "{answer:?}"),
            Err(error) => {
                use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                let closed = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
                assert!(closed.contains(&error.kind()), "{error}");
                return;
            }
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("a revoked SVID is renewed");
}

/// A signer that panics takes the connection with it, and neither its place nor a later answer.
#[test]
fn a_panic_leaves_nothing_behind() {
    let devices = TrustBundle::empty(domain("devices.example"));
    let running = Running::new(HOUR, devices, IssuanceEndpointOptions::default().connections_max(1));
    let signer = |panics: bool| {
        let (authority, panics) = (Arc::clone(&running.authority), AtomicBool::new(panics));
        let sign = move |bytes: &[u8]| {
            assert!(!panics.swap(false, Ordering::Relaxed), "a signer with a defect");
            authority.sign(bytes).ok()
        };
        Box::new(sign)
    };
    running.endpoint.replace_signer(signer(true), |_| ());
    // The second attempt has the one place.
    let source = running.source(client("web").token(running.tokens[0].clone()));
    SvidFollower::start(source, PATIENCE).unwrap();
    // A request that ended by a panic is not refused to the next workload.
    running.endpoint.replace_signer(signer(true), |_| ());
    fails(running.source(client("web").token(running.tokens[1].clone())));
    let authority = running.authority.certificate().clone();
    let ca = CaSigner::new(authority, Vec::new(), CaSignerOptions::default()).unwrap();
    running.endpoint.replace_signer(signer(false), |server| {
        server.set_authority(ca, running.authority.bundle());
    });
    for token in &running.tokens[2..4] {
        SvidFollower::start(running.source(client("web").token(token.clone())), PATIENCE).unwrap();
    }
}

/// A peer that speaks no TLS, that says nothing, or that comes beyond the bound, keeps nobody from an SVID.
#[test]
fn peers_that_misbehave_are_bounded() {
    let devices = TrustBundle::empty(domain("devices.example"));
    let running =
        Running::new(HOUR, devices, IssuanceEndpointOptions::default().connections_max(2).requests_max(1));
    let mut noise = TcpStream::connect(running.endpoint.address()).unwrap();
    noise.write_all(&[0xff; 64]).unwrap();
    // The endpoint closes it, after an alert at most.
    let mut rest = Vec::new();
    drop(noise.read_to_end(&mut rest));
    assert!(rest.len() < 64);
    let silent = TcpStream::connect(running.endpoint.address()).unwrap();
    let source = running.source(client("web").token(running.tokens[0].clone()));
    SvidFollower::start(source, PATIENCE).unwrap();
    // Silent connections make room for a workload, which tries again until it has been served.
    let second = held(&running);
    let source = running.source(client("web").token(running.tokens[1].clone()));
    SvidFollower::start(source, PATIENCE).unwrap();
    drop((silent, second));
    drop(running.endpoint);
}
