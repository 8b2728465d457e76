//! Connections are made: by dialling, and by accepting.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Incoming;
use tokio::time::{sleep, timeout};
use x0_identity::NodeId;

use super::close::{Failure, close_for, code, dial_failure, wrong_identity};
use super::connection::{Established, Remote, establish, identity};
use super::jitter::Jitter;
use super::race::{Winner, race};
use super::shared::Shared;
use crate::{DownReason, RecvError, trace};

/// Dials a peer whenever it is not connected, until the task is aborted.
pub(super) async fn dial_always(shared: Arc<Shared>, peer: NodeId, address: SocketAddr) {
    let mut jitter = Jitter::new(shared.config.seed ^ peer.get().rotate_left(17));
    let mut pause = shared.config.backoff_min;
    loop {
        // Whichever comes first: this attempt, or a connection that the peer made.
        let dial = trace::dial(peer, address, dial(&shared, peer, address), |failure| match failure {
            Failure::Reported(reason) => Some(reason.to_string()),
            Failure::Quiet => None,
        });
        if let Winner::First(attempt) = race(dial, shared.linked(peer, true)).await {
            match attempt {
                Ok((established, _)) => {
                    // In a task of its own: this one may be aborted by a new address, and the connection is
                    // kept then.
                    shared.runtime.spawn(established.run(Arc::clone(&shared), peer));
                }
                Err(failure) => {
                    if let Failure::Reported(reason) = failure {
                        shared.change(|state, wakers| state.fail(peer, reason, wakers));
                    }
                    // The peer may get through first: then there is nothing left to dial.
                    let linked = shared.linked(peer, true);
                    let retry = shared.retry(peer);
                    let is_over = race(race(retry.notified(), sleep(jitter.spread(pause))), linked).await;
                    pause = (pause * 2).min(shared.config.backoff_max);
                    if matches!(is_over, Winner::First(Winner::First(()))) {
                        // Whatever made the attempts fail is over.
                        pause = shared.config.backoff_min;
                    }
                    continue;
                }
            }
        }
        // Connected, by either side: the next loss begins with short pauses again.
        pause = shared.config.backoff_min;
        shared.linked(peer, false).await;
        // Both ends notice the loss at about the same time. Jitter keeps them, and the other nodes, from
        // dialling at once.
        race(sleep(jitter.spread(pause)), shared.linked(peer, true)).await;
    }
}

async fn dial(shared: &Shared, peer: NodeId, address: SocketAddr) -> Result<(Established, NodeId), Failure> {
    // The identity is the SVID's, so the server name (RFC 6066 §3) is neither sent nor verified.
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), address, "x0-mesh")
        .map_err(|error| Failure::Reported(DownReason::Failed { detail: error.to_string().into() }))?;
    let connection = timeout(shared.config.dial_timeout, connecting)
        .await
        .map_err(|_| Failure::Reported(DownReason::Unreachable))?
        .map_err(|error| dial_failure(&error))?;
    // TLS has verified that the peer is trusted, not that it is the one that was meant.
    let reason = match identity(&connection, &shared.config, false) {
        Ok(remote @ Remote::Node(found)) if found == peer => {
            return establish(shared, connection, &remote).await;
        }
        Ok(Remote::Node(found)) => wrong_identity(peer, found),
        Ok(Remote::Guest(spiffe_id)) => {
            DownReason::Untrusted { detail: format!("{spiffe_id} is not a node").into() }
        }
        Err(reason) => reason,
    };
    close_for(&connection, &reason);
    Err(Failure::Reported(reason))
}

/// Accepts peers that dial, until the endpoint ends.
pub(super) async fn accept_always(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&shared.incoming).try_acquire_owned() else {
            // CONNECTION_REFUSED (RFC 9000 §20.1): the peer need not wait for its timeout.
            incoming.refuse();
            continue;
        };
        // RFC 9000 §8.1.2: under load a Retry makes sure that the address is the sender's, before a handshake
        // costs anything.
        let is_loaded = shared.incoming.available_permits() < shared.config.incoming_max / 2;
        if is_loaded && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let accepting = Arc::clone(&shared);
        shared.runtime.spawn(async move {
            accept(accepting, incoming).await;
            drop(permit);
        });
    }
    let detail = "its socket, or the runtime that drives it, is gone".into();
    shared.change(|state, wakers| state.finish(RecvError::Failed { detail }, wakers));
}

async fn accept(shared: Arc<Shared>, incoming: Incoming) {
    let Ok(connecting) = incoming.accept() else { return };
    // A peer that stops in the middle of the handshake gives its permit back.
    let connection = match timeout(shared.config.dial_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return failed(&shared, &dial_failure(&error)),
        Err(_) => return failed(&shared, &Failure::Reported(DownReason::TimedOut)),
    };
    let remote = match identity(&connection, &shared.config, shared.config.guests) {
        Ok(remote) => remote,
        Err(reason) => {
            connection.close(code::IDENTITY, reason.to_string().as_bytes());
            return failed(&shared, &Failure::Reported(reason));
        }
    };
    // Its own address in its own list, or a copied identity.
    if matches!(remote, Remote::Node(peer) if peer == shared.config.local) {
        connection.close(code::IDENTITY, b"the SVID names the node that was dialled");
        return;
    }
    match (establish(&shared, connection, &remote).await, remote) {
        (Ok((established, peer)), _) => established.run(Arc::clone(&shared), peer).await,
        // The peer that dialled gets the reason. Here only a violation becomes an event, and an attempt of
        // this node to reach the peer goes on.
        (Err(Failure::Reported(reason @ DownReason::Malformed { .. })), Remote::Node(peer)) => {
            shared.change(|state, wakers| {
                if state.peer(peer).is_reaching {
                    state.telemetry.handshake_failed(&reason);
                } else {
                    state.fail(peer, reason, wakers);
                }
                state.forget(peer);
            });
        }
        (Err(failure), _) => failed(&shared, &failure),
    }
}

/// Counts an accepted connection that failed in its handshake.
fn failed(shared: &Shared, failure: &Failure) {
    if let Failure::Reported(reason) = failure {
        shared.lock().telemetry.handshake_failed(reason);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use x0_identity::{Authority, AuthorityOptions, Identity, SpiffeId, TrustDomain};

    use super::*;
    use crate::quic::{QuicOptions, QuicTransport};

    /// Generous: only a test that fails waits for it.
    const LIMIT: Duration = Duration::from_secs(30);

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn bind(authority: &Authority, number: u64) -> QuicTransport {
        let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node(number));
        let svid = authority.issue(&spiffe_id, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(svid, authority.bundle()).unwrap();
        let (server, client) = (identity.server_config(), identity.client_config());
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        QuicTransport::bind(QuicOptions::new(node(number), address, server, client)).unwrap()
    }

    fn epoch(of: &QuicTransport, peer: u64) -> Option<u64> {
        let state = of.shared.lock();
        state.peers.get(&node(peer))?.link.as_ref().map(|link| link.epoch)
    }

    /// The node that does not decide dials, and the connection that its peer made comes up before it sends
    /// its handshake: the handshake would name that connection, and the peer would replace it.
    #[tokio::test]
    async fn a_dial_that_comes_too_late_replaces_no_connection() {
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        let authority = Authority::new(trust_domain, &AuthorityOptions::default()).unwrap();
        let (low, high) = (bind(&authority, 1), bind(&authority, 2));
        low.peers().set_peer(node(2), high.local_addr().unwrap());
        let both_are_up = async {
            while epoch(&low, 2).is_none() || epoch(&high, 1).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, both_are_up).await.unwrap();
        let before = (epoch(&low, 2), epoch(&high, 1));
        let late = timeout(LIMIT, dial(&high.shared, node(1), low.local_addr().unwrap())).await.unwrap();
        assert!(matches!(late, Err(Failure::Quiet)));
        // What the node has sent before it closes arrives before the close.
        let is_closed = async {
            while low.shared.endpoint.open_connections() > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, is_closed).await.unwrap();
        assert_eq!((epoch(&low, 2), epoch(&high, 1)), before);
    }
}
