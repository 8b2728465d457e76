//! A connection to a running cluster with the client's identity.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use x0_identity::{Identity, NodeId, SpiffeBundle, TrustBundle, TrustDomain, Verifier};
use x0_kv::trace::Tracing;
use x0_kv::{Client, ClientOptions, Store};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions, Transport};

use crate::causes::causes;
use crate::config::{ClientConfig, ClusterConfig, Member};
use crate::identity;
use crate::reach::{Reach, Watched};
use crate::report::Asker;

/// Opens a socket with the client's identity, and starts to connect to the members.
pub(crate) fn transport(config: &ClientConfig) -> Result<QuicTransport> {
    let identity = identity::load(&config.trust_domain, &config.svid, &config.bundle)?;
    if let Some(node) = identity.node_id() {
        bail!(
            "{} is the identity of node {node}: use that of a client or an operator, which `x0-node init` writes",
            config.svid.display()
        );
    }
    let peers = resolved(&config.members)?;
    let is_ipv6 = peers.iter().any(|(_, address)| address.is_ipv6());
    let bind: SocketAddr =
        if is_ipv6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let mut quic = QuicOptions::guest(bind, identity.server_config(), tls(config, &identity)?);
    quic.peers = peers;
    QuicTransport::bind(quic).context("cannot open a socket")
}

/// The TLS configuration with which a client reaches the nodes.
pub(crate) fn tls(config: &ClientConfig, identity: &Identity) -> Result<Arc<rustls::ClientConfig>> {
    let own = identity.client_config();
    let Some(cluster) = &config.cluster else { return Ok(own) };
    // The nodes are of that trust domain alone: a node of the client's own has the same numbers.
    let mut of_cluster = rustls::ClientConfig::clone(&own);
    let verifier = Arc::new(Verifier::new(cluster_bundle(cluster)?));
    of_cluster.dangerous().set_certificate_verifier(verifier);
    Ok(Arc::new(of_cluster))
}

/// The bundle of a cluster of another trust domain.
fn cluster_bundle(cluster: &ClusterConfig) -> Result<TrustBundle> {
    let domain = &cluster.trust_domain;
    let domain: TrustDomain =
        domain.parse().with_context(|| format!("`{domain}` is not a valid trust domain"))?;
    let path = &cluster.bundle;
    let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle = SpiffeBundle::from_json(domain, &json)
        .with_context(|| format!("{} is not a SPIFFE bundle as JSON", path.display()))?;
    Ok(bundle.trust_bundle().clone())
}

/// A client of the cluster.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    members: Vec<Member>,
    reach: watch::Receiver<Reach>,
}

impl Connection {
    /// Opens a socket and starts to connect to the members, without waiting for them.
    pub(crate) async fn open(config: &ClientConfig) -> Result<Connection> {
        Connection::open_traced(config, Tracing::default()).await
    }

    /// As [`open`](Connection::open), with traces of the operations.
    pub(crate) async fn open_traced(config: &ClientConfig, tracing: Tracing) -> Result<Connection> {
        let transport = transport(config)?;
        let mut options =
            ClientOptions::new(transport.local(), config.members.iter().map(|member| member.node))
                .tracing(tracing);
        options.coordinator.call_timeout = Duration::from_millis(config.timeout_ms);
        let (transport, reach) = Watched::new(transport);
        let client = Client::connect(options, &Mux::new(transport, MuxOptions::default()))?;
        Ok(Connection { client, members: config.members.clone(), reach })
    }

    pub(crate) fn store(&self) -> &Store {
        self.client.store()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when a member is reached, or after `limit`.
    pub(crate) async fn reached(&self, limit: Duration) {
        let mut reach = self.reach.clone();
        let _ = tokio::time::timeout(limit, reach.wait_for(Reach::has_been_up)).await;
    }

    /// Returns when every member has refused this client, or this client them, so that waiting longer is
    /// useless.
    pub(crate) async fn refused(&self) -> anyhow::Error {
        let mut reach = self.reach.clone();
        let is_refused_by_all = |reach: &Reach| reach.is_refused_by_all(&self.members);
        if reach.wait_for(is_refused_by_all).await.is_err() {
            // The client has ended; its operations return the reason.
            std::future::pending::<()>().await;
        }
        anyhow::anyhow!(
            "no member and this client accept each other: check `trust_domain`, `svid` and `bundle` of the configuration"
        )
    }

    /// Adds the state of the connections to an error.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let reached = self.client.reached();
        let count = self.members.iter().filter(|member| reached.contains(&member.node)).count();
        if count == self.members.len() {
            return error;
        }
        let why = self.reach.borrow().describe(&self.members);
        anyhow::anyhow!("{}; {count} of {} members are connected{why}", causes(&error), self.members.len())
    }

    pub(crate) async fn close(self) {
        self.client.close().await;
    }
}

/// A connection to the services of the nodes that are not those of the store, with the client's identity.
pub(crate) struct Services {
    mux: Mux,
    members: Vec<Member>,
    reach: watch::Receiver<Reach>,
}

impl Services {
    /// Opens a socket and starts to connect to the members, without waiting for them.
    pub(crate) fn open(config: &ClientConfig) -> Result<Services> {
        let (transport, reach) = Watched::new(transport(config)?);
        let mux = Mux::new(transport, MuxOptions::default());
        Ok(Services { mux, members: config.members.clone(), reach })
    }

    /// The client's end of a service.
    pub(crate) fn asker(&self, service: &'static str) -> Result<Asker> {
        Asker::new(&self.mux, service)
    }

    /// The error of a command that no node answered in this time, with the reason for each node.
    pub(crate) fn unanswered(&self, limit: Duration) -> anyhow::Error {
        let why = self.reach.borrow().describe(&self.members);
        anyhow::anyhow!(
            "no node answered within {} s{why}; check that the nodes run and that this client may connect",
            limit.as_secs()
        )
    }
}

/// The addresses of the members whose names are known now. An error if there is none.
fn resolved(members: &[Member]) -> Result<Vec<(NodeId, SocketAddr)>> {
    let mut failure = None;
    let mut peers = Vec::new();
    for member in members {
        match member.address.resolve() {
            Ok(address) => peers.push((member.node, address)),
            Err(error) => failure = Some((member, error)),
        }
    }
    match failure {
        Some((member, error)) if peers.is_empty() => Err(error).with_context(|| {
            format!("cannot resolve {}: check `members` and the name server of this machine", member.address)
        }),
        _ => Ok(peers),
    }
}
