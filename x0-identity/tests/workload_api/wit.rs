//! The profile WIT-SVID: of the server, decoded by the text of the specification's `.proto`, and of the
//! client.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use x0_identity::workload_api::{
    ClientError, ClientOptions, ClientOutput, Code, FetchedWitSvid, HINT_LEN_MAX, MessageError,
    ServerOptions, Subscription, WIT_SVIDS_LEN_MAX, WaitError, WitContext, WitMessageError, Workload,
    WorkloadError,
};
use x0_identity::{
    BundleMap, SpiffeBundle, TrustBundle, WitIssuer, WitKey, WitKeyError, WitSvid, WitSvidError,
    WitSvidValidator,
};

use crate::client::{OK_FIELDS, respond_to};
use crate::drivers::{PATIENCE, Running};
use crate::kit::{Domain, HOUR, domain, id};
use crate::pair::Pair;
use crate::proto::{Message, decode, encode};
use crate::raw::{PREFACE, Raw, SETTINGS, WINDOW_UPDATE};

const WIT_SVID: &str = "/SpiffeWorkloadAPI/FetchWITSVID";
const WIT_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchWITBundles";

fn raw(workload: Option<Workload>) -> Raw {
    let mut raw = Raw::silent(&ServerOptions::default().wit_svids(true));
    raw.set(workload);
    raw.send(PREFACE);
    raw.frame(SETTINGS, 0, 0, &[]);
    raw.frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    raw
}

/// A trust domain with a key for WIT-SVIDs beside those of the kit.
struct Wit {
    domain: Domain,
    issuer: WitIssuer,
}

impl Wit {
    fn new(name: &str) -> Wit {
        Wit { domain: Domain::new(name), issuer: WitIssuer::generate(domain(name)).unwrap() }
    }

    fn bundle(&self) -> SpiffeBundle {
        self.domain.bundle().with_wit_authorities(vec![self.issuer.authority().clone()]).unwrap()
    }

    fn svid(&self, path: &str) -> (WitSvid, WitKey) {
        let key = WitKey::generate().unwrap();
        let id = id(&format!("spiffe://{}/{path}", self.issuer.trust_domain()));
        (self.issuer.issue(&id, key.confirmation(), HOUR, SystemTime::now()).unwrap(), key)
    }

    /// With an identity for each path, whose hint is the path.
    fn workload(&self, paths: &[&str]) -> Workload {
        paths.iter().fold(Workload::new(self.bundle()), |workload, path| {
            let (svid, key) = self.svid(path);
            workload.with_wit_svid(&svid, &key, path).unwrap()
        })
    }
}

fn newest(raw: &Raw, stream: u32, kind: &str) -> Message {
    decode(kind, raw.received(stream).messages.last().expect("a message"))
}

fn ids(message: &Message) -> Vec<(String, String)> {
    let svids = message.messages("svids");
    svids.iter().map(|svid| (svid.text("spiffe_id").into(), svid.text("hint").into())).collect()
}

/// The key of the message proves the possession of its token, to the bundle of the other method.
#[test]
fn api_7_2_1_tokens_with_their_keys() {
    let example = Wit::new("example.org");
    let mut raw = raw(Some(example.workload(&["web"])));
    let stream = raw.call(WIT_SVID, b"");
    let message = newest(&raw, stream, "WITSVIDResponse");
    let svid = message.messages("svids")[0].clone();
    let stream = raw.call(WIT_BUNDLES, b"");
    let bundles = newest(&raw, stream, "WITBundlesResponse").map("bundles");
    let set = &bundles["spiffe://example.org"];
    let mut map = BundleMap::new();
    map.insert(SpiffeBundle::from_json(domain("example.org"), set).unwrap());

    let (now, key) = (SystemTime::now(), WitKey::from_jwk(svid.text("wit_svid_key")).unwrap());
    let token = svid.text("wit_svid");
    let presented = WitSvidValidator::new().validate(token, &map, now).unwrap();
    let signature = key.sign(b"a request").unwrap();
    let accepted = presented.with_signature(b"a request", &signature, now).unwrap();
    assert_eq!(accepted.spiffe_id(), &id("spiffe://example.org/web"));
    assert!(!format!("{:?}", example.workload(&["web"])).contains("\"d\""));
}

#[test]
fn api_7_2_1_all_identities_or_the_requested_one() {
    let example = Wit::new("example.org");
    let mut raw = raw(Some(example.workload(&["web", "batch"])));
    let mut asked = |spiffe_id: &str, workload: Option<Option<Workload>>| {
        if let Some(workload) = workload {
            raw.set(workload);
        }
        let request = if spiffe_id.is_empty() { Vec::new() } else { encode(&[(1, spiffe_id.as_bytes())]) };
        let stream = raw.call(WIT_SVID, &request);
        match raw.received(stream).status() {
            None => Ok(ids(&newest(&raw, stream, "WITSVIDResponse"))),
            Some(code) => Err(code),
        }
    };
    let all = ["web", "batch"].map(|path| (format!("spiffe://example.org/{path}"), path.to_string()));
    assert_eq!(asked("", None).unwrap(), all);
    assert_eq!(asked("spiffe://example.org/batch", None).unwrap(), all[1..]);
    assert_eq!(asked("spiffe://example.org/other", None), Err(7));
    assert_eq!(asked("spiffe://example.org/web/", None), Err(3));
    assert_eq!(asked("", Some(Some(example.workload(&[])))), Err(7));
    assert_eq!(asked("", Some(None)), Err(7));
    let stream = raw.call(WIT_SVID, &[0xff]);
    assert_eq!(raw.received(stream).status(), Some(13));
}

#[test]
fn api_7_2_1_hints_are_unique() {
    let example = Wit::new("example.org");
    let (svid, key) = example.svid("batch");
    let workload = example.workload(&["web"]);
    let with = |hint: &str| workload.clone().with_wit_svid(&svid, &key, hint);
    assert!(matches!(with("web"), Err(WorkloadError::DuplicateHint { hint }) if hint == "web"));
    let two = with("").unwrap().with_wit_svid(&svid, &key, "").unwrap();
    let mut raw = raw(Some(two));
    let stream = raw.call(WIT_SVID, b"");
    let hints: Vec<String> =
        ids(&newest(&raw, stream, "WITSVIDResponse")).into_iter().map(|(_, hint)| hint).collect();
    assert_eq!(hints, ["web", "", ""]);
    assert!(with(&"h".repeat(HINT_LEN_MAX)).is_ok());
    assert_eq!(with(&"h".repeat(HINT_LEN_MAX + 1)).unwrap_err(), WorkloadError::HintLength { len: 1025 });

    // A WIT-SVID belongs to its key, its trust domain, and a bundle that has keys for it.
    let other = WitKey::generate().unwrap();
    let refused = workload.clone().with_wit_svid(&svid, &other, "").unwrap_err();
    assert!(matches!(refused, WorkloadError::Key { .. }), "{refused}");
    let foreign = Wit::new("example.com");
    let refused = Workload::new(foreign.bundle()).with_wit_svid(&svid, &key, "").unwrap_err();
    assert!(matches!(refused, WorkloadError::TrustDomain { .. }), "{refused}");
    let refused = Workload::new(example.domain.bundle()).with_wit_svid(&svid, &key, "").unwrap_err();
    assert!(matches!(refused, WorkloadError::NoAuthority { .. }), "{refused}");
}

/// The WIT-SVIDs of a workload fit into a message that clients take.
#[test]
fn wit_svids_are_bounded() {
    let example = Wit::new("example.org");
    let (svid, key) = example.svid("web");
    let len = "spiffe://example.org/web".len() + svid.token().len() + key.to_jwk().len() + HINT_LEN_MAX;
    let mut workload = Workload::new(example.bundle());
    for count in 1..=WIT_SVIDS_LEN_MAX / len {
        workload = workload.with_wit_svid(&svid, &key, &format!("{count:0HINT_LEN_MAX$}")).unwrap();
    }
    let refused = workload.with_wit_svid(&svid, &key, &"h".repeat(HINT_LEN_MAX)).unwrap_err();
    let len = (WIT_SVIDS_LEN_MAX / len + 1) * len;
    assert_eq!(refused, WorkloadError::WitSvidsLength { len });
}

/// Streams receive each rotation, of what they asked for alone, and end when it is redacted.
#[test]
fn api_7_2_1_streams_follow_and_end() {
    let example = Wit::new("example.org");
    let first = example.workload(&["web", "batch"]);
    let mut raw = raw(Some(first.clone()));
    let (all, batch) =
        (raw.call(WIT_SVID, b""), raw.call(WIT_SVID, &encode(&[(1, b"spiffe://example.org/batch")])));
    let bundles = raw.call(WIT_BUNDLES, b"");
    let received = |raw: &Raw| [all, batch, bundles].map(|stream| raw.received(stream).messages.len());
    assert_eq!(received(&raw), [1, 1, 1]);
    raw.set(Some(first.clone()));
    assert_eq!(received(&raw), [1, 1, 1]);
    let (svid, key) = example.svid("third");
    raw.set(Some(first.with_wit_svid(&svid, &key, "").unwrap()));
    assert_eq!(received(&raw), [2, 1, 1]);
    raw.set(Some(example.workload(&["web"])));
    assert_eq!(received(&raw), [3, 1, 1]);
    assert_eq!([all, batch].map(|stream| raw.received(stream).status()), [None, Some(7)]);
    raw.set(None);
    assert_eq!([all, bundles].map(|stream| raw.received(stream).status()), [Some(7), Some(7)]);
}

/// A key of another kind is in no WIT bundle, and a key for WIT-SVIDs in no JWT bundle.
#[test]
fn api_7_2_2_bundles() {
    let (example, foreign) = (Wit::new("example.org"), Wit::new("example.com"));
    let none = SpiffeBundle::new(TrustBundle::empty(domain("example.net")));
    let workload = example.workload(&["web"]).with_federated(foreign.bundle()).unwrap();
    let mut raw = raw(Some(workload.with_federated(none).unwrap()));
    let stream = raw.call(WIT_BUNDLES, b"");
    let bundles = newest(&raw, stream, "WITBundlesResponse").map("bundles");
    let names: Vec<&str> = bundles.keys().map(String::as_str).collect();
    assert_eq!(names, ["spiffe://example.com", "spiffe://example.net", "spiffe://example.org"]);
    for wit in [&example, &foreign] {
        let set = &bundles[&format!("spiffe://{}", wit.issuer.trust_domain())];
        let set: Value = serde_json::from_slice(set).unwrap();
        let keys = set["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0]["kid"], json!(wit.issuer.authority().key_id()));
        assert_eq!(keys[0]["use"], json!("wit-svid"));
    }
    assert_eq!(bundles["spiffe://example.net"], br#"{"keys":[]}"#);
    let stream = raw.call("/SpiffeWorkloadAPI/FetchJWTBundles", b"");
    let jwt = newest(&raw, stream, "JWTBundlesResponse").map("bundles");
    let text = String::from_utf8(jwt["spiffe://example.org"].clone()).unwrap();
    assert!(!text.contains(example.issuer.authority().key_id()));
    // A server in a trust domain without keys says so by an empty set.
    raw.set(Some(Workload::new(example.domain.bundle())));
    let stream = raw.call(WIT_BUNDLES, b"");
    let bundles = newest(&raw, stream, "WITBundlesResponse").map("bundles");
    assert_eq!(bundles["spiffe://example.org"], br#"{"keys":[]}"#);
}

fn options() -> ClientOptions {
    ClientOptions::default().x509_svids(false).wit_svids(true)
}

fn contexts(pair: &Pair) -> Vec<&WitContext> {
    let contexts = pair.outputs.iter().filter_map(|(_, output)| match output {
        ClientOutput::WitSvids(context) => Some(context),
        _ => None,
    });
    contexts.collect()
}

fn fetched(context: &WitContext) -> Vec<(String, &str)> {
    context.svids().iter().map(|svid| (svid.spiffe_id.to_string(), svid.hint.as_str())).collect()
}

/// The client receives each set of tokens with keys that prove them, to the bundles that it receives.
#[test]
fn a_client_follows_rotations_and_redactions_of_wit_svids() {
    let (example, foreign) = (Wit::new("example.org"), Wit::new("example.com"));
    let workload = || example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    let mut pair = Pair::new(options().wit_bundles(true), Some(workload()));
    pair.server_options = ServerOptions::default().wit_svids(true);
    pair.run(Duration::from_secs(1));
    let context = contexts(&pair)[0];
    let [web, batch] = ["web", "batch"].map(|path| (format!("spiffe://example.org/{path}"), path));
    assert_eq!(fetched(context), [web.clone(), batch.clone()]);
    assert_eq!(context.svid_with_hint("batch").unwrap().spiffe_id.to_string(), batch.0);
    assert!(context.svid_with_hint("other").is_none());
    let bundles = |pair: &Pair| {
        let newest = pair.outputs.iter().rev().find_map(|(_, output)| match output {
            ClientOutput::WitBundles(bundles) => Some(bundles.clone()),
            _ => None,
        });
        newest.unwrap()
    };
    let known = bundles(&pair);
    assert_eq!(known.iter().count(), 2);
    let now = SystemTime::now();
    let held: &FetchedWitSvid = &context.svids()[0];
    let presented = WitSvidValidator::new().validate(&held.token, &known, now).unwrap();
    let signature = held.key.sign(b"a request").unwrap();
    let accepted = presented.with_signature(b"a request", &signature, now).unwrap();
    assert_eq!((accepted.spiffe_id(), accepted.expires()), (&held.spiffe_id, held.expires));
    let text = format!("{context:?}");
    assert!(!text.contains(&held.token) && !text.contains("\"d\""), "{text}");

    // A rotation, a redaction, and the end of everything.
    pair.set(Some(example.workload(&["web"])));
    assert_eq!(fetched(contexts(&pair).last().unwrap()), std::slice::from_ref(&web));
    assert_eq!(bundles(&pair).iter().count(), 1, "the foreign bundle is redacted");
    pair.set(None);
    let denied = |wanted| {
        let is_it = |output: &ClientOutput| matches!(output, ClientOutput::Denied(found) if *found == wanted);
        pair.outputs.iter().any(|(_, output)| is_it(output))
    };
    assert!(denied(Subscription::WitSvids) && denied(Subscription::WitBundles));

    // One identity.
    let mut pair = Pair::new(options().wit_spiffe_id(id("spiffe://example.org/batch")), Some(workload()));
    pair.server_options = ServerOptions::default().wit_svids(true);
    pair.run(Duration::from_secs(1));
    assert_eq!(fetched(contexts(&pair)[0]), [batch]);
}

/// §7: a client does not connect again for a profile that the server does not have.
#[test]
fn api_7_unimplemented_is_final() {
    let example = Wit::new("example.org");
    let mut pair = Pair::new(options().wit_bundles(true), Some(example.workload(&["web"])));
    pair.run(Duration::from_secs(600));
    for subscription in [Subscription::WitSvids, Subscription::WitBundles] {
        let failures = pair.failures(subscription);
        let [(ClientError::Status(status), false)] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(status.code, Code::Unimplemented);
    }
    assert_eq!(pair.connects.len(), 1);
}

/// §4.5: a message that breaks a rule is discarded and reported, and the stream goes on.
#[test]
fn api_7_2_1_messages_that_break_a_rule_are_discarded() {
    let example = Wit::new("example.org");
    let (svid, key) = example.svid("web");
    let (web, jwk) = (svid.spiffe_id().to_string(), key.to_jwk());
    let whole = [web.as_bytes(), svid.token().as_bytes(), jwk.as_bytes(), b"hint"];
    let response = |fields: [&[u8]; 4]| {
        let numbered: Vec<(u8, &[u8])> = (1..).zip(fields).collect();
        encode(&[(1, &encode(&numbered))])
    };
    let replaced = |number: usize, content: &[u8]| {
        let mut fields = whole;
        fields[number - 1] = content;
        response(fields)
    };
    let error = |message: Vec<u8>| {
        let outputs = respond_to(options(), OK_FIELDS, &[message, response(whole)], None);
        let [first, ClientOutput::WitSvids(context)] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(fetched(context), [(web.clone(), "hint")], "the next message is used");
        let ClientOutput::Failed { subscription: Subscription::WitSvids, error, again: true } = first else {
            panic!("{first:?}")
        };
        let ClientError::Message(error) = error else { panic!("{error:?}") };
        error.clone()
    };
    assert_eq!(error(Vec::new()), MessageError::Missing { field: "svids" });
    for (number, field) in [(1, "spiffe_id"), (2, "wit_svid"), (3, "wit_svid_key")] {
        assert_eq!(error(replaced(number, b"")), MessageError::Missing { field });
    }
    assert!(matches!(error(vec![0xff]), MessageError::Decode(_)));
    assert!(matches!(error(encode(&[(1, &[0xff])])), MessageError::Decode(_)));
    assert!(matches!(error(replaced(4, &[0xff])), MessageError::Decode(_)), "a hint that is no text");
    assert!(matches!(error(replaced(1, b"spiffe://example.org/a/")), MessageError::SpiffeId(_)));
    assert!(matches!(error(replaced(1, b"spiffe://example.org/b")), MessageError::Mismatch { .. }));
    let token =
        |source| MessageError::from(WitMessageError::Token { spiffe_id: svid.spiffe_id().clone(), source });
    assert_eq!(error(replaced(2, b"a.b")), token(WitSvidError::Serialization));
    let jwt = example.domain.jwt_issuer.issue(svid.spiffe_id(), &["a"], HOUR, SystemTime::now()).unwrap();
    assert_eq!(error(replaced(2, jwt.token().as_bytes())), token(WitSvidError::Type));
    let key =
        |source| MessageError::from(WitMessageError::Key { spiffe_id: svid.spiffe_id().clone(), source });
    assert_eq!(error(replaced(3, b"{}")), key(WitKeyError::Jwk));
    let (_, other) = example.svid("web");
    let other_key = WitMessageError::OtherKey { spiffe_id: svid.spiffe_id().clone() };
    assert_eq!(error(replaced(3, other.to_jwk().as_bytes())), MessageError::from(other_key));

    // Bundles: the key of the map, and the key set.
    let bundles = |entry: &[(u8, &[u8])]| {
        let options = ClientOptions::default().x509_svids(false).wit_bundles(true);
        let message = encode(&[(1, &encode(entry))]);
        respond_to(options, OK_FIELDS, &[message], None).remove(0)
    };
    let set: &[u8] = br#"{"keys":[]}"#;
    let refused = |output| match output {
        ClientOutput::Failed { error: ClientError::Message(error), .. } => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(bundles(&[(1, b"spiffe://example.org"), (2, set)]), ClientOutput::WitBundles(_)));
    let error = refused(bundles(&[(1, b"spiffe://UPPER"), (2, set)]));
    assert!(matches!(error, MessageError::TrustDomain(_)));
    let error = refused(bundles(&[(1, b"spiffe://example.org"), (2, b"{}")]));
    assert!(matches!(error, MessageError::KeySet { .. }));
    // A key with another use is for another kind of token: it is left out.
    let json = example.domain.bundle().to_json();
    let ClientOutput::WitBundles(map) = bundles(&[(1, b"spiffe://example.org"), (2, json.as_bytes())]) else {
        panic!("no bundles")
    };
    let bundle = map.get(&domain("example.org")).unwrap();
    assert!(bundle.wit_authorities().is_empty() && !bundle.refused().is_empty());
}

/// Over a socket, with the threads of both sides.
#[test]
fn a_client_waits_for_wit_svids() {
    let example = Wit::new("example.org");
    let served = ServerOptions::default().wit_svids(true);
    let running = Running::with_options(Some(example.workload(&["web"])), served);
    let client = running.client(options().wit_bundles(true));
    let context = client.wit_context(PATIENCE).unwrap();
    let bundles = client.wit_bundles(PATIENCE).unwrap();
    let held = &context.svids()[0];
    let now = SystemTime::now();
    let proof = held.key.prove(&held.token, "https://example.org/", Duration::from_secs(10), now).unwrap();
    let presented = WitSvidValidator::new().validate(&held.token, &bundles, now).unwrap();
    presented.with_proof(&proof, "https://example.org/", now).unwrap();
    let version = client.wait_for_change(0, PATIENCE);
    running.set(None);
    let mut seen = version;
    while client.wit_context(Duration::ZERO).is_ok() || client.wit_bundles(Duration::ZERO).is_ok() {
        let next = client.wait_for_change(seen, PATIENCE);
        assert_ne!(next, seen, "the redaction arrives");
        seen = next;
    }
    assert_eq!(client.problem(Subscription::WitSvids), Some(WaitError::Denied));
}
