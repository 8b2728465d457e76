//! The consumer without I/O.

use std::time::Duration;

use proptest::prelude::*;
use x0_identity::federation::{
    ClientOptions, EndpointAuthentication, EndpointProfile, Federation, FederationHandleError,
    FederationInput, FederationOutput, FetchError, FetchFailure, Relationship, ResponseError,
};
use x0_identity::{SpiffeBundle, SpiffeBundleError, TrustBundle};

use crate::kit::{domain, id, url};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn bundle(name: &str, sequence: u64) -> SpiffeBundle {
    SpiffeBundle::new(TrustBundle::empty(domain(name))).with_sequence(sequence)
}

fn web(name: &str) -> Relationship {
    Relationship::new(domain(name), url(&format!("https://{name}/bundle.json")), EndpointProfile::Web)
}

fn answer(bundle: &SpiffeBundle) -> Vec<u8> {
    let json = bundle.to_json();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

/// An engine with a clock.
struct Kit {
    engine: Federation,
    now: Duration,
}

impl Kit {
    fn new(options: ClientOptions) -> Kit {
        Kit { engine: Federation::new(options, 7), now: Duration::ZERO }
    }

    #[track_caller]
    fn handle(&mut self, input: FederationInput) -> Vec<FederationOutput> {
        self.engine.handle(self.now, input).unwrap();
        std::iter::from_fn(|| self.engine.poll_output()).collect()
    }

    fn received(&mut self, fetch: u64, bytes: Vec<u8>) -> Vec<FederationOutput> {
        self.handle(FederationInput::Received { fetch, bytes })
    }

    /// Waits for the next time that the engine names.
    fn wait(&mut self) -> Vec<FederationOutput> {
        self.now = self.engine.poll_timeout().unwrap();
        self.handle(FederationInput::Timeout)
    }

    fn failure(&self) -> Option<FetchError> {
        self.engine.status()[0].failure.clone()
    }
}

fn dialled(outputs: &[FederationOutput]) -> Vec<(u64, String)> {
    let of = |output: &FederationOutput| match output {
        FederationOutput::Dial { fetch, url, .. } => Some((*fetch, url.to_string())),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

#[test]
fn a_bundle_is_fetched_at_once_and_at_its_hint() {
    let mut kit = Kit::new(ClientOptions::default());
    let outputs = kit.handle(FederationInput::Establish(web("example.com")));
    let [FederationOutput::Dial { fetch: 1, url: dialled_url, authentication, request }] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(dialled_url.to_string(), "https://example.com/bundle.json");
    assert_eq!(authentication, &EndpointAuthentication::Web { host: dialled_url.host().clone() });
    let request = std::str::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /bundle.json HTTP/1.1\r\nHost: example.com\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n"));
    assert_eq!(kit.engine.status()[0].next_fetch, None);

    // §4.1: without a hint after five minutes, at most a tenth earlier.
    let first = bundle("example.com", 1);
    let outputs = kit.received(1, answer(&first));
    assert_eq!(outputs, [FederationOutput::Close { fetch: 1 }, FederationOutput::Store(first)]);
    let due = kit.engine.poll_timeout().unwrap();
    assert!((MINUTE * 9 / 2..=MINUTE * 5).contains(&due), "{due:?}");
    assert_eq!(dialled(&kit.wait()), [(2, "https://example.com/bundle.json".into())]);
    let hinted = bundle("example.com", 2).with_refresh_hint(MINUTE);
    kit.received(2, answer(&hinted));
    let pause = kit.engine.poll_timeout().unwrap() - kit.now;
    assert!((MINUTE * 9 / 10..=MINUTE).contains(&pause), "{pause:?}");

    // Within the bounds, whatever the hint is.
    for (hint, bound) in [(Duration::ZERO, SECOND * 10), (Duration::MAX, MINUTE * 60 * 24)] {
        let fetch = dialled(&kit.wait())[0].0;
        kit.received(fetch, answer(&bundle("example.com", 2).with_refresh_hint(hint)));
        let pause = kit.engine.poll_timeout().unwrap() - kit.now;
        assert!((bound * 9 / 10..=bound).contains(&pause), "{pause:?}");
    }
}

#[test]
fn the_same_bundle_is_not_reported_again() {
    let mut kit = Kit::new(ClientOptions::default());
    kit.handle(FederationInput::Establish(web("example.com").with_bundle(bundle("example.com", 4)).unwrap()));
    assert_eq!(kit.received(1, answer(&bundle("example.com", 4))), [FederationOutput::Close { fetch: 1 }]);
    assert_eq!(kit.engine.status()[0].fetched_at, Some(kit.now));
}

#[test]
fn an_older_bundle_is_refused_and_the_operator_decides() {
    let mut kit = Kit::new(ClientOptions::default());
    kit.handle(FederationInput::Establish(web("example.com").with_bundle(bundle("example.com", 4)).unwrap()));
    assert_eq!(kit.received(1, answer(&bundle("example.com", 3))), [FederationOutput::Close { fetch: 1 }]);
    assert_eq!(kit.failure(), Some(FetchError::Older { current: 4, fetched: 3 }));
    assert_eq!(kit.engine.bundles().get(&domain("example.com")), Some(&bundle("example.com", 4)));
    // §4.2: a local update is the latest, until the next refresh replaces it.
    let local = FederationInput::Bundle(bundle("example.com", 2));
    assert_eq!(kit.handle(local), [FederationOutput::Store(bundle("example.com", 2))]);
    let fetch = dialled(&kit.wait())[0].0;
    assert!(
        kit.received(fetch, answer(&bundle("example.com", 3)))
            .contains(&FederationOutput::Store(bundle("example.com", 3)))
    );
    assert_eq!(kit.failure(), None);
    // §4.2: without a number, the one that was fetched is up-to-date.
    let unnumbered = SpiffeBundle::new(TrustBundle::empty(domain("example.com")));
    let fetch = dialled(&kit.wait())[0].0;
    assert!(kit.received(fetch, answer(&unnumbered)).contains(&FederationOutput::Store(unnumbered)));
}

#[test]
fn after_a_failure_the_next_fetch_is_at_the_next_interval() {
    let mut kit = Kit::new(ClientOptions::default());
    let hinted = bundle("example.com", 1).with_refresh_hint(MINUTE);
    kit.handle(FederationInput::Establish(web("example.com").with_bundle(hinted.clone()).unwrap()));
    let unreachable = FetchFailure::Unreachable { reason: "no route".into() };
    let unauthenticated = FetchFailure::NotAuthenticated { reason: "UnknownIssuer".into() };
    let status = b"HTTP/1.1 503 Busy\r\n\r\n".to_vec();
    let no_bundle = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let steps: [(&dyn Fn(u64) -> FederationInput, FetchError); 7] = [
        (
            &|fetch| FederationInput::Failed { fetch, failure: unreachable.clone() },
            FetchError::Unreachable { reason: "no route".into() },
        ),
        (
            &|fetch| FederationInput::Failed { fetch, failure: unauthenticated.clone() },
            FetchError::NotAuthenticated { reason: "UnknownIssuer".into() },
        ),
        (&|fetch| FederationInput::Ended { fetch }, FetchError::Response(ResponseError::Truncated)),
        (
            &|fetch| FederationInput::Received { fetch, bytes: status.clone() },
            FetchError::Status { status: 503 },
        ),
        (
            &|fetch| FederationInput::Received { fetch, bytes: b"\r\n\r\n".to_vec() },
            FetchError::Response(ResponseError::Syntax),
        ),
        (
            &|fetch| FederationInput::Received { fetch, bytes: no_bundle.clone() },
            FetchError::Bundle(SpiffeBundleError::Keys),
        ),
        (&|_| FederationInput::Timeout, FetchError::TimedOut),
    ];
    let mut fetch = 1;
    for (input, expected) in steps {
        if matches!(expected, FetchError::TimedOut) {
            kit.now = kit.engine.poll_timeout().unwrap();
        }
        assert_eq!(kit.handle(input(fetch)), [FederationOutput::Close { fetch }]);
        assert_eq!(kit.failure(), Some(expected));
        // The current bundle stays in use, and its connection is over.
        assert_eq!(kit.engine.bundles().get(&domain("example.com")), Some(&hinted));
        let late = kit.engine.handle(kit.now, FederationInput::Ended { fetch });
        assert_eq!(late, Err(FederationHandleError::Over { fetch }));
        let pause = kit.engine.poll_timeout().unwrap() - kit.now;
        assert!((MINUTE * 9 / 10..=MINUTE).contains(&pause), "{pause:?}");
        fetch = dialled(&kit.wait())[0].0;
    }
}

#[test]
fn redirects_are_followed_up_to_a_bound_and_not_stored() {
    let moved = |to: &str| format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {to}\r\n\r\n").into_bytes();
    let mut kit = Kit::new(ClientOptions::default().redirects_max(2));
    kit.handle(FederationInput::Establish(web("example.com")));
    let outputs = kit.received(1, moved("/b"));
    assert_eq!(outputs[0], FederationOutput::Close { fetch: 1 });
    assert_eq!(dialled(&outputs), [(2, "https://example.com/b".into())]);
    let outputs = kit.received(2, moved("https://cdn.example/c"));
    assert_eq!(dialled(&outputs), [(3, "https://cdn.example/c".into())]);
    let [_, FederationOutput::Dial { authentication: EndpointAuthentication::Web { host }, request, .. }] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    // The host of the new URL.
    assert_eq!(host.to_str(), "cdn.example");
    assert!(String::from_utf8_lossy(request).contains("Host: cdn.example\r\n"));
    assert!(dialled(&kit.received(3, moved("/d"))).is_empty());
    assert_eq!(kit.failure(), Some(FetchError::Redirects { redirects_max: 2 }));
    // The configured URL is used for the next refresh.
    assert_eq!(dialled(&kit.wait()), [(4, "https://example.com/bundle.json".into())]);
    assert!(dialled(&kit.received(4, moved("http://example.com/"))).is_empty());
    assert!(matches!(kit.failure(), Some(FetchError::Location(_))));
    kit.wait();
    kit.received(5, b"HTTP/1.1 302 Found\r\n\r\n".to_vec());
    assert_eq!(kit.failure(), Some(FetchError::NoLocation));
    // All redirects of a fetch share its time.
    kit.wait();
    let deadline = kit.engine.poll_timeout().unwrap();
    kit.now += SECOND;
    kit.received(6, moved("/b"));
    assert_eq!(kit.engine.poll_timeout(), Some(deadline));
}

#[test]
fn relationships_begin_and_end() {
    let mut kit = Kit::new(ClientOptions::default().relationships_max(2).fetches_max(1));
    assert_eq!(dialled(&kit.handle(FederationInput::Establish(web("a.example")))).len(), 1);
    // One fetch at a time: the second waits for the end of the first, or for its time.
    assert!(kit.handle(FederationInput::Establish(web("b.example"))).is_empty());
    assert_eq!(kit.engine.poll_timeout(), Some(kit.now + SECOND * 30));
    let third = kit.engine.handle(kit.now, FederationInput::Establish(web("c.example")));
    assert_eq!(third, Err(FederationHandleError::RelationshipsMax { relationships_max: 2 }));
    let outputs = kit.received(1, answer(&bundle("a.example", 1)));
    assert_eq!(dialled(&outputs), [(2, "https://b.example/bundle.json".into())]);

    // Other parameters end the fetch of those before.
    let outputs = kit.handle(FederationInput::Establish(web("b.example")));
    assert_eq!(outputs[0], FederationOutput::Close { fetch: 2 });
    assert_eq!(dialled(&outputs).len(), 1);
    let outputs = kit.handle(FederationInput::Terminate { trust_domain: domain("b.example") });
    let removed = FederationOutput::Remove { trust_domain: domain("b.example") };
    assert_eq!(outputs, [FederationOutput::Close { fetch: 3 }, removed]);
    assert_eq!(kit.engine.bundles().iter().count(), 1);
    for input in [
        FederationInput::Terminate { trust_domain: domain("b.example") },
        FederationInput::Refresh { trust_domain: domain("b.example") },
    ] {
        let unknown = FederationHandleError::Unknown { trust_domain: domain("b.example") };
        assert_eq!(kit.engine.handle(kit.now, input), Err(unknown));
    }
    assert_eq!(dialled(&kit.handle(FederationInput::Refresh { trust_domain: domain("a.example") })).len(), 1);
    kit.handle(FederationInput::Terminate { trust_domain: domain("a.example") });
    assert_eq!(kit.engine.poll_timeout(), None);
}

#[test]
fn an_endpoint_of_spiffe_is_authenticated_by_the_latest_bundle() {
    let mut kit = Kit::new(ClientOptions::default());
    let endpoint = id("spiffe://hub.example/endpoint");
    let profile = EndpointProfile::Spiffe { endpoint: endpoint.clone() };
    let relationship = Relationship::new(domain("a.example"), url("https://192.0.2.1/a"), profile);
    assert!(kit.handle(FederationInput::Establish(relationship)).is_empty());
    assert_eq!(kit.failure(), Some(FetchError::NoBundle { trust_domain: domain("hub.example") }));
    assert!(kit.engine.poll_timeout() > Some(MINUTE));
    let outputs = kit.handle(FederationInput::Bundle(bundle("hub.example", 1)));
    let [FederationOutput::Store(_), FederationOutput::Dial { authentication, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let expected =
        EndpointAuthentication::Spiffe { endpoint, bundle: TrustBundle::empty(domain("hub.example")) };
    assert_eq!(authentication, &expected);
}

proptest! {
    /// Whatever an endpoint answers: one outcome, and the next fetch has its time.
    #[test]
    fn any_answer_has_one_outcome(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50, valid in any::<bool>()) {
        let mut kit = Kit::new(ClientOptions::default());
        kit.handle(FederationInput::Establish(web("example.com")));
        let mut text = if valid { b"HTTP/1.1 200 OK\r\n\r\n".to_vec() } else { Vec::new() };
        text.extend(bytes);
        let mut fetch = 1;
        for piece in text.chunks(piece) {
            let input = FederationInput::Received { fetch, bytes: piece.to_vec() };
            if kit.engine.handle(kit.now, input).is_err() {
                break;
            }
            while let Some(output) = kit.engine.poll_output() {
                if let FederationOutput::Dial { fetch: next, .. } = output {
                    fetch = next;
                }
            }
        }
        let _ = kit.engine.handle(kit.now, FederationInput::Ended { fetch });
        let status = kit.engine.status();
        prop_assert!(status[0].next_fetch.is_some());
        prop_assert!(status[0].failure.is_some() != status[0].bundle.is_some());
    }
}
