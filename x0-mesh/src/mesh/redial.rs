//! Dials of a transport as soon as there is a route.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use x0_identity::NodeId;

use super::address::node_at;
use super::node::Shared;
use crate::quic::{PeerBook, race};

/// Between two looks at whether the transport still exists, and at its peers, while no route changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Lets a transport dial each peer without a connection when a route to it appears, until the mesh or the
/// transport is dropped.
pub(super) async fn redial_always(shared: Weak<Shared>, peers: PeerBook) {
    let mut routed: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let Some(strong) = shared.upgrade().filter(|_| !peers.is_over()) else { return };
        let changed = Arc::clone(&strong.changed);
        // Before the look at the routes: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        changed.as_mut().enable();
        let dialled = peers.dialled(|address| node_at(address).is_some());
        let now: BTreeSet<NodeId> = {
            let core = strong.lock();
            dialled.into_iter().filter(|peer| core.engine.mtu(*peer).is_some()).collect()
        };
        drop(strong);
        for peer in now.difference(&routed) {
            peers.dial_now(*peer);
        }
        routed = now;
        race(changed, sleep(LOOK_INTERVAL)).await;
    }
}
