//! The spans of the feature `tracing`, as a subscriber of ours sees them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::domain;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use x0_identity::{Authority, AuthorityOptions, Identity, SpiffeId};

/// The fields of a span, by their names; the name of the span is the first.
type Seen = Vec<(String, String)>;

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

struct Fields<'a>(&'a mut Seen);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().into(), format!("{value:?}")));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name().starts_with("identity.") && *metadata.level() == Level::DEBUG
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        let mut fields = vec![("span".to_owned(), span.metadata().name().to_owned())];
        span.record(&mut Fields(&mut fields));
        spans.push(fields);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().unwrap();
        let place = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut spans[place]));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl Spans {
    /// What was seen since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn identity(authority: &Authority, name: &str) -> Identity {
    let id = SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap();
    let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
    Identity::new(svid, authority.bundle()).unwrap()
}

#[test]
fn handshakes_and_rotations_are_spans_with_the_spiffe_id() {
    let authority = || Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let (own, other) = (authority(), authority());
    let (client, server) = (identity(&own, "client"), identity(&own, "server"));
    let spans = Spans::default();
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let renewed = own.issue(client.spiffe_id(), Duration::from_secs(3600)).unwrap();
    let foreign = other.issue(client.spiffe_id(), Duration::from_secs(3600)).unwrap();
    tracing::subscriber::with_default(spans.clone(), || {
        common::connect(&client.client_config(), &server.server_config()).unwrap();
        let handshake = |peer| {
            let id = format!("spiffe://example.org/{peer}");
            vec![
                field("span", "identity.handshake"),
                field("peer", &format!("{peer:?}")),
                field("spiffe_id", &id),
            ]
        };
        let mut seen = spans.take();
        seen.sort();
        assert_eq!(seen, [handshake("client"), handshake("server")]);

        client.rotate(renewed.clone()).unwrap();
        let id = field("spiffe_id", "spiffe://example.org/client");
        assert_eq!(spans.take(), [vec![field("span", "identity.rotate"), id.clone()]]);

        assert!(client.rotate(foreign).is_err());
        let seen = spans.take();
        assert_eq!(seen[0][..2], [field("span", "identity.rotate"), id]);
        assert_eq!(seen[0][2].0, "refused");

        let stranger = identity(&other, "client");
        assert!(common::connect(&stranger.client_config(), &server.server_config()).is_err());
        let refused = spans.take().into_iter().flatten().find(|(name, _)| name == "refused").unwrap();
        assert!(refused.1.contains("certificate 0 of the chain"), "{refused:?}");
    });
    // Without a subscriber nothing is made.
    client.rotate(renewed).unwrap();
    common::connect(&client.client_config(), &server.server_config()).unwrap();
    assert!(spans.take().is_empty());
}
