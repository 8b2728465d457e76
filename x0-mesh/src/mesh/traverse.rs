//! The driver of [`Traversal`]: candidates, messages, timers, and dials.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use x0_identity::NodeId;

use super::hints::{HintDials, Outcome};
use super::node::Shared;
use crate::datagram::{LinkFacts, PortId};
use crate::traversal::{Traversal, TraversalInput, TraversalOutput};

/// Between two looks at the nodes that this node has sent to.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The node's view of itself: what the engine was handed last.
#[derive(Default, PartialEq, Eq)]
struct View {
    own: Vec<SocketAddr>,
    neighbours: BTreeSet<NodeId>,
}

/// Seeks direct paths to nodes that this node sends to over relays, until the mesh is dropped. `addresses`
/// are those of the configuration, and then those of the ports.
pub(super) async fn traverse_always(
    shared: Weak<Shared>,
    mut engine: Traversal,
    mut dials: HintDials,
    addresses: [Vec<SocketAddr>; 2],
) {
    let ports: Vec<PortId> = dials.diallers().iter().map(|dialler| dialler.port).collect();
    let mut view = View::default();
    let mut look_at = Instant::now();
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (changed, wanted, origin) =
            (Arc::clone(&strong.links_changed), Arc::clone(&strong.messages), strong.origin);
        // Before the look at the state: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        let mut wanted = pin!(wanted.notified());
        let now = strong.now();
        let has_relayed = look(&strong, &ports, &addresses, &mut view, &mut engine, &mut look_at);
        while let Some(output) = engine.poll_output() {
            match output {
                TraversalOutput::Send { to, bytes } => strong.lock().send_message(now, to, &bytes),
                TraversalOutput::Dial { address } => dials.dial(address),
            }
        }
        drop(strong);
        let due = engine.poll_timeout().map(|at| origin + at);
        let look = has_relayed.then_some(look_at);
        let mut sleep = pin!(due.into_iter().chain(look).min().map(sleep_until));
        poll_fn(|cx| {
            let is_due = sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready());
            let now = origin.elapsed();
            if is_due {
                engine.handle(now, TraversalInput::Timeout);
            }
            let mut has_inputs = is_due;
            while let Poll::Ready(outcome) = dials.poll_outcome(cx) {
                has_inputs = true;
                let input = match outcome {
                    Outcome::Reached(address) => TraversalInput::Reached { address },
                    Outcome::Ended(address) => TraversalInput::Ended { address },
                };
                engine.handle(now, input);
            }
            has_inputs |= changed.as_mut().poll(cx).is_ready() | wanted.as_mut().poll(cx).is_ready();
            if has_inputs { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Hands in what has changed: whether there are nodes to look at later.
fn look(
    shared: &Shared,
    ports: &[PortId],
    addresses: &[Vec<SocketAddr>; 2],
    view: &mut View,
    engine: &mut Traversal,
    look_at: &mut Instant,
) -> bool {
    let now = shared.now();
    let mut core = shared.lock();
    let links: Vec<LinkFacts> = core.engine.links().filter(|link| ports.contains(&link.port)).collect();
    let next = View { own: own(&links, addresses), neighbours: core.neighbours(ports) };
    if next.own != view.own {
        engine.handle(now, TraversalInput::Addresses { own: &next.own });
    }
    if next.neighbours != view.neighbours {
        let peers: Vec<NodeId> = next.neighbours.iter().copied().collect();
        engine.handle(now, TraversalInput::Neighbours { peers: &peers });
    }
    *view = next;
    core.traversal = Some(engine.stats());
    while let Some((from, bytes)) = core.messages.pop_front() {
        engine.handle(now, TraversalInput::Message { from, bytes: &bytes });
    }
    // The set fills again with the next datagrams: emptied once a second, it costs them little.
    if Instant::now() >= *look_at && !core.relayed.is_empty() {
        *look_at = Instant::now() + LOOK_INTERVAL;
        for peer in std::mem::take(&mut core.relayed) {
            engine.handle(now, TraversalInput::Relayed { peer });
        }
    }
    !core.relayed.is_empty()
}

/// The addresses at which this node may be reachable: those of the configuration, those at which neighbours
/// see it, the most frequent first, and those of its ports.
fn own(links: &[LinkFacts], [configured, local]: &[Vec<SocketAddr>; 2]) -> Vec<SocketAddr> {
    let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for address in links.iter().filter_map(|link| link.seen_as) {
        *seen.entry(address).or_default() += 1;
    }
    let mut seen: Vec<(usize, SocketAddr)> =
        seen.into_iter().map(|(address, count)| (count, address)).collect();
    seen.sort_unstable_by(|one, other| other.cmp(one));
    let mut own = Vec::new();
    let seen = seen.into_iter().map(|(_, address)| address);
    for address in configured.iter().copied().chain(seen).chain(local.iter().copied()) {
        if !own.contains(&address) {
            own.push(address);
        }
    }
    own
}
