//! A node of a multi-hop mesh, on tokio: the driver of [`datagram`](crate::datagram), and QUIC over it.
//!
//! [`Mesh`] owns the node's [`Link`](crate::link::Link)s. Neighbours find each other by the addresses of
//! [`MeshPort`], authenticate each other by mutual TLS over QUIC on the link, and take the keys of their
//! frames from that connection. [`Mesh::socket`] is a socket for quinn whose addresses stand for nodes, so
//! that [`QuicTransport::bind_on`](crate::quic::QuicTransport::bind_on) connects nodes that are several hops
//! apart. TLS stays end to end: relays see ciphertext. A change of the route is invisible to it, and while
//! there is no route the newest datagrams are kept, so that QUIC goes on as soon as there is one again.
//!
//! ```no_run
//! use std::time::Duration;
//! use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
//! use x0_mesh::link::{UdpLink, UdpLinkOptions};
//! use x0_mesh::mesh::{self, Mesh, MeshOptions, MeshPort};
//! use x0_mesh::quic::{QuicOptions, QuicTransport};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
//! # let (node, far) = (NodeId::new(1).ok_or("zero")?, NodeId::new(3).ok_or("zero")?);
//! # let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node);
//! # let identity = Identity::new(authority.issue(&spiffe_id, Duration::from_secs(3600))?, authority.bundle())?;
//! let (server, client) = (identity.server_config(), identity.client_config());
//! let link = UdpLink::open(&UdpLinkOptions::new("0.0.0.0:7001".parse()?))?;
//! let port = MeshPort::new(link).neighbour("192.0.2.7:7001".parse()?);
//! let mesh = Mesh::start(MeshOptions::new(node, server.clone(), client.clone()).port(port))?;
//!
//! // Node 3 need not be a neighbour.
//! let options = QuicOptions::new(node, mesh::address(node), server, client).peer(far, mesh::address(far));
//! let transport = QuicTransport::bind_on(options, mesh.socket())?;
//! # drop(transport);
//! # Ok(())
//! # }
//! ```
//!
//! On a local network a node needs no addresses of neighbours: [`MeshPort::discover`] finds them by
//! multicast.
//!
//! ```no_run
//! # use x0_mesh::discovery::{DiscoveryOptions, Multicast, MulticastOptions};
//! # use x0_mesh::link::{Link, UdpLink, UdpLinkOptions};
//! # use x0_mesh::mesh::MeshPort;
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let link = UdpLink::open(&UdpLinkOptions::new("0.0.0.0:7001".parse()?))?;
//! let groups = Multicast::open(&MulticastOptions::new(link.local()))?;
//! let port = MeshPort::new(link).discover(groups, DiscoveryOptions::new("example.org"));
//! # drop(port);
//! # Ok(())
//! # }
//! ```
//!
//! Nodes behind NATs reach each other over a relay, which any node is unless [`MeshOptions::relay`] says
//! otherwise. [`MeshPort::traverse`] replaces the relayed path by a direct one where the NATs allow it.
//!
//! A paid link has a [`Cost`](crate::router::Cost) with a preference, so that it carries packets only while
//! no free path exists. [`Mesh::limit_prices`] keeps lanes from it even then.
//!
//! A neighbour may have several addresses on one port, such as a local and a public one: each that is dialled
//! and answers is a link of its own. The router uses the best one, by the metric of the port, and another one
//! as soon as it fails. [`Rtt`](crate::router::Rtt) prefers the nearer address.
//!
//! # Life of a link
//! A node dials each address of its ports, again and again until it has keys. An address that was announced
//! is dialled as long as its node is no neighbour. Keys outlive a cut: a link is
//! up again as soon as probes pass, without a handshake. The dialler makes a new connection, and with it new
//! keys, after half of the peer's remaining validity and at most an hour, when the link stays down, and when
//! the keys are nearly used up. When the SVID of the peer has expired by the system's clock, the link ends.
//! Revocation of an identity is noticed at the next handshake.

mod address;
mod beside;
mod core;
mod discover;
mod error;
mod findings;
mod handshake;
mod hints;
mod no_route;
mod node;
mod options;
mod packets;
mod port;
mod port_socket;
mod prices;
mod redial;
mod senders;
mod snapshot;
mod socket;
mod traverse;

pub use address::{address, node_at};
pub use error::StartError;
pub use findings::Finding;
pub use node::Mesh;
pub use options::{MeshOptions, MeshPort};
pub use port::PortFacts;
pub use prices::{PriceLimiter, PriceLimits};
pub use snapshot::PeerFacts;
