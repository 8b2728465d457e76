//! Neighbours on the same network segment, found by multicast announcements.
//!
//! Each node announces the UDP port of its link to a multicast group of the segment. A node that receives an
//! announcement dials the address, and the handshake of the [mesh](crate::mesh) decides whether the node
//! there becomes a neighbour.
//!
//! - [`Discovery`]: the protocol engine. It says when to announce and which address to dial.
//! - `Multicast` (feature `mesh`, with the driver): the sockets of the groups.
//!
//! # Trust
//! An announcement is not authenticated, and is used as a hint only: it leads to a dial. Only a verified SVID
//! makes a neighbour. An attacker on the segment can announce any address under any node id. The effect is
//! bounded:
//! * at most [`DiscoveryOptions::dials_max`] hints are dialled at a time, and a hint whose dial failed waits
//!   before the next, twice as long each time;
//! * at most [`DiscoveryOptions::hints_max`] addresses are kept, and [`DiscoveryOptions::hints_per_ip_max`]
//!   of one IP address. A new address replaces one whose dial has failed, or else one that the seed chooses;
//!   an address in use is never replaced;
//! * an announcement that arrives causes at most one announcement of this node in
//!   [`DiscoveryOptions::interval_min`].
//!
//! A flood of forged announcements can delay the discovery of new neighbours. It affects neither links that
//! exist, nor neighbours with a configured address, nor nodes that dial this one.
//!
//! # Wire format, version 1
//! An announcement is a UDP datagram of 22 bytes to the group `239.255.120.48` or `ff02::7830`, port 7830
//! unless configured otherwise, with a TTL or hop limit of 1. Numbers are little-endian.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 3 | `x0d` |
//! | version | 1 | 1 |
//! | realm | 8 | FNV-1a, 64 bits, of the name of the realm |
//! | node | 8 | the sender, not 0 |
//! | port | 2 | the UDP port of the sender's link, not 0 |
//!
//! The IP address of the link is the source address of the datagram. A datagram of another length, magic or
//! version, and one with a zero in a field that forbids it, is ignored and counted. The realm keeps meshes
//! that share a segment from dialling each other; it protects nothing.
//!
//! # Glossary
//! - *Hint*: an address that was announced and has not expired.
//! - *Realm*: a name that all nodes of a mesh share, such as the trust domain.

mod announcement;
mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod io;
#[cfg(feature = "mesh")]
mod multicast;
mod options;

pub use engine::Discovery;
pub use io::{DiscoveryInput, DiscoveryOutput, DiscoveryStats, Hint, HintState};
#[cfg(feature = "mesh")]
pub use multicast::{Multicast, MulticastError, MulticastOptions};
pub use options::DiscoveryOptions;
