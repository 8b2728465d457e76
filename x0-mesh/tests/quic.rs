//! The QUIC transport between nodes of one process. What every transport owes is in the conformance suite;
//! here is what only this one has: identities, addresses, reconnection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod quic_common;

use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quic_common::*;
use tokio::net::UdpSocket;
use x0_mesh::quic::{BindError, QuicTransport};
use x0_mesh::{DownReason, Lane, PeerEventKind, SendError, Transmit, Transport, TransportExt};

#[tokio::test]
async fn messages_say_who_sent_them_on_every_lane() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    up(&mut client, 1).await;
    up(&mut server, 2).await;
    let large = vec![5; 8 << 20];
    for lane in [Lane::Ordered(0), Lane::Ordered(3), Lane::Bulk, Lane::Datagram] {
        for payload in [&b"there"[..], b"", &large] {
            let payload = &payload[..payload.len().min(client.message_len_max(lane))];
            send(&mut client, 1, lane, payload).await;
            assert!(receive(&mut server).await == (2, lane, payload.to_vec()), "{lane}");
            // The client has no address that the server knows: back on the connection that it made.
            send(&mut server, 2, lane, payload).await;
            assert!(receive(&mut client).await == (1, lane, payload.to_vec()), "{lane}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_on_a_lane_under_load() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    const COUNT: u32 = 20_000;
    let sending = async {
        for number in 0..COUNT {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(4 + (number as usize * 7) % 900, 1);
            send(&mut client, 1, Lane::Ordered(1), &payload).await;
        }
    };
    let receiving = async {
        for number in 0..COUNT {
            let (_, _, payload) = receive(&mut server).await;
            assert_eq!(payload[..4], number.to_le_bytes());
            assert_eq!(payload.len(), 4 + (number as usize * 7) % 900);
        }
    };
    tokio::join!(sending, receiving);
}

/// Both ends use the buffers of earlier messages again, for longer and for shorter ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_arrive_unchanged_in_used_buffers() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    const COUNT: u8 = 120;
    let len = |number: u8| 40_000 + usize::from(number) * 7919 % 300_000;
    let sending = async {
        for number in 0..COUNT {
            send(&mut client, 1, Lane::Bulk, &vec![number; len(number)]).await;
        }
    };
    let receiving = async {
        let (mut payload, mut seen) = (Vec::new(), [false; COUNT as usize]);
        for _ in 0..COUNT {
            soon(server.recv(&mut payload)).await.unwrap();
            let number = payload[0];
            assert!(payload.iter().all(|byte| *byte == number) && payload.len() == len(number), "{number}");
            assert!(!std::mem::replace(&mut seen[usize::from(number)], true), "{number} arrived twice");
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn another_trust_domain_is_refused() {
    let ours = Domain::new("example.org");
    // This SVID has the same name, but is of another authority.
    for theirs in [Domain::new("example.com"), Domain::new("example.org")] {
        let (mut server, address) = bind(ours.config(1));
        let (mut client, _) = bind(theirs.config(2).peer(node(1), address));
        let (_, reason) = down(&mut client, 1).await;
        assert!(matches!(reason, DownReason::Untrusted { .. }), "{reason:?}");
        let unreachable = client.send(&Transmit { to: node(1), lane: Lane::Bulk, payload: b"" }).await;
        assert_eq!(unreachable, Err(SendError::Unreachable { peer: node(1) }));
        assert!(server.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
        let unknown = server.send(&Transmit { to: node(2), lane: Lane::Bulk, payload: b"" }).await;
        assert_eq!(unknown, Err(SendError::UnknownPeer { peer: node(2) }));
    }
}

/// A federated domain is trusted, and its node 2 is not ours.
#[tokio::test]
async fn a_node_of_a_federated_trust_domain_is_no_node_of_ours() {
    let (ours, theirs) = (Domain::new("example.org"), Domain::new("example.com"));
    let (mut server, address) = bind(ours.config_of(1, &ours.federated(1, &theirs)));
    let (mut client, _) = bind(theirs.config_of(2, &theirs.federated(2, &ours)).peer(node(1), address));
    let (_, reason) = down(&mut client, 1).await;
    assert!(matches!(reason, DownReason::Untrusted { .. }), "{reason:?}");
    assert!(server.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
    // One that does not look at its peer is refused by the server.
    let mut careless = theirs.config_of(3, &theirs.federated(3, &ours)).peer(node(1), address);
    careless.identity = None;
    let (mut careless, _) = bind(careless);
    let (_, reason) = down(&mut careless, 1).await;
    assert!(matches!(&reason, DownReason::Refused { detail } if detail.contains("not a node")), "{reason:?}");
    assert!(server.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// In TLS 1.3 the client is done before the server has looked at its certificate.
#[tokio::test]
async fn a_client_that_the_server_does_not_trust_is_never_up() {
    let ours = Domain::new("example.org");
    let theirs = Domain::new("example.com");
    let (server, address) = bind(ours.config(1));
    let mut config = theirs.config(2).peer(node(1), address);
    // A client that trusts the server, and presents an SVID of its own domain.
    let trusting = ours.identity(3).verifier();
    let mut client_config = (*config.client).clone();
    client_config.dangerous().set_certificate_verifier(trusting);
    config.client = std::sync::Arc::new(client_config);
    let (mut client, _) = bind(config);
    let event = soon(client.event()).await;
    assert!(
        matches!(&event.kind, PeerEventKind::Down { reason: DownReason::Untrusted { .. }, .. }),
        "{event:?}"
    );
    drop(server);
}

#[tokio::test]
async fn another_node_at_the_address_is_named() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(7), address));
    let (_, reason) = down(&mut client, 7).await;
    assert_eq!(reason, DownReason::WrongIdentity { expected: node(7), found: node(1) });
    assert!(server.poll_event(&mut Context::from_waker(Waker::noop())).is_pending());
    // Put right while it runs.
    client.peers().remove_peer(node(7));
    client.peers().set_peer(node(1), address);
    up(&mut client, 1).await;
    send(&mut client, 1, Lane::Ordered(0), b"you").await;
    assert_eq!(receive(&mut server).await.2, b"you");
}

#[tokio::test]
async fn an_unreachable_address_is_reported_once() {
    let domain = Domain::new("example.org");
    let (server, address) = bind(domain.config(1));
    soon(server.close()).await;
    let mut config = domain.config(2).peer(node(1), address);
    config.dial_timeout = Duration::from_millis(50);
    let (mut client, _) = bind(config);
    assert!(offer(&mut client, 1, Lane::Ordered(0), b"lost with the attempt"));
    let (attempt, reason) = down(&mut client, 1).await;
    assert_eq!(reason, DownReason::Unreachable);
    // More attempts fail meanwhile, which is not worth telling again.
    let (mut server, _) = {
        let mut config = domain.config(1);
        config.bind = address;
        bind(config)
    };
    let event = soon(client.event()).await;
    assert!(matches!(event.kind, PeerEventKind::Up { epoch } if epoch > attempt), "{event:?}");
    send(&mut client, 1, Lane::Ordered(0), b"first").await;
    assert_eq!(receive(&mut server).await.2, b"first");
}

#[tokio::test]
async fn a_peer_that_comes_back_at_its_port_is_up_in_a_higher_epoch() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    let mut before = 0;
    for round in 0..4_u8 {
        let epoch = up(&mut client, 1).await;
        assert!(epoch > before);
        before = epoch;
        send(&mut client, 1, Lane::Ordered(0), &[round]).await;
        assert_eq!(receive(&mut server).await.2, [round]);
        soon(server.close()).await;
        assert_eq!(down(&mut client, 1).await, (epoch, DownReason::Closed));
        let refused = client.send(&Transmit { to: node(1), lane: Lane::Bulk, payload: b"" }).await;
        assert_eq!(refused, Err(SendError::Unreachable { peer: node(1) }));
        let mut config = domain.config(1);
        config.bind = address;
        server = bind(config).0;
    }
}

/// A node that stops without a close, and restarts before its peer notices.
#[tokio::test]
async fn a_peer_that_restarts_replaces_its_connection() {
    let domain = Domain::new("example.org");
    for (server_number, client_number) in [(1, 2), (2, 1)] {
        let mut config = domain.config(server_number);
        config.idle_timeout = Duration::from_secs(600);
        let (mut server, address) = bind(config);
        let first = std::thread::spawn({
            let mut config = domain.config(client_number).peer(node(server_number), address);
            config.idle_timeout = Duration::from_secs(600);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = runtime.block_on(async {
                    let (mut client, _) = bind(config);
                    receive(&mut client).await;
                    client
                });
                // Without its runtime it cannot say good-bye.
                drop(runtime);
                drop(client);
            }
        });
        let epoch = up(&mut server, client_number).await;
        send(&mut server, client_number, Lane::Ordered(0), b"vanish").await;
        tokio::task::spawn_blocking(|| first.join()).await.unwrap().unwrap();
        let (mut client, _) = bind(domain.config(client_number).peer(node(server_number), address));
        assert_eq!(down(&mut server, client_number).await, (epoch, DownReason::Replaced));
        assert!(up(&mut server, client_number).await > epoch);
        up(&mut client, server_number).await;
        send(&mut server, client_number, Lane::Ordered(0), b"again").await;
        assert_eq!(receive(&mut client).await.2, b"again");
    }
}

#[tokio::test]
async fn a_silent_peer_times_out() {
    let domain = Domain::new("example.org");
    let mut config = domain.config(1);
    config.idle_timeout = Duration::from_millis(200);
    config.keep_alive = Duration::from_millis(50);
    let (mut server, address) = bind(config);
    let config = domain.config(2).peer(node(1), address);
    let silent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, _) = bind(config);
            receive(&mut client).await;
        });
    });
    let epoch = up(&mut server, 2).await;
    send(&mut server, 2, Lane::Ordered(0), b"be silent").await;
    let ended = down(&mut server, 2).await;
    // Its thread may just have managed to say good-bye.
    assert!(matches!(ended.1, DownReason::TimedOut | DownReason::Closed), "{ended:?}");
    assert_eq!(ended.0, epoch);
    tokio::task::spawn_blocking(|| silent.join()).await.unwrap().unwrap();
}

/// Passes datagrams between clients and a server on, except for the first `lost` of the clients.
async fn relay(server: SocketAddr, mut lost: usize) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut forth, mut back) = ([0; 65536], [0; 65536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut forth) => {
                    client = Some(from);
                    match lost.checked_sub(1) {
                        Some(left) => lost = left,
                        None => drop(far.send_to(&forth[..len], server).await),
                    }
                }
                Ok(len) = far.recv(&mut back) => {
                    drop(near.send_to(&back[..len], client.unwrap()).await);
                }
            }
        }
    });
    address
}

/// A handshake that begins while there is no path loses its first packets. The epoch that follows has lost
/// none.
#[tokio::test]
async fn the_losses_of_a_handshake_are_none_of_its_epoch() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), relay(address, 2).await));
    up(&mut client, 1).await;
    up(&mut server, 2).await;
    for number in 0..10 {
        send(&mut client, 1, Lane::Ordered(0), &[number]).await;
        receive(&mut server).await;
        send(&mut server, 2, Lane::Ordered(0), &[number]).await;
        receive(&mut client).await;
    }
    let link = client.peers().links()[0].up.unwrap();
    assert_eq!(link.lost_packets, 0, "{link:?}");
    assert!(link.sent_packets >= 10 && link.age > Duration::ZERO, "{link:?}");
}

/// With two threads both handshakes are on their way at once in about every third round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_use_one_connection() {
    let domain = Domain::new("example.org");
    for round in 0..60_u64 {
        let (mut low, low_address) = bind(domain.config(1));
        let (mut high, high_address) = bind(domain.config(2));
        if round.is_multiple_of(2) {
            low.peers().set_peer(node(2), high_address);
            high.peers().set_peer(node(1), low_address);
        } else {
            high.peers().set_peer(node(1), low_address);
            low.peers().set_peer(node(2), high_address);
        }
        // The messages travel in the first epoch, and none is lost on a connection that is given up.
        const COUNT: u8 = 50;
        for number in 0..COUNT {
            assert!(offer(&mut low, 2, Lane::Ordered(0), &[number]));
            assert!(offer(&mut high, 1, Lane::Ordered(0), &[number]));
        }
        for number in 0..COUNT {
            assert_eq!(receive(&mut low).await.2, [number]);
            assert_eq!(receive(&mut high).await.2, [number]);
        }
        // Long enough for the other connection to be made and given up: bulk messages there and back.
        for _ in 0..20 {
            send(&mut low, 2, Lane::Bulk, b"there").await;
            receive(&mut high).await;
            send(&mut high, 1, Lane::Bulk, b"back").await;
            receive(&mut low).await;
        }
        for (transport, peer) in [(&mut low, 2), (&mut high, 1)] {
            let first = soon(transport.event()).await;
            assert!(matches!(first.kind, PeerEventKind::Up { .. }) && first.peer == node(peer), "{first:?}");
            let second = transport.poll_event(&mut Context::from_waker(Waker::noop()));
            assert!(second.is_pending(), "round {round}: {second:?}");
        }
    }
}

#[tokio::test]
async fn an_owner_that_does_not_receive_slows_the_sender_down_and_loses_nothing() {
    let domain = Domain::new("example.org");
    let limits = |mut config: x0_mesh::quic::QuicOptions| {
        config.send_queue_len_max = 20_000;
        config.receive_queue_len_max = 20_000;
        config.stream_window = 40_000;
        config
    };
    let (mut server, address) = bind(limits(domain.config(1)));
    let (mut client, _) = bind(limits(domain.config(2)).peer(node(1), address));
    up(&mut client, 1).await;
    for lane in [Lane::Ordered(2), Lane::Bulk] {
        let payload = |number: u64| {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(1000, 3);
            payload
        };
        let mut sent = 0_u64;
        // Without a receiver the sender must come to a stop, within the bounds of the queues and the windows.
        let stopped = tokio::time::timeout(Duration::from_millis(500), async {
            loop {
                send(&mut client, 1, lane, &payload(sent)).await;
                sent += 1;
                assert!(sent < 1000, "{lane}: no back-pressure");
            }
        });
        assert!(stopped.await.is_err());
        assert!(!offer(&mut client, 1, lane, &payload(sent)));
        // A waiting sender is woken once the receiver receives.
        let bytes = payload(sent);
        let transmit = Transmit { to: node(1), lane, payload: &bytes };
        let mut numbers = Vec::new();
        {
            let mut waiting = pin!(client.send(&transmit));
            assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
            let mut receive_all = async || {
                while numbers.len() < usize::try_from(sent + 1).unwrap() {
                    let (_, from, payload) = receive(&mut server).await;
                    assert_eq!(from, lane);
                    numbers.push(u64::from_le_bytes(payload[..8].try_into().unwrap()));
                }
            };
            let (sent, ()) = tokio::join!(soon(waiting), receive_all());
            sent.unwrap();
        }
        if lane == Lane::Bulk {
            numbers.sort_unstable();
        }
        assert!(numbers.into_iter().eq(0..=sent), "{lane}");
    }
}

#[tokio::test]
async fn one_message_over_the_bound_of_a_queue_is_taken_alone() {
    let domain = Domain::new("example.org");
    let mut config = domain.config(1);
    config.receive_queue_len_max = 100;
    let (mut server, address) = bind(config);
    let mut config = domain.config(2).peer(node(1), address);
    config.send_queue_len_max = 100;
    let (mut client, _) = bind(config);
    for lane in [Lane::Ordered(0), Lane::Bulk] {
        for number in 0..5 {
            let payload = vec![number; 300_000];
            let sending = send(&mut client, 1, lane, &payload);
            let (received, ()) = tokio::join!(receive(&mut server), sending);
            assert!(received == (2, lane, payload));
        }
    }
}

#[tokio::test]
async fn messages_that_cannot_be_sent_are_errors() {
    let domain = Domain::new("example.org");
    let (mut client, _) = bind(domain.config(2));
    let mut try_send = |to, lane, payload: &[u8]| {
        let mut cx = Context::from_waker(Waker::noop());
        match client.poll_send(&mut cx, &Transmit { to: node(to), lane, payload }) {
            Poll::Ready(sent) => sent,
            Poll::Pending => panic!("pending"),
        }
    };
    assert_eq!(try_send(2, Lane::Bulk, b""), Err(SendError::ToSelf));
    assert_eq!(try_send(1, Lane::Bulk, b""), Err(SendError::UnknownPeer { peer: node(1) }));
    let lane = Lane::Ordered(8);
    assert_eq!(try_send(1, lane, b""), Err(SendError::NoLane { lane }));
    let too_long = SendError::TooLong { len: 1101, len_max: 1100 };
    assert_eq!(try_send(1, Lane::Datagram, &[0; 1101]), Err(too_long));
}

#[tokio::test]
async fn a_removed_peer_is_unknown() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    let epoch = up(&mut client, 1).await;
    client.peers().remove_peer(node(1));
    assert_eq!(down(&mut client, 1).await, (epoch, DownReason::Local));
    let (_, reason) = down(&mut server, 2).await;
    // A stateless reset behind the good-bye makes quinn forget the reason.
    assert!(matches!(reason, DownReason::Refused { .. } | DownReason::Closed), "{reason:?}");
    let sent = client.send(&Transmit { to: node(1), lane: Lane::Bulk, payload: b"" }).await;
    assert_eq!(sent, Err(SendError::UnknownPeer { peer: node(1) }));
}

#[tokio::test]
async fn a_connection_is_replaced_on_demand_from_either_end() {
    let domain = Domain::new("example.org");
    let (mut server, address) = bind(domain.config(1));
    let (mut client, _) = bind(domain.config(2).peer(node(1), address));
    for round in 0..4 {
        let client_epoch = up(&mut client, 1).await;
        let server_epoch = up(&mut server, 2).await;
        send(&mut client, 1, Lane::Ordered(0), &[round]).await;
        assert_eq!(receive(&mut server).await.2, [round]);
        let (client_reason, server_reason) = if round % 2 == 0 {
            client.peers().reconnect(node(1));
            (DownReason::Local, DownReason::Closed)
        } else {
            server.peers().reconnect(node(2));
            (DownReason::Closed, DownReason::Local)
        };
        assert_eq!(down(&mut client, 1).await, (client_epoch, client_reason));
        assert_eq!(down(&mut server, 2).await, (server_epoch, server_reason));
    }
}

/// Takes a few seconds: certificates count whole ones, and a busy machine must be up within them.
#[tokio::test]
async fn a_connection_ends_with_the_svid_of_the_peer_and_comes_back_with_another() {
    let domain = Domain::new("example.org");
    let (mut one, address) = bind(domain.config(1));
    let identity = domain.identity(2);
    identity.rotate(domain.svid(2, Duration::from_secs(4))).unwrap();
    let (mut two, _) = bind(domain.config_of(2, &identity).peer(node(1), address));
    let epoch = up(&mut one, 2).await;
    up(&mut two, 1).await;

    assert_eq!(down(&mut one, 2).await, (epoch, DownReason::Expired));
    let (_, reason) = down(&mut two, 1).await;
    assert_eq!(reason, DownReason::OwnIdentityExpired);
    // The peer dials again, and is refused again.
    let (_, reason) = down(&mut two, 1).await;
    assert!(matches!(&reason, DownReason::OwnIdentityExpired | DownReason::Untrusted { .. }), "{reason}");

    identity.rotate(domain.svid(2, Duration::from_secs(3600))).unwrap();
    assert!(up(&mut one, 2).await > epoch);
    up(&mut two, 1).await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let domain = Domain::new("example.org");
    let (_server, address) = bind(domain.config(1));
    let mut config = domain.config(2);
    config.bind = address;
    let error = QuicTransport::bind(config).unwrap_err();
    assert!(matches!(error, BindError::AddressInUse { address: used } if used == address), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()));

    let mut config = domain.config(2);
    // TEST-NET-1, RFC 5737.
    config.bind = SocketAddr::from(([192, 0, 2, 1], 0));
    assert!(matches!(QuicTransport::bind(config), Err(BindError::Socket { .. })));
}

#[test]
fn without_a_runtime_nothing_is_bound() {
    let config = Domain::new("example.org").config(1);
    assert!(matches!(QuicTransport::bind(config), Err(BindError::NoRuntime)));
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    type Change = fn(&mut x0_mesh::quic::QuicOptions);
    let changes: [(&str, Change); 7] = [
        ("ordered_lanes", |config| config.ordered_lanes = 17),
        ("bulk_streams", |config| config.bulk_streams = 0),
        ("message_len_max", |config| config.message_len_max = usize::MAX),
        ("datagram_len_max", |config| config.datagram_len_max = 1199),
        ("datagram_len_max", |config| config.datagram_len_max = 6551),
        ("keep_alive", |config| config.keep_alive = config.idle_timeout),
        ("backoff_min", |config| config.backoff_min = Duration::MAX),
    ];
    let domain = Domain::new("example.org");
    for (name, change) in changes {
        let mut config = domain.config(1);
        change(&mut config);
        let error = QuicTransport::bind(config).unwrap_err();
        assert!(matches!(error, BindError::Limit { field, .. } if field == name), "{error:?}");
    }
}

/// A revocation ends the connection that is open, and the peer learns the reason; so does a bundle without
/// the authority of the peer.
#[tokio::test]
async fn a_peer_that_is_not_trusted_any_more_loses_its_connection() {
    use x0_identity::{RevocationView, Revoked, SpiffeId, TrustBundle};

    let domain = Domain::new("revoked.example");
    let (identity_one, identity_two) = (domain.identity(1), domain.identity(2));
    let (mut one, address_one) = bind(domain.config_of(1, &identity_one));
    let (mut two, _) = bind(domain.config_of(2, &identity_two).peer(node(1), address_one));
    up(&mut one, 2).await;
    up(&mut two, 1).await;
    let mut view = RevocationView::new();
    let id = SpiffeId::parse("spiffe://revoked.example/node/0000000000000002").unwrap();
    view.insert(Revoked::SpiffeId(id), std::time::SystemTime::now() + Duration::from_secs(60)).unwrap();
    let begun = std::time::Instant::now();
    identity_one.set_revocations(view);
    let (_, reason) = down(&mut one, 2).await;
    assert!(matches!(&reason, DownReason::Untrusted { detail } if detail.contains("is revoked")), "{reason}");
    let (_, reason) = down(&mut two, 1).await;
    assert!(matches!(&reason, DownReason::Untrusted { detail } if detail.contains("is revoked")), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    identity_one.set_revocations(RevocationView::new());
    up(&mut one, 2).await;
    up(&mut two, 1).await;
    identity_two.set_bundle(TrustBundle::empty(identity_two.spiffe_id().trust_domain().clone())).unwrap();
    let (_, reason) = down(&mut two, 1).await;
    assert!(matches!(&reason, DownReason::Untrusted { .. }), "{reason}");
}
