//! The QUIC transport as its owner sees it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, SendDatagramError,
    TokioRuntime, TransportConfig, VarInt,
};
use tokio::time::sleep;
use x0_identity::NodeId;

use super::close::code;
use super::dial::accept_always;
use super::options::{BindError, QuicOptions, unpredictable};
use super::outbox::joined;
use super::peer_book::PeerBook;
use super::race::race;
use super::reset::ResetKey;
use super::shared::Shared;
use super::state::State;
use super::window::Bounded;
use crate::{Lane, Next, PeerEvent, Received, RecvError, SendError, Transmit, Transport};

/// Fits a packet of 1200 bytes, which every path carries (RFC 9000 §14), after the longest headers, the
/// AEAD's tag (RFC 9001 §5.3) and the frame's own header (RFC 9221 §4).
pub(super) const DATAGRAM_LEN_MAX: usize = 1100;
/// The socket buffer that the system is asked for, in bytes; it may grant less.
const SOCKET_LEN: usize = 4 << 20;
/// The unidirectional streams that a peer may open: the control stream, the ordered lanes, bulk messages (RFC
/// 9000 §4.6).
const STREAMS_MAX: u32 = 1 + QuicOptions::ORDERED_LANES_MAX as u32 + QuicOptions::BULK_STREAMS_MAX as u32;
const ALPN: &[u8] = b"x0-mesh/1";
/// How long [`QuicTransport::close`] waits at most.
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// How long after a search for the MTU of the path the next one begins.
const MTU_SEARCH_INTERVAL: Duration = Duration::from_secs(60);
/// How long after losses of long packets alone a search for the MTU of the path begins.
const MTU_SEARCH_COOLDOWN: Duration = Duration::from_secs(10);

/// Messages over QUIC. See the [module](super) for what it does, and [`Transport`] for what it promises.
///
/// The transport works by tasks on the runtime that it was bound in, as long as that runs; its own methods
/// may be called from any thread and executor. Dropping it closes every connection and loses the messages
/// that are on the way; [`QuicTransport::close`] also waits until the peers can have received the close.
pub struct QuicTransport {
    pub(super) shared: Arc<Shared>,
    /// Reports when quinn has dropped the socket.
    socket: Weak<dyn AsyncUdpSocket>,
}

impl QuicTransport {
    /// Opens the socket, and starts to listen and to dial.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left behind.
    pub fn bind(config: QuicOptions) -> Result<QuicTransport, BindError> {
        config.check()?;
        let socket = udp_socket(config.bind)?;
        QuicTransport::bind_on(config, socket)
    }

    /// Listens and dials on a socket of the caller, such as that of a `Mesh` (feature `mesh`);
    /// [`QuicOptions::bind`] is not used. The socket is dropped with the transport. Set
    /// [`QuicOptions::datagram_len_max`] to what it carries: longer packets are tried, and cost time.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left behind.
    pub fn bind_on(config: QuicOptions, socket: Arc<dyn AsyncUdpSocket>) -> Result<QuicTransport, BindError> {
        config.check()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let transport_config = Arc::new(transport_config(&config));

        // A copy of the configuration, not of the resolver in it: rotation of the identity reaches each later
        // handshake.
        let mut server = (*config.server).clone();
        server.alpn_protocols = vec![ALPN.to_vec()];
        let server = QuicServerConfig::try_from(server).map_err(|_| BindError::Tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport_config));

        let mut client = (*config.client).clone();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let client = QuicClientConfig::try_from(client).map_err(|_| BindError::Tls)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport_config);

        let mut endpoint_config =
            config.reset_key.as_ref().map_or_else(EndpointConfig::default, ResetKey::endpoint_config);
        endpoint_config
            .max_udp_payload_size(config.datagram_len_max)
            .map_err(|_| BindError::Limit { field: "datagram_len_max", rule: "be from 1200 to 6550" })?;
        let weak = Arc::downgrade(&socket);
        let endpoint =
            Endpoint::new_with_abstract_socket(endpoint_config, Some(server), socket, Arc::new(TokioRuntime))
                .map_err(|source| BindError::Socket { address: config.bind, source })?;
        let socket = weak;

        let state =
            State::new(config.local, unpredictable(), config.ordered_lanes, config.receive_queue_len_max);
        let peers = config.peers.clone();
        let shared = Arc::new(Shared::new(config, state, client, endpoint, runtime));
        shared.runtime.spawn(accept_always(Arc::clone(&shared)));
        let transport = QuicTransport { shared, socket };
        let book = transport.peers();
        for (peer, address) in peers {
            book.set_peer(peer, address);
        }
        Ok(transport)
    }

    /// The address that it listens on; with the port that the system chose, if it did.
    ///
    /// # Errors
    /// The error of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// A handle that changes the peers to dial, from any thread.
    #[must_use]
    pub fn peers(&self) -> PeerBook {
        PeerBook::new(&self.shared)
    }

    /// Closes every connection, and waits until the peers can have received the close (RFC 9000 §10.2) and
    /// the port is free, at most 3 s. Messages that are on the way are lost.
    pub async fn close(self) {
        let endpoint = self.shared.endpoint.clone();
        let socket = Weak::clone(&self.socket);
        drop(self);
        let closed = async move {
            endpoint.wait_idle().await;
            drop(endpoint);
            // quinn does not report when its driver has dropped the socket; at this point it is about to.
            while socket.strong_count() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        // A connection waits for three probe timeouts, which a path with long round trips makes long, and one
        // whose socket has failed waits for ever.
        race(closed, sleep(CLOSE_TIME)).await;
    }

    fn lane(&self, lane: Lane) -> Option<usize> {
        let ordered_lanes = self.shared.config.ordered_lanes;
        match lane {
            Lane::Ordered(number) if number < ordered_lanes => Some(usize::from(number)),
            Lane::Ordered(_) => None,
            Lane::Bulk => Some(usize::from(ordered_lanes)),
            Lane::Datagram => Some(usize::from(ordered_lanes) + 1),
        }
    }

    fn lane_of(&self, number: usize) -> Lane {
        match u8::try_from(number) {
            Ok(number) if number < self.shared.config.ordered_lanes => Lane::Ordered(number),
            Ok(number) if number == self.shared.config.ordered_lanes => Lane::Bulk,
            _ => Lane::Datagram,
        }
    }
}

fn transport_config(config: &QuicOptions) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    // Long packets cost one system call and one AEAD operation for more bytes; the path is probed before they
    // are used (RFC 9000 §14.3).
    discovery.upper_bound(config.datagram_len_max);
    // A busy path loses probes as it loses other packets, and quinn takes it for a path of short packets. The
    // pauses of ten minutes and one minute, which are its defaults, are too long for routes that change.
    discovery.interval(MTU_SEARCH_INTERVAL).black_hole_cooldown(MTU_SEARCH_COOLDOWN);
    let receive_window = u64::from(config.stream_window) * u64::from(STREAMS_MAX);
    transport
        // None is used, so a peer that opens one breaks the protocol (RFC 9000 §4.6), and quinn closes the
        // connection.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        // `QuicOptions::check` has made sure that it fits.
        .max_idle_timeout(IdleTimeout::try_from(config.idle_timeout).ok())
        .keep_alive_interval(Some(config.keep_alive))
        .stream_receive_window(VarInt::from_u32(config.stream_window))
        // The window of the connection (RFC 9000 §4.1) is so wide that streams which are not read leave room
        // for the others.
        .receive_window(VarInt::from_u64(receive_window).unwrap_or(VarInt::MAX))
        .send_window(config.send_window)
        .initial_rtt(config.round_trip_initial)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(Bounded::default()));
    transport
}

/// Opens a UDP socket on the tokio runtime of the caller, as [`QuicTransport::bind`] does.
///
/// # Errors
/// [`BindError`]; nothing is left behind.
pub fn udp_socket(address: SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    // Before the socket, so that the error says what is missing.
    tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
    let opened = crate::udp::bind(address, (SOCKET_LEN, SOCKET_LEN));
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
        _ => BindError::Socket { address, source },
    })
}

impl Transport for QuicTransport {
    fn local(&self) -> NodeId {
        self.shared.config.local
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Datagram => DATAGRAM_LEN_MAX,
            Lane::Ordered(number) if number < self.shared.config.ordered_lanes => {
                self.shared.config.message_len_max
            }
            Lane::Ordered(_) => 0,
            Lane::Bulk => self.shared.config.bulk_len_max,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.poll_send_with_trailer(cx, transmit, &[])
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        let Transmit { to: peer, lane, payload } = *transmit;
        if peer == self.local() {
            return Poll::Ready(Err(SendError::ToSelf));
        }
        let Some(number) = self.lane(lane) else { return Poll::Ready(Err(SendError::NoLane { lane })) };
        let (len, len_max) = (payload.len() + trailer.len(), self.message_len_max(lane));
        if len > len_max {
            return Poll::Ready(Err(SendError::TooLong { len, len_max }));
        }
        let writer = {
            let mut state = self.shared.lock();
            if state.over.is_some() {
                return Poll::Ready(Err(SendError::Closed));
            }
            let Some(entry) = state.peers.get_mut(&peer) else {
                return Poll::Ready(Err(SendError::UnknownPeer { peer }));
            };
            // Between two epochs a message would travel in an epoch that its owner does not know of.
            if entry.link.is_none() && !entry.is_reaching {
                return Poll::Ready(Err(SendError::Unreachable { peer }));
            }
            match entry.outbox.lanes.get_mut(number) {
                Some(lane) => {
                    let len_max = self.shared.config.send_queue_len_max;
                    match lane.push(cx, payload, trailer, len_max, &self.shared.spares) {
                        Ok(writer) => writer,
                        Err(_) => return Poll::Pending,
                    }
                }
                None => {
                    let taken = match &entry.link {
                        // Straight to QUIC: a datagram that waits is worth less than the next one.
                        Some(link) => send_datagram(&link.connection, payload, trailer),
                        None => entry.outbox.keep_datagram(payload, trailer),
                    };
                    let is_linked = entry.link.is_some();
                    if !taken {
                        return Poll::Ready(Err(SendError::Congested { peer, lane }));
                    }
                    // Others are counted when the peer is reached.
                    if is_linked {
                        state.telemetry.datagrams_sent(1);
                    }
                    None
                }
            }
        };
        // After the lock is free: the task takes it as soon as it runs.
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let next = self.shared.change(|state, wakers| {
            let next = state.next_message(wakers);
            if next.is_none() && state.over.is_none() {
                remember(&mut state.recv_waker, cx);
            }
            next.ok_or_else(|| state.over.clone())
        });
        match next {
            Ok((from, number, message)) => {
                self.shared.spares.keep(std::mem::replace(payload, message));
                Poll::Ready(Ok(Received { from, lane: self.lane_of(number) }))
            }
            Err(Some(over)) => Poll::Ready(Err(over)),
            Err(None) => Poll::Pending,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        // One look at the state instead of two. Events first, so that an epoch's `Up` comes before its
        // messages.
        self.shared.change(|state, wakers| {
            if let Some(event) = state.next_event() {
                return Poll::Ready(Ok(Next::Event(event)));
            }
            if let Some((from, number, message)) = state.next_message(wakers) {
                self.shared.spares.keep(std::mem::replace(payload, message));
                return Poll::Ready(Ok(Next::Message(Received { from, lane: self.lane_of(number) })));
            }
            if let Some(over) = &state.over {
                return Poll::Ready(Err(over.clone()));
            }
            remember(&mut state.event_waker, cx);
            remember(&mut state.recv_waker, cx);
            Poll::Pending
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let mut state = self.shared.lock();
        if let Some(event) = state.next_event() {
            return Poll::Ready(event);
        }
        remember(&mut state.event_waker, cx);
        Poll::Pending
    }
}

/// Keeps a waker, without a clone where it is the same task's.
fn remember(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(kept) => kept.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}

/// Whether there was room. A datagram that cannot be sent for another reason is lost, as datagrams may be
/// (RFC 9221 §5).
fn send_datagram(connection: &quinn::Connection, payload: &[u8], trailer: &[u8]) -> bool {
    if connection.datagram_send_buffer_space() < payload.len() + trailer.len() {
        return false;
    }
    !matches!(connection.send_datagram(joined(payload, trailer)), Err(SendDatagramError::TooLarge))
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        // First, so that peers see the close before any stream ends.
        self.shared.endpoint.close(code::CLOSED, b"");
        self.shared.change(|state, wakers| state.finish(RecvError::Closed, wakers));
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QuicTransport")
            .field("local", &self.shared.config.local)
            .field("peers", &self.peers())
            .finish_non_exhaustive()
    }
}
