//! Making connections, from both ends.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Incoming;
use tokio::time::{sleep, timeout};
use x0_identity::NodeId;

use super::close::{Failure, close_for, code, dial_failure, wrong_identity};
use super::connection::{Established, establish, identity};
use super::jitter::Jitter;
use super::race::{Winner, race};
use super::shared::Shared;
use crate::{DownReason, RecvError};

/// Dials a peer whenever it is not connected, for ever.
pub(super) async fn dial_always(shared: Arc<Shared>, peer: NodeId, address: SocketAddr) {
    let mut jitter = Jitter::new(shared.config.seed ^ peer.get().rotate_left(17));
    let mut pause = shared.config.backoff_min;
    loop {
        if let Winner::First(attempt) = race(dial(&shared, peer, address), shared.linked(peer, true)).await {
            match attempt {
                Ok(established) => {
                    shared.runtime.spawn(established.run(Arc::clone(&shared), peer));
                }
                Err(failure) => {
                    if let Failure::Told(reason) = failure {
                        shared.change(|state, wakers| state.fail(peer, reason, wakers));
                    }
                    // The peer may be the one that gets through.
                    race(sleep(jitter.spread(pause)), shared.linked(peer, true)).await;
                    pause = (pause * 2).min(shared.config.backoff_max);
                    continue;
                }
            }
        }
        pause = shared.config.backoff_min;
        shared.linked(peer, false).await;
        // Both ends have noticed, or are about to: not everybody at once.
        race(sleep(jitter.spread(pause)), shared.linked(peer, true)).await;
    }
}

async fn dial(shared: &Shared, peer: NodeId, address: SocketAddr) -> Result<Established, Failure> {
    // The name is neither sent nor verified.
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), address, "x0-mesh")
        .map_err(|error| Failure::Told(DownReason::Failed { detail: error.to_string().into() }))?;
    let connection = timeout(shared.config.dial_timeout, connecting)
        .await
        .map_err(|_| Failure::Told(DownReason::Unreachable))?
        .map_err(|error| dial_failure(&error))?;
    let found = identity(&connection).map_err(|reason| {
        close_for(&connection, &reason);
        Failure::Told(reason)
    })?;
    if found != peer {
        let reason = wrong_identity(peer, found);
        close_for(&connection, &reason);
        return Err(Failure::Told(reason));
    }
    establish(shared, connection, peer).await
}

/// Accepts who dials, until the endpoint ends.
pub(super) async fn accept_always(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&shared.incoming).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        // RFC 9000 §8.1: under load, first see whether the address is the sender's.
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
    let detail = "the socket, or the runtime that drives it, is gone".into();
    shared.change(|state, wakers| state.finish(RecvError::Failed { detail }, wakers));
}

async fn accept(shared: Arc<Shared>, incoming: Incoming) {
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(Ok(connection)) = timeout(shared.config.dial_timeout, connecting).await else { return };
    let peer = match identity(&connection) {
        Ok(peer) => peer,
        Err(reason) => {
            connection.close(code::IDENTITY, reason.to_string().as_bytes());
            return;
        }
    };
    if peer == shared.config.local {
        connection.close(code::IDENTITY, b"that is who we are");
        return;
    }
    match establish(&shared, connection, peer).await {
        Ok(established) => established.run(Arc::clone(&shared), peer).await,
        // Who dialled hears why; here only what a peer must never do is worth telling, and a peer that is being dialled is
        // not given up for it.
        Err(Failure::Told(reason @ DownReason::Malformed { .. })) => {
            shared.change(|state, wakers| {
                if !state.peer(peer).is_reaching {
                    state.fail(peer, reason, wakers);
                }
                state.forget(peer);
            });
        }
        Err(_) => {}
    }
}
