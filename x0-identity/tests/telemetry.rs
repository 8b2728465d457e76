//! The metrics of an identity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use x0_identity::{
    Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain, X509Svid, telemetry,
};

fn authority(domain: &str) -> Authority {
    Authority::new(TrustDomain::parse(domain).unwrap(), &AuthorityOptions::default()).unwrap()
}

fn issue(authority: &Authority, validity: u64) -> X509Svid {
    let spiffe_id = SpiffeId::for_node(authority.trust_domain(), NodeId::new(1).unwrap());
    authority.issue(&spiffe_id, Duration::from_secs(validity)).unwrap()
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
        identity.svid_expires()
    });
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
    assert_eq!(value("refusals_total path"), 0.0);
    let table = include_str!("../src/telemetry.rs").lines().filter(|line| line.starts_with("//! | `"));
    let table: BTreeSet<_> = table.filter_map(|line| line.split('`').nth(1)).collect();
    let live: BTreeSet<_> = values.keys().filter_map(|name| name.split(' ').next()).collect();
    assert_eq!(table, live);
}
