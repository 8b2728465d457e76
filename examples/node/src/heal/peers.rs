//! The channel between the healers of the nodes.
//!
//! A healer tells the others what they cannot see: see `x0_mapek::kv`. A message needs no disk. A lost one is
//! followed by the next.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use x0_identity::NodeId;
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Next, Received, Transmit, TransportExt};

const SERVICE: &str = "x0-node/heal-load";
const LANE: Lane = Lane::Ordered(0);
/// The time for one message: the next one is due then.
const LIMIT: Duration = Duration::from_millis(500);
/// The messages that wait to be sent, each to all other voters.
const WAITING_MAX: usize = 4;

/// A message to these voters.
type Outgoing = (Vec<NodeId>, Vec<u8>);

/// The end of the healer.
pub(super) struct Peers {
    outgoing: mpsc::Sender<Outgoing>,
    incoming: Receiver<(NodeId, Vec<u8>)>,
}

impl Peers {
    /// Registers the service. A task of the runtime sends and receives.
    pub(super) fn start(mux: &Mux) -> Result<Peers> {
        let channel_of_mux = mux
            .channel(ChannelOptions::new(SERVICE))
            .with_context(|| format!("cannot register the service {SERVICE}"))?;
        let (outgoing, to_send) = mpsc::channel(WAITING_MAX);
        let (received, incoming) = channel();
        tokio::spawn(run(channel_of_mux, to_send, received));
        Ok(Peers { outgoing, incoming })
    }

    /// Queues a message.
    pub(super) fn tell(&self, to: Vec<NodeId>, message: Vec<u8>) {
        // Full: the transport holds the messages back, and a later one says the same.
        let _ = self.outgoing.try_send((to, message));
    }

    /// The next message of another node.
    pub(super) fn heard(&self) -> Option<(NodeId, Vec<u8>)> {
        self.incoming.try_recv().ok()
    }
}

async fn run(
    mut channel: Channel,
    mut to_send: mpsc::Receiver<Outgoing>,
    received: Sender<(NodeId, Vec<u8>)>,
) {
    let mut payload = Vec::new();
    loop {
        tokio::select! {
            outgoing = to_send.recv() => {
                let Some((voters, bytes)) = outgoing else { return };
                for to in voters {
                    // A voter that is not reached hears the next one.
                    let message = Transmit { to, lane: LANE, payload: &bytes };
                    let _ = tokio::time::timeout(LIMIT, channel.send(&message)).await;
                }
            }
            next = channel.next(&mut payload) => {
                let Ok(next) = next else { return };
                if let Next::Message(Received { from, .. }) = next
                    && received.send((from, payload.clone())).is_err()
                {
                    return;
                }
            }
        }
    }
}
