//! Settings of the driver.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use x0_identity::{NodeId, TrustDomain};

use super::port::Open;
use crate::datagram::DatagramOptions;
use crate::discovery::{DiscoveryOptions, Multicast};
use crate::link::Link;
use crate::quic::unpredictable;
use crate::router::{Etx, LinkCost, Metric};
use crate::traversal::TraversalOptions;

/// A link of a node, and the neighbours to dial on it. Neighbours that dial are accepted if their SVID is
/// trusted and names a node.
pub struct MeshPort {
    pub(super) link: Box<dyn Link>,
    pub(super) neighbours: Vec<SocketAddr>,
    pub(super) metric: Box<dyn Metric>,
    pub(super) throughput: Option<u64>,
    pub(super) discovery: Option<(Multicast, DiscoveryOptions)>,
    pub(super) open: Option<Open>,
    /// Addresses from outside, if direct paths are sought on the port.
    pub(super) public: Option<Vec<SocketAddr>>,
}

impl MeshPort {
    /// A port without neighbours to dial.
    #[must_use]
    pub fn new(link: impl Link + 'static) -> MeshPort {
        MeshPort {
            link: Box::new(link),
            neighbours: Vec::new(),
            metric: Box::new(Etx),
            throughput: None,
            discovery: None,
            open: None,
            public: None,
        }
    }

    /// Opens the link again when it has failed: one second later, and every second until that succeeds.
    /// Without it a failed link remains closed; [`Mesh::ports`](super::Mesh::ports) has the reason. `open` is
    /// called on the task of the mesh, and must not block. A port with [`MeshPort::discover`] or
    /// [`MeshPort::traverse`] needs the same address again: it is the one that is announced.
    #[must_use]
    pub fn reopen(
        mut self,
        open: impl FnMut() -> Result<Box<dyn Link>, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> MeshPort {
        self.open = Some(Box::new(open));
        self
    }

    /// Adds a neighbour to dial.
    #[must_use]
    pub fn neighbour(mut self, address: SocketAddr) -> MeshPort {
        self.neighbours.push(address);
        self
    }

    /// Announces the link to the multicast group of its segment, and dials the nodes that are announced
    /// there. The link must be a UDP port, and `groups` must be opened with its address. See
    /// [`discovery`](crate::discovery).
    #[must_use]
    pub fn discover(mut self, groups: Multicast, options: DiscoveryOptions) -> MeshPort {
        self.discovery = Some((groups, options));
        self
    }

    /// Seeks direct paths on the port to nodes that this node sends to over a relay, also through NATs, and
    /// lets other nodes seek them. The link must be a UDP port. See [`traversal`](crate::traversal).
    ///
    /// Idle links of the port keep the mappings of NATs open: the pause between two probes grows from 600 ms
    /// to 15 s as long as it does not exceed the lifetime of the mappings
    /// ([`LinkFacts::keep_alive`](crate::datagram::LinkFacts::keep_alive)).
    ///
    /// The candidates of this node are the addresses at which its neighbours see it, and that of the link;
    /// for a link to `0.0.0.0` or `::`, those of the machine's interfaces, without loopback and link-local
    /// ones: by them two nodes behind one NAT reach each other.
    #[must_use]
    pub fn traverse(mut self) -> MeshPort {
        self.public.get_or_insert_default();
        self
    }

    /// Adds a candidate: an address at which other nodes reach the link, such as that of a port which a NAT
    /// forwards. Includes [`MeshPort::traverse`].
    #[must_use]
    pub fn public(mut self, address: SocketAddr) -> MeshPort {
        self.public.get_or_insert_default().push(address);
        self
    }

    /// Sets what the links of the port cost. [`Etx`] unless set.
    #[must_use]
    pub fn metric(mut self, metric: impl Metric + 'static) -> MeshPort {
        self.metric = Box::new(metric);
        self
    }

    /// Sets the throughput of the links of the port, in bits per second, such as the speed of the interface.
    /// The metric [`Throughput`](crate::router::Throughput) needs it.
    #[must_use]
    pub fn throughput(mut self, bits_per_second: u64) -> MeshPort {
        self.throughput = Some(bits_per_second);
        self
    }
}

impl fmt::Debug for MeshPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MeshPort")
            .field("local", &self.link.local())
            .field("neighbours", &self.neighbours)
            .field("discovery", &self.discovery)
            .field("public", &self.public)
            .field("metric", &self.metric)
            .field("throughput", &self.throughput)
            .field("reopens", &self.open.is_some())
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Mesh`](super::Mesh).
#[non_exhaustive]
pub struct MeshOptions {
    /// This node. The SVID in the TLS configurations must name the same node.
    pub local: NodeId,
    /// For neighbours that dial. It must demand a client certificate. The mesh sets the ALPN.
    pub server: Arc<rustls::ServerConfig>,
    /// For neighbours that are dialled. The mesh sets the ALPN.
    pub client: Arc<rustls::ClientConfig>,
    /// The trust domain of the neighbours. Needed when the verifiers trust more than one: a federated domain
    /// has nodes of its own, with the same numbers. Unless set, nodes of every domain that is trusted are
    /// accepted.
    pub trust_domain: Option<TrustDomain>,
    /// The links.
    pub ports: Vec<MeshPort>,
    /// The settings of the protocol.
    pub datagrams: DatagramOptions,
    /// How long one attempt to reach a neighbour may take. 1 s unless set.
    pub dial_timeout: Duration,
    /// The pause after the first failed attempt. It doubles with each. 50 ms unless set.
    pub backoff_min: Duration,
    /// The longest pause between attempts. 2 s unless set.
    pub backoff_max: Duration,
    /// The longest life of keys. 1 h unless set.
    pub keys_lifetime: Duration,
    /// The settings of the search for direct paths, on ports with [`MeshPort::traverse`].
    pub traversal: TraversalOptions,
    /// How many neighbours may be in the middle of a handshake that this node did not dial. 64 unless set.
    pub incoming_max: usize,
}

impl MeshOptions {
    /// The usual settings, and no port. Sessions and flooded messages are numbered from a random seed, and
    /// the router's sequence number from the system's clock.
    #[must_use]
    pub fn new(
        local: NodeId,
        server: Arc<rustls::ServerConfig>,
        client: Arc<rustls::ClientConfig>,
    ) -> MeshOptions {
        let mut datagrams = DatagramOptions::new(unpredictable());
        let seconds = std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_secs());
        // From 2020 on, so that the limit of the router lasts until 2088. A number that is too low is
        // corrected by the first neighbour that shows a higher one.
        let seqno = u32::try_from(seconds.saturating_sub(1_577_836_800)).unwrap_or(u32::MAX);
        datagrams.router = datagrams.router.seqno(seqno);
        MeshOptions {
            local,
            server,
            client,
            trust_domain: None,
            ports: Vec::new(),
            datagrams,
            dial_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            keys_lifetime: Duration::from_secs(3600),
            traversal: TraversalOptions::default(),
            incoming_max: 64,
        }
    }

    /// Sets [`MeshOptions::trust_domain`].
    #[must_use]
    pub fn trust_domain(mut self, trust_domain: TrustDomain) -> MeshOptions {
        self.trust_domain = Some(trust_domain);
        self
    }

    /// Adds a link.
    #[must_use]
    pub fn port(mut self, port: MeshPort) -> MeshOptions {
        self.ports.push(port);
        self
    }

    /// Sets [`MeshOptions::datagrams`].
    #[must_use]
    pub fn datagrams(mut self, datagrams: DatagramOptions) -> MeshOptions {
        self.datagrams = datagrams;
        self
    }

    /// Sets [`MeshOptions::dial_timeout`].
    #[must_use]
    pub fn dial_timeout(mut self, dial_timeout: Duration) -> MeshOptions {
        self.dial_timeout = dial_timeout;
        self
    }

    /// Sets [`MeshOptions::backoff_min`] and [`MeshOptions::backoff_max`].
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> MeshOptions {
        self.backoff_min = min;
        self.backoff_max = max.max(min);
        self
    }

    /// Sets [`MeshOptions::keys_lifetime`].
    #[must_use]
    pub fn keys_lifetime(mut self, keys_lifetime: Duration) -> MeshOptions {
        self.keys_lifetime = keys_lifetime;
        self
    }

    /// Sets [`MeshOptions::traversal`].
    #[must_use]
    pub fn traversal(mut self, traversal: TraversalOptions) -> MeshOptions {
        self.traversal = traversal;
        self
    }

    /// Sets whether this node forwards for others, and by how much that makes paths over it worse:
    /// [`RouterOptions::relay`](crate::router::RouterOptions::relay). A node that does not relay offers no
    /// routes but those to itself, and drops the datagrams of others
    /// ([`DatagramStats::relay_refused`](crate::datagram::DatagramStats::relay_refused)).
    #[must_use]
    pub fn relay(mut self, relay: Option<LinkCost>) -> MeshOptions {
        self.datagrams.router.relay = relay;
        self
    }

    /// Sets [`MeshOptions::incoming_max`].
    #[must_use]
    pub fn incoming_max(mut self, incoming_max: usize) -> MeshOptions {
        self.incoming_max = incoming_max;
        self
    }
}

impl fmt::Debug for MeshOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MeshOptions")
            .field("local", &self.local)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
