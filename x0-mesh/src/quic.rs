//! The transport of production: QUIC (RFC 9000) with mutual TLS 1.3 (RFC 9001), by quinn on tokio.
//!
//! Each lane is what QUIC has for it, so that no lane waits for another:
//! [`Lane::Ordered`](crate::Lane::Ordered) is one unidirectional stream that lives as long as the connection,
//! [`Lane::Bulk`](crate::Lane::Bulk) one stream per message, [`Lane::Datagram`](crate::Lane::Datagram) a
//! DATAGRAM frame (RFC 9221). The identity of a peer is that of its SVID.
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
//! use x0_mesh::quic::{QuicOptions, QuicTransport};
//! use x0_mesh::{Lane, Transmit, TransportExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
//! let config = |number| {
//!     let node = NodeId::new(number).ok_or("zero names no node")?;
//!     let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node);
//!     let svid = authority.issue(&spiffe_id, Duration::from_secs(3600))?;
//!     let identity = Identity::new(svid, authority.bundle())?;
//!     let address = "127.0.0.1:0".parse()?;
//!     let (server, client) = (identity.server_config(), identity.client_config());
//!     Ok::<_, Box<dyn std::error::Error>>(QuicOptions::new(node, address, server, client))
//! };
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(async {
//!     let one = config(1)?;
//!     let to = one.local;
//!     let mut one = QuicTransport::bind(one)?;
//!     let mut two = QuicTransport::bind(config(2)?.peer(to, one.local_addr()?))?;
//!     two.send(&Transmit { to, lane: Lane::Ordered(0), payload: b"hello" }).await?;
//!
//!     let mut payload = Vec::new();
//!     let received = one.recv(&mut payload).await?;
//!     assert_eq!(payload, b"hello");
//!     // Node 1 has no address of node 2: its messages travel on the connection that node 2 made.
//!     one.send(&Transmit { to: received.from, lane: Lane::Bulk, payload: b"hello yourself" }).await?;
//!     two.recv(&mut payload).await?;
//!     assert_eq!(payload, b"hello yourself");
//! #   Ok(())
//! })
//! # }
//! ```
//!
//! # Connections
//! A peer with an address is dialled, again and again, with a back-off that doubles and is jittered from the
//! seed. A peer without one is accepted when it dials and its SVID is trusted and names a node; messages to
//! it travel on the connection that it made. Of several connections between two nodes one is used: the node
//! with the lower [`NodeId`] decides which, and says so in its handshake, so that two nodes which dial each
//! other at once agree.
//!
//! With [`QuicOptions::guests`] a peer is also accepted whose SVID does not name a node, such as a client.
//! Each process of that identity, distinguished by the instance in its handshake, gets an id for as long as
//! it is connected: see [`is_guest`](crate::is_guest). [`PeerBook::guest_identity`] has its SPIFFE ID. The
//! node always decides which connection of a guest is used.
//!
//! A connection outlives a change of the SVIDs or bundles that it was made with, until the SVID that the peer
//! presented expires: it ends then ([`DownReason::Expired`](crate::DownReason::Expired)), and a peer that has
//! renewed its SVID by that time is back after one handshake. [`PeerBook::reconnect`] replaces a connection
//! at a moment of the owner's choice by one with the current identities, and thereby also cuts off a node
//! whose identity was revoked.
//!
//! A peer that dies without a word is noticed when nothing has arrived for [`QuicOptions::idle_timeout`], or
//! when it dials again. With a [`ResetKey`] its next process says so at the next packet.
//!
//! # Congestion
//! CUBIC (RFC 9438) controls the window of a connection, which never falls below that of a new one, ten
//! packets (RFC 9002 §7.2): a path that loses a third of its packets by chance, as radio links do, carries
//! small messages with some delay. With the two packets of the RFC as the lower bound it carried next to
//! nothing.
//!
//! # Wire format, version 1
//! ALPN `x0-mesh/1` (RFC 9001 §8.1). The first stream that each side opens is its control stream. It begins
//! with a handshake: `0`, the version (u8), the length of what follows (u16, at most 1024), the sender's
//! instance (u64), the receiver's instance as the sender last knew it (u64), a sequence number (u64); further
//! bytes are ignored. Numbers are little-endian. The side with the higher node id sends its handshake first,
//! with the last sequence number that it received; the other side answers with a new one when it takes the
//! connection, and closes it otherwise. A control stream does not end before the connection.
//!
//! The other streams begin with their kind: `1`, the number of the lane (u8), then messages; or `2` and one
//! message, then the end. A message is its length (u32) and its bytes. A DATAGRAM frame holds a message
//! without its length.

mod close;
mod connection;
mod dial;
mod frame;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod guests;
mod handshake;
mod inbox;
mod jitter;
mod options;
mod outbox;
mod peer_book;
mod race;
mod reset;
mod shared;
mod spares;
mod state;
mod transport;
mod window;

#[cfg(feature = "mesh")]
pub(crate) use jitter::Jitter;
#[cfg(feature = "mesh")]
pub(crate) use options::unpredictable;
pub use options::{BindError, QuicOptions};
pub use peer_book::{LinkState, PeerBook, PeerLink};
/// The socket of [`QuicTransport::bind_on`].
pub use quinn::AsyncUdpSocket;
#[cfg(feature = "mesh")]
pub(crate) use race::race;
pub use reset::ResetKey;
pub use transport::{QuicTransport, udp_socket};

#[cfg(doc)]
use x0_identity::NodeId;

/// Runs the fuzz target.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz_frames(bytes: &[u8]) {
    fuzz::frames(bytes);
}
