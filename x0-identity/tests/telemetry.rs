//! The metrics of an identity, an issuer, a Workload API and a consumer of bundle endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "of the tests of the Workload API")]
#[path = "workload_api/kit.rs"]
mod kit;
#[allow(dead_code, reason = "of the tests of the Workload API")]
#[path = "workload_api/pair.rs"]
mod pair;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use x0_identity::federation::{
    EndpointProfile, EndpointUrl, Federation, FederationInput, FederationOutput, FetchFailure, Relationship,
};
use x0_identity::{
    Authority, AuthorityOptions, CaSigner, CaSignerOptions, Evidence, Identity, IssuanceRequest,
    IssuanceServer, IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput, MemoryRegistry, NodeId,
    Proof, RegistrationEntry, RequestKey, SpiffeId, TrustDomain, X509Svid, telemetry,
};

fn authority(domain: &str) -> Authority {
    Authority::new(TrustDomain::parse(domain).unwrap(), &AuthorityOptions::default()).unwrap()
}

fn issue(authority: &Authority, validity: u64) -> X509Svid {
    let spiffe_id = SpiffeId::for_node(authority.trust_domain(), NodeId::new(1).unwrap());
    authority.issue(&spiffe_id, Duration::from_secs(validity)).unwrap()
}

/// An issuer that issues to a join token after two seconds, and refuses a request that cannot be read.
fn issue_over_the_network(authority: &Authority) {
    let (id, wall) =
        (kit::id("spiffe://example.org/web"), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH));
    let wall = wall.unwrap();
    let mut registry = MemoryRegistry::new();
    registry.insert(RegistrationEntry::new(id.clone(), kit::HOUR));
    let signer =
        CaSigner::new(authority.certificate().clone(), Vec::new(), CaSignerOptions::default()).unwrap();
    let options = IssuanceServerOptions::default();
    let mut server = IssuanceServer::new(signer, registry, authority.bundle(), options);
    let key = RequestKey::generate().unwrap();
    let request =
        IssuanceRequest::new(id, key.request().to_vec(), Evidence::JoinToken("token".into())).to_bytes();
    for (number, bytes) in [(1, request), (2, b"no request".to_vec())] {
        let input = IssuanceServerInput::Request { id: number, peer: None, binding: [0; 32], bytes, wall };
        server.handle(Duration::ZERO, input).unwrap();
    }
    let mut answers = Vec::new();
    while let Some(output) = server.poll_output() {
        let input = match output {
            IssuanceServerOutput::Attest { id, .. } => {
                IssuanceServerInput::Attested { id, proof: Proof::Selectors(BTreeSet::new()), wall }
            }
            IssuanceServerOutput::Sign { id, to_be_signed } => {
                IssuanceServerInput::Signed { id, signature: authority.sign(&to_be_signed).ok() }
            }
            IssuanceServerOutput::Answer { issued, .. } => {
                answers.push(issued.is_some());
                continue;
            }
            _ => continue,
        };
        server.handle(Duration::from_secs(2), input).unwrap();
    }
    assert_eq!(answers, [false, true]);
}

/// A bundle that is fetched, and one whose endpoint is not reached.
fn fetch_bundles() {
    let mut federation = Federation::new(x0_identity::federation::ClientOptions::default(), 7);
    let url = EndpointUrl::parse("https://example.com/").unwrap();
    let relationship = Relationship::new(kit::domain("example.com"), url, EndpointProfile::Web);
    let unreachable = FetchFailure::Unreachable { reason: "no route".into() };
    let body = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}".to_vec();
    for answer in [None, Some(body)] {
        federation.handle(Duration::ZERO, FederationInput::Establish(relationship.clone())).unwrap();
        while let Some(output) = federation.poll_output() {
            let FederationOutput::Dial { fetch, .. } = output else { continue };
            let input = match &answer {
                None => FederationInput::Failed { fetch, failure: unreachable.clone() },
                Some(bytes) => FederationInput::Received { fetch, bytes: bytes.clone() },
            };
            federation.handle(Duration::ZERO, input).unwrap();
        }
    }
}

#[test]
fn rotations_verifications_and_refusals_are_counted_exactly() {
    let recorder = DebuggingRecorder::new();
    let expires = metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        let (ours, theirs) = (authority("example.org"), authority("example.com"));
        let identity = Identity::new(issue(&ours, 600), ours.bundle()).unwrap();
        for _ in 0..3 {
            identity.rotate(issue(&ours, 1200)).unwrap();
        }
        let verify = |svid: &X509Svid, at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let now = pki_types::UnixTime::since_unix_epoch(since);
            let (leaf, rest) = svid.chain().split_first().unwrap();
            identity.verifier().verify_client(leaf, rest, now).is_ok()
        };
        let now = SystemTime::now();
        assert!(verify(&issue(&ours, 600), now));
        assert!(!verify(&issue(&theirs, 600), now));
        for _ in 0..5 {
            assert!(!verify(&issue(&ours, 600), now + Duration::from_secs(100_000)));
        }
        issue_over_the_network(&ours);
        fetch_bundles();
        let workload = kit::Domain::new("example.org").workload(&["web"]);
        let options = x0_identity::workload_api::ClientOptions::default().jwt_bundles(true);
        let mut ended = pair::Pair::new(options.clone(), Some(workload.clone()));
        ended.input(x0_identity::workload_api::ClientInput::Timeout);
        // Both streams end, and the client does not come back in this moment.
        ended.set(None);
        let mut pair = pair::Pair::new(options, Some(workload));
        pair.input(x0_identity::workload_api::ClientInput::Timeout);
        (identity.svid_expires(), pair)
    });
    let (expires, _pair) = expires;
    let all = recorder.snapshotter().snapshot().into_vec().into_iter();
    let values: BTreeMap<String, f64> = all
        .map(|(key, _, description, value)| {
            assert!(description.is_some(), "{key:?} is not described");
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(samples) => samples.len() as f64,
            };
            let labels: String = key.key().labels().map(|label| format!(" {}", label.value())).collect();
            (format!("{}{labels}", key.key().name()), value)
        })
        .collect();
    let value = |name: &str| values[&format!("x0_identity_{name}")];
    let unix = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(value("svid_not_after_seconds"), unix.as_secs_f64());
    assert_eq!(value("rotations_total"), 3.0);
    // The own SVID is verified in both roles, when the identity is made and at each rotation.
    assert_eq!(value("verify_seconds"), 8.0 + 7.0);
    assert_eq!(value("refusals_total trust_domain"), 1.0);
    assert_eq!(value("refusals_total expired"), 5.0);
    assert_eq!(value("refusals_total unknown_issuer"), 0.0);
    assert_eq!(value("issuances_total join_token"), 1.0);
    assert_eq!(value("issuances_total renewal"), 0.0);
    assert_eq!(value("issuance_refusals_total malformed"), 1.0);
    assert_eq!(value("issue_seconds"), 1.0);
    // Of the pair that is connected still: X.509-SVIDs and JWT bundles.
    assert_eq!(value("workload_streams"), 2.0);
    assert_eq!(value("workload_refusals_total permission_denied"), 2.0);
    assert_eq!(value("federation_fetches_total unreachable"), 1.0);
    assert_eq!(value("federation_fetches_total fetched"), 1.0);
    let table = include_str!("../src/telemetry.rs").lines().filter(|line| line.starts_with("//! | `"));
    let table: BTreeSet<_> = table.filter_map(|line| line.split('`').nth(1)).collect();
    let live: BTreeSet<_> = values.keys().filter_map(|name| name.split(' ').next()).collect();
    assert_eq!(table, live);
    let docs = include_str!("../src/telemetry.rs");
    let reasons = docs.split_once("The reasons of refusals: ").unwrap().1.split_once('.').unwrap().0;
    let reasons: BTreeSet<_> = reasons.split('`').skip(1).step_by(2).collect();
    let live: BTreeSet<_> =
        values.keys().filter_map(|name| name.strip_prefix("x0_identity_refusals_total ")).collect();
    assert!(live.is_subset(&reasons), "{live:?}");
    assert!(docs.contains(&format!("one of the {} below", reasons.len())));
}
