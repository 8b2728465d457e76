//! A hundred rotations while connections are made all the time: none fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use common::{MINUTE, connect, domain};
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId};

const ROTATIONS: usize = 100;
/// Handshakes between one rotation and the next.
const HANDSHAKES_EACH: usize = 4;

/// Ends the handshakes with the rotations, also when these panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn no_connection_fails_while_both_sides_rotate() {
    let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let issue = |number| {
        let node = NodeId::new(number).unwrap();
        authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), MINUTE).unwrap()
    };
    let [client, server] = [1, 2].map(|number| Identity::new(issue(number), authority.bundle()).unwrap());
    // Taken once, as a transport does.
    let (client_config, server_config) = (client.client_config(), server.server_config());
    let first = [&client, &server].map(Identity::svid_serial_number);

    let handshakes = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let seen = Mutex::new([HashSet::new(), HashSet::new()]);
    let issued = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    match connect(&client_config, &server_config) {
                        Ok((client, server)) => {
                            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                            // Without a certificate nothing is seen, which is asked about in the end: a panic
                            // here would leave the rotations waiting.
                            seen[0].extend(server.peer_certificates().map(|chain| chain[0].clone()));
                            seen[1].extend(client.peer_certificates().map(|chain| chain[0].clone()));
                        }
                        Err(error) => failures.lock().unwrap_or_else(PoisonError::into_inner).push(error),
                    }
                    handshakes.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        scope.spawn(|| {
            let _end = SetAtEnd(&over);
            // Paced by the handshakes, not by a clock, and from now on: they may have run ahead while an SVID
            // was issued.
            let wait = || {
                let begun = handshakes.load(Ordering::Acquire);
                while handshakes.load(Ordering::Acquire) < begun + HANDSHAKES_EACH {
                    thread::yield_now();
                }
            };
            for rotation in 1..=ROTATIONS {
                wait();
                let (identity, number) = if rotation % 2 == 0 { (&client, 1) } else { (&server, 2) };
                let svid = issue(number);
                issued.lock().unwrap_or_else(PoisonError::into_inner).push(svid.chain()[0].clone());
                identity.rotate(svid).unwrap();
            }
            wait();
        });
    });

    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(handshakes.load(Ordering::Acquire) > ROTATIONS * HANDSHAKES_EACH);
    let [seen_of_client, seen_of_server] = seen.into_inner().unwrap();
    let issued = issued.into_inner().unwrap();
    assert_eq!(issued.len(), ROTATIONS);
    // The first SVIDs and the last were presented, and most of those between: of four handshakes at most two
    // had begun before.
    assert!(seen_of_client.contains(&issued[ROTATIONS - 1]), "the client's last SVID was never presented");
    assert!(seen_of_server.contains(&issued[ROTATIONS - 2]), "the server's last SVID was never presented");
    for (seen, first) in [(&seen_of_client, &first[0]), (&seen_of_server, &first[1])] {
        assert!(
            seen.iter().any(|leaf| !issued.contains(leaf)),
            "the first SVID was never presented: {first:?}"
        );
        assert!(seen.len() > ROTATIONS / 4, "only {} SVIDs were presented", seen.len());
    }
}
