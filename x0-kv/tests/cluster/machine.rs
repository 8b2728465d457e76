//! The nodes of a cluster on this machine, and waiting for conditions. All tests of real nodes use it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain, X509Svid};
use x0_kv::cluster::NodeOptions;
use x0_mesh::quic::{PeerBook, QuicOptions, QuicTransport};
use x0_mesh::{FaultHandle, FaultInjector, Mux, MuxOptions};

/// The members of a cluster: nodes 1 to 3.
pub(crate) const NODES: u64 = 3;

/// Generous: only a test that fails reaches it.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The authority of a cluster, the folders of its nodes and their addresses.
pub(crate) struct Machine {
    authority: Authority,
    folder: tempfile::TempDir,
    addresses: Vec<(NodeId, SocketAddr)>,
    books: Vec<PeerBook>,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let domain = TrustDomain::parse("cluster.test").unwrap();
        let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Machine { authority, folder, addresses: Vec::new(), books: Vec::new() }
    }

    /// The trust domain of the cluster.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    /// A new SVID, which expires after `validity`.
    pub(crate) fn svid(&self, spiffe_id: &SpiffeId, validity: Duration) -> X509Svid {
        self.authority.issue(spiffe_id, validity).unwrap()
    }

    /// An identity whose SVID expires after `validity`.
    pub(crate) fn identity(&self, spiffe_id: &SpiffeId, validity: Duration) -> Identity {
        Identity::new(self.svid(spiffe_id, validity), self.authority.bundle()).unwrap()
    }

    /// The identity of a node.
    pub(crate) fn node_identity(&self, number: u64) -> Identity {
        self.identity(&SpiffeId::for_node(self.trust_domain(), id(number)), Duration::from_secs(3600))
    }

    /// The options of a node's transport on a free port, without peers.
    pub(crate) fn quic(&self, number: u64) -> QuicOptions {
        let identity = self.node_identity(number);
        QuicOptions::new(id(number), any_port(), identity.server_config(), identity.client_config())
    }

    /// A mux on a new QUIC transport of a node, whose address all other nodes learn, and the handle that cuts
    /// it off.
    pub(crate) fn mux(&mut self, number: u64) -> (Mux, FaultHandle) {
        let mut options = self.quic(number);
        options.peers = self.addresses.iter().filter(|(peer, _)| *peer != id(number)).copied().collect();
        let transport = QuicTransport::bind(options).unwrap();
        let address = transport.local_addr().unwrap();
        self.books.iter().for_each(|book| book.set_peer(id(number), address));
        self.books.push(transport.peers());
        self.addresses.retain(|(peer, _)| *peer != id(number));
        self.addresses.push((id(number), address));
        let (transport, faults) = FaultInjector::new(transport);
        (Mux::new(transport, MuxOptions::default()), faults)
    }

    /// The folder of a node.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    /// The options of a member.
    pub(crate) fn options(&self, number: u64) -> NodeOptions {
        NodeOptions::new(id(number), self.path(number)).founders((1..=NODES).map(id))
    }
}

/// A free port of the loopback.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Waits for a future, up to [`LIMIT`].
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Checks a condition until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_async(what, async || holds()).await;
}

/// Checks a condition until it holds.
pub(crate) async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
