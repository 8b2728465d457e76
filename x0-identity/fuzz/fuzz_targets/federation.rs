//! A bundle endpoint that answers with any bytes, and a client that sends any bytes to an endpoint, in
//! pieces.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_identity::TrustDomain;
use x0_identity::federation::{
    ClientOptions, EndpointProfile, EndpointUrl, Federation, FederationInput, FederationOutput, PublishedBundles,
    Relationship, ServerConnection, ServerInput, ServerOptions, ServerOutput,
};

fn consumer(data: &[u8], piece: usize) {
    let trust_domain = TrustDomain::parse("example.org").expect("a trust domain");
    let url = EndpointUrl::parse("https://example.org/a/b?c").expect("a URL");
    let mut engine = Federation::new(ClientOptions::default(), 7);
    let relationship = Relationship::new(trust_domain, url, EndpointProfile::Web);
    engine.handle(Duration::ZERO, FederationInput::Establish(relationship)).expect("room");
    let mut fetch = 0;
    let mut inputs = data.chunks(piece).map(Some).chain([None]);
    loop {
        while let Some(output) = engine.poll_output() {
            if let FederationOutput::Dial { fetch: next, url, .. } = output {
                assert_eq!(EndpointUrl::parse(&url.to_string()).as_ref(), Ok(&url), "what is dialled is a URL");
                fetch = next;
            }
        }
        let input = match inputs.next() {
            Some(Some(bytes)) => FederationInput::Received { fetch, bytes: bytes.to_vec() },
            Some(None) => FederationInput::Ended { fetch },
            None => break,
        };
        let _ = engine.handle(Duration::ZERO, input);
    }
    assert!(engine.status()[0].next_fetch.is_some());
}

fn endpoint(data: &[u8], piece: usize) {
    let mut connection =
        ServerConnection::new(PublishedBundles::new(), &ServerOptions::default(), Duration::ZERO);
    for bytes in data.chunks(piece) {
        connection.handle(Duration::ZERO, ServerInput::Received(bytes));
        while let Some(output) = connection.poll_output() {
            if matches!(output, ServerOutput::Send(_)) {
                connection.handle(Duration::ZERO, ServerInput::Sent);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let piece = usize::from(how >> 1) + 1;
    if how & 1 == 0 { consumer(data, piece) } else { endpoint(data, piece) }
});
