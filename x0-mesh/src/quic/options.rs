//! Settings of the QUIC transport.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use x0_identity::{Identity, NodeId};

use super::reset::ResetKey;

/// Settings of a [`QuicTransport`](super::QuicTransport). Lengths are in bytes. Each field has a method of
/// its name that sets it.
#[derive(Clone)]
#[non_exhaustive]
pub struct QuicOptions {
    /// This node. The SVID in the TLS configurations must name the same node, or peers refuse the connection.
    pub local: NodeId,
    /// The address to listen on, and to dial from. Port 0 lets the system choose.
    pub bind: SocketAddr,
    /// For peers that dial. It must demand a client certificate. The transport sets the ALPN.
    pub server: Arc<rustls::ServerConfig>,
    /// For peers that are dialled. The transport sets the ALPN.
    pub client: Arc<rustls::ClientConfig>,
    /// The identity of this node: with it, a connection ends as soon as the identity does not trust the peer
    /// any more, because of a revocation or a change of its bundle, and nodes of other trust domains are no
    /// nodes. Without it, a connection ends only at the expiry of the peer's SVID, and the verifier must
    /// trust one trust domain alone: a federated domain has nodes of its own, with the same numbers. None
    /// unless set.
    pub identity: Option<Identity>,
    /// The peers to dial from the beginning. [`PeerBook`](super::PeerBook) changes them later.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// How many ordered lanes there are, numbered from 0: at most [`QuicOptions::ORDERED_LANES_MAX`]. 8
    /// unless set. It must be the same at each node: a peer that uses a lane which the receiver lacks loses
    /// the connection.
    pub ordered_lanes: u8,
    /// The longest message of an ordered lane, sent or received. 8 MiB and 64 KiB unless set.
    pub message_len_max: usize,
    /// The longest message of the bulk lane, sent or received. 64 MiB unless set.
    pub bulk_len_max: usize,
    /// How many bulk messages travel to one peer at once: from 1 to [`QuicOptions::BULK_STREAMS_MAX`]. 8
    /// unless set.
    pub bulk_streams: u8,
    /// How many bytes of one lane to one peer wait to be sent before the lane is full. A single message may
    /// be longer, and the buffer of a bulk message up to twice as long as the message. 4 MiB unless set.
    pub send_queue_len_max: usize,
    /// How many bytes of one lane from one peer wait to be received before the peer is slowed down. A single
    /// message may be longer, and the buffer of a bulk message up to twice as long as the message. 4 MiB
    /// unless set.
    pub receive_queue_len_max: usize,
    /// How many bytes of one stream may be on the way, which bounds the speed of a lane over a given distance
    /// (RFC 9000 §4.1). 4 MiB unless set.
    pub stream_window: u32,
    /// How many bytes to one peer may be unacknowledged in total. 32 MiB unless set.
    pub send_window: u64,
    /// A peer from which nothing arrives for so long is down (RFC 9000 §10.1). 2 s unless set.
    pub idle_timeout: Duration,
    /// How often a connection without traffic is probed (RFC 9000 §10.1.2); at most half of `idle_timeout`.
    /// 500 ms unless set.
    pub keep_alive: Duration,
    /// How long one attempt to reach a peer may take, and how long a peer may take for its handshake. 1 s
    /// unless set.
    pub dial_timeout: Duration,
    /// The pause after the first failed attempt. It doubles with each. 50 ms unless set.
    pub backoff_min: Duration,
    /// The longest pause between attempts. 2 s unless set.
    pub backoff_max: Duration,
    /// The round-trip time that is assumed before it is measured. 10 ms unless set.
    pub round_trip_initial: Duration,
    /// The longest UDP payload that is probed for (RFC 9000 §14.3): from 1200 to
    /// [`QuicOptions::DATAGRAM_LEN_LIMIT`]. Longer ones cost less per byte; a path that does not carry them
    /// is noticed. 6500 unless set.
    pub datagram_len_max: u16,
    /// How many peers that this node did not dial may be connected, or in the middle of a handshake. 1024
    /// unless set.
    pub incoming_max: usize,
    /// Whether workloads that are not nodes, such as clients, may connect. Each of their connections gets an
    /// id of its own: see [`is_guest`](crate::is_guest). No unless set.
    pub guests: bool,
    /// By which peers learn that this node has restarted; see [`ResetKey`]. None unless set: a peer that this
    /// node does not dial notices the restart after its `idle_timeout`.
    pub reset_key: Option<ResetKey>,
    /// The seed of the jitter of the back-off. Different in each process unless set.
    pub seed: u64,
}

/// One method for each setting, so that settings can be chained.
macro_rules! setters {
    ($($field:ident: $kind:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`QuicOptions::", stringify!($field), "`](QuicOptions#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $kind) -> QuicOptions {
                self.$field = $field;
                self
            }
        )*
    };
}

impl QuicOptions {
    /// The most ordered lanes.
    pub const ORDERED_LANES_MAX: u8 = 16;

    /// The most bulk messages that travel to one peer at once.
    pub const BULK_STREAMS_MAX: u8 = 16;

    /// The most that `datagram_len_max` may be. quinn hands up to ten packets at once to the system, which
    /// refuses more than 65507 bytes; what is refused is lost, looks like a path that carries no long
    /// packets, and makes the connection slow.
    pub const DATAGRAM_LEN_LIMIT: u16 = 6550;

    /// The usual limits, and no peers.
    #[must_use]
    pub fn new(
        local: NodeId,
        bind: SocketAddr,
        server: Arc<rustls::ServerConfig>,
        client: Arc<rustls::ClientConfig>,
    ) -> QuicOptions {
        QuicOptions {
            local,
            bind,
            server,
            client,
            identity: None,
            peers: Vec::new(),
            ordered_lanes: 8,
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
            guests: false,
            reset_key: None,
            seed: unpredictable(),
        }
    }

    /// The usual limits for a guest: a process whose SVID is not that of a node. It dials nodes that accept
    /// guests, and any number of such processes may share one SVID.
    #[must_use]
    pub fn guest(
        bind: SocketAddr,
        server: Arc<rustls::ServerConfig>,
        client: Arc<rustls::ClientConfig>,
    ) -> QuicOptions {
        QuicOptions::new(crate::guest::guest(unpredictable()), bind, server, client)
    }

    /// Adds a peer to dial.
    #[must_use]
    pub fn peer(mut self, peer: NodeId, address: SocketAddr) -> QuicOptions {
        self.peers.push((peer, address));
        self
    }

    /// Sets [`QuicOptions::identity`](QuicOptions#structfield.identity).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> QuicOptions {
        self.identity = Some(identity);
        self
    }

    /// Sets [`QuicOptions::reset_key`](QuicOptions#structfield.reset_key).
    #[must_use]
    pub fn reset_key(mut self, reset_key: ResetKey) -> QuicOptions {
        self.reset_key = Some(reset_key);
        self
    }

    setters! {
        ordered_lanes: u8,
        message_len_max: usize,
        bulk_len_max: usize,
        bulk_streams: u8,
        send_queue_len_max: usize,
        receive_queue_len_max: usize,
        stream_window: u32,
        send_window: u64,
        idle_timeout: Duration,
        keep_alive: Duration,
        dial_timeout: Duration,
        backoff_min: Duration,
        backoff_max: Duration,
        round_trip_initial: Duration,
        datagram_len_max: u16,
        incoming_max: usize,
        guests: bool,
        seed: u64,
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

impl fmt::Debug for QuicOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QuicOptions")
            .field("local", &self.local)
            .field("bind", &self.bind)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// A number that differs in each process and call, from the system's randomness by way of the standard
/// library's hasher.
pub(crate) fn unpredictable() -> u64 {
    RandomState::new().hash_one(std::time::SystemTime::now())
}

/// A transport was not bound. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("cannot bind {address}: the port is in use; stop what listens there, or bind another port")]
    AddressInUse {
        /// The address of [`QuicOptions::bind`].
        address: SocketAddr,
    },
    /// The system refused the socket.
    #[error(
        "cannot bind {address}: check that this machine has the address and that the process may use the port"
    )]
    Socket {
        /// The address of [`QuicOptions::bind`].
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no tokio runtime here.
    #[error(
        "cannot bind outside of a tokio runtime: call it from inside of one that has I/O and time enabled"
    )]
    NoRuntime,
    /// A setting is out of its range.
    #[error("cannot bind with these options: {field} must {rule}; change QuicOptions")]
    Limit {
        /// The field of [`QuicOptions`].
        field: &'static str,
        /// The fault.
        rule: &'static str,
    },
    /// The TLS configuration has no cipher suite for QUIC.
    #[error(
        "cannot use the TLS configuration for QUIC: build it for TLS 1.3 with TLS13_AES_128_GCM_SHA256 (RFC 9001 §5.2)"
    )]
    Tls,
}
