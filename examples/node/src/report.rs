//! Services that answer each request with a report as JSON. Most requests are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use x0_identity::NodeId;
use x0_mesh::{
    Channel, ChannelOptions, Lane, Mux, Next, PeerEvent, PeerEventKind, Received, SendError, Transmit,
    Transport, TransportExt,
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

    /// Asks the nodes in `open`, and removes those that answer, or that cannot be asked.
    async fn ask_open<R: DeserializeOwned>(
        &mut self,
        open: &mut BTreeSet<NodeId>,
        request: &[u8],
        answers: &mut BTreeMap<NodeId, Result<R>>,
    ) -> Result<()> {
        let (mut unasked, mut payload) = (open.clone(), Vec::new());
        loop {
            // All at once: a node that is being dialled keeps none of the others waiting.
            let next = poll_fn(|cx| {
                for node in std::mem::take(&mut unasked) {
                    match self.channel.poll_send(cx, &Transmit { to: node, lane: LANE, payload: request }) {
                        Poll::Ready(Ok(())) => {}
                        // An event follows each change.
                        Poll::Pending
                        | Poll::Ready(Err(SendError::Unreachable { .. } | SendError::UnknownPeer { .. })) => {
                            unasked.insert(node);
                        }
                        Poll::Ready(Err(SendError::Closed)) => {
                            return Poll::Ready(Err(anyhow::Error::new(SendError::Closed)));
                        }
                        Poll::Ready(Err(error)) => {
                            open.remove(&node);
                            let error = Err(error).with_context(|| format!("cannot ask node {node}"));
                            answers.insert(node, error);
                        }
                    }
                }
                if open.is_empty() {
                    return Poll::Ready(Ok(None));
                }
                self.channel.poll_next(cx, &mut payload).map(|next| Ok(Some(next?)))
            });
            let Some(next) = next.await? else { return Ok(()) };
            match next {
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
    }
}

fn parsed<R: DeserializeOwned>(answer: &[u8]) -> Result<R> {
    serde_json::from_slice(answer).context("cannot parse the answer")
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use x0_identity::{Authority, AuthorityOptions, Identity, SpiffeId, TrustDomain};
    use x0_mesh::MuxOptions;
    use x0_mesh::quic::{QuicOptions, QuicTransport};

    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// Node 2 is dialled without an answer, node 3 has another service, and node 4 answers.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_cannot_be_asked_costs_no_answer_of_another_one() {
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let authority = Authority::new(trust_domain.clone(), &AuthorityOptions::default()).unwrap();
        let local = || SocketAddr::from(([127, 0, 0, 1], 0));
        let open = |number: u64, peers: &[(u64, SocketAddr)]| {
            let id = SpiffeId::for_node(&trust_domain, node(number));
            let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
            let own = Identity::new(svid, authority.bundle()).unwrap();
            let options = QuicOptions::new(node(number), local(), own.server_config(), own.client_config());
            let peers = peers.iter();
            QuicTransport::bind(peers.fold(options, |options, (to, at)| options.peer(node(*to), *at)))
                .unwrap()
        };
        let silent = UdpSocket::bind(local()).unwrap();
        let mut peers = vec![(2, silent.local_addr().unwrap())];
        let mut served = Vec::new();
        for (number, service) in [(3, "x0-node/other"), (4, "x0-node/test")] {
            let transport = open(number, &[]);
            peers.push((number, transport.local_addr().unwrap()));
            let mux = Mux::new(transport, MuxOptions::default());
            start(&mux, service, || serde_json::to_vec(&7)).unwrap();
            served.push(mux);
        }
        let mux = Mux::new(open(1, &peers), MuxOptions::default());
        let mut asker = Asker::new(&mux, "x0-node/test").unwrap();
        // Node 2 is waited for to the end of the time, and others are slow on a busy machine.
        for attempt in 1.. {
            let limit = Duration::from_secs(2);
            let mut answers =
                asker.ask_all::<u64>([2, 3, 4].map(node), b"", limit).await.expect("one error ends nothing");
            assert!(!answers.contains_key(&node(2)));
            if let (Some(other), Some(answer)) = (answers.remove(&node(3)), answers.remove(&node(4))) {
                assert!(format!("{:#}", other.unwrap_err()).contains("has not registered channel"));
                assert_eq!(answer.unwrap(), 7);
                return;
            }
            assert!(attempt < 15, "{answers:?}");
        }
    }
}
