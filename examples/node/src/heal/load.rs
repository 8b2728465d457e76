//! What the healers tell each other of their disks.
//!
//! A disk that is slow alone is a fault of its node. Several at once have a common cause, such as a host
//! without free processors, and moving the leadership does not help. While writes of a node wait for its
//! disk for half of the limit or longer, its healer says so to the other voters twice a second; otherwise it
//! says nothing. The messages are summaries of x0-mapek and need no disk. A lost one is followed by the next.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use x0_identity::NodeId;
use x0_mapek::diagnose::{Observer, OwnState, Summary};
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Next, Received, Transmit, TransportExt};

const SERVICE: &str = "x0-node/heal-load";
const LANE: Lane = Lane::Ordered(0);
/// The distance of two messages.
const PERIOD: Duration = Duration::from_millis(500);
/// The messages that wait to be sent, and the voters to which one goes.
const WAITING_MAX: usize = 4;

/// A message to these voters.
type Outgoing = (Vec<NodeId>, Vec<u8>);

/// The end of the healer.
pub(super) struct Reports {
    node: NodeId,
    outgoing: mpsc::Sender<Outgoing>,
    incoming: Receiver<(NodeId, Duration)>,
    sent: u64,
    last: Option<Duration>,
}

impl Reports {
    /// Registers the service. A task of the runtime sends and receives.
    pub(super) fn start(mux: &Mux, node: NodeId) -> Result<Reports> {
        let channel_of_mux = mux
            .channel(ChannelOptions::new(SERVICE))
            .with_context(|| format!("cannot register the service {SERVICE}"))?;
        let (outgoing, to_send) = mpsc::channel(WAITING_MAX);
        let (received, incoming) = channel();
        tokio::spawn(run(channel_of_mux, to_send, received));
        Ok(Reports { node, outgoing, incoming, sent: 0, last: None })
    }

    /// Tells these voters that writes wait for the disk for this long, if it is time to.
    pub(super) fn tell(&mut self, now: Duration, voters: impl Iterator<Item = NodeId>, write_age: Duration) {
        if self.last.is_some_and(|last| now.saturating_sub(last) < PERIOD) {
            return;
        }
        self.last = Some(now);
        self.sent += 1;
        let own = OwnState { durable_age: write_age, ..OwnState::default() };
        let summary = Summary::new(Observer::Member(self.node.get()), self.sent).own(own);
        // Full: the transport holds the messages back, and a later one says the same.
        let _ = self.outgoing.try_send((voters.collect(), summary.to_bytes()));
    }

    /// What other nodes have said since the last call.
    pub(super) fn heard(&mut self) -> impl Iterator<Item = (NodeId, Duration)> + '_ {
        self.incoming.try_iter()
    }
}

async fn run(
    mut channel: Channel,
    mut to_send: mpsc::Receiver<Outgoing>,
    received: Sender<(NodeId, Duration)>,
) {
    let mut payload = Vec::new();
    loop {
        tokio::select! {
            outgoing = to_send.recv() => {
                let Some((voters, bytes)) = outgoing else { return };
                for to in voters {
                    // A voter that is not reached hears the next one.
                    let message = Transmit { to, lane: LANE, payload: &bytes };
                    let _ = tokio::time::timeout(PERIOD, channel.send(&message)).await;
                }
            }
            next = channel.next(&mut payload) => {
                let Ok(next) = next else { return };
                if let Next::Message(Received { from, .. }) = next
                    && let Some(write_age) = read(from, &payload)
                    && received.send((from, write_age)).is_err()
                {
                    return;
                }
            }
        }
    }
}

/// What a message of a node says of that node itself.
fn read(from: NodeId, payload: &[u8]) -> Option<Duration> {
    let summary = Summary::from_bytes(payload).ok()?;
    (summary.observer == Observer::Member(from.get())).then_some(summary.own.durable_age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_speaks_for_itself_alone() {
        let [two, three] = [2, 3].map(|number| NodeId::new(number).unwrap());
        let own = OwnState { durable_age: Duration::from_millis(250), ..OwnState::default() };
        let bytes = Summary::new(Observer::Member(2), 7).own(own).to_bytes();
        assert_eq!(read(two, &bytes), Some(Duration::from_millis(250)));
        assert_eq!(read(three, &bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(read(two, &bytes[..end]), None, "cut at {end}");
        }
    }
}
