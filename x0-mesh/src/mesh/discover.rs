//! The driver of [`Discovery`]: sockets, timers, and dials of hints.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep_until;
use x0_identity::NodeId;

use super::handshake::Dialler;
use super::hints::{HintDials, Outcome};
use super::node::Shared;
use crate::datagram::PortId;
use crate::discovery::{Discovery, DiscoveryInput, DiscoveryOutput, Multicast};

/// Datagrams that one round takes, so that dials and timers have their turns.
const DATAGRAMS_PER_ROUND: usize = 32;

struct Driver {
    engine: Discovery,
    groups: Multicast,
    port: PortId,
    dials: HintDials,
    datagram: Vec<u8>,
    neighbours: BTreeSet<NodeId>,
}

/// Announces the link of a port, and dials the hints on its segments, until the mesh is dropped.
pub(super) async fn discover_always(engine: Discovery, groups: Multicast, dialler: Dialler) {
    let shared: Weak<Shared> = Weak::clone(&dialler.shared);
    let port = dialler.port;
    let dials = HintDials::new(vec![dialler]);
    let mut driver =
        Driver { engine, groups, port, dials, datagram: Vec::new(), neighbours: BTreeSet::new() };
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (changed, origin) = (Arc::clone(&strong.links_changed), strong.origin);
        // Before the look at the links: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        driver.look(&strong);
        driver.drain();
        drop(strong);
        let at = driver.engine.poll_timeout().map(|at| origin + at);
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
    fn look(&mut self, shared: &Shared) {
        let neighbours = shared.lock().neighbours(&[self.port]);
        if neighbours != self.neighbours {
            let peers: Vec<NodeId> = neighbours.iter().copied().collect();
            self.engine.handle(shared.now(), DiscoveryInput::Neighbours { peers: &peers });
            self.neighbours = neighbours;
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                DiscoveryOutput::Announce { bytes } => self.groups.announce(&bytes),
                DiscoveryOutput::Dial { address } => self.dials.dial(address),
            }
        }
    }

    /// Hands in datagrams and outcomes: whether there were any.
    fn receive(&mut self, now: Duration, cx: &mut Context<'_>) -> bool {
        let mut has_inputs = false;
        for _ in 0..DATAGRAMS_PER_ROUND {
            let Poll::Ready(from) = self.groups.poll_recv(cx, &mut self.datagram) else { break };
            has_inputs = true;
            self.engine.handle(now, DiscoveryInput::Received { from, bytes: &self.datagram });
        }
        while let Poll::Ready(outcome) = self.dials.poll_outcome(cx) {
            has_inputs = true;
            let input = match outcome {
                Outcome::Reached(address) => DiscoveryInput::Reached { address },
                Outcome::Ended(address) => DiscoveryInput::Ended { address },
            };
            self.engine.handle(now, input);
        }
        has_inputs
    }
}
