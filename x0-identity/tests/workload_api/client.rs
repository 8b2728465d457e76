//! The client's engine against the server's, and against messages that no server of ours sends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use x0_identity::workload_api::{
    CRLS_LEN_MAX, CRLS_MAX, ClientAnswer, ClientCall, ClientError, ClientHandleError, ClientInput,
    ClientOptions, ClientOutput, ClientSession, Code, IdentityFeed, IdentityFeedError, MessageError,
    Subscription, Workload, WorkloadError, X509Context,
};
use x0_identity::{PeerRole, TrustBundle};

use crate::kit::{Domain, HOUR, domain, id};
use crate::pair::Pair;
use crate::proto::encode;
use crate::raw::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, SETTINGS, block, frames, message,
};

const SECOND: Duration = Duration::from_secs(1);

fn ids(context: &X509Context) -> Vec<String> {
    context.svids().iter().map(|held| held.svid.spiffe_id().to_string()).collect()
}

#[test]
fn a_subscription_follows_rotations_and_redactions() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let workload = example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    let mut pair = Pair::new(ClientOptions::default(), Some(workload));
    pair.run(SECOND);
    let context = pair.context();
    assert_eq!(ids(context), ["spiffe://example.org/web", "spiffe://example.org/batch"]);
    assert_eq!(context.svid_with_hint("batch").unwrap().spiffe_id(), &id("spiffe://example.org/batch"));
    assert!(context.svid_with_hint("other").is_none());
    assert_eq!(context.bundles().get(&domain("example.com")).unwrap().as_ref(), &foreign.authority.bundle());
    assert!(context.refused().is_empty());

    for _ in 0..100 {
        pair.set(Some(example.workload(&["web"])));
    }
    let contexts = pair.outputs.iter().filter(|(_, output)| matches!(output, ClientOutput::X509Svids(_)));
    assert_eq!(contexts.count(), 101);
    pair.set(None);
    assert!(matches!(pair.outputs.last().unwrap().1, ClientOutput::Denied(Subscription::X509Svids)));
    // The client tries again, with pauses that grow, and succeeds when it is entitled again.
    pair.run(60 * SECOND);
    let denied = pair.outputs.iter().filter(|(_, output)| matches!(output, ClientOutput::Denied(_))).count();
    assert!((7..20).contains(&denied), "{denied}");
    pair.set(Some(example.workload(&["web"])));
    pair.run(30 * SECOND);
    assert_eq!(ids(pair.context()), ["spiffe://example.org/web"]);
    assert_eq!(pair.connects.len(), 1, "the connection stays");
}

#[test]
fn api_4_4_nothing_earlier_is_retained() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let full = || example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    let options = ClientOptions::default().x509_bundles(true).jwt_bundles(true);
    let mut pair = Pair::new(options, Some(full()));
    pair.run(SECOND);
    pair.set(Some(Workload::new(example.bundle()).with_svid(example.svid("web"), "").unwrap()));
    let context = pair.context();
    assert_eq!((ids(context).len(), context.svids()[0].hint.as_str()), (1, ""));
    assert_eq!(
        context.bundles().iter().map(TrustBundle::trust_domain).collect::<Vec<_>>(),
        [&domain("example.org")]
    );
    let newest = |wanted: fn(&ClientOutput) -> Option<usize>| {
        pair.outputs.iter().rev().find_map(|(_, output)| wanted(output))
    };
    let x509 = |output: &ClientOutput| match output {
        ClientOutput::X509Bundles(bundles) => Some(bundles.bundles().len()),
        _ => None,
    };
    let jwt = |output: &ClientOutput| match output {
        ClientOutput::JwtBundles(bundles) => Some(bundles.iter().count()),
        _ => None,
    };
    assert_eq!((newest(x509), newest(jwt)), (Some(1), Some(1)));

    // An identity that follows loses what is redacted.
    let mut pair = Pair::new(ClientOptions::default(), Some(full()));
    pair.run(SECOND);
    let mut feed = IdentityFeed::new(pair.context(), Some("batch")).unwrap();
    let identity = feed.identity().clone();
    assert_eq!(identity.spiffe_id(), &id("spiffe://example.org/batch"));
    let stranger = foreign.svid("web");
    let admit = || identity.admit(stranger.chain(), PeerRole::Client, SystemTime::now()).is_ok();
    assert!(admit());
    let serial = identity.svid_serial_number();
    feed.update(pair.context()).unwrap();
    assert_eq!(identity.svid_serial_number(), serial, "the same SVID is not rotated in");
    pair.set(Some(example.workload(&["web", "batch"])));
    feed.update(pair.context()).unwrap();
    assert_ne!(identity.svid_serial_number(), serial);
    assert!(!admit());

    let connects = || {
        let (client, server) = (identity.client_config(), identity.server_config());
        crate::drivers::handshake(&client, &server).is_ok()
    };
    assert!(connects());
    pair.set(Some(example.workload(&["web"])));
    let error = feed.update(pair.context()).unwrap_err();
    assert!(matches!(&error, IdentityFeedError::Redacted { spiffe_id } if spiffe_id == identity.spiffe_id()));
    assert!(!connects(), "a redacted SVID is not presented");
    pair.set(Some(example.workload(&["web", "batch"])));
    feed.update(pair.context()).unwrap();
    assert!(connects());
    feed.deny();
    assert!(!connects());
    let error = IdentityFeed::new(pair.context(), Some("other")).unwrap_err();
    assert!(matches!(error, IdentityFeedError::NoHint { .. }), "{error}");
}

/// §5.1: the lists are beside the SVIDs and the bundles. Their bytes are nobody's business here.
#[test]
fn api_5_1_revocation_lists_pass_through() {
    let example = Domain::new("example.org");
    let lists = vec![b"not even DER".to_vec(), Vec::new(), vec![0x30, 0]];
    let workload = example.workload(&["web"]);
    let with = workload.clone().with_crls(lists.clone()).unwrap();
    let mut pair = Pair::new(ClientOptions::default().x509_bundles(true), Some(with));
    pair.run(SECOND);
    let bundles = |pair: &Pair| {
        let newest = pair.outputs.iter().rev().find_map(|(_, output)| match output {
            ClientOutput::X509Bundles(bundles) => Some(bundles.crls().to_vec()),
            _ => None,
        });
        newest.unwrap()
    };
    assert_eq!((pair.context().crls(), &bundles(&pair)), (&lists[..], &lists));
    // Without the lists, the next message has none.
    pair.set(Some(workload.clone()));
    assert!(pair.context().crls().is_empty() && bundles(&pair).is_empty());
    let refused = workload.clone().with_crls(vec![Vec::new(); CRLS_MAX + 1]).err();
    assert_eq!(refused, Some(WorkloadError::Crls { count: CRLS_MAX + 1 }));
    assert!(workload.clone().with_crls(vec![Vec::new(); CRLS_MAX]).is_ok());
    // Together, whatever their number.
    let halves = |more| vec![vec![0; CRLS_LEN_MAX / 2], vec![0; CRLS_LEN_MAX / 2 + more]];
    assert!(workload.clone().with_crls(halves(0)).is_ok());
    let refused = workload.with_crls(halves(1)).err();
    assert_eq!(refused, Some(WorkloadError::CrlsLength { len: CRLS_LEN_MAX + 1 }));
}

#[test]
fn an_svid_that_was_refused_is_offered_again() {
    let (example, next) = (Domain::new("example.org"), Domain::new("example.org"));
    let mut pair = Pair::new(ClientOptions::default(), Some(example.workload(&["web"])));
    pair.run(SECOND);
    let mut feed = IdentityFeed::new(pair.context(), None).unwrap();
    let serial = feed.identity().svid_serial_number();
    // The SVID of the next root comes before its bundle.
    let svid = next.svid("web");
    pair.set(Some(Workload::new(example.bundle()).with_svid(svid.clone(), "").unwrap()));
    let error = feed.update(pair.context()).unwrap_err();
    assert!(matches!(error, IdentityFeedError::Rotate(_)), "{error}");
    assert_eq!(feed.identity().svid_serial_number(), serial, "the one before stays in use");
    pair.set(Some(Workload::new(next.bundle()).with_svid(svid.clone(), "").unwrap()));
    feed.update(pair.context()).unwrap();
    assert_eq!(feed.identity().svid_serial_number(), svid.serial_number());
}

#[test]
fn a_connection_that_ends_is_followed_by_another() {
    let example = Domain::new("example.org");
    let mut pair = Pair::new(ClientOptions::default(), Some(example.workload(&["web"])));
    pair.run(SECOND);
    // §4.2: immediately.
    let cut = pair.now;
    pair.cut();
    pair.run(SECOND / 100);
    assert_eq!(pair.connects, [Duration::ZERO, cut]);
    assert_eq!(pair.failures(Subscription::X509Svids).len(), 1);
    // A connection that does not last is followed after a pause: no loop.
    for _ in 0..10 {
        pair.cut();
    }
    pair.run(SECOND);
    assert!(pair.connects.len() < 20, "{}", pair.connects.len());

    // An endpoint that is not there: pauses grow to 30 s, and it never gives up.
    pair.listening = false;
    pair.cut();
    let begun = (pair.now, pair.connects.len());
    pair.run(HOUR);
    let attempts = pair.connects.len() - begun.1;
    assert!((120..300).contains(&attempts), "{attempts}");
    pair.listening = true;
    pair.run(30 * SECOND);
    assert!(pair.server.is_some());
    assert!(matches!(pair.outputs.last().unwrap().1, ClientOutput::X509Svids(_)));

    // A server that stops in an orderly way.
    let server = pair.server.as_mut().unwrap();
    server.handle(pair.now, x0_identity::workload_api::ServerInput::Shutdown).unwrap();
    pair.settle();
    pair.run(SECOND);
    assert!(pair.server.is_some());
    let failures = pair.failures(Subscription::X509Svids);
    assert!(failures.iter().all(|(error, again)| {
        *again && matches!(error, ClientError::Status(status) if status.code == Code::Unavailable)
    }));
}

#[test]
fn calls_are_answered_once() {
    let example = Domain::new("example.org");
    let options = ClientOptions::default().x509_svids(false);
    let mut pair = Pair::new(options, Some(example.workload(&["web"])));
    pair.run(HOUR);
    assert!(pair.connects.is_empty(), "without a subscription or call there is no connection");
    let fetch = |id| ClientInput::Call {
        id,
        call: ClientCall::FetchJwtSvids { audience: vec!["reports".into()], spiffe_id: None },
        timeout: SECOND,
    };
    pair.input(fetch(1));
    let ClientOutput::Answer { id: 1, answer: Ok(ClientAnswer::JwtSvids(svids)) } = &pair.outputs[0].1 else {
        panic!("{:?}", pair.outputs)
    };
    assert_eq!((svids[0].spiffe_id.path(), svids[0].hint.as_str()), ("/web", "web"));
    assert!(!format!("{:?}", pair.outputs).contains(&svids[0].token));
    let call = ClientCall::ValidateJwtSvid { audience: "reports".into(), token: svids[0].token.clone() };
    assert!(!format!("{call:?}").contains(&svids[0].token));
    pair.input(ClientInput::Call { id: 2, call, timeout: SECOND });
    let ClientOutput::Answer { id: 2, answer: Ok(ClientAnswer::Validated(valid)) } = &pair.outputs[1].1
    else {
        panic!("{:?}", pair.outputs)
    };
    let claims: serde_json::Value = serde_json::from_str(&valid.claims).unwrap();
    assert_eq!(
        (&valid.spiffe_id, claims["aud"][0].as_str()),
        (&id("spiffe://example.org/web"), Some("reports"))
    );
    assert!(claims["exp"].is_u64(), "{claims}");

    let code = |pair: &Pair| match &pair.outputs.last().unwrap().1 {
        ClientOutput::Answer { id, answer: Err(ClientError::Status(status)) } => (*id, status.code),
        other => panic!("{other:?}"),
    };
    let wrong = ClientCall::ValidateJwtSvid { audience: "reports".into(), token: "no.to.ken".into() };
    pair.input(ClientInput::Call { id: 3, call: wrong, timeout: SECOND });
    assert_eq!(code(&pair), (3, Code::InvalidArgument));
    pair.set(None);
    pair.input(fetch(4));
    assert_eq!(code(&pair), (4, Code::PermissionDenied));
    // No endpoint: the call waits for one until its time is over.
    pair.listening = false;
    pair.cut();
    pair.input(fetch(5));
    pair.run(2 * SECOND);
    assert_eq!(code(&pair), (5, Code::DeadlineExceeded));
    let call = ClientCall::FetchJwtSvids { audience: vec!["reports".into()], spiffe_id: None };
    pair.input(ClientInput::Call { id: 6, call, timeout: 60 * SECOND });
    pair.listening = true;
    pair.workload = Some(Arc::new(example.workload(&["web"])));
    pair.run(40 * SECOND);
    assert!(matches!(pair.outputs.last().unwrap().1, ClientOutput::Answer { id: 6, answer: Ok(_) }));
    // More than allowed at once.
    pair.listening = false;
    pair.cut();
    for id in 100..164 {
        pair.input(fetch(id));
    }
    assert_eq!(pair.client.handle(pair.now, fetch(164)), Err(ClientHandleError::Calls));
}

/// A session whose connection is open, and what it has sent.
fn connected(options: ClientOptions) -> (ClientSession, Vec<Frame>) {
    let mut client = ClientSession::new(options, "localhost", 7);
    client.handle(Duration::ZERO, ClientInput::Timeout).unwrap();
    assert!(matches!(client.poll_output(), Some(ClientOutput::Connect)));
    client.handle(Duration::ZERO, ClientInput::Connected).unwrap();
    let Some(ClientOutput::Send(bytes)) = client.poll_output() else { panic!("a request") };
    let sent = frames(&bytes[24..]);
    client.handle(Duration::ZERO, ClientInput::Bytes(&Frame::new(SETTINGS, 0, 0, &[]).bytes())).unwrap();
    let _ = client.poll_output();
    (client, sent)
}

#[test]
fn endpoint_3_the_client_sends_the_security_header() {
    let options = ClientOptions::default().x509_bundles(true).jwt_bundles(true);
    let (_, sent) = connected(options);
    let headers: Vec<&Frame> = sent.iter().filter(|frame| frame.kind == HEADERS).collect();
    assert_eq!(headers.len(), 3);
    for frame in headers {
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        assert!(text.contains("workload.spiffe.io\u{4}true"), "{text}");
        assert!(text.contains("/SpiffeWorkloadAPI/Fetch") && text.contains("application/grpc"), "{text}");
    }
}

/// The outputs for a response: fields, messages, and how it ends.
fn respond(
    fields: &[(&str, &str)],
    messages: &[Vec<u8>],
    end: impl IntoIterator<Item = Frame>,
) -> Vec<ClientOutput> {
    respond_to(ClientOptions::default(), fields, messages, end)
}

/// As [`respond`], to the first subscription of other options.
pub(crate) fn respond_to(
    options: ClientOptions,
    fields: &[(&str, &str)],
    messages: &[Vec<u8>],
    end: impl IntoIterator<Item = Frame>,
) -> Vec<ClientOutput> {
    let (mut client, _) = connected(options);
    let mut bytes = Frame::new(HEADERS, END_HEADERS, 1, &block(fields)).bytes();
    for each in messages {
        bytes.extend(Frame::new(DATA, 0, 1, &message(each)).bytes());
    }
    bytes.extend(end.into_iter().flat_map(|frame| frame.bytes()));
    let _ = client.handle(Duration::ZERO, ClientInput::Bytes(&bytes));
    std::iter::from_fn(|| client.poll_output())
        .filter(|output| !matches!(output, ClientOutput::Send(_)))
        .collect()
}

pub(crate) const OK_FIELDS: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

fn trailers(fields: &[(&str, &str)]) -> Option<Frame> {
    Some(Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)))
}

/// Workload Endpoint, Appendix A: which codes are final.
#[test]
fn endpoint_6_codes_of_the_endpoint() {
    for (code, again) in
        [("3", false), ("12", false), ("14", true), ("0", true), ("13", true), ("2", true), ("x", true)]
    {
        let outputs = respond(OK_FIELDS, &[], trailers(&[("grpc-status", code), ("grpc-message", "why%21")]));
        let [ClientOutput::Failed { error: ClientError::Status(status), again: tried, .. }] = &outputs[..]
        else {
            panic!("{outputs:?}")
        };
        assert_eq!((status.message.as_str(), *tried), ("why!", again), "{code}");
    }
    let outputs = respond(OK_FIELDS, &[], trailers(&[("grpc-status", "7")]));
    assert!(matches!(outputs[..], [ClientOutput::Denied(Subscription::X509Svids)]), "{outputs:?}");

    // A final answer ends the subscription, and with it the session's wish for a connection.
    let (mut client, _) = connected(ClientOptions::default());
    let refused = Frame::new(HEADERS, 5, 1, &block(&[(":status", "200"), ("grpc-status", "12")]));
    client.handle(SECOND, ClientInput::Bytes(&refused.bytes())).unwrap();
    client.handle(2 * SECOND, ClientInput::Closed).unwrap();
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn responses_that_are_no_grpc_are_reported() {
    let code = |outputs: Vec<ClientOutput>| match &outputs[..] {
        [ClientOutput::Failed { error: ClientError::Status(status), again: true, .. }, ..] => status.code,
        other => panic!("{other:?}"),
    };
    let html = respond(&[(":status", "502")], &[b"<html>".to_vec()], trailers(&[]));
    assert_eq!(code(html), Code::Unavailable);
    assert_eq!(code(respond(OK_FIELDS, &[], trailers(&[]))), Code::Internal);
    let data = Some(Frame::new(DATA, END_STREAM, 1, b""));
    assert_eq!(code(respond(OK_FIELDS, &[], data)), Code::Internal);
    let reset = Some(Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, 2]));
    assert_eq!(code(respond(OK_FIELDS, &[], reset)), Code::Unavailable);
    let long = Some(Frame::new(DATA, 0, 1, &[0, 0xff, 0, 0, 0]));
    assert_eq!(code(respond(OK_FIELDS, &[], long)), Code::ResourceExhausted);
    let compressed = Some(Frame::new(DATA, 0, 1, &[1, 0, 0, 0, 0]));
    assert_eq!(code(respond(OK_FIELDS, &[], compressed)), Code::ResourceExhausted);
    let no_status = Some(Frame::new(HEADERS, END_HEADERS, 1, &block(&[("x", "1")])));
    assert_eq!(code(respond(OK_FIELDS, &[], no_status)), Code::Unavailable);
    let many = [("x-long", "v".repeat(200))];
    let mut fields = OK_FIELDS.to_vec();
    fields.extend(many.iter().cycle().take(74).map(|(name, value)| (*name, value.as_str())));
    assert_eq!(code(respond(&fields, &[], None)), Code::Internal);

    // An interim response comes first (RFC 9113, section 8.1).
    let (mut client, _) = connected(ClientOptions::default());
    let interim = Frame::new(HEADERS, END_HEADERS, 1, &block(&[(":status", "103")]));
    client.handle(SECOND, ClientInput::Bytes(&interim.bytes())).unwrap();
    let real = Frame::new(HEADERS, 5, 1, &block(&[(":status", "200"), ("grpc-status", "7")]));
    client.handle(SECOND, ClientInput::Bytes(&real.bytes())).unwrap();
    assert!(matches!(client.poll_output(), Some(ClientOutput::Denied(_))));

    // A breach of HTTP/2, and the end of a connection: closed, then opened again.
    for (bytes, broken) in [
        (Frame::new(6, 0, 0, b"short").bytes(), true),
        (Frame::new(5, 4, 1, &[0, 0, 0, 2]).bytes(), true),
        (Frame::new(HEADERS, 5, 2, &block(OK_FIELDS)).bytes(), true),
        (Frame::new(7, 0, 0, &[0; 8]).bytes(), false),
    ] {
        let (mut client, _) = connected(ClientOptions::default());
        let taken = client.handle(SECOND, ClientInput::Bytes(&bytes));
        assert_eq!(matches!(taken, Err(ClientHandleError::Protocol { .. })), broken);
        let outputs: Vec<ClientOutput> = std::iter::from_fn(|| client.poll_output()).collect();
        assert!(
            matches!(outputs[..], [ClientOutput::Failed { again: true, .. }, ClientOutput::Close, ..]),
            "{outputs:?}"
        );
    }
}

/// §4.5 and §5: a message that breaks a rule is discarded and reported, and the stream goes on.
#[test]
fn api_4_5_messages_that_break_a_rule_are_discarded() {
    let example = Domain::new("example.org");
    let svid = example.svid("web");
    let chain = svid.chain()[0].to_vec();
    let key = svid.key().secret_der().to_vec();
    let bundle = example.authority.bundle().authorities()[0].to_vec();
    let web: &[u8] = b"spiffe://example.org/web";
    let whole: [(u8, &[u8]); 4] = [(1, web), (2, &chain), (3, &key), (4, &bundle)];
    let response = |svid: &[(u8, &[u8])]| encode(&[(1, &encode(svid))]);
    let replaced = |number: u8, content: &'static [u8]| {
        let mut fields = whole;
        fields[usize::from(number) - 1].1 = content;
        response(&fields)
    };
    let error = |messages: &[Vec<u8>]| match &respond(OK_FIELDS, messages, None)[..] {
        [ClientOutput::Failed { error: ClientError::Message(error), again: true, .. }] => error.clone(),
        other => panic!("{other:?}"),
    };
    let missing = |field| MessageError::Missing { field };
    assert_eq!(error(&[Vec::new()]), missing("svids"));
    for (number, name) in [(1, "spiffe_id"), (2, "x509_svid"), (3, "x509_svid_key"), (4, "bundle")] {
        assert_eq!(error(&[replaced(number, b"")]), missing(name));
    }
    assert!(matches!(error(&[vec![0xff]]), MessageError::Decode(_)));
    assert!(matches!(error(&[response(&[(1, &[0xff])])]), MessageError::Decode(_)));
    assert!(matches!(error(&[replaced(1, b"spiffe://example.org/a/")]), MessageError::SpiffeId(_)));
    assert!(matches!(error(&[replaced(1, b"spiffe://example.org/b")]), MessageError::Mismatch { .. }));
    assert!(matches!(error(&[replaced(2, b"\x30\x05")]), MessageError::Certificates { .. }));
    assert!(matches!(error(&[replaced(2, b"\x30\x00")]), MessageError::Svid { .. }));
    assert!(matches!(error(&[replaced(4, b"\x30\x05")]), MessageError::Certificates { .. }));
    let with_foreign =
        |key: &[u8], bundle: &[u8]| encode(&[(1, &encode(&whole)), (3, &encode(&[(1, key), (2, bundle)]))]);
    assert!(matches!(error(&[with_foreign(b"spiffe://UPPER", &bundle)]), MessageError::TrustDomain(_)));

    // An authority that breaks a rule is left out. A foreign bundle never takes the place of the own one.
    let outputs = respond(OK_FIELDS, &[with_foreign(b"spiffe://example.com", &chain)], None);
    let [ClientOutput::X509Svids(context)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((context.refused().len(), context.refused()[0].position), (1, 0));
    assert!(context.bundles().get(&domain("example.com")).unwrap().is_empty());
    let outputs = respond(OK_FIELDS, &[with_foreign(b"spiffe://example.org", b"")], None);
    let [ClientOutput::X509Svids(context)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(context.bundles().get(&domain("example.org")).unwrap().as_ref(), &example.authority.bundle());

    // The bad message is followed by a good one on the same stream.
    let outputs = respond(OK_FIELDS, &[Vec::new(), response(&whole)], None);
    assert!(matches!(outputs[..], [ClientOutput::Failed { .. }, ClientOutput::X509Svids(_)]), "{outputs:?}");
}
