//! The profile WIT-SVID of the server, decoded by the text of the specification's `.proto`.

use std::time::SystemTime;

use serde_json::{Value, json};
use x0_identity::workload_api::{HINT_LEN_MAX, ServerOptions, WIT_SVIDS_LEN_MAX, Workload, WorkloadError};
use x0_identity::{BundleMap, SpiffeBundle, TrustBundle, WitIssuer, WitKey, WitSvid, WitSvidValidator};

use crate::kit::{Domain, HOUR, domain, id};
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

/// What is offered fits into a message that clients take.
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
