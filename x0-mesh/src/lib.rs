//! Authenticated messages between the nodes of a mesh.
//!
//! [`Transport`] is the seam: messages to nodes, on lanes that do not wait for one another, in epochs within which nothing is lost. An
//! implementation moves bytes and knows who a peer is; it interprets nothing.
//!
//! - `quic` (feature of that name): the driver of production, QUIC with mutual TLS 1.3.
//! - `sim` (feature): a network in virtual time that delays, loses, doubles, reorders and cuts, from a seed.
//! - [`FaultInjector`]: faults as middleware, for a running node.
//! - `conformance` (feature): what an implementation of `Transport` owes, as a suite to run against it.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fault_injector;
mod lane;
mod message;
mod mux;
mod peer;
#[cfg(feature = "quic")]
pub mod quic;
mod random;
#[cfg(feature = "sim")]
pub mod sim;
pub mod telemetry;
mod transport;
mod transport_ext;

pub use error::{RecvError, SendError};
pub use fault_injector::{Direction, FaultHandle, FaultInjector};
pub use lane::Lane;
pub use message::{Next, Received, Transmit};
pub use mux::{Channel, ChannelId, ChannelOptions, Mux, MuxOptions, MuxStats, RegisterError};
pub use peer::{DownReason, PeerEvent, PeerEventKind, Violation};
pub use transport::Transport;
pub use transport_ext::TransportExt;
