//! The mesh as its owner sees it.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use x0_identity::{NodeId, TrustDomain};

use super::address::node_at;
use super::beside::Beside;
use super::core::Core;
use super::discover::discover_always;
use super::handshake::{Dialler, Timing, accept_always};
use super::hints::HintDials;
use super::no_route::end_always;
use super::packets::Packets;
use super::port::Port;
use super::port_socket::PortSocket;
use super::prices::wake_always;
use super::redial::redial_always;
use super::socket::MeshSocket;
use super::traverse::traverse_always;
use super::{Finding, MeshOptions, PeerFacts, PortFacts, PriceLimiter, PriceLimits, StartError};
use crate::Transport;
use crate::datagram::{DatagramError, DatagramStats, Datagrams, LinkFacts, PathFacts, PortId, PortOptions};
use crate::discovery::Discovery;
use crate::quic::{PeerBook, PeerLink};
use crate::router::RouterStats;
use crate::traversal::{Traversal, TraversalStats};

const ALPN: &[u8] = b"x0-link/1";
/// A handshake's packets have 1200 bytes (RFC 9000 §14.1); a datagram of that length is longer as a frame.
const MTU_MIN: usize = 1232;
/// How long a connection of neighbours lives: long enough for its handshake.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause of an idle link that may pass a NAT (RFC 8445 §11).
const TRAVERSE_IDLE_MAX: Duration = Duration::from_secs(15);
/// Bytes of datagrams that wait for the QUIC endpoint.
const DATAGRAMS_LEN_MAX: usize = 4 << 20;

pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) origin: Instant,
    /// The trust domain of the neighbours, if only one is accepted.
    pub(super) trust_domain: Option<TrustDomain>,
    pub(super) links_changed: Arc<Notify>,
    /// There are messages of the mesh itself, or nodes that are sent to over a relay.
    pub(super) messages: Arc<Notify>,
    /// Links or routes.
    pub(super) changed: Arc<Notify>,
}

impl Shared {
    /// The state is consistent between any two calls of its methods, so a panic elsewhere does not spoil it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A node of a mesh. See the [module](super).
///
/// It works by tasks on the runtime that it was started in; its own methods may be called from any thread.
/// Dropping it ends the tasks and closes the links; its sockets fail from then on.
pub struct Mesh {
    local: NodeId,
    shared: Arc<Shared>,
    datagrams: Arc<Packets>,
    tasks: Vec<AbortHandle>,
    runtime: tokio::runtime::Handle,
    ports: Vec<Arc<PortSocket>>,
}

impl Mesh {
    /// Starts to accept and to dial neighbours on all ports.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn start(options: MeshOptions) -> Result<Mesh, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let (server, client) = quic_configs(&options)?;
        let MeshOptions { local, trust_domain, ports, datagrams: engine, .. } = options;
        let timing = Timing {
            dial_timeout: options.dial_timeout,
            backoff_min: options.backoff_min,
            backoff_max: options.backoff_max,
            keys_lifetime: options.keys_lifetime,
            seed: engine.router.seed,
        };
        let mut engine = Datagrams::new(local, engine);
        let mut opened = Vec::new();
        let mut endpoints = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let mtu = port.link.mtu();
            if mtu < MTU_MIN {
                return Err(StartError::Mtu { mtu, mtu_min: MTU_MIN });
            }
            let id = PortId(u32::try_from(number).unwrap_or(u32::MAX));
            let mut settings = PortOptions::new(mtu);
            settings.metric = port.metric;
            settings.throughput = port.throughput;
            // Behind a NAT the pause follows the lifetime of its mappings.
            settings.interval_idle_max = port.public.is_some().then_some(TRAVERSE_IDLE_MAX);
            engine.add_port(id, settings);
            let socket = Arc::new(PortSocket::new(port.link.local()));
            let mut config = EndpointConfig::default();
            // The fixed bit distinguishes packets from frames (RFC 9000 §17.2).
            config.grease_quic_bit(false);
            let abstract_socket: Arc<dyn AsyncUdpSocket> = Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>;
            let endpoint = Endpoint::new_with_abstract_socket(
                config,
                Some(server.clone()),
                abstract_socket,
                Arc::new(TokioRuntime),
            )
            .map_err(|source| StartError::Endpoint { source })?;
            let local = port.link.local();
            endpoints.push((id, endpoint, local, port.neighbours, port.discovery, port.public));
            opened.push(Port::new(port.link, socket, port.open));
        }
        let sockets = opened.iter().map(|port| Arc::clone(&port.socket)).collect();
        let datagrams = Arc::new(Packets::new(DATAGRAMS_LEN_MAX));
        let core = Mutex::new(Core::new(engine, opened, Arc::clone(&datagrams)));
        let shared = Arc::new(Shared {
            core,
            origin: Instant::now(),
            trust_domain,
            links_changed: Arc::default(),
            messages: Arc::default(),
            changed: Arc::default(),
        });
        let mut tasks = vec![runtime.spawn(drive(Arc::downgrade(&shared))).abort_handle()];
        let (mut traversing, mut addresses) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (id, endpoint, link, neighbours, discovery, public) in endpoints {
            let dialler = Dialler {
                shared: Arc::downgrade(&shared),
                endpoint: endpoint.clone(),
                client: client.clone(),
                port: id,
                timing: timing.clone(),
            };
            for address in neighbours {
                tasks.push(runtime.spawn(dialler.clone().dial_always(address)).abort_handle());
            }
            if let Some(public) = public {
                traversing.push(dialler.clone());
                addresses[0].extend(public);
                addresses[1].push(link);
            }
            if let Some((groups, options)) = discovery {
                let seed = timing.seed.rotate_left(17) ^ local.get() ^ u64::from(id.0);
                let engine = Discovery::new(local, link.port(), seed, options);
                tasks.push(runtime.spawn(discover_always(engine, groups, dialler)).abort_handle());
            }
            let accepting =
                accept_always(Arc::downgrade(&shared), endpoint, id, options.incoming_max, timing.clone());
            tasks.push(runtime.spawn(accepting).abort_handle());
        }
        if !traversing.is_empty() {
            shared.lock().traverses = true;
            let engine = Traversal::new(timing.seed.rotate_left(43) ^ local.get(), options.traversal);
            let weak = Arc::downgrade(&shared);
            let traversing = traverse_always(weak, engine, HintDials::new(traversing), addresses);
            tasks.push(runtime.spawn(traversing).abort_handle());
        }
        Ok(Mesh { local, shared, datagrams, tasks, runtime, ports: sockets })
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> NodeId {
        self.local
    }

    /// A socket for a QUIC endpoint, whose addresses are those of [`address`](super::address). One endpoint
    /// at a time can use it: of several sockets of a mesh, each datagram is received by one.
    #[must_use]
    pub fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        self.mesh_socket()
    }

    fn mesh_socket(&self) -> Arc<MeshSocket> {
        let (shared, datagrams) = (Arc::downgrade(&self.shared), Arc::clone(&self.datagrams));
        Arc::new(MeshSocket { local: self.local, shared, datagrams })
    }

    /// A socket for a QUIC endpoint that reaches nodes over the mesh, by the addresses of
    /// [`address`](super::address), and all other addresses by a socket of the caller, such as that of
    /// [`udp_socket`](crate::quic::udp_socket): for clients, which are no nodes of the mesh.
    #[must_use]
    pub fn socket_beside(&self, direct: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(Beside::new(self.mesh_socket(), direct))
    }

    /// The longest datagram that the current path to a node carries, in bytes; `None` without a route.
    #[must_use]
    pub fn mtu(&self, to: NodeId) -> Option<usize> {
        self.shared.lock().engine.mtu(to)
    }

    /// All ports at this moment, in the order of the options.
    #[must_use]
    pub fn ports(&self) -> Vec<PortFacts> {
        self.shared.lock().ports()
    }

    /// All links at this moment.
    #[must_use]
    pub fn links(&self) -> Vec<LinkFacts> {
        self.shared.lock().engine.links().collect()
    }

    /// All paths at this moment.
    #[must_use]
    pub fn paths(&self) -> Vec<PathFacts> {
        self.shared.lock().engine.paths().collect()
    }

    /// The peers of a transport on this mesh, by id: the connection to each, and the path that it takes.
    #[must_use]
    pub fn peers(&self, transport: &PeerBook) -> Vec<PeerFacts> {
        let connections = transport.links();
        let is_node = |address| node_at(address).is_some();
        // The address of the connection counts, and before there is one, that at which the peer is dialled.
        let (connected, dialled) = (transport.connected(is_node), transport.dialled(is_node));
        let core = self.shared.lock();
        let links: Vec<LinkFacts> = core.engine.links().collect();
        let facts = |connection: &PeerLink| {
            let over_mesh = if connection.up.is_some() { &connected } else { &dialled };
            let path = core.engine.path(connection.peer).filter(|_| over_mesh.contains(&connection.peer));
            let first_link = path.and_then(|path| links.iter().find(|link| link.link == path.link).copied());
            PeerFacts { peer: connection.peer, connection: connection.up, path, first_link }
        };
        connections.iter().map(facts).collect()
    }

    /// The findings about the network since the start, the newest last: at most 64 findings, each with a
    /// different subject.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let now = self.shared.now();
        self.shared.lock().findings.list(now)
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> DatagramStats {
        self.shared.lock().engine.stats()
    }

    /// Counts of the router since the start.
    #[must_use]
    pub fn router_stats(&self) -> RouterStats {
        self.shared.lock().engine.router().stats()
    }

    /// Counts of the search for direct paths; `None` on a node without [`MeshPort::traverse`].
    ///
    /// [`MeshPort::traverse`]: super::MeshPort::traverse
    #[must_use]
    pub fn traversal_stats(&self) -> Option<TraversalStats> {
        self.shared.lock().traversal
    }

    /// Sends a datagram, without any promise; for programs that do not use [`Mesh::socket`].
    ///
    /// # Errors
    /// [`DatagramError`]; it was not sent.
    pub fn send(&self, to: NodeId, payload: &[u8]) -> Result<(), DatagramError> {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        let result = core.engine.send(now, to, payload);
        core.sent(to);
        core.flush(now);
        result
    }

    /// Receives the next datagram and the node that sent it, as the neighbours on the way have stated it; for
    /// programs that do not use [`Mesh::socket`], which takes the same ones. While 4 MiB of them wait,
    /// further ones are lost.
    pub async fn recv(&self) -> (NodeId, Vec<u8>) {
        poll_fn(|cx| self.datagrams.poll_pop(cx)).await
    }

    /// Sends a message to all nodes that can be reached, without any promise.
    ///
    /// # Errors
    /// [`DatagramError::TooLong`]; nothing was sent.
    pub fn flood(&self, payload: &[u8]) -> Result<(), DatagramError> {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        core.engine.flood(now, payload)?;
        core.flush(now);
        Ok(())
    }

    /// Receives the next flooded message and the node that began it, as its neighbours have stated it. While
    /// 1024 messages wait, further ones are lost.
    pub async fn recv_flood(&self) -> (NodeId, Vec<u8>) {
        poll_fn(|cx| {
            let mut core = self.shared.lock();
            if let Some(flood) = core.floods.pop_front() {
                return Poll::Ready(flood);
            }
            core.flood_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Ends the epochs of a transport on this mesh to each node to which there was no route for `after`, with
    /// [`DownReason::NoRoute`](crate::DownReason::NoRoute): long before its idle timeout, which has to be
    /// longer. An interruption that is shorter ends no epoch. It works until the mesh or the transport is
    /// dropped.
    pub fn end_without_route(&mut self, peers: PeerBook, after: Duration) {
        let task = end_always(Arc::downgrade(&self.shared), peers, after);
        self.tasks.push(self.runtime.spawn(task).abort_handle());
    }

    /// Lets a transport on this mesh dial a peer as soon as a route to it appears, instead of at the end of a
    /// pause that has grown to [`QuicOptions::backoff_max`](crate::quic::QuicOptions::backoff_max) during a
    /// long cut. It works until the mesh or the transport is dropped.
    pub fn dial_with_route(&mut self, peers: PeerBook) {
        let task = redial_always(Arc::downgrade(&self.shared), peers);
        self.tasks.push(self.runtime.spawn(task).abort_handle());
    }

    /// Keeps lanes of a transport on this mesh from paths that cost more than they may: bulk transfers wait
    /// for a free path, for example, while other messages use a paid one. Set no limit for
    /// [`Lane::Ordered(0)`](crate::Lane::Ordered) of the transport under a [`Mux`](crate::Mux): control
    /// messages use it, so that no channel opens while only a path beyond the limit exists.
    ///
    /// ```no_run
    /// # use x0_mesh::quic::QuicTransport;
    /// # use x0_mesh::mesh::{Mesh, PriceLimits};
    /// # use x0_mesh::{Lane, Mux, MuxOptions};
    /// # fn example(mesh: &mut Mesh, transport: QuicTransport) {
    /// let limits = PriceLimits::new().lane(Lane::Bulk, 0);
    /// let mux = Mux::new(mesh.limit_prices(transport, limits), MuxOptions::default());
    /// # drop(mux);
    /// # }
    /// ```
    pub fn limit_prices<T: Transport>(&mut self, transport: T, limits: PriceLimits) -> PriceLimiter<T> {
        let limiter = PriceLimiter::new(transport, limits.clone(), &self.shared);
        let task = wake_always(Arc::downgrade(&self.shared), limiter.sender_waker(), limits);
        self.tasks.push(self.runtime.spawn(task).abort_handle());
        limiter
    }

    /// Waits until a route to the node is known.
    pub async fn reached(&self, node: NodeId) {
        self.until(|mesh| mesh.mtu(node).is_some()).await;
    }

    /// Waits until a condition holds, which is looked at now and after each change of a link or a route.
    pub async fn until(&self, condition: impl Fn(&Mesh) -> bool) {
        loop {
            // Before the look: a change in between is not missed.
            let changed = self.shared.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.datagrams.close();
        for port in &self.ports {
            port.incoming.close();
        }
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mesh")
            .field("local", &self.local())
            .field("links", &self.links())
            .finish_non_exhaustive()
    }
}

/// Configurations of the neighbours' connections.
fn quic_configs(options: &MeshOptions) -> Result<(quinn::ServerConfig, quinn::ClientConfig), StartError> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // The number of the link.
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        // Fits.
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .initial_rtt(Duration::from_millis(50))
        // Nothing but handshakes is sent.
        .mtu_discovery_config(None);
    let transport = Arc::new(transport);
    // Copies of the configurations, not of the resolvers in them: rotation of the identity reaches each later
    // handshake.
    let mut server = (*options.server).clone();
    server.alpn_protocols = vec![ALPN.to_vec()];
    let server = QuicServerConfig::try_from(server).map_err(|_| StartError::Tls)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(Arc::clone(&transport));
    let mut client = (*options.client).clone();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let client = QuicClientConfig::try_from(client).map_err(|_| StartError::Tls)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(transport);
    Ok((server, client))
}

/// The driver: one round after another, until the mesh is dropped.
async fn drive(shared: Weak<Shared>) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    // When the timer ends. Most rounds postpone what is due; the timer is not set again for them, because one
    // round too many is less work.
    let mut armed: Option<Duration> = None;
    poll_fn(|cx| {
        loop {
            let Some(shared) = shared.upgrade() else { return Poll::Ready(()) };
            let now = shared.now();
            let (timeout, is_more, changes) = {
                let mut core = shared.lock();
                let (timeout, is_more) = core.round(now, cx);
                (timeout, is_more, std::mem::take(&mut core.changes))
            };
            if changes.links {
                shared.links_changed.notify_waiters();
            }
            if changes.messages {
                // Kept until the driver looks.
                shared.messages.notify_one();
            }
            if changes.links || changes.routes {
                shared.changed.notify_waiters();
            }
            if is_more {
                // Other tasks have their turns.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(at) = timeout else { return Poll::Pending };
            if armed.is_none_or(|armed| at < armed) {
                sleep.as_mut().reset(shared.origin + at);
                armed = Some(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            armed = None;
        }
    })
    .await;
}
