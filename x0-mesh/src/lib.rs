//! Authenticated messages between the nodes of a mesh.
//!
//! [`Transport`] is the seam: messages to nodes, on lanes that do not wait for one another, in epochs within
//! which nothing is lost. An implementation moves bytes and knows the identity of each peer; it interprets
//! nothing.
//!
//! - [`Mux`]: many services on one transport, each on a channel of its own.
//! - `quic` (feature of that name): the transport of production, QUIC with mutual TLS 1.3.
//! - `link` (feature): frames to direct neighbours, the seam below the mesh; `link::Link`.
//! - `datagram` (feature): datagrams to nodes that are several hops away, as a protocol engine.
//! - `discovery` (feature): neighbours on the same segment, found by multicast, as a protocol engine.
//! - `traversal` (feature): direct paths through NATs, as a protocol engine.
//! - `mesh` (feature): the driver of `datagram` on tokio, and QUIC over it.
//! - `router` (feature): routes over several hops, as a protocol engine.
//! - `liveness` (feature): whether a link works in each direction, as a protocol engine.
//! - `sim` (feature): a network in virtual time that delays, loses, duplicates, reorders and cuts, from a
//!   seed.
//! - [`FaultInjector`]: faults as middleware, for a running node.
//! - `conformance` (feature): the contract of `Transport` as a suite for any implementation.
//!
//! With the feature `tracing`, spans of the level debug: `mesh.dial` (fields `peer`, `address`, `refused`)
//! for each attempt to connect, and `mesh.adapt` (`destination`, `next`) where a node of the mesh follows a
//! change of a route.
//!
//! # Glossary
//! - *Node*: a process with an identity, known by its [`NodeId`](x0_identity::NodeId). A *peer* is another
//!   node.
//! - *Message*: bytes that arrive as a whole or not at all.
//! - *Lane*: one of several ways to the same peer that do not wait for each other; see [`Lane`].
//! - *Epoch*: the time between `Up` and `Down` of a peer. Messages are lost only together with their epoch.
//! - *Back-pressure*: a full lane answers `Pending` and takes nothing.
//! - *Channel*, *session*, *budget*, *credit*: see [`Mux`].
//! - *Inbox*, *outbox*: messages that the owner has not received yet, and messages that QUIC has not taken
//!   yet.
//! - *Handshake*: the first bytes that two nodes exchange on a QUIC connection, after that of TLS.
//! - *Instance*: a number that is drawn when a transport is made, and distinguishes a restarted peer from one
//!   that dials twice.
//! - *Violation*: a rule of the protocol that a peer broke. It costs the peer its connection, and nothing
//!   else.
//!
//! # Without an operating system
//! Without the feature `std`, which is on by default, the crate is `no_std` with `alloc`, and has the
//! protocol engines of the features `router`, `liveness`, `discovery` and `traversal` only.

#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "discovery", feature = "router", feature = "traversal"))]
extern crate alloc;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "datagram")]
pub mod datagram;
#[cfg(feature = "discovery")]
pub mod discovery;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod fault_injector;
#[cfg(feature = "std")]
mod guest;
#[cfg(feature = "std")]
mod lane;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "liveness")]
pub mod liveness;
#[cfg(feature = "mesh")]
pub mod mesh;
#[cfg(feature = "std")]
mod message;
#[cfg(feature = "std")]
mod mux;
#[cfg(feature = "std")]
mod peer;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(any(feature = "discovery", feature = "router", feature = "std", feature = "traversal"))]
mod random;
#[cfg(feature = "router")]
pub mod router;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "std")]
pub mod telemetry;
#[cfg(any(feature = "mesh", feature = "quic"))]
mod trace;
#[cfg(feature = "std")]
mod transport;
#[cfg(feature = "std")]
mod transport_ext;
#[cfg(feature = "traversal")]
pub mod traversal;
#[cfg(any(feature = "quic", feature = "udp"))]
mod udp;

#[cfg(feature = "std")]
pub use error::{RecvError, SendError};
#[cfg(feature = "std")]
pub use fault_injector::{Direction, FaultHandle, FaultInjector};
#[cfg(feature = "std")]
pub use guest::is_guest;
#[cfg(feature = "std")]
pub use lane::Lane;
#[cfg(feature = "std")]
pub use message::{Next, Received, Transmit};
#[cfg(feature = "std")]
pub use mux::{Channel, ChannelId, ChannelOptions, Mux, MuxDriver, MuxOptions, MuxStats, RegisterError};
#[cfg(feature = "std")]
pub use peer::{DownReason, Expected, PeerEvent, PeerEventKind, StreamName, Violation};
#[cfg(feature = "std")]
pub use transport::Transport;
#[cfg(feature = "std")]
pub use transport_ext::TransportExt;

/// Entries of the targets in `fuzz/`.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    #[cfg(feature = "std")]
    pub use crate::mux::fuzz as mux;
    #[cfg(feature = "quic")]
    pub use crate::quic::fuzz_frames as frames;

    #[cfg(feature = "datagram")]
    pub fn datagram(bytes: &[u8]) {
        crate::datagram::fuzz::run(bytes);
    }

    #[cfg(feature = "discovery")]
    pub fn discovery(bytes: &[u8]) {
        crate::discovery::fuzz::run(bytes);
    }

    #[cfg(all(feature = "ethernet", target_os = "linux"))]
    pub fn ethernet(bytes: &[u8]) {
        crate::link::ethernet::fuzz(bytes);
    }

    #[cfg(feature = "liveness")]
    pub fn liveness(bytes: &[u8]) {
        crate::liveness::fuzz::run(bytes);
    }

    #[cfg(feature = "router")]
    pub fn router(bytes: &[u8]) {
        crate::router::fuzz::run(bytes);
    }

    #[cfg(feature = "traversal")]
    pub fn traversal(bytes: &[u8]) {
        crate::traversal::fuzz::run(bytes);
    }
}

/// The code of the readme, as a test.
#[cfg(all(doctest, feature = "quic"))]
#[doc = include_str!("../README.md")]
struct Readme;
