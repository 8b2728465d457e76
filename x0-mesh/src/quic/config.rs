//! What the transport is made with.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use x0_identity::NodeId;

use super::random;

/// What a [`QuicTransport`](super::QuicTransport) is made with. Lengths are in bytes.
#[derive(Clone)]
#[non_exhaustive]
pub struct QuicConfig {
    /// Who we are. The SVID in the TLS configurations must name the same node, or peers refuse us.
    pub local: NodeId,
    /// Where to listen, and to dial from. Port 0 lets the system choose.
    pub bind: SocketAddr,
    /// For peers that dial. It must demand a client certificate. The ALPN is set by the transport.
    pub server: Arc<rustls::ServerConfig>,
    /// For peers that are dialled. The ALPN is set by the transport.
    pub client: Arc<rustls::ClientConfig>,
    /// The peers to dial from the beginning. [`PeerBook`](super::PeerBook) changes them later.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// How many ordered lanes there are, numbered from 0: at most [`QuicConfig::ORDERED_LANES_MAX`]. 4 unless set otherwise.
    pub ordered_lanes: u8,
    /// The longest message of an ordered lane, sent or received. 8 MiB and 64 KiB unless set otherwise.
    pub message_len_max: usize,
    /// The longest message of the bulk lane, sent or received. 64 MiB unless set otherwise.
    pub bulk_len_max: usize,
    /// How many bulk messages travel to one peer at once: from 1 to [`QuicConfig::BULK_STREAMS_MAX`]. 8 unless set otherwise.
    pub bulk_streams: u8,
    /// How many bytes of one lane to one peer wait to be sent before the lane is full. A single message may be longer.
    /// 4 MiB unless set otherwise.
    pub send_queue_len_max: usize,
    /// How many bytes of one lane from one peer wait to be received before the peer is slowed down. A single message may be
    /// longer. 4 MiB unless set otherwise.
    pub receive_queue_len_max: usize,
    /// How many bytes of one stream may be under way, which bounds a lane's speed at a given distance. 4 MiB unless set
    /// otherwise.
    pub stream_window: u32,
    /// How many bytes to one peer may be unacknowledged in total. 32 MiB unless set otherwise.
    pub send_window: u64,
    /// A peer that is not heard of for this long is down. 2 s unless set otherwise.
    pub idle_timeout: Duration,
    /// How often a connection without traffic is probed; less than half of `idle_timeout`. 500 ms unless set otherwise.
    pub keep_alive: Duration,
    /// How long one attempt to reach a peer may take, and a peer may take to greet. 1 s unless set otherwise.
    pub dial_timeout: Duration,
    /// The pause after the first failed attempt. It doubles with each. 50 ms unless set otherwise.
    pub backoff_min: Duration,
    /// The longest pause between attempts. 2 s unless set otherwise.
    pub backoff_max: Duration,
    /// The round-trip time that is assumed before it is measured. 10 ms unless set otherwise.
    pub round_trip_initial: Duration,
    /// The longest UDP payload that is probed for: from 1200 to [`QuicConfig::DATAGRAM_LEN_LIMIT`]. Longer ones cost less; a
    /// path that does not carry them is noticed. 6500 unless set otherwise.
    pub datagram_len_max: u16,
    /// How many peers may be connected, or in the middle of a handshake, that were not dialled by us. 1024 unless set
    /// otherwise.
    pub incoming_max: usize,
    /// What the jitter of the back-off is drawn from. Different in each process unless set otherwise.
    pub seed: u64,
}

impl QuicConfig {
    /// The most ordered lanes.
    pub const ORDERED_LANES_MAX: u8 = 16;

    /// The most bulk messages that travel to one peer at once.
    pub const BULK_STREAMS_MAX: u8 = 16;

    /// The most that `datagram_len_max` may be. quinn hands up to ten packets at once to the system, which refuses more than
    /// 65507 bytes; what is refused is lost, looks like a path that carries no long packets, and makes the connection slow.
    pub const DATAGRAM_LEN_LIMIT: u16 = 6550;

    /// A configuration with the usual limits and no peers.
    #[must_use]
    pub fn new(
        local: NodeId,
        bind: SocketAddr,
        server: Arc<rustls::ServerConfig>,
        client: Arc<rustls::ClientConfig>,
    ) -> QuicConfig {
        QuicConfig {
            local,
            bind,
            server,
            client,
            peers: Vec::new(),
            ordered_lanes: 4,
            message_len_max: (8 << 20) + (64 << 10),
            bulk_len_max: 64 << 20,
            bulk_streams: 8,
            send_queue_len_max: 4 << 20,
            receive_queue_len_max: 4 << 20,
            stream_window: 4 << 20,
            send_window: 32 << 20,
            idle_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_millis(500),
            dial_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            round_trip_initial: Duration::from_millis(10),
            datagram_len_max: 6500,
            incoming_max: 1024,
            seed: random::unpredictable(),
        }
    }

    /// Adds a peer to dial.
    #[must_use]
    pub fn peer(mut self, peer: NodeId, address: SocketAddr) -> QuicConfig {
        self.peers.push((peer, address));
        self
    }

    pub(super) fn check(&self) -> Result<(), BindError> {
        let refuse = |field, rule| Err(BindError::Limit { field, rule });
        let length_max = u32::MAX as usize;
        if self.ordered_lanes > Self::ORDERED_LANES_MAX {
            return refuse("ordered_lanes", "be at most 16");
        }
        if self.bulk_streams == 0 || self.bulk_streams > Self::BULK_STREAMS_MAX {
            return refuse("bulk_streams", "be from 1 to 16");
        }
        if self.message_len_max > length_max {
            return refuse("message_len_max", "fit in 32 bits");
        }
        if self.bulk_len_max > length_max {
            return refuse("bulk_len_max", "fit in 32 bits");
        }
        if !(1200..=Self::DATAGRAM_LEN_LIMIT).contains(&self.datagram_len_max) {
            return refuse("datagram_len_max", "be from 1200 to 6550");
        }
        if self.idle_timeout.is_zero() || quinn::IdleTimeout::try_from(self.idle_timeout).is_err() {
            return refuse("idle_timeout", "be above zero and below 2^62 ms");
        }
        if self.keep_alive * 2 > self.idle_timeout {
            return refuse("keep_alive", "be at most half of idle_timeout");
        }
        if self.backoff_min > self.backoff_max {
            return refuse("backoff_min", "be at most backoff_max");
        }
        Ok(())
    }
}

impl fmt::Debug for QuicConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QuicConfig")
            .field("local", &self.local)
            .field("bind", &self.bind)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Why a transport was not made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("{address} is in use: stop what listens there, or bind another port")]
    AddressInUse {
        /// Which address.
        address: SocketAddr,
    },
    /// The address is not one of this machine, or another thing kept the socket from being made.
    #[error("cannot bind {address}: {source}: check that this machine has the address and may use the port")]
    Socket {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no tokio runtime with I/O and time here.
    #[error("no tokio runtime here: bind inside of one that has I/O and time enabled")]
    NoRuntime,
    /// A limit makes no sense.
    #[error("{field} must {rule}: change the configuration")]
    Limit {
        /// Which field of [`QuicConfig`].
        field: &'static str,
        /// What it must do.
        rule: &'static str,
    },
    /// The TLS configuration cannot be used for QUIC.
    #[error("the TLS configuration does not suit QUIC: {detail}: build it for TLS 1.3 with AES-128-GCM")]
    Tls {
        /// Why.
        detail: String,
    },
}
