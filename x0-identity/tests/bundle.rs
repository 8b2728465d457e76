//! SPIFFE bundles and bundle maps: one test for each MUST of Trust Domain and Bundle, and of X509-SVID §6 and
//! JWT-SVID §6.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | TDB – | 3 | the bundle of the SVID's trust domain is chosen | `tdb_3_bundles_are_not_merged` |
//! | TDB 1 | 4.1 | MUST NOT require parameters that are not defined | `tdb_4_1_further_parameters` |
//! | TDB 2 | 4.1.1 | `spiffe_sequence` MUST be an increasing integer | `tdb_4_1_1_sequence_is_an_integer`, `tdb_4_1_1_the_sequence_changes_with_the_content` |
//! | TDB 3 | 4.1.1 | it MUST be changed with the contents | `tdb_4_1_1_the_sequence_changes_with_the_content` |
//! | TDB 4 | 4.1.2 | `spiffe_refresh_hint` MUST be an integer | `tdb_4_1_2_refresh_hint_is_an_integer` |
//! | TDB 5 | 4.1.3 | `keys` MUST be present | `tdb_4_1_3_keys_are_present` |
//! | TDB 6 | 4.1.3 | unknown key types and uses MUST be ignored | `tdb_4_1_3_unknown_keys_are_ignored` |
//! | TDB 7 | 4.1.3 | without usable keys all SVIDs MUST be untrusted | `tdb_4_1_3_no_usable_key_trusts_nothing` |
//! | TDB 8 | 4.2 | SVID specifications MUST define `use` | same as X509 21 and JWT 15 |
//! | TDB 9 | 4.2.1 | `kty` MUST be set | same as TDB 6 |
//! | TDB 10 | 4.2.1 | an unknown `kty` MUST be ignored | same as TDB 6 |
//! | TDB 11 | 4.2.2 | `use` MUST be set | same as TDB 6 |
//! | TDB 12 | 4.2.2 | a missing or unknown `use` MUST be ignored | same as TDB 6 |
//! | TDB 13 | 5.1.1 | `trust_domains` MUST be set, MAY be empty | `tdb_5_1_1_trust_domains_are_present` |
//! | TDB 14 | 5.1.1 | producers MUST ensure unique names | `tdb_5_1_1_duplicate_names_are_rejected` |
//! | TDB 15 | 5.1.1 | duplicate names MUST be rejected | same as TDB 14 |
//! | TDB 16 | 5.1.1 | MUST NOT alter the refresh by hints of single bundles | `tdb_5_1_1_refresh_hints_are_dropped` |
//! | X509 21 | 6.1 | `use` MUST be `x509-svid` | `x509_svid_6_1_published` |
//! | X509 22 | 6.1 | `kid` MUST NOT be set | same as X509 21 |
//! | X509 23 | 6.1 | an entry MUST contain `x5c` | same as X509 21 |
//! | X509 24 | 6.1 | `x5c` MUST hold exactly one certificate | same as X509 21 |
//! | X509 25 | 6.2 | without `x5c` value the entry MUST be ignored | `x509_svid_6_2_consumed` |
//! | X509 26 | 6.2 | all but the first value of `x5c` MUST be ignored | same as X509 25 |
//! | JWT 15 | 6.1 | `use` MUST be `jwt-svid` | `jwt_svid_6_1_published` |
//! | JWT 16 | 6.1 | `kid` MUST be set | same as JWT 15 |
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use common::{MINUTE, Recipe, connect, domain, root};
use pki_types::UnixTime;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use x0_identity::{
    Authority, AuthorityOptions, BundleError, BundleMap, BundleMapError, BundleSource, Identity, JsonError,
    JwtAuthority, JwtKey, KeyEncodingError, PeerRole, Refusal, SetBundleError, SigningError, SpiffeBundle,
    SpiffeBundleError, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain, Verifier, VerifyError,
    peer_node_id_in,
};

fn authority(name: &str) -> Authority {
    Authority::new(domain(name), &AuthorityOptions::default()).unwrap()
}

fn read(json: &Value) -> Result<SpiffeBundle, SpiffeBundleError> {
    SpiffeBundle::from_json(domain("example.org"), json.to_string().as_bytes())
}

fn written(bundle: &SpiffeBundle) -> Value {
    serde_json::from_str(&bundle.to_json()).unwrap()
}

/// A key that signs JWT-SVIDs, from the certificate of an authority.
fn jwt_authority(key_id: &str) -> JwtAuthority {
    use rcgen::{KeyPair, PublicKeyData};
    JwtAuthority::from_public_key(key_id, &KeyPair::generate().unwrap().subject_public_key_info()).unwrap()
}

fn full() -> SpiffeBundle {
    let mut authorities = authority("example.org").bundle();
    authorities.extend(&authority("example.org").bundle()).unwrap();
    SpiffeBundle::new(authorities)
        .with_jwt_authorities(vec![jwt_authority("one"), jwt_authority("two")])
        .unwrap()
        .with_sequence(u64::MAX)
        .with_refresh_hint(Duration::from_millis(300_999))
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    let bundle = full();
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(300)));
    let again = SpiffeBundle::from_json(domain("example.org"), bundle.to_json().as_bytes()).unwrap();
    assert_eq!(again, bundle);
    assert_eq!(again.to_json(), bundle.to_json());
    assert_eq!(again.sequence(), Some(u64::MAX));
    assert!(matches!(again.jwt_key("two"), Some(JwtKey::P256(point)) if point.len() == 65));
    assert_eq!(again.jwt_key("three"), None);
}

#[test]
fn tdb_3_bundles_are_not_merged() {
    let (own, other) = (authority("example.org"), authority("example.com"));
    let id = |name: &str| SpiffeId::parse(&format!("spiffe://{name}/node/0000000000000001")).unwrap();
    let identity = Identity::new(own.issue(&id("example.org"), MINUTE).unwrap(), own.bundle()).unwrap();
    let foreign = Identity::new(other.issue(&id("example.com"), MINUTE).unwrap(), other.bundle()).unwrap();
    let untrusted = connect(&foreign.client_config(), &identity.server_config()).unwrap_err();
    assert!(untrusted.to_string().contains("no bundle is trusted"), "{untrusted}");

    identity.federate(other.bundle()).unwrap();
    foreign.federate(own.bundle()).unwrap();
    let (_, server) = connect(&foreign.client_config(), &identity.server_config()).unwrap();
    // The same number in another domain is another node.
    let chain = server.peer_certificates().unwrap();
    assert!(peer_node_id_in(&domain("example.org"), chain).is_err());
    assert_eq!(peer_node_id_in(&domain("example.com"), chain).unwrap().get(), 1);

    // Each authority counts for its own domain, also when the other's key is trusted.
    let forged = Recipe::leaf("spiffe://example.org/a")
        .signed_by(&Recipe::signer("spiffe://example.com", "root").self_signed());
    assert!(identity.verifier().verify_client(&forged.certificate, &[], UnixTime::now()).is_err());
    let leaf = own.issue(&id("example.org"), MINUTE).unwrap();
    let only_foreign = Verifier::with_source(Arc::new(TrustBundleSet::from(other.bundle())));
    assert_eq!(
        only_foreign.verify_client(&leaf.chain()[0], &[], UnixTime::now()),
        Err(VerifyError::TrustDomain { spiffe_id: id("example.org") })
    );
    identity.unfederate(&domain("example.com")).unwrap();
    connect(&foreign.client_config(), &identity.server_config()).unwrap_err();

    assert!(matches!(identity.federate(own.bundle()), Err(SetBundleError::OwnDomain { .. })));
    assert!(matches!(identity.unfederate(&domain("example.org")), Err(SetBundleError::OwnDomain { .. })));
}

#[test]
fn a_restricted_domain_admits_the_named_workloads_alone() {
    let (own, other) = (authority("example.org"), authority("example.com"));
    let id = |text: &str| SpiffeId::parse(text).unwrap();
    let identity = |by: &Authority, name: &str| {
        Identity::new(by.issue(&id(name), MINUTE).unwrap(), by.bundle()).unwrap()
    };
    let server = identity(&own, "spiffe://example.org/web");
    let [billing, stock] =
        ["billing", "stock"].map(|name| identity(&other, &format!("spiffe://example.com/{name}")));
    for client in [&billing, &stock] {
        client.federate(own.bundle()).unwrap();
    }
    let example_com = domain("example.com");
    let only = |name: &str| Some([id(name)].into());
    // Before the bundle is there, so that no moment is open to all.
    server.restrict(&example_com, only("spiffe://example.com/billing")).unwrap();
    server.federate(other.bundle()).unwrap();
    let dial = |client: &Identity| connect(&client.client_config(), &server.server_config());
    let (_, tls) = dial(&billing).unwrap();
    let chain = tls.peer_certificates().unwrap().to_vec();
    let refused = dial(&stock).unwrap_err().to_string();
    assert!(refused.contains("spiffe://example.com/stock is not among the workloads"), "{refused}");
    // A peer that is dialled is held to it as well.
    connect(&server.client_config(), &stock.server_config()).unwrap_err();
    // The own domain is not restricted, and a restriction outlives a change of the bundle.
    dial(&identity(&own, "spiffe://example.org/db")).unwrap();
    server.unfederate(&example_com).unwrap();
    server.federate(other.bundle()).unwrap();
    dial(&stock).unwrap_err();

    // An established connection is not admitted any more.
    let mut admission = server.admit(&chain, PeerRole::Client, SystemTime::now()).unwrap();
    let mut poll = || Pin::new(&mut admission).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(poll(), Poll::Pending);
    server.restrict(&example_com, only("spiffe://example.com/stock")).unwrap();
    let spiffe_id = id("spiffe://example.com/billing");
    assert_eq!(poll(), Poll::Ready(VerifyError::NotAdmitted { spiffe_id }));
    dial(&stock).unwrap();
    dial(&billing).unwrap_err();
    // IDs of other domains do not count, and without a restriction all are admitted.
    server.restrict(&example_com, only("spiffe://example.org/billing")).unwrap();
    dial(&billing).unwrap_err();
    server.restrict(&example_com, None).unwrap();
    dial(&billing).unwrap();
    dial(&stock).unwrap();
    let own_domain = server.restrict(&domain("example.org"), None);
    assert!(matches!(own_domain, Err(SetBundleError::OwnDomain { .. })));
    let source = Arc::new(TrustBundleSet::from(own.bundle()));
    let svid = own.issue(&id("spiffe://example.org/web"), MINUTE).unwrap();
    let of_source = Identity::with_source(svid, source).unwrap();
    assert_eq!(of_source.restrict(&example_com, None), Err(SetBundleError::Source));

    // A set restricts as well.
    let mut set = TrustBundleSet::from(other.bundle());
    set.restrict(&example_com, only("spiffe://example.com/stock"));
    let verifier = Verifier::with_source(Arc::new(set));
    let verify = |client: &Identity| verifier.verify_client(&client.svid_chain()[0], &[], UnixTime::now());
    assert!(verify(&stock).is_ok() && matches!(verify(&billing), Err(VerifyError::NotAdmitted { .. })));
}

/// A source that gives the bundle of one domain whatever it is asked for.
#[derive(Debug)]
struct Confused(TrustBundle);

impl BundleSource for Confused {
    fn bundle(&self, _trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        Some(Arc::new(self.0.clone()))
    }
}

#[test]
fn a_source_is_read_at_each_handshake_and_checked() {
    let root = root();
    let leaf = Recipe::leaf("spiffe://example.com/a").signed_by(&root);
    let verifier = Verifier::with_source(Arc::new(Confused(root.bundle())));
    assert!(matches!(
        verifier.verify_client(&leaf.certificate, &[], UnixTime::now()),
        Err(VerifyError::TrustDomain { .. })
    ));
    let authority = authority("example.org");
    let svid = authority.issue(&SpiffeId::parse("spiffe://example.org/a").unwrap(), MINUTE).unwrap();
    let source = Arc::new(TrustBundleSet::from(authority.bundle()));
    let identity = Identity::with_source(svid, source).unwrap();
    assert_eq!(identity.trust_bundle(), authority.bundle());
    assert_eq!(identity.set_bundle(authority.bundle()), Err(SetBundleError::Source));
    assert_eq!(identity.federate(self::authority("example.com").bundle()), Err(SetBundleError::Source));
    assert_eq!(identity.unfederate(&domain("example.com")), Err(SetBundleError::Source));
}

#[test]
fn a_set_has_one_bundle_for_each_domain() {
    let (own, other) = (authority("example.org").bundle(), authority("example.com").bundle());
    let mut set: TrustBundleSet =
        [own.clone(), other.clone(), TrustBundle::empty(domain("example.org"))].into_iter().collect();
    assert_eq!(set.len(), 2);
    assert!(set.get(&domain("example.org")).unwrap().is_empty());
    assert_eq!(set.insert(own.clone()).as_deref(), Some(&TrustBundle::empty(domain("example.org"))));
    assert_eq!(set.iter().collect::<Vec<_>>(), [&other, &own]);
    assert_eq!(set.remove(&domain("example.com")).as_deref(), Some(&other));
    assert!(!set.is_empty());
}

#[test]
fn tdb_4_1_further_parameters() {
    let json = json!({"keys": [], "crl": {"a": [1, null]}, "other": true});
    let bundle = read(&json).unwrap();
    assert_eq!(written(&bundle), json);
    assert!(read(&json!({"keys": []})).is_ok());
}

#[test]
fn tdb_4_1_1_sequence_is_an_integer() {
    for (sequence, expect) in [
        ("0", Ok(Some(0))),
        ("18446744073709551615", Ok(Some(u64::MAX))),
        ("9007199254740993", Ok(Some(9_007_199_254_740_993))),
        ("18446744073709551616", Err(SpiffeBundleError::Sequence)),
        ("-1", Err(SpiffeBundleError::Sequence)),
        ("1.5", Err(SpiffeBundleError::Sequence)),
        ("1e3", Err(SpiffeBundleError::Sequence)),
        ("\"1\"", Err(SpiffeBundleError::Sequence)),
        ("null", Err(SpiffeBundleError::Sequence)),
    ] {
        let json = format!(r#"{{"keys":[],"spiffe_sequence":{sequence}}}"#);
        let read = SpiffeBundle::from_json(domain("example.org"), json.as_bytes());
        assert_eq!(read.map(|bundle| bundle.sequence()), expect, "{sequence}");
    }
}

#[test]
fn tdb_4_1_2_refresh_hint_is_an_integer() {
    for (hint, expect) in [
        (json!(2_419_200), Ok(Some(Duration::from_secs(2_419_200)))),
        (json!(-1), Err(SpiffeBundleError::RefreshHint)),
        (json!(1.5), Err(SpiffeBundleError::RefreshHint)),
        (json!("1"), Err(SpiffeBundleError::RefreshHint)),
    ] {
        let read = read(&json!({"keys": [], "spiffe_refresh_hint": hint}));
        assert_eq!(read.map(|bundle| bundle.refresh_hint()), expect, "{hint}");
    }
}

#[test]
fn tdb_4_1_3_keys_are_present() {
    for json in [
        json!({}),
        json!([]),
        json!({"keys": {}}),
        json!({"keys": null}),
        json!({"keys": [1]}),
        json!("keys"),
    ] {
        assert_eq!(read(&json), Err(SpiffeBundleError::Keys), "{json}");
    }
}

#[test]
fn tdb_4_1_3_unknown_keys_are_ignored() {
    let good = written(&full())["keys"].as_array().unwrap().clone();
    let with = |position: usize, name: &str, value: Value| {
        let mut key = good[position].clone();
        match value {
            Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
            value => key[name] = value,
        }
        key
    };
    let keys = vec![
        good[0].clone(),
        with(0, "use", Value::Null),
        with(0, "use", json!("other-svid")),
        with(0, "use", json!("X509-SVID")),
        with(0, "kty", Value::Null),
        with(0, "kty", json!("AKP")),
        json!({}),
        with(2, "kty", json!("oct")),
        with(2, "crv", json!("secp256k1")),
        good[2].clone(),
    ];
    let bundle = read(&json!({"keys": keys})).unwrap();
    assert_eq!(bundle.trust_bundle().authorities().len(), 1);
    assert_eq!(bundle.jwt_authorities().len(), 1);
    let refused: Vec<_> =
        bundle.refused().iter().map(|refused| (refused.position, refused.source.clone())).collect();
    assert_eq!(
        refused,
        [
            (1, Refusal::Use),
            (2, Refusal::Use),
            (3, Refusal::Use),
            (4, Refusal::KeyType),
            (5, Refusal::KeyType),
            (6, Refusal::Use),
            (7, Refusal::KeyType),
            (8, Refusal::KeyType),
        ]
    );
}

#[test]
fn tdb_4_1_3_no_usable_key_trusts_nothing() {
    let authority = authority("example.org");
    let svid = authority.issue(&SpiffeId::parse("spiffe://example.org/a").unwrap(), MINUTE).unwrap();
    for json in [json!({"keys": []}), json!({"keys": [{"use": "x509-svid", "kty": "EC"}]})] {
        let bundle = read(&json).unwrap();
        let verifier = Verifier::new(bundle.trust_bundle().clone());
        verifier.verify_client(&svid.chain()[0], &[], UnixTime::now()).unwrap_err();
    }
}

/// One authority that breaks a rule is left out: the example of the specification itself has a name that ends
/// with a slash.
#[test]
fn an_authority_that_breaks_a_rule_is_left_out() {
    let signer = |uri: &str| Recipe::signer(uri, "signer").self_signed().bundle_json();
    let good = written(&SpiffeBundle::new(authority("example.org").bundle()))["keys"][0].clone();
    let keys = vec![
        signer("spiffe://example.com/"),
        signer("https://example.org/ca"),
        Recipe::leaf("spiffe://example.org/a").self_signed().bundle_json(),
        good.clone(),
        good,
    ];
    let bundle = read(&json!({"keys": keys})).unwrap();
    // A certificate that occurs twice counts once; an authority without a SPIFFE ID is one all the same.
    assert_eq!(bundle.trust_bundle().authorities().len(), 2);
    let [slash, leaf] = bundle.refused() else { panic!("{:?}", bundle.refused()) };
    assert_eq!(slash.position, 0);
    assert!(matches!(
        slash.source,
        Refusal::Authority(BundleError::Authority { source: SigningError::SpiffeId(_), .. })
    ));
    assert_eq!(leaf.position, 2);
    assert!(matches!(
        leaf.source,
        Refusal::Authority(BundleError::Authority { source: SigningError::NotAuthority, .. })
    ));
}

trait BundleJson {
    fn bundle_json(&self) -> Value;
}

impl BundleJson for common::Issued {
    fn bundle_json(&self) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "x5c": [base64(&self.certificate)]})
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3)
            .fold(0_usize, |bits, index| bits << 8 | group.get(index).map_or(0, |byte| usize::from(*byte)));
        for index in 0..4 {
            text.push(if index > group.len() {
                '='
            } else {
                char::from(ALPHABET[bits >> (18 - 6 * index) & 63])
            });
        }
    }
    text
}

#[test]
fn a_bundle_is_bounded() {
    let long = vec![b' '; x0_identity::BUNDLE_LEN_MAX + 1];
    assert_eq!(
        SpiffeBundle::from_json(domain("example.org"), &long),
        Err(SpiffeBundleError::Length { len: long.len() })
    );
    let key = written(&full())["keys"][2].clone();
    let keys: Vec<Value> = (0..66)
        .map(|number| {
            let mut key = key.clone();
            key["kid"] = json!(format!("{number}"));
            key
        })
        .collect();
    let bundle = read(&json!({"keys": keys})).unwrap();
    assert_eq!(bundle.jwt_authorities().len(), SpiffeBundle::JWT_AUTHORITIES_MAX);
    assert_eq!(bundle.refused().len(), 2);
    assert_eq!(bundle.refused()[0].source, Refusal::JwtAuthorities);
}

#[test]
fn tdb_5_1_1_trust_domains_are_present() {
    let read = |json: Value| BundleMap::from_json(json.to_string().as_bytes());
    assert_eq!(read(json!({"trust_domains": {}})).unwrap().iter().count(), 0);
    for json in [json!({}), json!([]), json!({"trust_domains": []}), json!({"trust_domains": null})] {
        assert_eq!(read(json.clone()), Err(BundleMapError::TrustDomains), "{json}");
    }
    let bad_name = read(json!({"trust_domains": {"example.com": {"keys": []}, "Example.org": {"keys": []}}}));
    assert!(matches!(bad_name, Err(BundleMapError::TrustDomain { .. })), "{bad_name:?}");
    let bad_bundle = read(json!({"trust_domains": {"example.com": {}}}));
    assert_eq!(
        bad_bundle,
        Err(BundleMapError::Bundle { trust_domain: domain("example.com"), source: SpiffeBundleError::Keys })
    );
    let long = vec![b' '; x0_identity::BUNDLE_MAP_LEN_MAX + 1];
    assert_eq!(BundleMap::from_json(&long), Err(BundleMapError::Length { len: long.len() }));
}

#[test]
fn tdb_5_1_1_duplicate_names_are_rejected() {
    for text in [
        r#"{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}"#,
        r#"{"trust_domains":{"a":{"keys":[]},"\u0061":{"keys":[]}}}"#,
        r#"{"trust_domains":{},"trust_domains":{}}"#,
        r#"{"trust_domains":{"a":{"keys":[],"keys":[]}}}"#,
    ] {
        let read = BundleMap::from_json(text.as_bytes());
        assert!(
            matches!(read, Err(BundleMapError::Json(JsonError::DuplicateName { .. }))),
            "{text}: {read:?}"
        );
    }
}

#[test]
fn tdb_5_1_1_refresh_hints_are_dropped() {
    let text = r#"{"trust_domains":{"example.com":{"keys":[],"spiffe_refresh_hint":1,"spiffe_sequence":5}}}"#;
    let map = BundleMap::from_json(text.as_bytes()).unwrap();
    assert_eq!(map.get(&domain("example.com")).unwrap().refresh_hint(), None);
    let mut map = BundleMap::new();
    assert_eq!(map.insert(full()), None);
    let json: Value = serde_json::from_str(&map.to_json()).unwrap();
    assert_eq!(json["trust_domains"]["example.org"].get("spiffe_refresh_hint"), None);
    let again = BundleMap::from_json(map.to_json().as_bytes()).unwrap();
    assert_eq!(again.get(&domain("example.org")).unwrap().sequence(), Some(u64::MAX));
    let set = again.trust_bundles();
    assert_eq!(set.get(&domain("example.org")).unwrap().authorities().len(), 2);
}

#[test]
fn x509_svid_6_1_published() {
    let bundle = full();
    let keys = written(&bundle)["keys"].clone();
    for (key, authority) in keys.as_array().unwrap().iter().zip(bundle.trust_bundle().authorities()) {
        assert_eq!(key["use"], "x509-svid");
        assert_eq!(key["kty"], "EC");
        assert_eq!(key.get("kid"), None);
        assert_eq!(key["x5c"], json!([base64(authority)]));
        assert_eq!(key["x"].as_str().unwrap().len(), 43);
    }
}

#[test]
fn x509_svid_6_2_consumed() {
    let good = written(&full())["keys"].clone();
    let (first, second) = (good[0]["x5c"][0].clone(), good[1]["x5c"][0].clone());
    let with = |x5c: Value| {
        let mut key = good[0].clone();
        key["x5c"] = x5c;
        read(&json!({"keys": [key]})).unwrap()
    };
    let both = with(json!([first, second]));
    assert_eq!(both.trust_bundle().authorities().len(), 1);
    assert_eq!(with(json!([first, "!"])).trust_bundle(), both.trust_bundle());
    for (x5c, refusal) in [
        (json!([]), Refusal::NoCertificate),
        (json!("a"), Refusal::NoCertificate),
        (Value::Null, Refusal::NoCertificate),
        (json!([1]), Refusal::CertificateEncoding),
        (json!(["!", first]), Refusal::CertificateEncoding),
    ] {
        let bundle = with(x5c.clone());
        assert!(bundle.trust_bundle().is_empty());
        assert_eq!(bundle.refused()[0].source, refusal, "{x5c}");
    }
}

#[test]
fn jwt_svid_6_1_published() {
    let keys = written(&full())["keys"].clone();
    assert_eq!(keys[2]["use"], "jwt-svid");
    assert_eq!(keys[2]["kid"], "one");
    let with = |change: fn(&mut Value)| {
        let mut key = keys[2].clone();
        change(&mut key);
        let bundle = read(&json!({"keys": [keys[3], key]})).unwrap();
        assert!(bundle.trust_bundle().is_empty());
        bundle.refused().first().map(|refused| refused.source.clone())
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|key| key["kid"] = json!("")), Some(Refusal::KeyId));
    assert_eq!(with(|key| key["kid"] = json!(1)), Some(Refusal::KeyId));
    assert_eq!(with(|key| key["kid"] = json!("two")), Some(Refusal::DuplicateKeyId));
    assert_eq!(with(|key| key["x"] = json!("AA")), Some(Refusal::KeyParameter { name: "x" }));
    assert_eq!(with(|key| key["y"] = json!("=")), Some(Refusal::KeyParameter { name: "y" }));
    assert_eq!(JwtAuthority::from_public_key("", &[]), Err(KeyEncodingError::KeyId));
    assert_eq!(JwtAuthority::from_public_key("a", &[0x30, 0]), Err(KeyEncodingError::Malformed));
    let rsa = json!({"kty": "RSA", "use": "jwt-svid", "kid": "r", "n": "0vx7", "e": "AQAB"});
    let bundle = read(&json!({"keys": [rsa]})).unwrap();
    assert!(matches!(bundle.jwt_key("r"), Some(JwtKey::Rsa { exponent, .. }) if *exponent == [1, 0, 1]));
    assert_eq!(written(&bundle)["keys"][0], rsa);
    let padded = json!({"kty": "RSA", "use": "jwt-svid", "kid": "r", "n": "ANL8", "e": "AQAB"});
    assert_eq!(
        read(&json!({"keys": [padded]})).unwrap().refused()[0].source,
        Refusal::KeyParameter { name: "n" }
    );
}

/// Files of an earlier version of this crate open.
#[test]
fn recorded_files_open() {
    let map = BundleMap::from_json(include_bytes!("data/bundle_map.json")).unwrap();
    let bundle = map.get(&domain("example.org")).unwrap();
    assert_eq!((bundle.sequence(), bundle.jwt_authorities().len()), (Some(7), 1));
    assert!(bundle.refused().is_empty());
    let authority = Authority::from_pem(include_bytes!("data/authority.pem")).unwrap();
    assert_eq!(authority.bundle(), *bundle.trust_bundle());
    let trusted = TrustBundle::from_pem(domain("example.org"), include_bytes!("data/bundle.pem")).unwrap();
    assert_eq!(trusted, authority.bundle());
    let svid = x0_identity::X509Svid::from_pem(include_bytes!("data/svid.pem")).unwrap();
    let issued =
        UnixTime::since_unix_epoch(Duration::from_secs(common::seconds_since_1970(svid.not_before())));
    assert_eq!(
        Verifier::new(trusted).verify_client(&svid.chain()[0], &svid.chain()[1..], issued).as_ref(),
        Ok(svid.spiffe_id())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = SpiffeBundle::from_json(domain("example.org"), &bytes);
        let _ = BundleMap::from_json(&bytes);
    }

    #[test]
    fn a_damaged_bundle_is_read_without_a_panic(damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = include_bytes!("data/bundle_map.json").to_vec();
        for (position, byte) in damages {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        // A bundle that was read is written and read again as the same.
        if let Ok(map) = BundleMap::from_json(&bytes) {
            let text = map.to_json();
            let again = BundleMap::from_json(text.as_bytes()).unwrap();
            prop_assert_eq!(again.to_json(), text);
        }
    }
}
