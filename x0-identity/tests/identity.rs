//! The peers that an `Identity` accepts, the rotations that it follows, and that no session is resumed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{MINUTE, Recipe, connect, domain, presenting, root, seconds_since_1970};
use pki_types::ServerName;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::ServerSessionMemoryCache;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
use x0_identity::{
    Authority, AuthorityOptions, Identity, IdentityError, KeyError, NodeId, PathError, PeerError,
    RotateError, SetBundleError, SpiffeId, TrustBundle, VerifyError, X509Svid, peer_node_id, peer_spiffe_id,
};

fn authority(name: &str) -> Authority {
    Authority::new(domain(name), &AuthorityOptions::default()).unwrap()
}

fn node_id(number: u64) -> SpiffeId {
    SpiffeId::for_node(&domain("example.org"), NodeId::new(number).unwrap())
}

fn node(authority: &Authority, number: u64) -> Identity {
    Identity::new(authority.issue(&node_id(number), MINUTE).unwrap(), authority.bundle()).unwrap()
}

fn empty() -> TrustBundle {
    TrustBundle::new(domain("example.org"), Vec::new()).unwrap()
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    let (client, server) = connect(&one.client_config(), &two.server_config()).unwrap();
    assert_eq!(peer_node_id(client.peer_certificates().unwrap()), Ok(NodeId::new(2).unwrap()));
    assert_eq!(peer_node_id(server.peer_certificates().unwrap()), Ok(NodeId::new(1).unwrap()));
    assert_eq!(peer_spiffe_id(server.peer_certificates().unwrap()), Ok(node_id(1)));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // The name that was dialled is not sent.
    assert_eq!(server.server_name(), None);
}

#[test]
fn ids_that_name_no_node_are_recognised() {
    let authority = authority("example.org");
    let id = SpiffeId::parse("spiffe://example.org/operator").unwrap();
    let svid = authority.issue(&id, MINUTE).unwrap();
    assert_eq!(peer_node_id(svid.chain()), Err(PeerError::NotANode { spiffe_id: id }));
    assert_eq!(peer_node_id(&[]), Err(PeerError::NoCertificate));
    assert_eq!(svid.node_id(), None);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let node = node(&authority("example.org"), 1);
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(node.verifier())
        .with_no_client_auth();
    let error = connect(&Arc::new(client), &node.server_config()).unwrap_err();
    assert_eq!(error, rustls::Error::NoCertificatesPresented);
}

#[test]
fn a_peer_of_tls_1_2_is_refused() {
    let authority = authority("example.org");
    let node = node(&authority, 1);
    let svid = authority.issue(&node_id(2), MINUTE).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(node.verifier())
        .with_client_cert_resolver(presenting(svid.chain().to_vec(), svid.key()));
    let error = connect(&Arc::new(client), &node.server_config()).unwrap_err();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");
}

#[test]
fn the_provider_of_the_process_is_neither_used_nor_set() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    connect(&one.client_config(), &two.server_config()).unwrap();
    assert!(CryptoProvider::get_default().is_none());
}

#[test]
fn the_configurations_are_built_once() {
    let authority = authority("example.org");
    let node = node(&authority, 1);
    let (server, client) = (node.server_config(), node.client_config());
    node.rotate(authority.issue(&node_id(1), MINUTE).unwrap()).unwrap();
    node.set_bundle(authority.bundle()).unwrap();
    assert!(Arc::ptr_eq(&server, &node.server_config()));
    assert!(Arc::ptr_eq(&client, &node.client_config()));
}

#[test]
fn a_rotated_svid_is_presented_at_once() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    let (client_config, server_config) = (one.client_config(), two.server_config());
    let (client, server) = connect(&client_config, &server_config).unwrap();
    let before =
        [client.peer_certificates().unwrap()[0].clone(), server.peer_certificates().unwrap()[0].clone()];

    let (next_one, next_two) =
        (authority.issue(&node_id(1), 2 * MINUTE).unwrap(), authority.issue(&node_id(2), MINUTE).unwrap());
    one.rotate(next_one.clone()).unwrap();
    two.rotate(next_two.clone()).unwrap();
    let (client, server) = connect(&client_config, &server_config).unwrap();
    assert_eq!(client.peer_certificates().unwrap(), next_two.chain());
    assert_eq!(server.peer_certificates().unwrap(), next_one.chain());
    assert!(!before.contains(&next_one.chain()[0]) && !before.contains(&next_two.chain()[0]));
    assert_eq!(one.svid_serial_number(), next_one.serial_number());
    assert_eq!(one.svid_expires(), next_one.not_after());
}

/// A handshake that began before a rotation ends with the SVID it began with, and stands.
#[test]
fn a_rotation_in_the_middle_of_a_handshake_disturbs_nothing() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    let name = ServerName::try_from("nobody.invalid").unwrap();
    let mut client = ClientConnection::new(one.client_config(), name).unwrap();
    let mut server = ServerConnection::new(two.server_config()).unwrap();
    // The first flight each way by hand, a rotation behind each.
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    for (identity, number) in [(&one, 1), (&two, 2)] {
        identity.rotate(authority.issue(&node_id(number), MINUTE).unwrap()).unwrap();
    }
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets().unwrap();
    for (identity, number) in [(&one, 1), (&two, 2)] {
        identity.rotate(authority.issue(&node_id(number), MINUTE).unwrap()).unwrap();
    }
    common::handshake(&mut client, &mut server).unwrap();
}

/// Every node receives the new root before it is used, and drops the old one after every SVID was rotated: no
/// gap.
#[test]
fn the_root_changes_without_a_gap() {
    let (old, new) = (authority("example.org"), authority("example.org"));
    let nodes = [node(&old, 1), node(&old, 2), node(&old, 3)];
    let all_connect = |stage: &str| {
        for client in &nodes {
            for server in &nodes {
                connect(&client.client_config(), &server.server_config())
                    .unwrap_or_else(|error| panic!("{stage}: {error}"));
            }
        }
    };
    let mut both = old.bundle();
    both.extend(&new.bundle()).unwrap();
    for node in &nodes {
        node.set_bundle(both.clone()).unwrap();
        all_connect("both roots handed out");
    }
    for (node, number) in nodes.iter().zip(1..) {
        node.rotate(new.issue(&node_id(number), MINUTE).unwrap()).unwrap();
        all_connect("SVIDs rotated");
    }
    for node in &nodes {
        node.set_bundle(new.bundle()).unwrap();
        all_connect("old root taken out");
    }
    // A node that missed the rotation is refused.
    let late = node(&old, 4);
    late.set_bundle(both).unwrap();
    connect(&late.client_config(), &nodes[0].server_config()).unwrap_err();
    connect(&nodes[0].client_config(), &late.server_config()).unwrap_err();
}

/// The same client twice, its memory of sessions kept; how did the second handshake go?
fn second_handshake(client: &Arc<ClientConfig>, server: &Arc<rustls::ServerConfig>) -> Option<HandshakeKind> {
    connect(client, server).unwrap();
    let (client, server) = connect(client, server).unwrap();
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    client.handshake_kind()
}

#[test]
fn no_session_is_resumed() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    assert_eq!(second_handshake(&one.client_config(), &two.server_config()), Some(HandshakeKind::Full));

    // Not with a client that would like to, either: the server gives nothing to resume with.
    let mut eager_client = ClientConfig::clone(&one.client_config());
    eager_client.resumption = Resumption::in_memory_sessions(8);
    let eager_client = Arc::new(eager_client);
    assert_eq!(second_handshake(&eager_client, &two.server_config()), Some(HandshakeKind::Full));

    // Not with a server that would: the client remembers nothing.
    let mut eager_server = rustls::ServerConfig::clone(&two.server_config());
    eager_server.session_storage = ServerSessionMemoryCache::new(8);
    eager_server.send_tls13_tickets = 2;
    let eager_server = Arc::new(eager_server);
    assert_eq!(second_handshake(&one.client_config(), &eager_server), Some(HandshakeKind::Full));

    // Each of the server's bars holds alone: no tickets though it remembers, no memory though it may send
    // tickets.
    let mut remembering = rustls::ServerConfig::clone(&two.server_config());
    remembering.session_storage = ServerSessionMemoryCache::new(8);
    let mut sending = rustls::ServerConfig::clone(&two.server_config());
    sending.send_tls13_tickets = 2;
    for server in [remembering, sending] {
        assert_eq!(second_handshake(&eager_client, &Arc::new(server)), Some(HandshakeKind::Full));
    }

    // This crate prevents resumption: two peers that permit it do resume, and so get in after their authority
    // was revoked.
    assert_eq!(second_handshake(&eager_client, &eager_server), Some(HandshakeKind::Resumed));
    two.set_bundle(empty()).unwrap();
    connect(&eager_client, &eager_server).unwrap();
}

#[test]
fn a_revoked_authority_is_out_with_the_next_handshake() {
    let authority = authority("example.org");
    let (one, two) = (node(&authority, 1), node(&authority, 2));
    let mut eager = ClientConfig::clone(&one.client_config());
    eager.resumption = Resumption::in_memory_sessions(8);
    let eager = Arc::new(eager);
    connect(&eager, &two.server_config()).unwrap();
    two.set_bundle(empty()).unwrap();
    let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(connect(&eager, &two.server_config()).unwrap_err(), unknown);
    // As a client it refuses as well.
    assert_eq!(connect(&two.client_config(), &one.server_config()).unwrap_err(), unknown);
    two.set_bundle(authority.bundle()).unwrap();
    connect(&eager, &two.server_config()).unwrap();
}

#[test]
fn a_failed_rotation_leaves_the_held_svid() {
    let authority = authority("example.org");
    let node = node(&authority, 1);
    let serial_number = node.svid_serial_number();

    let other = authority.issue(&node_id(2), MINUTE).unwrap();
    assert_eq!(
        node.rotate(other.clone()),
        Err(RotateError::SpiffeId { held: node_id(1), offered: node_id(2) })
    );
    let next = authority.issue(&node_id(1), MINUTE).unwrap();
    let with_key_of_other = X509Svid::from_der(next.chain().to_vec(), other.key().clone_key()).unwrap();
    assert_eq!(node.rotate(with_key_of_other), Err(RotateError::Key(KeyError::Mismatch)));
    let damaged_key = pki_types::PrivateKeyDer::Pkcs8(vec![0x30, 0].into());
    let damaged_key = X509Svid::from_der(next.chain().to_vec(), damaged_key).unwrap();
    assert_eq!(node.rotate(damaged_key), Err(RotateError::Key(KeyError::Unsupported)));
    let stranger = self::authority("example.org").issue(&node_id(1), MINUTE).unwrap();
    assert!(matches!(node.rotate(stranger), Err(RotateError::Untrusted(VerifyError::Path(_)))));
    let root = root();
    let past = Recipe::leaf(&node_id(1).to_string()).with(|leaf| leaf.valid = (-200, -100)).signed_by(&root);
    node.set_bundle(root.bundle()).unwrap();
    assert!(matches!(
        node.rotate(past.svid(&[])),
        Err(RotateError::Untrusted(VerifyError::Path(PathError::Expired { .. })))
    ));
    assert_eq!(node.svid_serial_number(), serial_number);
}

#[test]
fn certificates_that_are_no_identity() {
    let authority = authority("example.org");
    let svid = authority.issue(&node_id(1), MINUTE).unwrap();
    assert!(matches!(
        Identity::new(svid.clone(), self::authority("example.org").bundle()),
        Err(IdentityError::Untrusted(VerifyError::Path(_)))
    ));
    assert!(matches!(
        Identity::new(svid.clone(), self::authority("example.com").bundle()),
        Err(IdentityError::Untrusted(VerifyError::TrustDomain { .. }))
    ));
    let key = authority.issue(&node_id(1), MINUTE).unwrap().key().clone_key();
    let mixed = X509Svid::from_der(svid.chain().to_vec(), key).unwrap();
    assert_eq!(Identity::new(mixed, authority.bundle()).unwrap_err(), IdentityError::Key(KeyError::Mismatch));
}

#[test]
fn a_bundle_of_another_domain_is_not_taken() {
    let authority = authority("example.org");
    let node = node(&authority, 1);
    assert_eq!(
        node.set_bundle(self::authority("example.com").bundle()),
        Err(SetBundleError::TrustDomain { identity: domain("example.org"), bundle: domain("example.com") })
    );
    assert_eq!(node.trust_bundle(), authority.bundle());
}

#[test]
fn an_identity_shows_no_key() {
    let authority = authority("example.org");
    let svid = authority.issue(&node_id(1), MINUTE).unwrap();
    let key = format!("{:?}", svid.key().secret_der());
    let node = Identity::new(svid.clone(), authority.bundle()).unwrap();
    for shown in [
        format!("{svid:?}"),
        format!("{node:?}"),
        format!("{authority:?}"),
        format!("{:?}", node.server_config()),
    ] {
        assert!(!shown.contains(&key[1..40]), "{shown}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
    assert!(seconds_since_1970(node.svid_expires()) > 0);
    assert_eq!(node.node_id(), NodeId::new(1));
    assert!(node.svid_expires() <= authority.not_after() + Duration::ZERO);
}
