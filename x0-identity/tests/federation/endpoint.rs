//! A connection to a bundle endpoint without I/O.

use std::time::Duration;

use proptest::prelude::*;
use x0_identity::federation::{
    PublishError, PublishedBundles, ServerConnection, ServerInput, ServerOptions, ServerOutput,
};
use x0_identity::{Authority, AuthorityOptions, SpiffeBundle, TrustBundle};

use crate::kit::{domain, url};

const NOW: Duration = Duration::from_secs(5);
const GET: &str = "GET /bundle.json HTTP/1.1\r\nHost: a\r\n\r\n";

fn published() -> PublishedBundles {
    let published = PublishedBundles::new();
    let bundle = SpiffeBundle::new(TrustBundle::empty(domain("example.org"))).with_sequence(7);
    published.set("/bundle.json", &bundle).unwrap();
    published.redirect("/moved", url("https://cdn.example/b")).unwrap();
    published
}

fn connection() -> ServerConnection {
    ServerConnection::new(published(), &ServerOptions::default(), NOW)
}

/// The outputs to a text, and whether the connection closes after the answer.
fn answer(text: &str) -> (String, bool) {
    let mut connection = connection();
    connection.handle(NOW, ServerInput::Received(text.as_bytes()));
    let Some(ServerOutput::Send(answer)) = connection.poll_output() else { panic!("no answer to {text:?}") };
    assert_eq!(connection.poll_output(), None);
    connection.handle(NOW, ServerInput::Sent);
    let closes = connection.poll_output() == Some(ServerOutput::Close);
    assert_eq!(connection.poll_timeout().is_none(), closes);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(answer.contains("Connection: close\r\n"), closes, "{answer}");
    (answer, closes)
}

#[test]
fn requests_and_their_answers() {
    let body = "{\"spiffe_sequence\":7,\"keys\":[]}";
    let (text, closes) = answer(GET);
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 31\r\n"),
        "{text}"
    );
    assert!(text.ends_with(&format!("\r\n\r\n{body}")) && !closes);
    let (text, _) = answer("HEAD /bundle.json HTTP/1.1\r\nhost:a\r\n\r\n");
    assert!(text.contains("Content-Length: 31\r\n") && text.ends_with("\r\n\r\n"));
    assert!(answer("GET /bundle.json?a=b HTTP/1.1\r\nHost: a\r\n\r\n").0.ends_with(body));
    assert!(answer("GET https://a/bundle.json HTTP/1.1\r\nHost: a\r\n\r\n").0.ends_with(body));
    assert!(answer("GET /bundle.json HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").1);
    assert!(answer("GET /bundle.json HTTP/1.0\r\n\r\n").1);
    let (text, closes) = answer("GET /moved HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        text.starts_with("HTTP/1.1 307 Temporary Redirect\r\nLocation: https://cdn.example/b\r\n") && !closes
    );
    for (request, status, closes) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404", false),
        ("GET /bundle.json/ HTTP/1.1\r\nHost: a\r\n\r\n", "404", false),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "404", false),
        ("POST /bundle.json HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405", false),
        ("POST /bundle.json HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "400", true),
        ("GET /bundle.json HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "400", true),
        ("GET /bundle.json HTTP/1.1\r\n\r\n", "400", true),
        ("GET /bundle.json HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", true),
        ("GET  /bundle.json HTTP/1.1\r\nHost: a\r\n\r\n", "400", true),
        ("GET /bundle.json\r\nHost: a\r\n\r\n", "400", true),
        ("GET /bundle.json FTP/1.1\r\nHost: a\r\n\r\n", "400", true),
        ("GET /bundle.json HTTP/2.0\r\nHost: a\r\n\r\n", "505", true),
        ("GET /bundle.json HTTP/1.1\r\nHost : a\r\n\r\n", "400", true),
        ("\r\n\r\n", "400", true),
    ] {
        let (text, closed) = answer(request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
        assert_eq!(closed, closes, "{request:?}");
    }
    let long = format!("GET /bundle.json HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(9000));
    assert!(answer(&long).0.starts_with("HTTP/1.1 431 "));
}

#[test]
fn requests_in_one_piece_are_answered_one_after_the_other() {
    let mut connection = connection();
    connection.handle(NOW, ServerInput::Received(GET.repeat(3).as_bytes()));
    for _ in 0..3 {
        assert!(matches!(connection.poll_output(), Some(ServerOutput::Send(_))));
        // The next answer waits until this one is sent.
        assert_eq!(connection.poll_output(), None);
        connection.handle(NOW, ServerInput::Sent);
    }
    assert_eq!(connection.poll_output(), None);
    // A client that sends without reading loses the connection.
    connection.handle(NOW, ServerInput::Received(GET.as_bytes()));
    assert!(matches!(connection.poll_output(), Some(ServerOutput::Send(_))));
    for _ in 0..9 {
        connection.handle(NOW, ServerInput::Received(&[b'a'; 4096]));
    }
    assert_eq!(connection.poll_output(), Some(ServerOutput::Close));
    connection.handle(NOW, ServerInput::Received(GET.as_bytes()));
    assert_eq!(connection.poll_output(), None);
}

#[test]
fn an_idle_connection_is_closed() {
    let mut connection = connection();
    let due = connection.poll_timeout().unwrap();
    assert_eq!(due, NOW + Duration::from_secs(30));
    connection.handle(due - Duration::from_millis(1), ServerInput::Received(b"GET /"));
    connection.handle(due - Duration::from_millis(1), ServerInput::Timeout);
    assert_eq!(connection.poll_output(), None);
    // A request that arrives slowly does not prolong its time.
    connection.handle(due, ServerInput::Timeout);
    assert_eq!(connection.poll_output(), Some(ServerOutput::Close));
}

/// Trust Domain and Bundle §4.1.1: the number of a bundle increases, and changes with its contents.
#[test]
fn tdb_4_1_1_the_sequence_changes_with_the_content() {
    let published = PublishedBundles::new();
    let set = |bundle: SpiffeBundle| published.set("/", &bundle);
    let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let empty = || SpiffeBundle::new(TrustBundle::empty(domain("example.org")));
    let other = || SpiffeBundle::new(authority.bundle());
    let refused = |served| Err(PublishError::Sequence { path: "/".into(), served });
    // Without a number there is none to change.
    assert_eq!(set(empty()), Ok(()));
    assert_eq!(set(other()), Ok(()));
    assert_eq!(set(empty().with_sequence(7)), Ok(()));
    // The same again, another content, a lower number, a refresh hint, and no number any more.
    assert_eq!(set(empty().with_sequence(7)), Ok(()));
    assert_eq!(set(other().with_sequence(7)), refused(7));
    assert_eq!(set(other().with_sequence(6)), refused(7));
    assert_eq!(set(empty().with_sequence(6)), refused(7));
    assert_eq!(set(empty().with_sequence(7).with_refresh_hint(NOW)), refused(7));
    assert_eq!(set(other()), refused(7));
    assert_eq!(set(other().with_sequence(8)), Ok(()));
    assert_eq!(set(empty().with_sequence(7)), refused(8));
    // Another path, and what was taken away, begin again.
    assert_eq!(published.set("/other", &empty().with_sequence(1)), Ok(()));
    published.remove("/");
    assert_eq!(set(empty().with_sequence(1)), Ok(()));
}

#[test]
fn paths_of_bundles() {
    let bundle = SpiffeBundle::new(TrustBundle::empty(domain("example.org")));
    let published = published();
    for path in ["", "bundle", "/a?b", "/a#b", "/a b", "/%4"] {
        assert_eq!(published.set(path, &bundle), Err(PublishError::Path { path: path.into() }));
    }
    published.remove("/bundle.json");
    assert_eq!(format!("{published:?}"), "PublishedBundles([\"/moved\"])");
}

proptest! {
    /// Whatever a client sends, in pieces of any length: no panic, and the same answers.
    #[test]
    fn any_request_in_any_pieces(
        parts in prop::collection::vec(prop_oneof![
            Just(GET.to_string()), Just("GET / HTTP/1.1\r\n".into()), Just("\r\n".into()), "[ -~\r\n]{0,40}",
        ], 0..6),
        piece in 1_usize..50,
    ) {
        let text = parts.concat();
        let answers = |piece: usize| {
            let mut connection = connection();
            let mut answers = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                connection.handle(NOW, ServerInput::Received(piece));
                while let Some(output) = connection.poll_output() {
                    if matches!(output, ServerOutput::Send(_)) {
                        connection.handle(NOW, ServerInput::Sent);
                    }
                    answers.push(output);
                }
            }
            answers
        };
        prop_assert_eq!(answers(piece), answers(usize::MAX));
    }
}
