//! Dials of addresses that may lead nowhere, and their outcomes.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::handshake::Dialler;

/// Outcomes that wait for the engine. A dial with one more waits itself.
const OUTCOMES_MAX: usize = 64;

/// What has become of an address: whether a dial led to a neighbour, or all dials have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Reached(SocketAddr),
    Ended(SocketAddr),
}

/// The dials of one engine. Dropping it ends them.
pub(super) struct HintDials {
    /// The ports to dial from.
    diallers: Vec<Dialler>,
    dials: JoinSet<()>,
    outcomes: Receiver<Outcome>,
    sender: Sender<Outcome>,
}

impl HintDials {
    pub(super) fn new(diallers: Vec<Dialler>) -> HintDials {
        let (sender, outcomes) = channel(OUTCOMES_MAX);
        HintDials { diallers, dials: JoinSet::new(), outcomes, sender }
    }

    pub(super) fn diallers(&self) -> &[Dialler] {
        &self.diallers
    }

    /// Dials an address from each port of its family.
    pub(super) fn dial(&mut self, address: SocketAddr) {
        while self.dials.try_join_next().is_some() {}
        let is_of_family = |dialler: &&Dialler| {
            dialler.endpoint.local_addr().is_ok_and(|local| local.is_ipv4() == address.is_ipv4())
        };
        let diallers: Vec<Dialler> = self.diallers.iter().filter(is_of_family).cloned().collect();
        let sender = self.sender.clone();
        self.dials.spawn(async move {
            let mut dials = JoinSet::new();
            for dialler in diallers {
                let sender = sender.clone();
                // Without a receiver the mesh has ended.
                let reached = async move {
                    let _ = sender.send(Outcome::Reached(address)).await;
                };
                dials.spawn(dialler.dial_hint(address, reached));
            }
            while dials.join_next().await.is_some() {}
            let _ = sender.send(Outcome::Ended(address)).await;
        });
    }

    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.outcomes.poll_recv(cx) {
            Poll::Ready(Some(outcome)) => Poll::Ready(outcome),
            // This struct has a sender, so there is no end.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
