//! Services that answer each request with a report as JSON. Most requests are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use x0_identity::NodeId;
use x0_mesh::{
    Channel, ChannelOptions, Lane, Mux, Next, PeerEvent, PeerEventKind, Received, SendError, Transmit,
    TransportExt,
};

const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const LANE: Lane = Lane::Ordered(0);

/// Registers a service; a task of the runtime answers with what `report` writes at that moment.
pub(crate) fn start(
    mux: &Mux,
    service: &'static str,
    report: impl Fn() -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> Result<()> {
    answering(mux, service, move |_, _| std::future::ready(report().ok()))
}

/// Registers a service; a task of the runtime answers one request after the other with what `answer` returns
/// for its sender and bytes, or not.
pub(crate) fn answering<F>(
    mux: &Mux,
    service: &'static str,
    answer: impl Fn(NodeId, Vec<u8>) -> F + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Option<Vec<u8>>> + Send + 'static,
{
    let channel = mux
        .channel(ChannelOptions::new(service))
        .with_context(|| format!("cannot register the service {service}"))?;
    tokio::spawn(run(channel, answer));
    Ok(())
}

async fn run<F>(mut channel: Channel, answer: impl Fn(NodeId, Vec<u8>) -> F)
where
    F: Future<Output = Option<Vec<u8>>>,
{
    let mut request = Vec::new();
    while let Ok(next) = channel.next(&mut request).await {
        let Next::Message(Received { from, .. }) = next else { continue };
        let Some(payload) = answer(from, std::mem::take(&mut request)).await else { continue };
        // A client that does not read its answer must not block the service: it asks again.
        let answer = Transmit { to: from, lane: LANE, payload: &payload };
        let _ = tokio::time::timeout(ANSWER_LIMIT, channel.send(&answer)).await;
    }
}

/// A client's end of a service.
pub(crate) struct Asker {
    channel: Channel,
}

impl Asker {
    pub(crate) fn new(mux: &Mux, service: &'static str) -> Result<Asker> {
        let channel = mux
            .channel(ChannelOptions::new(service))
            .with_context(|| format!("cannot use the service {service}"))?;
        Ok(Asker { channel })
    }

    /// The report of a node. Waits until the node is connected.
    pub(crate) async fn report<R: DeserializeOwned>(&mut self, node: NodeId) -> Result<R> {
        self.ask(node, b"").await
    }

    /// The answer of a node to a request. Waits until the node is connected.
    pub(crate) async fn ask<R: DeserializeOwned>(&mut self, node: NodeId, request: &[u8]) -> Result<R> {
        let mut payload = Vec::new();
        loop {
            match self.channel.send(&Transmit { to: node, lane: LANE, payload: request }).await {
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
                return parsed(&payload);
            }
        }
    }

    /// The answers of nodes to a request, by node. Those that do not answer within `limit`, which is the time
    /// for all of them together, are absent.
    pub(crate) async fn ask_all<R: DeserializeOwned>(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        request: &[u8],
        limit: Duration,
    ) -> Result<BTreeMap<NodeId, Result<R>>> {
        let mut answers = BTreeMap::new();
        let mut open: BTreeSet<NodeId> = nodes.into_iter().collect();
        let asked = tokio::time::timeout(limit, self.ask_open(&mut open, request, &mut answers)).await;
        // After the limit the answers so far count.
        asked.unwrap_or(Ok(()))?;
        Ok(answers)
    }

    /// Asks the nodes in `open`, and removes those that answer.
    async fn ask_open<R: DeserializeOwned>(
        &mut self,
        open: &mut BTreeSet<NodeId>,
        request: &[u8],
        answers: &mut BTreeMap<NodeId, Result<R>>,
    ) -> Result<()> {
        let (mut unasked, mut payload) = (open.clone(), Vec::new());
        while !open.is_empty() {
            for node in std::mem::take(&mut unasked) {
                match self.channel.send(&Transmit { to: node, lane: LANE, payload: request }).await {
                    Ok(()) => {}
                    // An event follows each change.
                    Err(SendError::Unreachable { .. } | SendError::UnknownPeer { .. }) => {
                        unasked.insert(node);
                    }
                    Err(error) => return Err(error).with_context(|| format!("cannot ask node {node}")),
                }
            }
            match self.channel.next(&mut payload).await? {
                Next::Message(Received { from, .. }) => {
                    if open.remove(&from) {
                        answers.insert(from, parsed(&payload));
                    }
                }
                // The request or the answer may be lost with the connection.
                Next::Event(PeerEvent { peer, kind: PeerEventKind::Down { .. } }) if open.contains(&peer) => {
                    unasked.insert(peer);
                }
                Next::Event(_) => {}
            }
        }
        Ok(())
    }
}

fn parsed<R: DeserializeOwned>(answer: &[u8]) -> Result<R> {
    serde_json::from_slice(answer).context("cannot parse the answer")
}
