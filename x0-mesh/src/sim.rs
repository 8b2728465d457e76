//! A network in virtual time: the same seed and the same calls give the same run, bit for bit.
//!
//! [`Network`] is the engine, for a simulator that has a clock of its own. [`SimMesh`] puts
//! [`Transport`](crate::Transport)s on top of it, for code that has none.
//!
//! [`Fabric`] simulates routers and single links instead of connections between all nodes: for routing, and
//! for thousands of nodes.
//!
//! A bad link has the effects that it has on QUIC: a datagram is lost, duplicated or overtaken; on an ordered
//! or bulk lane a lost packet only delays messages, and a cut that lasts ends the epoch with all messages on
//! the way.
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_mesh::sim::{LinkProfile, SimMesh};
//! use x0_mesh::{Lane, Next, Transmit, TransportExt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (one, two) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
//! let mesh = SimMesh::new(42);
//! mesh.set_profile(LinkProfile { loss: 0.2, ..LinkProfile::default() });
//! let (mut a, mut b) = (mesh.transport(one), mesh.transport(two));
//!
//! let hello = Transmit { to: two, lane: Lane::Ordered(0), payload: b"hello" };
//! mesh.block_on(a.send(&hello)).ok_or("it stalled")??;
//! let mut payload = Vec::new();
//! while !matches!(mesh.block_on(b.next(&mut payload)), Some(Ok(Next::Message(_)))) {}
//! assert_eq!(payload, b"hello");
//! assert!(mesh.now() < Duration::from_secs(1));
//! # Ok(())
//! # }
//! ```

mod fabric;
mod link;
mod mesh;
mod network;
mod port;
mod transport;

pub use fabric::{
    Change, Checks, Fabric, FabricLink, FabricOptions, FabricStats, FabricViolation, Forgery, Loss, Nat,
    PacketOutcome, Topology,
};
pub use link::LinkProfile;
pub use mesh::SimMesh;
pub use network::{Delivery, Input, Network, Output};
pub use transport::SimTransport;
