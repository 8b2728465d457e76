//! Ends of epochs to nodes without a route.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use x0_identity::NodeId;

use super::address::node_at;
use super::node::Shared;
use crate::quic::{PeerBook, race};

/// Between two looks at whether the transport still exists, while all nodes have a route.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Ends the epochs of a transport to nodes that had no route for so long, until the mesh or the transport is
/// dropped.
pub(super) async fn end_always(shared: Weak<Shared>, peers: PeerBook, after: Duration) {
    // Since when there is no route.
    let mut missing: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let Some(strong) = shared.upgrade().filter(|_| !peers.is_over()) else { return };
        let changed = Arc::clone(&strong.changed);
        // Before the look at the routes: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        changed.as_mut().enable();
        let now = Instant::now();
        let connected = peers.connected(|address| node_at(address).is_some());
        let lost: Vec<NodeId> = {
            let core = strong.lock();
            connected.into_iter().filter(|peer| core.engine.mtu(*peer).is_none()).collect()
        };
        drop(strong);
        missing.retain(|peer, _| lost.contains(peer));
        for peer in lost {
            let since = *missing.entry(peer).or_insert(now);
            if now >= since + after {
                missing.remove(&peer);
                peers.lose(peer);
            }
        }
        match missing.values().min() {
            Some(since) => {
                race(changed, sleep_until(*since + after)).await;
            }
            None => {
                race(changed, sleep(LOOK_INTERVAL)).await;
            }
        }
    }
}
