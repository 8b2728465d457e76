//! The driver of [`Discovery`]: sockets, timers, and dials of hints.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use x0_identity::NodeId;

use super::handshake::Dialler;
use crate::discovery::{Discovery, DiscoveryInput, DiscoveryOutput, Multicast};
use crate::liveness::LivenessState;

/// Datagrams that one round takes, so that dials and timers have their turns.
const DATAGRAMS_PER_ROUND: usize = 32;

/// What has become of a dial. Few are waiting: dials are bounded by the engine, and those that were reached
/// by the number of links.
type Outcome = (SocketAddr, bool);

struct Driver {
    engine: Discovery,
    groups: Multicast,
    dialler: Dialler,
    dials: JoinSet<()>,
    outcomes: UnboundedReceiver<Outcome>,
    sender: UnboundedSender<Outcome>,
    datagram: Vec<u8>,
    neighbours: BTreeSet<NodeId>,
}

/// Announces the link of a port, and dials the hints on its segments, until the mesh is dropped.
pub(super) async fn discover_always(engine: Discovery, groups: Multicast, dialler: Dialler) {
    let (sender, outcomes) = unbounded_channel();
    let mut driver = Driver {
        engine,
        groups,
        dialler,
        dials: JoinSet::new(),
        outcomes,
        sender,
        datagram: Vec::new(),
        neighbours: BTreeSet::new(),
    };
    loop {
        let Some(shared) = driver.dialler.shared.upgrade() else { return };
        let (changed, origin) = (Arc::clone(&shared.links_changed), shared.origin);
        // Before the look at the links: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        driver.look(&shared);
        driver.drain();
        drop(shared);
        let at = driver.engine.poll_timeout().map(|at| tokio::time::Instant::from(origin + at));
        let mut sleep = pin!(at.map(sleep_until));
        poll_fn(|cx| {
            let is_due = sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready());
            let is_over = changed.as_mut().poll(cx).is_ready();
            let now = origin.elapsed();
            if is_due {
                driver.engine.handle(now, DiscoveryInput::Timeout);
            }
            let has_inputs = driver.receive(now, cx);
            if is_due || is_over || has_inputs { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Driver {
    /// Reports the neighbours on the port if they have changed.
    fn look(&mut self, shared: &super::node::Shared) {
        let port = self.dialler.port;
        let neighbours: BTreeSet<NodeId> = shared
            .lock()
            .engine
            .links()
            .filter(|link| link.port == port && link.state != LivenessState::Down)
            .map(|link| link.peer)
            .collect();
        if neighbours != self.neighbours {
            let peers: Vec<NodeId> = neighbours.iter().copied().collect();
            self.engine.handle(shared.now(), DiscoveryInput::Neighbours { peers: &peers });
            self.neighbours = neighbours;
        }
    }

    fn drain(&mut self) {
        while self.dials.try_join_next().is_some() {}
        while let Some(output) = self.engine.poll_output() {
            match output {
                DiscoveryOutput::Announce { bytes } => self.groups.announce(&bytes),
                DiscoveryOutput::Dial { address } => {
                    let (dialler, sender) = (self.dialler.clone(), self.sender.clone());
                    self.dials.spawn(async move {
                        // Without a receiver the mesh has ended.
                        let reached = || {
                            let _ = sender.send((address, true));
                        };
                        dialler.dial_hint(address, reached).await;
                        let _ = sender.send((address, false));
                    });
                }
            }
        }
    }

    /// Hands in datagrams and outcomes: whether there were any.
    fn receive(&mut self, now: std::time::Duration, cx: &mut Context<'_>) -> bool {
        let mut has_inputs = false;
        for _ in 0..DATAGRAMS_PER_ROUND {
            let Poll::Ready(from) = self.groups.poll_recv(cx, &mut self.datagram) else { break };
            has_inputs = true;
            self.engine.handle(now, DiscoveryInput::Received { from, bytes: &self.datagram });
        }
        while let Poll::Ready(Some((address, is_reached))) = self.outcomes.poll_recv(cx) {
            has_inputs = true;
            let input = if is_reached {
                DiscoveryInput::Reached { address }
            } else {
                DiscoveryInput::Ended { address }
            };
            self.engine.handle(now, input);
        }
        has_inputs
    }
}
