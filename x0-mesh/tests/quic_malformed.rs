//! A node with a valid identity that breaks the protocol, and one that does not read: quinn by hand against
//! the transport.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod quic_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use quic_common::*;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, SendStream, VarInt};
use x0_identity::NodeId;
use x0_mesh::quic::QuicTransport;
use x0_mesh::{DownReason, Expected, Lane, StreamName, Transport, Violation};

/// The code of a violation.
const VIOLATION: VarInt = VarInt::from_u32(4);
const RAW: u64 = 9;

/// A peer by hand.
struct Raw {
    _endpoint: Endpoint,
    connection: Connection,
    control: SendStream,
}

fn handshake() -> Vec<u8> {
    let mut bytes = vec![0, 1, 24, 0];
    bytes.extend_from_slice(&77_u64.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes
}

impl Raw {
    async fn dial(domain: &Domain, address: SocketAddr, first: &[u8]) -> Raw {
        Raw::dial_as(RAW, domain, address, first).await
    }

    async fn dial_as(number: u64, domain: &Domain, address: SocketAddr, first: &[u8]) -> Raw {
        let mut config = (*domain.identity(number).client_config()).clone();
        config.alpn_protocols = vec![b"x0-mesh/1".to_vec()];
        let config = QuicClientConfig::try_from(config).unwrap();
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(config));
        let connection = soon(endpoint.connect_with(config, address, "any").unwrap()).await.unwrap();
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(first).await.unwrap();
        Raw { _endpoint: endpoint, connection, control }
    }

    async fn stream(&self, bytes: &[u8]) -> SendStream {
        let mut stream = soon(self.connection.open_uni()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn finished(&self, bytes: &[u8]) {
        let mut stream = self.stream(bytes).await;
        stream.finish().unwrap();
        soon(stream.stopped()).await.ok();
    }

    /// The code with which the node closed the connection.
    async fn closed(&self) -> VarInt {
        match soon(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => close.error_code,
            error => panic!("{error:?}"),
        }
    }
}

/// A node with a good peer, and the address to break in at.
struct Bench {
    domain: Domain,
    address: SocketAddr,
    node: QuicTransport,
    good: QuicTransport,
}

impl Bench {
    async fn new() -> Bench {
        let domain = Domain::new("example.org");
        let mut config = domain.config(1);
        config.ordered_lanes = 2;
        config.message_len_max = 1000;
        config.bulk_len_max = 2000;
        config.dial_timeout = Duration::from_secs(2);
        let (mut node, address) = bind(config);
        let (mut good, _) = bind(domain.config(2).peer(self::node(1), address));
        up(&mut good, 1).await;
        up(&mut node, 2).await;
        Bench { domain, address, node, good }
    }

    /// The violation ended the connection that it was on, and no other.
    async fn expect(&mut self, name: &str, violation: Violation) {
        let (_, reason) = down(&mut self.node, RAW).await;
        assert_eq!(reason, DownReason::Malformed { violation }, "{name}");
        send(&mut self.good, 1, Lane::Ordered(1), b"still here").await;
        assert_eq!(receive(&mut self.node).await, (2, Lane::Ordered(1), b"still here".to_vec()), "{name}");
        let quiet = self.good.poll_event(&mut Context::from_waker(Waker::noop()));
        assert!(quiet.is_pending(), "{name}: {quiet:?}");
    }
}

const LANE_0: StreamName = StreamName::Ordered { lane: 0 };

fn end(stream: StreamName, expected: Expected) -> Violation {
    Violation::StreamEnd { stream, expected }
}

#[test]
fn the_end_of_a_stream_names_the_stream_and_what_was_expected() {
    assert_eq!(
        end(LANE_0, Expected::EndOfConnection).to_string(),
        "the stream of ordered lane 0 ended, where a stream that lasts as long as the connection was expected: the connection is closed and made again; \
         if that repeats, the peer runs an incompatible version"
    );
}

#[tokio::test]
async fn a_peer_that_breaks_a_rule_loses_its_own_connection() {
    let mut bench = Bench::new().await;
    let length = |len: u64, len_max: u64| Violation::MessageLength { len, len_max };
    // The bytes on a stream, whether the stream ends there, and the rule that they break.
    let cases: [(&str, &[u8], bool, Violation); 15] = [
        ("unknown kind", &[7], false, Violation::StreamKind { kind: 7 }),
        ("second control stream", &[0], false, Violation::StreamTwice),
        ("unknown lane", &[1, 2], false, Violation::Lane { lane: 2 }),
        ("lane 255", &[1, 255], false, Violation::Lane { lane: 255 }),
        ("no kind", &[], true, end(StreamName::New, Expected::Kind)),
        ("no lane", &[1], true, end(StreamName::New, Expected::Kind)),
        ("lane that ends between messages", &[1, 0], true, end(LANE_0, Expected::EndOfConnection)),
        ("lane that ends in a message", &[1, 0, 5, 0, 0, 0, 1], true, end(LANE_0, Expected::EndOfConnection)),
        ("message over the bound by one", &[1, 0, 0xe9, 3, 0, 0], false, length(1001, 1000)),
        ("message of 4 GiB", &[1, 0, 255, 255, 255, 255], false, length(u32::MAX.into(), 1000)),
        ("bulk over the bound by one", &[2, 0xd1, 7, 0, 0], false, length(2001, 2000)),
        ("bulk that ends early", &[2, 2, 0, 0, 0, 1], true, end(StreamName::Bulk, Expected::RestOfMessage)),
        ("bulk that ends in its length", &[2, 2, 0], true, end(StreamName::Bulk, Expected::RestOfMessage)),
        ("bulk with more behind", &[2, 1, 0, 0, 0, 1, 1], true, Violation::TrailingBytes),
        ("empty bulk with more behind", &[2, 0, 0, 0, 0, 1], false, Violation::TrailingBytes),
    ];
    for (name, bytes, is_end, violation) in cases {
        let raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
        up(&mut bench.node, RAW).await;
        let _stream = if is_end {
            raw.finished(bytes).await;
            None
        } else {
            Some(raw.stream(bytes).await)
        };
        assert_eq!(raw.closed().await, VIOLATION, "{name}");
        bench.expect(name, violation).await;
    }
}

#[tokio::test]
async fn streams_that_must_live_on_do() {
    let mut bench = Bench::new().await;
    let raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    let _first = raw.stream(&[1, 0, 1, 0, 0, 0, 8]).await;
    assert_eq!(receive(&mut bench.node).await, (RAW, Lane::Ordered(0), vec![8]));
    let _second = raw.stream(&[1, 0]).await;
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("second stream of a lane", Violation::StreamTwice).await;

    let mut raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    // Behind the handshake there may be what later versions say.
    raw.control.write_all(&[1, 2, 3]).await.unwrap();
    let mut reset = raw.stream(&[1, 1, 1, 0, 0, 0, 8]).await;
    assert_eq!(receive(&mut bench.node).await, (RAW, Lane::Ordered(1), vec![8]));
    reset.reset(VarInt::from_u32(0)).unwrap();
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("lane that is reset", end(StreamName::Ordered { lane: 1 }, Expected::EndOfConnection)).await;

    let mut raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    raw.control.finish().unwrap();
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("control stream that ends", end(StreamName::Control, Expected::EndOfConnection)).await;

    let raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    raw.connection.send_datagram(vec![0; 1101].into()).unwrap();
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("long datagram", Violation::MessageLength { len: 1101, len_max: 1100 }).await;
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let mut bench = Bench::new().await;
    let version_0 = [0, 0, 24, 0];
    let too_short = [0, 1, 23, 0];
    let too_long = [0, 1, 1, 4];
    for first in [&[1, 1, 24, 0][..], &version_0, &too_short, &too_long] {
        let raw = Raw::dial(&bench.domain, bench.address, first).await;
        assert_eq!(raw.closed().await, VIOLATION, "{first:?}");
    }
    // One reason, one event.
    bench.expect("handshake", Violation::Handshake).await;
    let mut raw = Raw::dial(&bench.domain, bench.address, &[0, 1]).await;
    raw.control.finish().unwrap();
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("a handshake that ends", Violation::Handshake).await;
    let raw = Raw::dial(&bench.domain, bench.address, &[0, 1, 24]).await;
    assert_eq!(raw.closed().await, VIOLATION);
    bench.expect("silence", Violation::HandshakeLate).await;
    // A later version's handshake is longer, and says what it has to say behind ours.
    let mut longer = handshake();
    longer[1] = 2;
    longer[2] = 30;
    longer.extend_from_slice(&[9; 6]);
    let _raw = Raw::dial(&bench.domain, bench.address, &longer).await;
    up(&mut bench.node, RAW).await;
}

/// A handshake that breaks a rule does not end a connection that stands.
#[tokio::test]
async fn a_bad_handshake_beside_a_good_connection_changes_nothing() {
    let mut bench = Bench::new().await;
    let good = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    let bad = Raw::dial(&bench.domain, bench.address, &[9; 30]).await;
    assert_eq!(bad.closed().await, VIOLATION);
    // And a second connection of the same instance, which cannot know of the first, is one too many.
    let twin = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    assert_eq!(twin.closed().await, VarInt::from_u32(1));
    let _stream = good.stream(&[1, 0, 1, 0, 0, 0, 8]).await;
    assert_eq!(receive(&mut bench.node).await, (RAW, Lane::Ordered(0), vec![8]));
    assert!(bench.node.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_peer_without_the_protocol_gets_an_error() {
    let bench = Bench::new().await;
    let mut config = (*bench.domain.identity(RAW).client_config()).clone();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let error = soon(endpoint.connect_with(config, bench.address, "any").unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
}

/// Fills a lane to a peer that does not read it.
async fn fill(node: &mut QuicTransport, to: NodeId, lane: Lane) -> usize {
    let mut taken = 0;
    // Full is: full after everything else had its turn many times.
    let mut refused = 0;
    while refused < 200 {
        if offer(node, to.get(), lane, &[1; 1000]) {
            taken += 1;
            refused = 0;
        } else {
            refused += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(taken < 20_000, "no back-pressure");
    }
    taken
}

/// Head-of-line blocking, counted: a peer reads one lane and not the others, another peer reads all; each
/// message of the lanes that are read passes while the rest stands still.
#[tokio::test]
async fn a_lane_that_nobody_reads_holds_up_nothing_else() {
    const COUNT: usize = 2_000;
    let mut bench = Bench::new().await;
    let raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    let _control = soon(raw.connection.accept_uni()).await.unwrap();
    let stalled = [Lane::Ordered(0), Lane::Bulk];
    for lane in stalled {
        assert!(fill(&mut bench.node, node(RAW), lane).await > 0);
    }

    let reading = async {
        loop {
            let mut stream = soon(raw.connection.accept_uni()).await.unwrap();
            let mut first = [0; 2];
            soon(stream.read_exact(&mut first)).await.unwrap();
            if first == [1, 1] {
                let mut message = [0; 4 + 100];
                for _ in 0..COUNT {
                    soon(stream.read_exact(&mut message)).await.unwrap();
                }
                return;
            }
            // Not read, and not stopped.
            std::mem::forget(stream);
        }
    };
    let sending = async {
        for number in 0..COUNT {
            send(&mut bench.node, RAW, Lane::Ordered(1), &[2; 100]).await;
            send(&mut bench.node, 2, Lane::Ordered(0), &number.to_le_bytes()).await;
        }
    };
    let receiving = async {
        for number in 0..COUNT {
            assert_eq!(receive(&mut bench.good).await, (1, Lane::Ordered(0), number.to_le_bytes().to_vec()));
        }
    };
    tokio::join!(reading, sending, receiving);
    for lane in stalled {
        assert!(!offer(&mut bench.node, RAW, lane, &[1; 1000]), "{lane} moved");
    }
}

/// The same at the receiver: what one peer and one lane have piled up does not go before what others sent.
#[tokio::test]
async fn lanes_and_peers_take_turns() {
    let mut bench = Bench::new().await;
    let raw = Raw::dial(&bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, RAW).await;
    let mut flood = vec![1, 0];
    (0..3000).for_each(|_| flood.extend_from_slice(&[1, 0, 0, 0, 7]));
    let mut few = vec![1, 1];
    (0..10).for_each(|_| few.extend_from_slice(&[1, 0, 0, 0, 8]));
    let _flood = raw.stream(&flood).await;
    let _few = raw.stream(&few).await;
    let other = Raw::dial_as(8, &bench.domain, bench.address, &handshake()).await;
    up(&mut bench.node, 8).await;
    for _ in 0..10 {
        other.finished(&[2, 1, 0, 0, 0, 9]).await;
    }
    raw.finished(&[2, 1, 0, 0, 0, 9]).await;
    // Everything is acknowledged, that is: here. The tasks that read it have to run, and need nothing for it.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let mut before = 0;
    let mut others = 0;
    while others < 21 {
        let (from, lane, _) = receive(&mut bench.node).await;
        if (from, lane) == (RAW, Lane::Ordered(0)) {
            before += 1;
        } else {
            others += 1;
        }
    }
    assert!(before < 1500, "{before} messages of the flood went before");
}

#[tokio::test]
async fn a_peer_that_comes_again_and_again_is_bounded_by_what_is_received() {
    let domain = Domain::new("example.org");
    let (mut node, address) = bind(domain.config(1));
    // Each connection leaves a message that is not received, so that its epoch is not over for the owner.
    let mut busy = 0;
    for instance in 0..8_u8 {
        let mut handshake = handshake();
        handshake[4] = instance;
        let raw = Raw::dial(&domain, address, &handshake).await;
        let Ok(_control) = soon(raw.connection.accept_uni()).await else {
            assert_eq!(raw.closed().await, VarInt::from_u32(5));
            busy += 1;
            continue;
        };
        raw.finished(&[2, 1, 0, 0, 0, instance]).await;
        raw.connection.close(VarInt::from_u32(0), b"");
    }
    assert!(busy >= 3, "{busy}");
    // Everything still comes in order: up, its message, down, the next epoch.
    let mut seen = Vec::new();
    while seen.len() < 8 - busy {
        let epoch = up(&mut node, RAW).await;
        seen.push(receive(&mut node).await.2);
        let ended = down(&mut node, RAW).await;
        assert_eq!(ended.0, epoch);
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(node.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
}
