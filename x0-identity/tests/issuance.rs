//! Issuing over the network: the messages, what an issuer refuses, and both engines over seeds in virtual
//! time, with real certificates.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

#[path = "issuance/attestors.rs"]
mod attestors;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use common::domain;
use pki_types::{CertificateDer, UnixTime};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use x0_identity::{
    Authority, AuthorityOptions, CaSigner, CaSignerOptions, Evidence, ExchangeFailure,
    ISSUANCE_ANSWER_LEN_MAX, ISSUANCE_REQUEST_LEN_MAX, IssuanceAnswer, IssuanceClient, IssuanceClientError,
    IssuanceClientInput, IssuanceClientOutput, IssuanceFailure, IssuanceMessageError, IssuanceRefusal,
    IssuanceRequest, IssuanceResponse, IssuanceServer, IssuanceServerError, IssuanceServerInput,
    IssuanceServerOptions, IssuanceServerOutput, JoinTokenError, JoinTokens, MemoryRegistry,
    PresentedEvidence, Proof, RegistrationEntry, RenewalOptions, RequestKey, Selector, SpiffeId, TrustBundle,
    Verifier, X509Svid,
};

const VALIDITY: Duration = Duration::from_secs(3600);
/// At the latest at six tenths of the validity.
const INTERVAL: Duration = Duration::from_secs(2160);
/// The time since 1970 at the beginning.
const BEGIN: Duration = Duration::from_secs(2_000_000_000);
const GRACE: Duration = Duration::from_secs(7 * 86_400);
/// More than the skew of clocks.
const BACKDATE: Duration = Duration::from_secs(360);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(wall: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + wall
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap()
}

fn is_valid(bundle: &TrustBundle, chain: &[CertificateDer<'_>], wall: Duration) -> bool {
    let verifier = Verifier::new(bundle.clone());
    chain.split_first().is_some_and(|(leaf, signers)| {
        verifier.verify_client(leaf, signers, UnixTime::since_unix_epoch(wall)).is_ok()
    })
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The issuer with its attestor and its key. Tokens and entries outlive a restart.
struct Issuer {
    authority: Authority,
    server: IssuanceServer<MemoryRegistry>,
    registry: MemoryRegistry,
    tokens: JoinTokens,
    issued: u32,
    refused: u32,
}

impl Issuer {
    fn new() -> Issuer {
        let options = AuthorityOptions::default().validity(seconds(400 * 86_400)).backdate(BACKDATE);
        let authority =
            Authority::new_at(domain("example.org"), &options, at(BEGIN - seconds(86_400))).unwrap();
        let registry = MemoryRegistry::new();
        let server = Issuer::server(&authority, &registry);
        Issuer { authority, server, registry, tokens: JoinTokens::new(), issued: 0, refused: 0 }
    }

    fn server(authority: &Authority, registry: &MemoryRegistry) -> IssuanceServer<MemoryRegistry> {
        let options = CaSignerOptions::default().backdate(BACKDATE);
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), options).unwrap();
        let options = IssuanceServerOptions::default();
        IssuanceServer::new(signer, registry.clone(), authority.bundle(), options)
    }

    /// Registers a workload and returns its token.
    fn register(&mut self, name: &str) -> String {
        let selector = Selector::parse(&format!("join_token:{name}")).unwrap();
        self.registry.insert(RegistrationEntry::new(id(name), VALIDITY).selector(selector));
        *self.server.registry_mut() = self.registry.clone();
        self.tokens.issue(name, at(BEGIN + seconds(86_400 * 30))).unwrap()
    }

    fn restart(&mut self) {
        self.server = Issuer::server(&self.authority, &self.registry);
    }

    /// Does what the engine wants, and returns its answer.
    fn drain(&mut self, now: Duration, wall: Duration) -> Option<Vec<u8>> {
        let mut answer = None;
        while let Some(output) = self.server.poll_output() {
            let input = match output {
                IssuanceServerOutput::Attest { id, spiffe_id, evidence } => {
                    let proof = match evidence {
                        PresentedEvidence::JoinToken { token, public_key_info } => self
                            .tokens
                            .redeem(&token, &public_key_info, at(wall))
                            .map(|selector| Proof::Selectors(BTreeSet::from([selector])))
                            .map_err(|error| error.to_string()),
                        PresentedEvidence::Svid(chain) => {
                            let verifier = Verifier::new(self.authority.bundle());
                            let holder = verifier.verify_with_grace(&chain, GRACE, at(wall));
                            holder.map(Proof::Holder).map_err(|error| error.to_string())
                        }
                        other => panic!("{other:?} of {spiffe_id}"),
                    };
                    match proof {
                        Ok(proof) => IssuanceServerInput::Attested { id, proof, wall },
                        Err(why) => IssuanceServerInput::NotAttested { id, why },
                    }
                }
                IssuanceServerOutput::Sign { id, to_be_signed } => {
                    let signature = self.authority.sign(&to_be_signed).ok();
                    IssuanceServerInput::Signed { id, signature }
                }
                IssuanceServerOutput::Answer { bytes, issued, .. } => {
                    if issued.is_some() {
                        self.issued += 1;
                    } else {
                        self.refused += 1;
                    }
                    answer = Some(bytes);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            self.server.handle(now, input).unwrap();
        }
        answer
    }

    fn request(
        &mut self,
        number: u64,
        peer: Option<SpiffeId>,
        binding: [u8; 32],
        bytes: Vec<u8>,
        wall: Duration,
    ) -> Vec<u8> {
        let input = IssuanceServerInput::Request { id: number, peer, binding, bytes, wall };
        self.server.handle(Duration::ZERO, input).unwrap();
        self.drain(Duration::ZERO, wall).unwrap()
    }
}

/// A workload with what it has on disk.
struct Workload {
    name: String,
    token: String,
    client: IssuanceClient,
    stored_key: Option<Vec<u8>>,
    svid: Option<X509Svid>,
    /// The clock of the workload is 300 seconds ahead less this.
    skew: Duration,
    suspended: Duration,
    /// What comes back for an exchange, and when.
    coming: Vec<(Duration, IssuanceClientInput)>,
}

impl Workload {
    fn new(name: &str, token: String, seed: u64, skew: Duration) -> Workload {
        let client = IssuanceClient::new(id(name), RenewalOptions::default(), seed).token(token.clone());
        let (stored_key, svid, suspended, coming) = (None, None, Duration::ZERO, Vec::new());
        Workload { name: name.into(), token, client, stored_key, svid, skew, suspended, coming }
    }

    fn wall(&self, time: Duration) -> Duration {
        BEGIN + time + seconds(300) - self.skew
    }

    fn restart(&mut self, time: Duration, seed: u64) {
        let mut client =
            IssuanceClient::new(id(&self.name), RenewalOptions::default(), seed).token(self.token.clone());
        if let Some(key) = &self.stored_key {
            client = client.key(RequestKey::from_pkcs8(key).unwrap());
        }
        self.client = client;
        self.coming.clear();
        if let Some(svid) = self.svid.clone() {
            let (now, wall) = (time - self.suspended, self.wall(time));
            self.client.handle(now, IssuanceClientInput::Holds { svid, wall }).unwrap();
        }
    }

    /// The time of its next event.
    fn due(&self) -> Duration {
        let timeout = self.client.poll_timeout().unwrap() + self.suspended;
        self.coming.iter().map(|(at, _)| *at).fold(timeout, Duration::min)
    }
}

/// Which share of the messages is lost, in eighths; with a loss the workload waits for its time-out, or sees
/// the connection fail.
struct Faults {
    random: Random,
    lost: u64,
}

impl Faults {
    fn delay(&mut self) -> Duration {
        Duration::from_millis(1 + self.random.below(400))
    }

    fn loses(&mut self) -> bool {
        self.random.below(8) < self.lost
    }
}

struct World {
    issuer: Issuer,
    workloads: Vec<Workload>,
    time: Duration,
    connections: u64,
    /// The bindings of open exchanges, by workload and exchange: the SVID that was presented.
    open: BTreeMap<(usize, u64), ([u8; 32], Option<SpiffeId>)>,
}

impl World {
    fn new(seed: u64, count: usize) -> World {
        let mut issuer = Issuer::new();
        let mut random = Random(seed);
        let workloads = (0..count)
            .map(|number| {
                let name = format!("w{number}");
                let token = issuer.register(&name);
                Workload::new(&name, token, seed * 16 + number as u64, seconds(random.below(601)))
            })
            .collect();
        World { issuer, workloads, time: Duration::ZERO, connections: 0, open: BTreeMap::new() }
    }

    fn run(&mut self, duration: Duration, faults: &mut Faults) {
        let until = self.time + duration;
        loop {
            let due = self.workloads.iter().map(Workload::due).min().unwrap().max(self.time);
            if due >= until {
                self.time = until;
                return;
            }
            self.time = due;
            for number in 0..self.workloads.len() {
                if self.workloads[number].due() <= self.time {
                    self.step(number, faults);
                }
            }
        }
    }

    fn step(&mut self, number: usize, faults: &mut Faults) {
        let time = self.time;
        let workload = &mut self.workloads[number];
        let (now, wall) = (time - workload.suspended, workload.wall(time));
        let (ready, later) = workload.coming.drain(..).partition(|(at, _)| *at <= time);
        workload.coming = later;
        for (_, input) in Vec::<(Duration, IssuanceClientInput)>::into_iter(ready) {
            let input = match input {
                IssuanceClientInput::Connected { exchange, binding, .. } => {
                    IssuanceClientInput::Connected { exchange, binding, wall }
                }
                IssuanceClientInput::Answer { exchange, bytes, .. } => {
                    IssuanceClientInput::Answer { exchange, bytes, wall }
                }
                IssuanceClientInput::Failed { exchange, failure, .. } => {
                    IssuanceClientInput::Failed { exchange, failure, wall }
                }
                other => other,
            };
            // What comes late is refused and changes nothing.
            let _ = workload.client.handle(now, input);
        }
        workload.client.handle(now, IssuanceClientInput::Timeout { wall }).unwrap();
        while let Some(output) = self.workloads[number].client.poll_output() {
            self.carry_out(number, output, faults);
        }
    }

    fn carry_out(&mut self, number: usize, output: IssuanceClientOutput, faults: &mut Faults) {
        let (time, true_wall) = (self.time, BEGIN + self.time);
        let workload = &mut self.workloads[number];
        let (now, wall) = (time - workload.suspended, workload.wall(time));
        let (arrives, is_lost) = (time + faults.delay(), faults.loses());
        match output {
            IssuanceClientOutput::StoreKey { pkcs8 } => workload.stored_key = Some(pkcs8),
            IssuanceClientOutput::Dial { exchange, with_svid } => {
                self.connections += 1;
                let mut binding = [0; 32];
                binding[..8].copy_from_slice(&self.connections.to_le_bytes());
                let chain = workload.svid.as_ref().filter(|_| with_svid).map(X509Svid::chain);
                let accepted =
                    chain.is_none_or(|chain| is_valid(&self.issuer.authority.bundle(), chain, true_wall));
                let failed = |failure| IssuanceClientInput::Failed { exchange, failure, wall };
                let input = match (is_lost, accepted) {
                    (true, _) if faults.random.below(2) == 0 => return,
                    (true, _) => failed(ExchangeFailure::Unreachable),
                    (false, false) => failed(ExchangeFailure::NotAccepted),
                    (false, true) => {
                        let peer = chain.map(|_| id(&workload.name));
                        self.open.insert((number, exchange), (binding, peer));
                        IssuanceClientInput::Connected { exchange, binding, wall }
                    }
                };
                workload.coming.push((arrives, input));
            }
            IssuanceClientOutput::Send { exchange, bytes } => {
                let (binding, peer) = self.open.remove(&(number, exchange)).unwrap();
                if is_lost {
                    return;
                }
                let answer = self.issuer.request(self.connections, peer, binding, bytes, true_wall);
                self.connections += 1;
                // The issuer has issued, and the answer may be lost still.
                if !faults.loses() {
                    let input = IssuanceClientInput::Answer { exchange, bytes: answer, wall };
                    workload.coming.push((arrives + faults.delay(), input));
                }
            }
            IssuanceClientOutput::Install { exchange, svid, bundle } => {
                assert_eq!(bundle, self.issuer.authority.bundle());
                let input = if is_valid(&bundle, svid.chain(), wall) {
                    (workload.svid, workload.stored_key) = (Some(svid), None);
                    IssuanceClientInput::Installed { exchange, wall }
                } else {
                    IssuanceClientInput::Failed { exchange, failure: ExchangeFailure::Unreachable, wall }
                };
                workload.client.handle(now, input).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// Every workload has an SVID that is valid by its clock and by that of the others.
    fn check(&self, seed: u64) {
        for workload in &self.workloads {
            let svid = workload.svid.as_ref();
            let valid =
                |wall| svid.is_some_and(|svid| is_valid(&self.issuer.authority.bundle(), svid.chain(), wall));
            assert!(
                valid(workload.wall(self.time)) && valid(BEGIN + self.time),
                "seed {seed}, {}: {svid:?}, {:?}",
                workload.name,
                workload.client
            );
        }
    }
}

#[test]
fn seeds_of_loss_restarts_and_skew_recover_within_one_renewal_interval() {
    let count = std::env::var("X0_SEEDS").ok().map_or(1000, |seeds| seeds.parse().unwrap());
    let (mut issued, mut refused) = (0, 0);
    for seed in 0..count {
        let mut random = Random(seed);
        let mut world = World::new(seed, 2);
        for _ in 0..random.below(8) {
            let mut faults = Faults { random: Random(random.below(u64::MAX >> 1)), lost: random.below(9) };
            world.run(seconds(random.below(5400)), &mut faults);
            let number = usize::try_from(random.below(2)).unwrap();
            match random.below(7) {
                0 => {
                    let time = world.time;
                    world.workloads[number].restart(time, seed + 7);
                }
                1 => world.issuer.restart(),
                2 => {
                    // 24 hours of suspend: the clock goes on, that of the engine does not.
                    world.time += seconds(86_400);
                    world.workloads[number].suspended += seconds(86_400);
                }
                3 => world.workloads[number].skew = seconds(random.below(601)),
                4 => {
                    // Six days of silence: the SVID is expired, and the token serves its first key alone.
                    world.run(seconds(6 * 3600), &mut Faults { random: Random(seed), lost: 8 });
                }
                _ => {}
            }
        }
        let mut healthy = Faults { random: Random(seed), lost: 0 };
        world.run(INTERVAL, &mut healthy);
        world.check(seed);
        for _ in 0..4 {
            world.run(seconds(1200), &mut healthy);
            world.check(seed);
        }
        issued += world.issuer.issued;
        refused += world.issuer.refused;
    }
    println!("{count} seeds: {issued} SVIDs issued, {refused} requests refused");
}

/// What the issuer answers to a request that was changed.
fn refusal(change: impl FnOnce(&mut IssuanceRequest, &mut Option<SpiffeId>)) -> (IssuanceRefusal, String) {
    let mut issuer = Issuer::new();
    let token = issuer.register("web");
    let mut request = request_of(&RequestKey::generate().unwrap(), "web", Evidence::JoinToken(token));
    let mut peer = None;
    change(&mut request, &mut peer);
    answer_of(&issuer.request(1, peer, [7; 32], request.to_bytes(), BEGIN)).unwrap_err()
}

fn request_of(key: &RequestKey, name: &str, evidence: Evidence) -> IssuanceRequest {
    IssuanceRequest::new(id(name), key.request().to_vec(), evidence)
}

type Issued = (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>);

fn answer_of(bytes: &[u8]) -> Result<Issued, (IssuanceRefusal, String)> {
    match IssuanceAnswer::from_bytes(bytes).unwrap() {
        IssuanceAnswer::Issued { chain, authorities } => Ok((chain, authorities)),
        IssuanceAnswer::Refused { refusal, text } => Err((refusal, text)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_issuer_does_not_accept_is_refused_with_the_reason() {
    let check = |refused: (IssuanceRefusal, String), refusal: IssuanceRefusal, words: &str| {
        assert_eq!(refused.0, refusal, "{}", refused.1);
        assert!(refused.1.contains(words), "{}", refused.1);
    };
    let unknown = refusal(|request, _| request.evidence = Evidence::JoinToken("guess".into()));
    check(unknown, IssuanceRefusal::NotAttested, "unknown or was used");
    let other = refusal(|request, _| request.spiffe_id = id("db"));
    check(other, IssuanceRefusal::NotRegistered, "no registration entry of spiffe://example.org/db");
    let unproved = refusal(|request, _| request.certificate_request[60] ^= 1);
    check(unproved, IssuanceRefusal::Malformed, "certificate request");
    let without = refusal(|request, _| request.evidence = Evidence::CurrentSvid);
    check(without, IssuanceRefusal::NotAttested, "does not present an SVID");
    let foreign =
        refusal(|request, peer| (request.evidence, *peer) = (Evidence::CurrentSvid, Some(id("db"))));
    check(foreign, IssuanceRefusal::NotAttested, "does not present an SVID");
    let empty =
        refusal(|request, _| request.evidence = Evidence::Svid { chain: Vec::new(), signature: vec![1] });
    check(empty, IssuanceRefusal::NotAttested, "not signed by the key");
    let mut issuer = Issuer::new();
    let malformed = issuer.request(1, None, [0; 32], vec![1, 9], BEGIN);
    check(answer_of(&malformed).unwrap_err(), IssuanceRefusal::Malformed, "malformed at byte");
}

/// The proof by an earlier SVID serves one connection, one key and one SPIFFE ID.
#[test]
fn a_proof_cannot_be_replayed() {
    let mut issuer = Issuer::new();
    issuer.register("web");
    let svid = issuer.authority.issue_at(&id("web"), VALIDITY, at(BEGIN)).unwrap();
    let (key, other_key) = (RequestKey::generate().unwrap(), RequestKey::generate().unwrap());
    let binding = [3; 32];
    // The client engine makes the proof; the issuer has refused the SVID in the handshake before.
    let mut client = IssuanceClient::new(id("web"), RenewalOptions::default(), 1).key(key);
    let late = BEGIN + VALIDITY + seconds(86_400);
    client.handle(seconds(0), IssuanceClientInput::Holds { svid, wall: late }).unwrap();
    client.handle(seconds(5), IssuanceClientInput::Timeout { wall: late }).unwrap();
    let Some(IssuanceClientOutput::Dial { exchange, with_svid: false }) = client.poll_output() else {
        panic!()
    };
    client.handle(seconds(5), IssuanceClientInput::Connected { exchange, binding, wall: late }).unwrap();
    let Some(IssuanceClientOutput::Send { bytes, .. }) = client.poll_output() else { panic!() };
    let good = IssuanceRequest::from_bytes(&bytes).unwrap();
    let mut number = 0;
    let mut ask = |request: &IssuanceRequest, binding: [u8; 32], wall: Duration| {
        number += 1;
        answer_of(&issuer.request(number, None, binding, request.to_bytes(), wall))
    };
    ask(&good, binding, late).unwrap();
    let (refusal, text) = ask(&good, [4; 32], late).unwrap_err();
    assert!(refusal == IssuanceRefusal::NotAttested && text.contains("for this connection"), "{text}");
    let mut swapped = good.clone();
    swapped.certificate_request = other_key.request().to_vec();
    assert_eq!(ask(&swapped, binding, late).unwrap_err().0, IssuanceRefusal::NotAttested);
    let mut renamed = good.clone();
    renamed.spiffe_id = id("db");
    assert_eq!(ask(&renamed, binding, late).unwrap_err().0, IssuanceRefusal::NotAttested);
    // After the grace it is over.
    let (refusal, text) = ask(&good, binding, BEGIN + VALIDITY + GRACE + seconds(2)).unwrap_err();
    assert!(refusal == IssuanceRefusal::NotAttested && text.contains("expired"), "{text}");
    assert!(ask(&good, binding, BEGIN + VALIDITY + GRACE - seconds(1)).is_ok());
}

#[test]
fn a_holder_is_issued_its_own_id_only_and_only_while_it_is_registered() {
    let mut issuer = Issuer::new();
    issuer.register("web");
    issuer.register("db");
    let key = RequestKey::generate().unwrap();
    let request = request_of(&key, "web", Evidence::CurrentSvid);
    let (chain, authorities) =
        answer_of(&issuer.request(1, Some(id("web")), [0; 32], request.to_bytes(), BEGIN)).unwrap();
    assert_eq!(authorities, issuer.authority.bundle().authorities());
    assert!(is_valid(&issuer.authority.bundle(), &chain, BEGIN));
    // An attestor that proves another ID.
    let mut server = Issuer::server(&issuer.authority, &issuer.registry);
    let evidence = Evidence::JoinToken("x".into());
    let request = request_of(&key, "web", evidence);
    let input = |id| IssuanceServerInput::Request {
        id,
        peer: None,
        binding: [0; 32],
        bytes: request.to_bytes(),
        wall: BEGIN,
    };
    server.handle(seconds(0), input(1)).unwrap();
    assert!(matches!(server.poll_output(), Some(IssuanceServerOutput::Attest { .. })));
    let proof = Proof::Holder(id("db"));
    server.handle(seconds(0), IssuanceServerInput::Attested { id: 1, proof, wall: BEGIN }).unwrap();
    let Some(IssuanceServerOutput::Answer { bytes, issued: None, .. }) = server.poll_output() else {
        panic!()
    };
    assert_eq!(answer_of(&bytes).unwrap_err().0, IssuanceRefusal::NotRegistered);
    issuer.registry.remove(&id("web"));
    issuer.restart();
    let request = request_of(&key, "web", Evidence::CurrentSvid);
    let answer = issuer.request(2, Some(id("web")), [0; 32], request.to_bytes(), BEGIN);
    assert_eq!(answer_of(&answer).unwrap_err().0, IssuanceRefusal::NotRegistered);
}

#[test]
fn the_server_bounds_what_waits_and_ends_what_gets_no_answer() {
    let issuer = Issuer::new();
    let options = IssuanceServerOptions::default().pending_max(1).answer_max(seconds(2));
    let signer =
        CaSigner::new(issuer.authority.certificate().clone(), Vec::new(), CaSignerOptions::default());
    let mut server =
        IssuanceServer::new(signer.unwrap(), issuer.registry.clone(), issuer.authority.bundle(), options);
    let key = RequestKey::generate().unwrap();
    let bytes = request_of(&key, "web", Evidence::JoinToken("x".into())).to_bytes();
    let request = |id| IssuanceServerInput::Request {
        id,
        peer: None,
        binding: [0; 32],
        bytes: bytes.clone(),
        wall: BEGIN,
    };
    let refused = |server: &mut IssuanceServer<MemoryRegistry>| match server.poll_output() {
        Some(IssuanceServerOutput::Answer { bytes, .. }) => answer_of(&bytes).unwrap_err().0,
        other => panic!("{other:?}"),
    };
    server.handle(seconds(1), request(1)).unwrap();
    assert!(matches!(server.poll_output(), Some(IssuanceServerOutput::Attest { id: 1, .. })));
    assert_eq!(server.handle(seconds(1), request(1)), Err(IssuanceServerError::Duplicate { id: 1 }));
    server.handle(seconds(1), request(2)).unwrap();
    assert_eq!(refused(&mut server), IssuanceRefusal::Busy);
    let signed = IssuanceServerInput::Signed { id: 1, signature: None };
    assert_eq!(server.handle(seconds(1), signed), Err(IssuanceServerError::NotWaiting { id: 1 }));
    assert_eq!(server.poll_timeout(), Some(seconds(3)));
    server.handle(seconds(2), IssuanceServerInput::Timeout).unwrap();
    assert_eq!(server.poll_output(), None);
    server.handle(seconds(3), IssuanceServerInput::Timeout).unwrap();
    assert_eq!(refused(&mut server), IssuanceRefusal::Busy);
    assert_eq!(server.poll_timeout(), None);
    let late = IssuanceServerInput::NotAttested { id: 1, why: String::new() };
    assert_eq!(server.handle(seconds(3), late), Err(IssuanceServerError::NotWaiting { id: 1 }));
    // A connection that ends gives its place back.
    server.handle(seconds(4), request(3)).unwrap();
    server.handle(seconds(4), IssuanceServerInput::Gone { id: 3 }).unwrap();
    server.handle(seconds(4), request(4)).unwrap();
    assert!(matches!(server.poll_output(), Some(IssuanceServerOutput::Attest { id: 3, .. })));
    assert!(matches!(server.poll_output(), Some(IssuanceServerOutput::Attest { id: 4, .. })));
}

/// A request that waits for a signature when the authority is replaced, and a signer that fails.
#[test]
fn signers_that_fail_or_are_replaced_refuse() {
    let mut issuer = Issuer::new();
    issuer.register("web");
    let key = RequestKey::generate().unwrap();
    let bytes = request_of(&key, "web", Evidence::CurrentSvid).to_bytes();
    let mut begin = |number| {
        let input = IssuanceServerInput::Request {
            id: number,
            peer: Some(id("web")),
            binding: [0; 32],
            bytes: bytes.clone(),
            wall: BEGIN,
        };
        issuer.server.handle(seconds(0), input).unwrap();
        assert!(matches!(issuer.server.poll_output(), Some(IssuanceServerOutput::Sign { .. })));
    };
    begin(1);
    begin(2);
    begin(3);
    let refused = |server: &mut IssuanceServer<MemoryRegistry>, input| {
        server.handle(seconds(0), input).unwrap();
        let Some(IssuanceServerOutput::Answer { bytes, issued: None, .. }) = server.poll_output() else {
            panic!()
        };
        answer_of(&bytes).unwrap_err().0
    };
    let none = IssuanceServerInput::Signed { id: 1, signature: None };
    assert_eq!(refused(&mut issuer.server, none), IssuanceRefusal::Signer);
    let wrong = IssuanceServerInput::Signed { id: 2, signature: Some(vec![1]) };
    assert_eq!(refused(&mut issuer.server, wrong), IssuanceRefusal::Signer);
    let other = Issuer::new();
    let signer = CaSigner::new(other.authority.certificate().clone(), Vec::new(), CaSignerOptions::default());
    issuer.server.set_authority(signer.unwrap(), other.authority.bundle());
    let Some(IssuanceServerOutput::Answer { id: 3, bytes, .. }) = issuer.server.poll_output() else {
        panic!()
    };
    assert_eq!(answer_of(&bytes).unwrap_err().0, IssuanceRefusal::Busy);
}

#[test]
fn a_client_checks_what_the_issuer_answers() {
    let issuer = Issuer::new();
    let wall = BEGIN;
    let after = |answer: &dyn Fn(&RequestKey) -> Vec<u8>| {
        let stored = RequestKey::generate().unwrap();
        let copy = RequestKey::from_pkcs8(stored.pkcs8()).unwrap();
        let mut client =
            IssuanceClient::new(id("web"), RenewalOptions::default(), 1).token("t".into()).key(stored);
        client.handle(seconds(0), IssuanceClientInput::Timeout { wall }).unwrap();
        // The stored key is used: none is stored again.
        let Some(IssuanceClientOutput::Dial { exchange: 1, .. }) = client.poll_output() else { panic!() };
        // An input of another step leaves the step as it is.
        for unexpected in [
            IssuanceClientInput::Answer { exchange: 1, bytes: Vec::new(), wall },
            IssuanceClientInput::Installed { exchange: 1, wall },
        ] {
            assert_eq!(client.handle(seconds(0), unexpected), Err(IssuanceClientError::Over { exchange: 1 }));
        }
        client
            .handle(seconds(0), IssuanceClientInput::Connected { exchange: 1, binding: [0; 32], wall })
            .unwrap();
        assert!(matches!(client.poll_output(), Some(IssuanceClientOutput::Send { .. })));
        let bytes = answer(&copy);
        client.handle(seconds(0), IssuanceClientInput::Answer { exchange: 1, bytes, wall }).unwrap();
        assert!(client.poll_output().is_none());
        assert!(client.poll_timeout().unwrap() <= seconds(1));
        client.failure().unwrap().clone()
    };
    let refused =
        |text: &str| IssuanceAnswer::Refused { refusal: IssuanceRefusal::Busy, text: text.into() }.to_bytes();
    let failure = after(&|_| refused("later\u{1b}[31m"));
    assert_eq!(failure.to_string(), "the issuer refused the request: the issuer is busy: later[31m");
    assert!(matches!(after(&|_| vec![9]), IssuanceFailure::Message(_)));
    let authorities = issuer.authority.bundle().authorities().to_vec();
    let issued = |chain| IssuanceAnswer::Issued { chain, authorities: authorities.clone() }.to_bytes();
    assert!(matches!(after(&|_| issued(Vec::new())), IssuanceFailure::Svid(_)));
    let other = issuer.authority.issue_at(&id("db"), VALIDITY, at(BEGIN)).unwrap();
    let failure = after(&|_| issued(other.chain().to_vec()));
    assert!(matches!(failure, IssuanceFailure::SpiffeId { .. }), "{failure}");
    let leaf = other.chain()[0].clone();
    let broken = || IssuanceAnswer::Issued { chain: Vec::new(), authorities: vec![leaf.clone()] }.to_bytes();
    assert!(matches!(after(&|_| broken()), IssuanceFailure::Bundle(_)));
}

#[test]
fn a_client_without_evidence_says_so_and_uses_an_svid_that_comes() {
    let issuer = Issuer::new();
    let wall = BEGIN;
    let mut client = IssuanceClient::new(id("web"), RenewalOptions::default(), 1);
    client.handle(seconds(0), IssuanceClientInput::Timeout { wall }).unwrap();
    assert!(client.poll_output().is_none());
    assert_eq!(client.failure(), Some(&IssuanceFailure::NoEvidence));
    let svid = issuer.authority.issue_at(&id("web"), VALIDITY, at(BEGIN)).unwrap();
    client.handle(seconds(1), IssuanceClientInput::Holds { svid, wall }).unwrap();
    assert_eq!(client.failure(), None);
    assert!(client.renew_at().is_some_and(|at| at > BEGIN + seconds(1200) && at < BEGIN + INTERVAL));
    let over = IssuanceClientInput::Failed { exchange: 0, failure: ExchangeFailure::Unreachable, wall };
    assert_eq!(client.handle(seconds(1), over), Err(IssuanceClientError::Over { exchange: 0 }));
    let due = wall + INTERVAL;
    client.handle(INTERVAL, IssuanceClientInput::Timeout { wall: due }).unwrap();
    let Some(IssuanceClientOutput::Dial { exchange: 1, with_svid: true }) = client.poll_output() else {
        panic!()
    };
    let failed =
        IssuanceClientInput::Failed { exchange: 1, failure: ExchangeFailure::NotAccepted, wall: due };
    client.handle(INTERVAL, failed).unwrap();
    assert_eq!(client.failure(), Some(&IssuanceFailure::NotAccepted));
    // Without a token it attests with what it has.
    client.handle(INTERVAL + seconds(2), IssuanceClientInput::Timeout { wall: due }).unwrap();
    let Some(IssuanceClientOutput::Dial { exchange: 2, with_svid: false }) = client.poll_output() else {
        panic!()
    };
    assert!(!format!("{client:?}").contains("pkcs8"));
}

/// The first attempts of a client that attests by certificate and by token, each of which fails for its
/// reason.
fn attempts(failures: &[ExchangeFailure]) -> Vec<&'static str> {
    let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let device = authority.issue(&id("device"), Duration::from_secs(3600)).unwrap();
    let mut client = IssuanceClient::new(id("web"), RenewalOptions::default(), 7)
        .certificate(device.chain().to_vec(), device.key().clone_key())
        .token("token".into());
    let (mut now, wall, mut seen) = (Duration::ZERO, Duration::from_secs(2_000_000_000), Vec::new());
    for failure in failures {
        client.handle(now, IssuanceClientInput::Timeout { wall: wall + now }).unwrap();
        while let Some(output) = client.poll_output() {
            match output {
                IssuanceClientOutput::StoreKey { .. } => seen.push("store"),
                IssuanceClientOutput::Dial { exchange, .. } => {
                    seen.push("dial");
                    let failure = *failure;
                    let input = IssuanceClientInput::Failed { exchange, failure, wall: wall + now };
                    client.handle(now, input).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        now = client.poll_timeout().unwrap();
    }
    seen
}

/// The key of a token is stored before the token is sent, also if the key was made for evidence of another
/// kind; and once only, but for one that could not be stored.
#[test]
fn a_key_is_stored_before_a_token_is_bound_to_it() {
    use ExchangeFailure::{NotStored, Unreachable};
    // By certificate, by token, and the same again.
    assert_eq!(attempts(&[Unreachable; 4]), ["dial", "store", "dial", "dial", "dial"]);
    let seen = attempts(&[Unreachable, NotStored, Unreachable, Unreachable, Unreachable, Unreachable]);
    assert_eq!(seen, ["dial", "store", "dial", "dial", "store", "dial", "dial", "dial"]);
}

/// A full disk is no fault of the issuer or of the clock: it has its own reason, and the next attempt
/// follows.
#[test]
fn an_svid_that_is_not_stored_is_requested_again() {
    let wall = Duration::from_secs(2_000_000_000);
    let mut client = IssuanceClient::new(id("web"), RenewalOptions::default(), 7).token("token".into());
    let mut now = Duration::ZERO;
    for attempt in 1..=3 {
        client.handle(now, IssuanceClientInput::Timeout { wall: wall + now }).unwrap();
        let dialled = std::iter::from_fn(|| client.poll_output()).find_map(|output| match output {
            IssuanceClientOutput::Dial { exchange, .. } => Some(exchange),
            _ => None,
        });
        assert_eq!(dialled, Some(attempt));
        let failure = ExchangeFailure::SvidNotStored;
        client
            .handle(now, IssuanceClientInput::Failed { exchange: attempt, failure, wall: wall + now })
            .unwrap();
        assert_eq!(client.failure(), Some(&IssuanceFailure::SvidNotStored));
        now = client.poll_timeout().unwrap();
    }
}

#[test]
fn a_token_serves_one_key_until_it_expires_and_survives_its_store() {
    let mut tokens = JoinTokens::new();
    let token = tokens.issue("rack-7", at(BEGIN + seconds(60))).unwrap();
    let first = tokens.redeem(&token, b"key", at(BEGIN)).unwrap();
    assert_eq!(first.to_string(), "join_token:rack-7");
    assert_eq!(tokens.redeem(&token, b"other key", at(BEGIN)), Err(JoinTokenError::Unknown));
    let mut restored = JoinTokens::new();
    for stored in tokens.stored() {
        restored.insert(stored.clone()).unwrap();
    }
    assert_eq!(restored.redeem(&token, b"key", at(BEGIN)), Ok(first));
    assert_eq!(restored.redeem(&token, b"other key", at(BEGIN)), Err(JoinTokenError::Unknown));
    assert_eq!(restored.attest(&token, at(BEGIN)), Err(JoinTokenError::Unknown));
    assert_eq!(tokens.redeem(&token, b"key", at(BEGIN + seconds(60))), Err(JoinTokenError::Expired));
    assert_eq!(tokens.redeem(&token, b"key", at(BEGIN)), Err(JoinTokenError::Unknown));
    assert!(tokens.is_empty());
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let certificate = proptest::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        "[a-z]{0,60}".prop_map(Evidence::JoinToken),
        Just(Evidence::CurrentSvid),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Evidence::Tpm),
        (proptest::collection::vec(certificate, 0..8), proptest::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(chain, signature)| Evidence::Svid {
                chain: chain.into_iter().map(Into::into).collect(),
                signature
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn messages_are_read_as_they_were_written(evidence in evidence(), seconds in any::<u32>(), text in "\\PC{0,300}") {
        let mut request = IssuanceRequest::new(id("web"), vec![7; 9], Evidence::CurrentSvid);
        (request.evidence, request.validity) = (evidence, Duration::from_secs(seconds.into()));
        prop_assert_eq!(IssuanceRequest::from_bytes(&request.to_bytes()), Ok(request));
        for bytes in [text.clone().into_bytes(), vec![7; 4096]] {
            let challenge = IssuanceAnswer::Challenge(bytes.clone());
            prop_assert_eq!(IssuanceAnswer::from_bytes(&challenge.to_bytes()), Ok(challenge));
            let response = IssuanceResponse { response: bytes };
            prop_assert_eq!(IssuanceResponse::from_bytes(&response.to_bytes()), Ok(response));
        }
        let answer = IssuanceAnswer::Refused { refusal: IssuanceRefusal::NotRegistered, text };
        let read = IssuanceAnswer::from_bytes(&answer.to_bytes()).unwrap();
        let (IssuanceAnswer::Refused { text: written, .. }, IssuanceAnswer::Refused { text: read, .. }) = (answer, read) else { panic!() };
        prop_assert!(written.starts_with(&read) && (read == written || read.len() > 508));
    }

    #[test]
    fn any_bytes_are_refused_or_mean_one_thing(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0..6_u8) {
        if start > 0 && bytes.len() > 8 {
            let head = [1, start, 0, 0, 0, 9, 0, 0];
            bytes[..8].copy_from_slice(&head);
        }
        if let Ok(request) = IssuanceRequest::from_bytes(&bytes) {
            prop_assert_eq!(request.to_bytes(), bytes.clone());
        }
        if let Ok(answer) = IssuanceAnswer::from_bytes(&bytes) {
            prop_assert_eq!(answer.to_bytes(), bytes);
        }
    }
}

/// A server with a request of a TPM that waits for its attestor.
fn challenged() -> (Issuer, Vec<u8>) {
    let mut issuer = Issuer::new();
    issuer.register("web");
    let key = RequestKey::generate().unwrap();
    let bytes = IssuanceRequest::new(id("web"), key.request().to_vec(), Evidence::Tpm(vec![1, 2])).to_bytes();
    let input = IssuanceServerInput::Request {
        id: 1,
        peer: None,
        binding: [9; 32],
        bytes: bytes.clone(),
        wall: BEGIN,
    };
    issuer.server.handle(Duration::ZERO, input).unwrap();
    let expected = PresentedEvidence::Tpm { evidence: vec![1, 2], binding: [9; 32] };
    let output = issuer.server.poll_output();
    assert!(
        matches!(&output, Some(IssuanceServerOutput::Attest { id: 1, evidence, .. }) if *evidence == expected),
        "{output:?}"
    );
    (issuer, bytes)
}

fn refusal_of(output: Option<IssuanceServerOutput>) -> IssuanceRefusal {
    let Some(IssuanceServerOutput::Answer { bytes, issued: None, .. }) = output else { panic!("{output:?}") };
    let IssuanceAnswer::Refused { refusal, .. } = IssuanceAnswer::from_bytes(&bytes).unwrap() else {
        panic!()
    };
    refusal
}

#[test]
fn a_challenge_has_one_response_in_time() {
    let (mut issuer, _) = challenged();
    let server = &mut issuer.server;
    let response = |bytes: &[u8]| IssuanceServerInput::Response { id: 1, bytes: bytes.to_vec() };
    let good = IssuanceResponse { response: vec![5] }.to_bytes();
    // A response to nothing changes nothing.
    let early = server.handle(Duration::ZERO, response(&good));
    assert_eq!(early, Err(IssuanceServerError::NotWaiting { id: 1 }));
    let challenge = || IssuanceServerInput::Challenge { id: 1, challenge: vec![4] };
    server.handle(Duration::ZERO, challenge()).unwrap();
    let bytes = IssuanceAnswer::Challenge(vec![4]).to_bytes();
    assert_eq!(server.poll_output(), Some(IssuanceServerOutput::Challenge { id: 1, bytes }));
    // The attestor answers the response, and not the challenge.
    assert_eq!(server.handle(Duration::ZERO, challenge()), Err(IssuanceServerError::NotWaiting { id: 1 }));
    server.handle(Duration::ZERO, response(&good)).unwrap();
    assert_eq!(server.poll_output(), Some(IssuanceServerOutput::Examine { id: 1, response: vec![5] }));
    assert!(server.handle(Duration::ZERO, response(&good)).is_err());
    let why = IssuanceServerInput::NotAttested { id: 1, why: "no".into() };
    server.handle(Duration::ZERO, why).unwrap();
    assert_eq!(refusal_of(server.poll_output()), IssuanceRefusal::NotAttested);

    // One that cannot be read, and none.
    let (mut issuer, _) = challenged();
    issuer.server.handle(Duration::ZERO, challenge()).unwrap();
    issuer.server.poll_output();
    issuer.server.handle(Duration::ZERO, response(&[1, 3])).unwrap();
    assert_eq!(refusal_of(issuer.server.poll_output()), IssuanceRefusal::Malformed);
    let (mut issuer, _) = challenged();
    issuer.server.handle(Duration::ZERO, challenge()).unwrap();
    issuer.server.poll_output();
    let due = issuer.server.poll_timeout().unwrap();
    issuer.server.handle(due, IssuanceServerInput::Timeout).unwrap();
    assert_eq!(refusal_of(issuer.server.poll_output()), IssuanceRefusal::Busy);
}

#[test]
fn a_workload_answers_one_challenge_and_only_for_its_tpm() {
    let wall = BEGIN;
    let connect = |mut client: IssuanceClient| {
        client.handle(Duration::ZERO, IssuanceClientInput::Timeout { wall }).unwrap();
        let connected = IssuanceClientInput::Connected { exchange: 1, binding: [9; 32], wall };
        client.handle(Duration::ZERO, connected).unwrap();
        while client.poll_output().is_some() {}
        client
    };
    let bytes = IssuanceAnswer::Challenge(vec![4]).to_bytes();
    let challenge = || IssuanceClientInput::Answer { exchange: 1, bytes: bytes.clone(), wall };
    let respond = |response| IssuanceClientInput::Response { exchange: 1, response, wall };
    let engine = || IssuanceClient::new(id("web"), RenewalOptions::default(), 7);
    let mut client = connect(engine().token("token".into()));
    assert!(client.handle(Duration::ZERO, respond(Some(vec![5]))).is_err());
    client.handle(Duration::ZERO, challenge()).unwrap();
    assert_eq!(client.failure(), Some(&IssuanceFailure::Challenge));

    let mut client = connect(engine().tpm(vec![1]));
    client.handle(Duration::ZERO, challenge()).unwrap();
    let output = client.poll_output().unwrap();
    let IssuanceClientOutput::Challenged { exchange: 1, ref challenge, binding } = output else {
        panic!("{output:?}")
    };
    assert_eq!((&challenge[..], binding), (&[4][..], [9; 32]));
    client.handle(Duration::ZERO, respond(Some(vec![5]))).unwrap();
    let output = client.poll_output().unwrap();
    let IssuanceClientOutput::Send { exchange: 1, ref bytes } = output else { panic!("{output:?}") };
    assert_eq!(IssuanceResponse::from_bytes(bytes), Ok(IssuanceResponse { response: vec![5] }));
    let again = IssuanceAnswer::Challenge(vec![4]).to_bytes();
    client.handle(Duration::ZERO, IssuanceClientInput::Answer { exchange: 1, bytes: again, wall }).unwrap();
    assert_eq!(client.failure(), Some(&IssuanceFailure::Challenge));

    // A TPM that gives no answer: the engine tries again, with the next evidence that it has.
    let mut client = connect(engine().tpm(vec![1]).token("token".into()));
    let challenge = IssuanceClientInput::Answer { exchange: 1, bytes: bytes.clone(), wall };
    client.handle(Duration::ZERO, challenge).unwrap();
    client.poll_output();
    client.handle(Duration::ZERO, respond(None)).unwrap();
    assert_eq!(client.failure(), Some(&IssuanceFailure::Challenge));
    let due = client.poll_timeout().unwrap();
    client.handle(due, IssuanceClientInput::Timeout { wall: wall + due }).unwrap();
    let connected = IssuanceClientInput::Connected { exchange: 2, binding: [8; 32], wall: wall + due };
    client.handle(due, connected).unwrap();
    let sent = std::iter::from_fn(|| client.poll_output()).find_map(|output| match output {
        IssuanceClientOutput::Send { bytes, .. } => Some(bytes),
        _ => None,
    });
    let request = IssuanceRequest::from_bytes(&sent.unwrap()).unwrap();
    assert_eq!(request.evidence, Evidence::JoinToken("token".into()));
}

#[test]
fn damaged_messages_name_the_place() {
    let request = |bytes: &[u8]| IssuanceRequest::from_bytes(bytes).unwrap_err();
    assert_eq!(request(&[]), IssuanceMessageError::Malformed { position: 0 });
    assert_eq!(request(&[2]), IssuanceMessageError::Version { version: 2 });
    let good = IssuanceRequest::new(id("web"), vec![7; 9], Evidence::CurrentSvid).to_bytes();
    for end in 0..good.len() {
        assert!(matches!(request(&good[..end]), IssuanceMessageError::Malformed { .. }), "{end}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(request(&longer), IssuanceMessageError::Malformed { position: good.len() });
    let mut kind = good;
    kind[1] = 6;
    assert_eq!(request(&kind), IssuanceMessageError::Malformed { position: 1 });
    let len = ISSUANCE_REQUEST_LEN_MAX + 1;
    let error = IssuanceMessageError::Length { len, len_max: ISSUANCE_REQUEST_LEN_MAX };
    assert_eq!(request(&vec![1; len]), error);
    let answer = |bytes: &[u8]| IssuanceAnswer::from_bytes(bytes).unwrap_err();
    assert_eq!(answer(&[1, 6, 0, 0]), IssuanceMessageError::Malformed { position: 1 });
    assert_eq!(answer(&[1, 0, 9]), IssuanceMessageError::Malformed { position: 3 });
    let len = ISSUANCE_ANSWER_LEN_MAX + 1;
    assert!(matches!(answer(&vec![1; len]), IssuanceMessageError::Length { .. }));
}
