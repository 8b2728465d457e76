//! Direct paths to nodes that are reached over a relay: candidate addresses and hole punching.
//!
//! A node behind a NAT cannot be dialled from outside, and does not know its own address there. Its
//! neighbours do: each tells the other where its frames come from. [`Traversal`], a protocol engine, sends
//! these *candidates* to a node that it has traffic for, over whatever route there is, and receives that
//! node's. Then both ends dial all candidates of the other at nearly the same time. Each dial opens the NAT
//! of its own side for the packets of the other side. A dial that succeeds makes the two nodes neighbours,
//! and the router takes the new link, once probes pass over it, because its metric is lower than that of the
//! relayed path. When it fails or ends, the relayed path is in use, or is used again, by a route change.
//!
//! Two NATs that choose another port for each destination cannot be passed. Their nodes remain relayed, and
//! attempts become rare.
//!
//! # Trust
//! Candidates are hints. A neighbour may lie about the address that it sees, and a relay may forge
//! candidates: both lead to dials of wrong addresses. Only a verified SVID makes a neighbour, so that no path
//! leads to another node than the router takes it for. The effect is bounded:
//! * a message has at most 8 candidates. Loopback addresses are used only by a node that is on the loopback
//!   itself; link-local, multicast and unspecified ones are never used;
//! * at most [`TraversalOptions::dials_max`] candidates are dialled at a time;
//! * a node answers the same node at most once in [`TraversalOptions::interval_min`], takes an answer only to
//!   a call of its own, and keeps at most [`TraversalOptions::peers_max`] nodes.
//!
//! # Wire format, version 1
//! A message is the payload of a datagram with the flag for messages of the mesh itself; see
//! [`datagram`](crate::datagram). Numbers are little-endian.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | 1: a call, which wants an answer; 2: an answer |
//! | candidates | 18 each, 0 to 8 | 16: an IPv6 address, or an IPv4 address mapped into one (RFC 4291 §2.5.5.2); 2: a port, not 0 |
//!
//! # Glossary
//! - *Candidate*: an address at which a node may be reachable.
//! - *Call*, *answer*: the two messages that exchange candidates.

mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod io;
mod message;
mod options;

pub use engine::Traversal;
pub use io::{TraversalInput, TraversalOutput, TraversalStats};
#[cfg(feature = "datagram")]
pub(crate) use message::{decode_address, encode_address};
pub use options::TraversalOptions;
