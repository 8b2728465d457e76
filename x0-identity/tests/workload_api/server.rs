//! What the server's engine answers, decoded by the text of the specification's `.proto`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use x0_identity::workload_api::{HINT_LEN_MAX, ServerInput, ServerOptions, Workload, WorkloadError};
use x0_identity::{JwtIssuer, SpiffeBundle, TrustBundle, X509Svid};

use crate::kit::{Domain, HOUR, domain, id};
use crate::proto::{Item, Message, decode, encode};
use crate::raw::{
    DATA, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, Raw, Received, SETTINGS, WINDOW_UPDATE,
    call_fields, message,
};

const X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const X509_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";
const JWT_SVID: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
const JWT_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
const VALIDATE: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";
const METHODS: [&str; 5] = [X509_SVID, X509_BUNDLES, JWT_SVID, JWT_BUNDLES, VALIDATE];

const OK: Option<u32> = Some(0);
const INVALID_ARGUMENT: Option<u32> = Some(3);
const DEADLINE_EXCEEDED: Option<u32> = Some(4);
const PERMISSION_DENIED: Option<u32> = Some(7);
const RESOURCE_EXHAUSTED: Option<u32> = Some(8);
const UNIMPLEMENTED: Option<u32> = Some(12);
const INTERNAL: Option<u32> = Some(13);
const UNAVAILABLE: Option<u32> = Some(14);

/// The newest message of a stream.
fn newest(raw: &Raw, stream: u32, kind: &str) -> Message {
    decode(kind, raw.received(stream).messages.last().expect("a message"))
}

fn jwt_request(audience: &[&str], spiffe_id: &str) -> Vec<u8> {
    let mut fields: Vec<(u8, &[u8])> = audience.iter().map(|one| (1, one.as_bytes())).collect();
    if !spiffe_id.is_empty() {
        fields.push((2, spiffe_id.as_bytes()));
    }
    encode(&fields)
}

fn svids(message: &Message) -> Vec<(String, String)> {
    let svids = message.messages("svids");
    svids.iter().map(|svid| (svid.text("spiffe_id").into(), svid.text("hint").into())).collect()
}

fn certificates(mut der: &[u8]) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        assert_eq!(der[..2], [0x30, 0x82], "a certificate of 256 bytes or more");
        let len = 4 + (usize::from(der[2]) << 8 | usize::from(der[3]));
        certificates.push(der[..len].to_vec());
        der = &der[len..];
    }
    certificates
}

#[test]
fn api_1_both_profiles() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    for (path, kind) in [
        (X509_SVID, "X509SVIDResponse"),
        (X509_BUNDLES, "X509BundlesResponse"),
        (JWT_BUNDLES, "JWTBundlesResponse"),
    ] {
        let stream = raw.call(path, b"");
        let received = raw.received(stream);
        assert_eq!(received.fields[":status"], "200");
        assert_eq!(received.fields["content-type"], "application/grpc");
        assert_eq!((received.messages.len(), received.ended), (1, false), "{path}");
        assert!(!newest(&raw, stream, kind).0.is_empty());
    }
    let stream = raw.call(JWT_SVID, &jwt_request(&["reports"], ""));
    let token = newest(&raw, stream, "JWTSVIDResponse").messages("svids")[0].text("svid").to_string();
    assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (OK, true));
    let stream = raw.call(VALIDATE, &encode(&[(1, b"reports"), (2, token.as_bytes())]));
    assert_eq!(newest(&raw, stream, "ValidateJWTSVIDResponse").text("spiffe_id"), "spiffe://example.org/web");
    assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (OK, true));
    assert_eq!(raw.go_away(), None);
}

#[test]
fn api_2_no_other_method() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    for path in [
        "/SpiffeWorkloadAPI/FetchX509SVIDs",
        "/SpiffeWorkloadAPI/fetchx509svid",
        "/SpiffeWorkloadAPI/",
        "/SpiffeWorkloadAPI",
        "/spiffe.workload.v1.SpiffeWorkloadAPI/FetchX509SVID",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/",
        "*",
    ] {
        let stream = raw.call(path, b"");
        assert_eq!(raw.received(stream).status(), UNIMPLEMENTED, "{path}");
        assert!(raw.received(stream).messages.is_empty());
    }
}

#[test]
fn api_4_3_messages_are_complete() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    let streams = [raw.call(X509_SVID, b""), raw.call(X509_BUNDLES, b""), raw.call(JWT_BUNDLES, b"")];

    // A foreign bundle and an identity come: each message has what was there before as well.
    let both = example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    raw.set(Some(both.clone()));
    let message = newest(&raw, streams[0], "X509SVIDResponse");
    let expected = [("web", "web"), ("batch", "batch")]
        .map(|(path, hint)| (format!("spiffe://example.org/{path}"), hint.to_string()));
    assert_eq!(svids(&message), expected);
    assert_eq!(message.map("federated_bundles").into_keys().collect::<Vec<_>>(), ["spiffe://example.com"]);
    let domains = ["spiffe://example.com", "spiffe://example.org"];
    let bundles = newest(&raw, streams[1], "X509BundlesResponse").map("bundles");
    assert_eq!(bundles.into_keys().collect::<Vec<_>>(), domains);
    let bundles = newest(&raw, streams[2], "JWTBundlesResponse").map("bundles");
    assert_eq!(bundles.into_keys().collect::<Vec<_>>(), domains);

    // What does not change a message sends none; what changes one kind only sends that.
    raw.set(Some(both.clone()));
    raw.set(Some(both.with_svid(example.svid("third"), "").unwrap()));
    let counts = streams.map(|stream| raw.received(stream).messages.len());
    assert_eq!(counts, [3, 2, 2]);
    assert_eq!(svids(&newest(&raw, streams[0], "X509SVIDResponse")).len(), 3);
}

#[test]
fn api_4_3_the_first_message_follows_the_request() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    // Also before the client has ended its side, and however the request is cut.
    let stream = raw.open(&call_fields(X509_SVID), false);
    for byte in message(b"") {
        assert!(raw.received(stream).messages.is_empty());
        raw.frame(DATA, 0, stream, &[byte]);
    }
    assert_eq!(raw.received(stream).messages.len(), 1);
    // A second request is one too many.
    raw.frame(DATA, 0, stream, &message(b""));
    assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (UNIMPLEMENTED, true));
    // The server does not wait for the rest of a request whose response is complete (RFC 9113, section 8.1).
    assert_eq!(raw.received(stream).reset, Some(0));
}

#[test]
fn api_5_1_leaf_first_and_key_in_pkcs8() {
    let example = Domain::new("example.org");
    let svid = example.svid("web");
    let PrivateKeyDer::Pkcs8(pkcs8) = svid.key() else { panic!("rcgen writes PKCS #8") };
    // The inner key of PKCS #8 (RFC 5208) is SEC 1 (RFC 5915): 0x04, its length, and the key to the end of
    // its sequence.
    let pkcs8 = pkcs8.secret_pkcs8_der().to_vec();
    let inner = pkcs8.windows(2).position(|pair| pair == [0x30, 0x6b] || pair == [0x30, 0x77]);
    let inner = inner.expect("a key of P-256 in SEC 1");
    let sec1 = pkcs8[inner..inner + 2 + usize::from(pkcs8[inner + 1])].to_vec();
    let from_sec1 = X509Svid::from_der(svid.chain().to_vec(), PrivateKeyDer::Sec1(sec1.into())).unwrap();

    for svid in [svid.clone(), from_sec1] {
        let mut raw = Raw::new(Some(Workload::new(example.bundle()).with_svid(svid.clone(), "").unwrap()));
        let stream = raw.call(X509_SVID, b"");
        let response = newest(&raw, stream, "X509SVIDResponse");
        let sent = response.messages("svids")[0];
        let chain = certificates(sent.bytes("x509_svid"));
        assert_eq!(chain[0], svid.chain()[0].to_vec());
        assert_eq!(
            certificates(sent.bytes("bundle")),
            [example.authority.bundle().authorities()[0].to_vec()]
        );
        // Whole, and of the certificate: ring reads it, and rustls compares it with the leaf.
        let key = PrivateKeyDer::Pkcs8(sent.bytes("x509_svid_key").to_vec().into());
        let read = X509Svid::from_der(svid.chain().to_vec(), key).unwrap();
        x0_identity::Identity::new(read, example.authority.bundle()).unwrap();
    }
}

#[test]
fn api_5_2_bundles_are_of_one_kind() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    let stream = raw.call(X509_BUNDLES, b"");
    let x509 = newest(&raw, stream, "X509BundlesResponse").map("bundles");
    let authority = example.authority.bundle().authorities()[0].to_vec();
    assert_eq!(certificates(&x509["spiffe://example.org"]), [authority]);
    let stream = raw.call(JWT_BUNDLES, b"");
    let jwt = newest(&raw, stream, "JWTBundlesResponse").map("bundles");
    let keys: Value = serde_json::from_slice(&jwt["spiffe://example.org"]).unwrap();
    assert!(keys["keys"].as_array().unwrap().iter().all(|key| key.get("x5c").is_none()), "{keys}");
}

#[test]
fn api_5_2_1_one_svid_per_identity() {
    let example = Domain::new("example.org");
    // Without an identity there is no message without svids, but an error.
    let bundles_only = Workload::new(example.bundle());
    for workload in [None, Some(bundles_only.clone())] {
        let mut raw = Raw::new(workload);
        let stream = raw.call(X509_SVID, b"");
        assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (PERMISSION_DENIED, true));
        assert!(raw.received(stream).messages.is_empty());
    }

    // A stream follows what it is entitled to, to the end.
    let mut raw = Raw::new(Some(example.workload(&["web", "batch"])));
    let (stream, bundles) = (raw.call(X509_SVID, b""), raw.call(X509_BUNDLES, b""));
    assert_eq!(svids(&newest(&raw, stream, "X509SVIDResponse")).len(), 2);
    raw.set(Some(example.workload(&["batch"])));
    assert_eq!(svids(&newest(&raw, stream, "X509SVIDResponse"))[0].0, "spiffe://example.org/batch");
    raw.set(Some(bundles_only));
    assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (PERMISSION_DENIED, true));
    assert!(!raw.received(bundles).ended);
    raw.set(None);
    assert_eq!(raw.received(bundles).status(), PERMISSION_DENIED);
    // The connection goes on.
    raw.set(Some(example.workload(&["web"])));
    let stream = raw.call(X509_SVID, b"");
    assert_eq!(raw.received(stream).messages.len(), 1);
    assert_eq!(raw.go_away(), None);
}

#[test]
fn api_5_2_1_hints_are_unique() {
    let example = Domain::new("example.org");
    let workload = example.workload(&["web"]);
    let with = |path: &str, hint: &str| workload.clone().with_svid(example.svid(path), hint);
    assert!(matches!(with("batch", "web"), Err(WorkloadError::DuplicateHint { hint }) if hint == "web"));
    // Identities without a hint are as many as there are.
    let workload = with("batch", "").unwrap().with_svid(example.svid("third"), "").unwrap();
    let mut raw = Raw::new(Some(workload));
    let stream = raw.call(X509_SVID, b"");
    let x509 = svids(&newest(&raw, stream, "X509SVIDResponse"));
    assert_eq!(x509.iter().map(|svid| svid.1.as_str()).collect::<Vec<_>>(), ["web", "", ""]);
    let stream = raw.call(JWT_SVID, &jwt_request(&["reports"], ""));
    assert_eq!(svids(&newest(&raw, stream, "JWTSVIDResponse")), x509);
    // §8: at most 1,024 bytes.
    assert!(with("batch", &"h".repeat(HINT_LEN_MAX)).is_ok());
    let error = with("batch", &"h".repeat(HINT_LEN_MAX + 1)).unwrap_err();
    assert_eq!(error, WorkloadError::HintLength { len: 1025 });
}

#[test]
fn workloads_are_of_one_trust_domain() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let error = example.workload(&[]).with_svid(foreign.svid("web"), "").unwrap_err();
    assert!(matches!(error, WorkloadError::TrustDomain { .. }), "{error}");
    let error = example.workload(&[]).with_jwt_issuer(foreign.jwt_issuer, HOUR).unwrap_err();
    assert!(matches!(error, WorkloadError::TrustDomain { .. }), "{error}");
    let error = example.workload(&[]).with_federated(example.bundle()).unwrap_err();
    assert!(matches!(error, WorkloadError::OwnDomain { .. }), "{error}");
    let empty = SpiffeBundle::new(TrustBundle::empty(domain("example.org")));
    let error = Workload::new(empty).with_svid(example.svid("web"), "").unwrap_err();
    assert!(matches!(error, WorkloadError::NoAuthority { .. }), "{error}");
    let workload = example.workload(&["web"]);
    assert_eq!(workload.spiffe_ids().next(), Some(&id("spiffe://example.org/web")));
    assert_eq!(workload.bundle().trust_domain(), &domain("example.org"));
    assert_eq!(workload.federated().iter().count(), 0);
    assert!(!format!("{workload:?}").contains("key"), "no private key is in the debug output");
}

#[test]
fn api_5_2_2_bundles_contain_the_own_domain() {
    // Even a bundle without authorities is sent: every SVID of the domain is untrusted.
    let mut raw = Raw::new(Some(Workload::new(SpiffeBundle::new(TrustBundle::empty(domain("example.org"))))));
    let stream = raw.call(X509_BUNDLES, b"");
    let bundles = newest(&raw, stream, "X509BundlesResponse").map("bundles");
    assert_eq!(bundles, BTreeMap::from([("spiffe://example.org".into(), Vec::new())]));
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    let mut bits = 0_u32;
    let mut bytes = Vec::new();
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (index, character) in part.chars().enumerate() {
        bits = bits << 6 | u32::try_from(ALPHABET.find(character).unwrap()).unwrap();
        if index % 4 > 0 {
            bytes.push(u8::try_from(bits >> (6 - 2 * (index % 4)) & 0xff).unwrap());
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn api_6_2_1_audience_of_the_token() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    for audience in [&["reports"][..], &["reports", "spiffe://example.org/db"]] {
        let stream = raw.call(JWT_SVID, &jwt_request(audience, ""));
        let response = newest(&raw, stream, "JWTSVIDResponse");
        assert_eq!(claims(response.messages("svids")[0].text("svid"))["aud"], json!(audience));
    }
    // §4.5: the mandatory field is empty.
    for audience in [&[][..], &[""], &["reports", ""]] {
        let stream = raw.call(JWT_SVID, &jwt_request(audience, ""));
        assert_eq!(raw.received(stream).status(), INVALID_ARGUMENT, "{audience:?}");
    }
    // An audience that makes no token of 16 KiB.
    let stream = raw.call(JWT_SVID, &jwt_request(&["a".repeat(15_000).as_str()], ""));
    assert_eq!(raw.received(stream).status(), INVALID_ARGUMENT);
}

#[test]
fn api_6_2_1_all_identities_or_the_requested_one() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web", "batch"])));
    let ids = |raw: &mut Raw, spiffe_id: &str| {
        let stream = raw.call(JWT_SVID, &jwt_request(&["reports"], spiffe_id));
        match raw.received(stream).status() {
            OK => Ok(svids(&newest(raw, stream, "JWTSVIDResponse"))),
            code => Err(code),
        }
    };
    let all = ["web", "batch"].map(|path| (format!("spiffe://example.org/{path}"), path.to_string()));
    assert_eq!(ids(&mut raw, "").unwrap(), all);
    assert_eq!(ids(&mut raw, "spiffe://example.org/batch").unwrap(), all[1..]);
    assert_eq!(ids(&mut raw, "spiffe://example.org/other"), Err(PERMISSION_DENIED));
    assert_eq!(ids(&mut raw, "spiffe://example.org/web/"), Err(INVALID_ARGUMENT));

    // Without identities, without an issuer, without anything.
    let no_issuer = Workload::new(example.bundle()).with_svid(example.svid("web"), "").unwrap();
    for workload in [Some(example.workload(&[])), Some(no_issuer), None] {
        raw.set(workload);
        assert_eq!(ids(&mut raw, ""), Err(PERMISSION_DENIED));
    }
    // A validity that no token can have.
    let workload = Workload::new(example.bundle()).with_svid(example.svid("web"), "").unwrap();
    raw.set(Some(workload.with_jwt_issuer(Arc::clone(&example.jwt_issuer), Duration::ZERO).unwrap()));
    assert_eq!(ids(&mut raw, ""), Err(INTERNAL));
}

#[test]
fn api_6_2_2_jwt_bundles() {
    let example = Domain::new("example.org");
    // Authorities for X.509 only: the bundle is there, and has no keys.
    let mut raw = Raw::new(Some(Workload::new(SpiffeBundle::new(example.authority.bundle()))));
    let stream = raw.call(JWT_BUNDLES, b"");
    let bundles = newest(&raw, stream, "JWTBundlesResponse").map("bundles");
    assert_eq!(bundles, BTreeMap::from([("spiffe://example.org".into(), br#"{"keys":[]}"#.to_vec())]));

    raw.set(Some(example.workload(&["web"])));
    let bundles = newest(&raw, stream, "JWTBundlesResponse").map("bundles");
    let set: Value = serde_json::from_slice(&bundles["spiffe://example.org"]).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!((&keys[0]["kid"], &keys[0]["kty"]), (&json!("key of example.org"), &json!("EC")));
    assert_eq!(keys[0].get("use"), None);
}

#[test]
fn api_6_2_3_tokens_are_validated() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    let validate = |raw: &mut Raw, audience: &str, token: &str| {
        let stream = raw.call(VALIDATE, &encode(&[(1, audience.as_bytes()), (2, token.as_bytes())]));
        match raw.received(stream).status() {
            OK => Ok(newest(raw, stream, "ValidateJWTSVIDResponse")),
            code => Err((code, raw.received(stream).fields["grpc-message"].clone())),
        }
    };
    let web = id("spiffe://example.org/web");
    let now = SystemTime::now();
    let token = example.jwt_issuer.issue(&web, &["reports"], HOUR, now).unwrap().token().to_string();
    let response = validate(&mut raw, "reports", &token).unwrap();
    assert_eq!(response.text("spiffe_id"), "spiffe://example.org/web");
    let [Item::Struct(validated)] = response.all("claims")[..] else { panic!("claims are a struct") };
    let issued = claims(&token);
    assert_eq!((&validated["sub"], &validated["aud"]), (&issued["sub"], &issued["aud"]));
    assert_eq!(validated["exp"].as_f64(), issued["exp"].as_f64());

    let stranger = JwtIssuer::generate(domain("example.org"), "key of example.org").unwrap();
    let forged = stranger.issue(&web, &["reports"], HOUR, now).unwrap().token().to_string();
    let old = example.jwt_issuer.issue(&web, &["reports"], HOUR, now - 2 * HOUR).unwrap().token().to_string();
    for (audience, token, reason) in [
        ("other", token.as_str(), "audience"),
        ("reports", &forged, "signature"),
        ("reports", &old, "expired"),
        ("reports", "no.token", "compact"),
        ("reports", "", "empty"),
        ("", &token, "empty"),
    ] {
        let (code, text) = validate(&mut raw, audience, token).unwrap_err();
        assert_eq!(code, INVALID_ARGUMENT);
        assert!(text.contains(reason), "{text}");
    }
    raw.set(None);
    assert_eq!(validate(&mut raw, "reports", &token).unwrap_err().0, PERMISSION_DENIED);
}

#[test]
fn api_6_3_the_bundle_of_the_subject() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let federated = example.workload(&["web"]).with_federated(foreign.bundle()).unwrap();
    let mut raw = Raw::new(Some(federated));
    let mut validate = |issuer: &JwtIssuer, subject: &str, federated: bool| {
        let token = issuer.issue(&id(subject), &["reports"], HOUR, SystemTime::now()).unwrap();
        if !federated {
            raw.set(Some(example.workload(&["web"])));
        }
        let stream = raw.call(VALIDATE, &encode(&[(1, b"reports"), (2, token.token().as_bytes())]));
        raw.received(stream).status()
    };
    assert_eq!(validate(&foreign.jwt_issuer, "spiffe://example.com/web", true), OK);
    // The foreign key, under the name that the own key has, for a subject of the own domain.
    let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(
        &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &ring::rand::SystemRandom::new(),
    );
    let pkcs8 = pkcs8.unwrap();
    let issuer = |name: &str| {
        let algorithm = x0_identity::JwtAlgorithm::Es256;
        JwtIssuer::from_pkcs8(domain(name), "shared", algorithm, pkcs8.as_ref()).unwrap()
    };
    assert_eq!(validate(&issuer("example.org"), "spiffe://example.org/web", true), INVALID_ARGUMENT);
    assert_eq!(validate(&foreign.jwt_issuer, "spiffe://example.com/web", false), INVALID_ARGUMENT);
}

#[test]
fn api_7_wit_svids_are_unimplemented() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    for path in ["/SpiffeWorkloadAPI/FetchWITSVID", "/SpiffeWorkloadAPI/FetchWITBundles"] {
        let stream = raw.call(path, b"");
        assert_eq!(raw.received(stream).status(), UNIMPLEMENTED, "{path}");
    }
}

#[test]
fn endpoint_3_the_security_header_is_required() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let others = ["/SpiffeWorkloadAPI/FetchWITSVID", "/other.Service/Method"];
    for path in METHODS.into_iter().chain(others) {
        let without = call_fields(path).into_iter().filter(|field| field.0 != "workload.spiffe.io");
        let without: Vec<_> = without.collect();
        for values in
            [&[][..], &["True"], &["1"], &["true, true"], &["false"], &["true", "true"], &["true", "false"]]
        {
            let mut fields = without.clone();
            fields.extend(values.iter().map(|value| ("workload.spiffe.io", *value)));
            let stream = raw.open(&fields, false);
            raw.frame(DATA, END_STREAM, stream, &message(b""));
            let received = raw.received(stream);
            assert_eq!((received.status(), received.ended), (INVALID_ARGUMENT, true), "{path} {values:?}");
            assert!(received.messages.is_empty());
        }
    }
}

#[test]
fn requests_that_are_no_calls_are_refused() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let with = |name: &str, value: &'static str| -> Vec<(&str, &str)> {
        let mut fields = call_fields(X509_SVID);
        match fields.iter_mut().find(|field| field.0 == name) {
            Some(field) => field.1 = value,
            None => panic!("no field {name}"),
        }
        fields
    };
    for (fields, expected) in [(with(":method", "GET"), "405"), (with("content-type", "text/html"), "415")] {
        let stream = raw.open(&fields, true);
        let received = raw.received(stream);
        assert_eq!((received.fields[":status"].as_str(), received.ended), (expected, true));
    }
    let stream = raw.open(&with("content-type", "application/grpc+proto"), false);
    raw.frame(DATA, END_STREAM, stream, &message(b""));
    assert_eq!(raw.received(stream).messages.len(), 1);

    let mut status = |fields: &[(&str, &str)], data: &[u8]| {
        let stream = raw.open(fields, false);
        raw.frame(DATA, END_STREAM, stream, data);
        raw.received(stream).status()
    };
    let mut compressed = call_fields(X509_SVID);
    compressed.push(("grpc-encoding", "gzip"));
    assert_eq!(status(&compressed, &message(b"")), UNIMPLEMENTED);
    assert_eq!(status(&call_fields(X509_SVID), &[1, 0, 0, 0, 0]), UNIMPLEMENTED);
    assert_eq!(status(&call_fields(X509_SVID), b""), UNIMPLEMENTED);
    assert_eq!(status(&call_fields(X509_SVID), &[0, 0]), UNIMPLEMENTED);
    assert_eq!(status(&call_fields(X509_SVID), &[message(b""), message(b"")].concat()), UNIMPLEMENTED);
    assert_eq!(status(&call_fields(X509_SVID), &[0, 0, 1, 0, 1]), RESOURCE_EXHAUSTED);
    assert_eq!(status(&call_fields(X509_SVID), &message(&[0xff])), INTERNAL);
    assert_eq!(status(&call_fields(JWT_SVID), &message(&[0xff])), INTERNAL);
    // Fields that a later version of the messages adds are ignored.
    let stream = raw.call(X509_SVID, &encode(&[(15, b"later")]));
    assert_eq!(raw.received(stream).messages.len(), 1);
    // The whole request in the fields: nothing.
    let stream = raw.open(&call_fields(X509_SVID), true);
    assert_eq!(raw.received(stream).status(), UNIMPLEMENTED);
    assert_eq!(raw.go_away(), None);
}

#[test]
fn a_client_that_does_not_read_gets_the_newest_message_later() {
    let example = Domain::new("example.org");
    let mut raw = Raw::silent(&ServerOptions::default());
    raw.set(Some(example.workload(&["web"])));
    raw.send(PREFACE);
    // Windows of 100 bytes per stream: SETTINGS_INITIAL_WINDOW_SIZE.
    raw.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]);
    let stream = raw.call(X509_SVID, b"");
    assert_eq!(raw.received(stream).data.len(), 100);
    // The first message is finished, then the newest follows: the one between is never sent.
    for paths in [&["a", "b"][..], &["a", "b", "c"]] {
        raw.set(Some(example.workload(paths)));
    }
    for _ in 0..100 {
        raw.frame(WINDOW_UPDATE, 0, stream, &100_u32.to_be_bytes());
    }
    let counts: Vec<usize> = raw
        .received(stream)
        .messages
        .iter()
        .map(|message| svids(&decode("X509SVIDResponse", message)).len())
        .collect();
    assert_eq!(counts, [1, 3]);

    // A message that is redacted before it began is not sent, and one that began is finished.
    raw.set(Some(example.workload(&["d"])));
    let begun = raw.call(X509_SVID, b"");
    assert_eq!(raw.received(begun).data.len(), 100);
    raw.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let not_begun = raw.call(X509_SVID, b"");
    raw.set(Some(example.workload(&["e"])));
    raw.set(None);
    let received = raw.received(not_begun);
    assert_eq!((received.status(), received.data.len(), received.messages.len()), (PERMISSION_DENIED, 0, 0));
    assert_eq!(raw.received(begun).status(), None);
    raw.frame(WINDOW_UPDATE, 0, begun, &100_000_u32.to_be_bytes());
    let received = raw.received(begun);
    assert_eq!((received.status(), received.data.len(), received.messages.len()), (PERMISSION_DENIED, 0, 1));
    assert_eq!(svids(&decode("X509SVIDResponse", &received.messages[0]))[0].1, "d");
    assert_eq!(raw.go_away(), None);
}

#[test]
fn calls_end_at_their_deadline() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let mut fields = call_fields(X509_SVID);
    fields.push(("grpc-timeout", "2S"));
    let streaming = raw.open(&fields, false);
    raw.frame(DATA, END_STREAM, streaming, &message(b""));
    let reading = raw.open(&fields, false);
    let other = raw.call(X509_SVID, b"");
    assert!(raw.wake());
    assert_eq!(raw.now, Duration::from_secs(2));
    for stream in [streaming, reading] {
        assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (DEADLINE_EXCEEDED, true));
    }
    assert!(!raw.received(other).ended);
    assert!(!raw.wake(), "streams without a deadline wait for ever");
}

#[test]
fn a_connection_that_idles_is_closed() {
    // Without a preface, after ten seconds.
    let mut raw = Raw::silent(&ServerOptions::default());
    raw.send(&PREFACE[..10]);
    assert!(raw.wake() && raw.closed);
    assert_eq!(raw.now, Duration::from_secs(10));

    // Without a call, after five minutes; with one, never.
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let stream = raw.call(X509_SVID, b"");
    assert!(!raw.wake());
    raw.now = HOUR;
    raw.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    assert!(raw.wake() && raw.closed);
    assert_eq!((raw.now, raw.go_away()), (HOUR + Duration::from_secs(300), Some(0)));
    assert!(!raw.wake());
    raw.send(b"late");
    assert!(raw.control.iter().filter(|frame| frame.kind == GOAWAY).count() == 1);
}

#[test]
fn a_server_that_stops_reports_unavailable() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let (streaming, reading) = (raw.call(X509_SVID, b""), raw.open(&call_fields(JWT_SVID), false));
    raw.input(ServerInput::Shutdown);
    for stream in [streaming, reading] {
        assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (UNAVAILABLE, true));
    }
    assert_eq!((raw.go_away(), raw.closed), (Some(0), true));
}

#[test]
fn a_call_that_the_client_ends_is_forgotten() {
    let mut raw = Raw::new(Some(Domain::new("example.org").workload(&["web"])));
    let stream = raw.call(X509_SVID, b"");
    raw.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    raw.set(None);
    assert_eq!(
        raw.received(stream),
        Received { messages: raw.received(stream).messages, ..raw.received(stream) }
    );
    assert_eq!((raw.received(stream).status(), raw.received(stream).ended), (None, false));
    // Trailers of a request end it.
    let stream = raw.open(&call_fields(X509_SVID), false);
    raw.frame(HEADERS, 5, stream, &crate::raw::block(&[("x-trailer", "1")]));
    assert_eq!(raw.received(stream).status(), UNIMPLEMENTED);
}
