//! The service that answers `x0-node mesh`: a request is empty, the answer is a report as JSON, or `null` of
//! a node without links.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use x0_identity::NodeId;
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Next, Received, SendError, Transmit, TransportExt};

use super::NodeMesh;
use super::rows::Report;

const SERVICE: &str = "x0-node/mesh";
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const LANE: Lane = Lane::Ordered(0);

/// Registers the service; a task of the runtime answers.
pub(super) fn start(mux: &Mux, mesh: Option<Arc<NodeMesh>>) -> Result<()> {
    let channel = mux.channel(ChannelOptions::new(SERVICE)).context("cannot register the mesh service")?;
    tokio::spawn(answer(channel, mesh));
    Ok(())
}

async fn answer(mut channel: Channel, mesh: Option<Arc<NodeMesh>>) {
    let mut request = Vec::new();
    while let Ok(next) = channel.next(&mut request).await {
        let Next::Message(Received { from, .. }) = next else { continue };
        let report = mesh.as_deref().map(|node| Report::of(&node.mesh));
        let Ok(payload) = serde_json::to_vec(&report) else { continue };
        // A client that does not read its answer must not block the service: it asks again.
        let answer = Transmit { to: from, lane: LANE, payload: &payload };
        let _ = tokio::time::timeout(ANSWER_LIMIT, channel.send(&answer)).await;
    }
}

/// A client's end of the service.
pub(super) struct Asker {
    channel: Channel,
}

impl Asker {
    pub(super) fn new(mux: &Mux) -> Result<Asker> {
        let channel = mux.channel(ChannelOptions::new(SERVICE)).context("cannot use the mesh service")?;
        Ok(Asker { channel })
    }

    /// The report of a node; `None` if it has no links. Waits until the node is connected.
    pub(super) async fn report(&mut self, node: NodeId) -> Result<Option<Report>> {
        let mut payload = Vec::new();
        loop {
            match self.channel.send(&Transmit { to: node, lane: LANE, payload: b"" }).await {
                Ok(()) => break,
                Err(SendError::Unreachable { .. } | SendError::UnknownPeer { .. }) => {
                    // An event follows each change.
                    self.channel.next(&mut payload).await?;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot ask node {node}")),
            }
        }
        loop {
            if let Next::Message(Received { from, .. }) = self.channel.next(&mut payload).await?
                && from == node
            {
                return serde_json::from_slice(&payload).context("cannot parse the answer");
            }
        }
    }
}
