//! Neighbours: dialling, accepting, and keys from their connections.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use quinn::{Connection, Endpoint, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use x0_identity::NodeId;

use super::core::KeyedError;
use super::node::Shared;
use crate::datagram::{FrameKeys, PortId};
use crate::liveness::LivenessState;
use crate::quic::{Jitter, race};
use crate::router::LinkId;

/// How long a connection is kept after its keys were taken, so that the other end can take them too.
const LINGER: Duration = Duration::from_secs(2);
/// Connections that other nodes made and that are kept so at once: each of a verified neighbour.
const LINGERING_MAX: usize = 1024;
/// How long a link stays down before its keys are renewed: the peer may have restarted.
const REDIAL: Duration = Duration::from_millis(150);
/// The close code of a neighbour that cannot be used.
const REFUSED: VarInt = VarInt::from_u32(1);
/// The text of that close code.
const REFUSED_TEXT: &[u8] =
    b"the SVID does not name another node, there are too many links, or the link has no valid number";

/// The settings of all ports.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    pub(super) dial_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) keys_lifetime: Duration,
    pub(super) seed: u64,
}

/// A neighbour with keys.
struct Keyed {
    link: LinkId,
    /// See [`Datagrams::link_number`](crate::datagram::Datagrams::link_number).
    number: u8,
    /// The address of the peer as the connection writes it: on a port of IPv6, an address of IPv4 has the
    /// form of IPv6.
    address: SocketAddr,
    /// When new keys are due.
    renew_in: Duration,
}

/// Why a connection gives no keys.
enum Failure {
    /// The neighbour cannot be used, or was not reached.
    Unusable,
    /// The neighbour can be used, and links to its other addresses have all numbers.
    NoNumber {
        peer: NodeId,
        /// As the connection writes it.
        address: SocketAddr,
        /// After which time another node may have the address.
        retry_in: Duration,
    },
}

/// The node at the other end of a connection, and when its SVID expires.
fn neighbour(shared: &Shared, connection: &Connection) -> Option<(NodeId, SystemTime)> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())?;
    // TLS has verified that the SVID is trusted; guests and nodes of federated domains are no neighbours.
    let peer = match &shared.trust_domain {
        Some(own) => x0_identity::peer_node_id_in(own, &chain).ok()?,
        None => x0_identity::peer_node_id(&chain).ok()?,
    };
    // A certificate is valid to the end of its last second (RFC 5280 §4.1.2.5).
    let expiry = x0_identity::peer_not_after(&chain).ok()? + Duration::from_secs(1);
    Some((peer, expiry))
}

/// Takes the keys of a connection whose TLS handshake is complete on this side. The server hands in the
/// number of the link, which the client has chosen.
fn take_keys(
    shared: &Weak<Shared>,
    port: PortId,
    connection: &Connection,
    number: Option<u8>,
    keys_lifetime: Duration,
) -> Result<Keyed, Failure> {
    let shared = shared.upgrade().ok_or(Failure::Unusable)?;
    let (peer, expiry) = neighbour(&shared, connection).ok_or(Failure::Unusable)?;
    let mut material = [0; FrameKeys::MATERIAL_LEN];
    let exported = connection.export_keying_material(&mut material, FrameKeys::LABEL, b"");
    exported.map_err(|_| Failure::Unusable)?;
    let keys = FrameKeys::new(&material, number.is_none());
    let address = connection.remote_address();
    let now = shared.now();
    let keyed = shared.lock().keyed(now, (port, peer, address), number, keys, expiry);
    let valid = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    let renew_in = (valid / 2).clamp(Duration::from_millis(100), keys_lifetime);
    match keyed {
        Ok((link, number)) => Ok(Keyed { link, number, address, renew_in }),
        Err(KeyedError::NoNumber) => Err(Failure::NoNumber { peer, address, retry_in: renew_in }),
        Err(KeyedError::Refused(_)) => Err(Failure::Unusable),
    }
}

/// Sends the number of the link to the server.
async fn send_number(connection: &Connection, number: u8) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(&[number]).await.ok()?;
    stream.finish().ok()
}

/// The number of the link, from the client.
async fn receive_number(connection: &Connection) -> Option<u8> {
    let mut number = [0];
    connection.accept_uni().await.ok()?.read_exact(&mut number).await.ok()?;
    Some(number[0])
}

/// Keeps a connection until the other end has certainly taken its keys.
async fn linger(connection: Connection) {
    race(sleep(LINGER), connection.closed()).await;
}

/// Accepts neighbours that dial, until the task is aborted.
pub(super) async fn accept_always(
    shared: Weak<Shared>,
    endpoint: Endpoint,
    port: PortId,
    incoming_max: usize,
    timing: Timing,
) {
    // Bounds the state that strangers can make this node keep before they have shown an identity (RFC 9000
    // §21.1).
    let permits = Arc::new(Semaphore::new(incoming_max.min(Semaphore::MAX_PERMITS)));
    let lingering = Arc::new(Semaphore::new(LINGERING_MAX));
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (shared, timing, lingering) = (Weak::clone(&shared), timing.clone(), Arc::clone(&lingering));
        tasks.spawn(async move {
            let connection = accept(shared, incoming, port, &timing).await;
            // The handshake is over: the next neighbour need not wait until this connection is.
            drop(permit);
            if let Some(connection) = connection
                && let Ok(_permit) = lingering.try_acquire()
            {
                linger(connection).await;
            }
        });
    }
}

/// The connection of a neighbour whose keys were taken.
async fn accept(
    shared: Weak<Shared>,
    incoming: Incoming,
    port: PortId,
    timing: &Timing,
) -> Option<Connection> {
    let connecting = incoming.accept().ok()?;
    let handshake = async {
        let connection = connecting.await.ok()?;
        let number = receive_number(&connection).await?;
        Some((connection, number))
    };
    let (connection, number) = timeout(timing.dial_timeout, handshake).await.ok()??;
    if take_keys(&shared, port, &connection, Some(number), timing.keys_lifetime).is_err() {
        connection.close(REFUSED, REFUSED_TEXT);
        return None;
    }
    Some(connection)
}

/// What dials the neighbours of one port.
#[derive(Debug, Clone)]
pub(super) struct Dialler {
    pub(super) shared: Weak<Shared>,
    pub(super) endpoint: Endpoint,
    pub(super) client: quinn::ClientConfig,
    pub(super) port: PortId,
    pub(super) timing: Timing,
}

impl Dialler {
    fn jitter(&self, address: SocketAddr) -> Jitter {
        Jitter::new(self.timing.seed ^ u64::from(address.port()) << 32 ^ u64::from(self.port.0))
    }

    /// Dials once: keys, and the connection that they are from.
    async fn attempt(&self, address: SocketAddr) -> Result<(Keyed, Connection), Failure> {
        let connection = self.connect(address).await.ok_or(Failure::Unusable)?;
        let keyed = take_keys(&self.shared, self.port, &connection, None, self.timing.keys_lifetime)
            .inspect_err(|_| connection.close(REFUSED, REFUSED_TEXT))?;
        send_number(&connection, keyed.number).await.ok_or(Failure::Unusable)?;
        Ok((keyed, connection))
    }

    async fn connect(&self, address: SocketAddr) -> Option<Connection> {
        // The identity is the SVID's, so the server name (RFC 6066 §3) is neither sent nor verified.
        let connecting = self.endpoint.connect_with(self.client.clone(), address, "x0-mesh").ok()?;
        timeout(self.timing.dial_timeout, connecting).await.ok()?.ok()
    }

    /// Waits until a link to an address of a neighbour would have a number, at most for `retry_in`.
    async fn numbered(&self, peer: NodeId, address: SocketAddr, retry_in: Duration, jitter: &mut Jitter) {
        let until = Instant::now() + retry_in;
        while Instant::now() < until {
            // A number becomes free by time, without an event.
            sleep(jitter.spread(self.timing.backoff_max).min(retry_in)).await;
            let Some(shared) = self.shared.upgrade() else { return };
            let number = shared.lock().engine.link_number(self.port, peer, address);
            if number.is_some() {
                return;
            }
        }
    }

    /// Dials a neighbour whenever its link needs keys, until the task is aborted.
    pub(super) async fn dial_always(self, address: SocketAddr) {
        let mut jitter = self.jitter(address);
        let mut pause = self.timing.backoff_min;
        let mut lingering = JoinSet::new();
        loop {
            while lingering.try_join_next().is_some() {}
            let (keyed, connection) = match self.attempt(address).await {
                Ok(attempt) => attempt,
                Err(_) if self.shared.strong_count() == 0 => return,
                Err(Failure::NoNumber { peer, address, retry_in }) => {
                    self.numbered(peer, address, retry_in, &mut jitter).await;
                    continue;
                }
                Err(Failure::Unusable) => {
                    sleep(jitter.spread(pause)).await;
                    pause = (pause * 2).min(self.timing.backoff_max);
                    continue;
                }
            };
            lingering.spawn(linger(connection));
            if !needed(&self.shared, keyed, &mut jitter, &mut pause, &self.timing).await {
                return;
            }
        }
    }

    /// Dials an address that may lead nowhere. Returns after the first dial that fails; until then it dials
    /// whenever the link needs keys.
    pub(super) async fn dial_hint(self, address: SocketAddr, reached: impl Future<Output = ()> + Send) {
        let mut jitter = self.jitter(address);
        let mut pause = self.timing.backoff_min;
        let mut reached = Some(reached);
        let mut lingering = JoinSet::new();
        while let Ok((keyed, connection)) = self.attempt(address).await {
            while lingering.try_join_next().is_some() {}
            if let Some(reached) = reached.take() {
                reached.await;
            }
            lingering.spawn(linger(connection));
            if !needed(&self.shared, keyed, &mut jitter, &mut pause, &self.timing).await {
                return;
            }
        }
    }
}

/// Waits until the link of an address needs new keys; false when the mesh has ended.
async fn needed(
    shared: &Weak<Shared>,
    keyed: Keyed,
    jitter: &mut Jitter,
    pause: &mut Duration,
    timing: &Timing,
) -> bool {
    let renew_at = Instant::now() + keyed.renew_in;
    // The first probes are on their way.
    let mut down_until = Instant::now() + jitter.spread(REDIAL * 2).max(*pause);
    loop {
        let Some(strong) = shared.upgrade() else { return false };
        let changed = Arc::clone(&strong.links_changed);
        let notified = changed.notified();
        let (state, wants_renewal) = {
            let core = strong.lock();
            // A link that was down while another address of the neighbour answered leads there now.
            let state =
                core.engine.link_state(keyed.link).filter(|_| core.leads_to(keyed.link, keyed.address));
            (state, core.renewals.contains(&keyed.link))
        };
        drop(strong);
        let now = Instant::now();
        match state {
            _ if wants_renewal || now >= renew_at => return true,
            None => {
                // Not at once: ends that lead one link to different addresses at the same time would do so
                // again and again.
                sleep(jitter.spread(*pause)).await;
                *pause = (*pause * 2).min(timing.backoff_max);
                return true;
            }
            Some(LivenessState::Down) => {
                if now >= down_until {
                    *pause = (*pause * 2).min(timing.backoff_max);
                    return true;
                }
                race(notified, sleep_until(down_until.min(renew_at))).await;
            }
            Some(_) => {
                *pause = timing.backoff_min;
                race(notified, sleep_until(renew_at)).await;
                down_until = Instant::now() + jitter.spread(REDIAL);
            }
        }
    }
}
