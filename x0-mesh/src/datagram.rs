//! Datagrams between nodes over several hops: unicast by node id, and flooding.
//!
//! [`Datagrams`] is a protocol engine for one node. It protects the frames of each
//! [`Link`](crate::link::Link), runs [`Liveness`](crate::liveness::Liveness) on each of them and one
//! [`Router`](crate::router::Router) above, and carries datagrams to nodes that are several hops away. A
//! datagram may be lost, repeated or overtaken. There is no fragmentation: [`Datagrams::mtu`] is the longest
//! datagram of the current path.
//!
//! # Keys
//! Neighbours authenticate each other by mutual TLS 1.3: a QUIC connection over the link itself, with ALPN
//! `x0-link/1`. Both ends export [`FrameKeys::MATERIAL_LEN`] bytes from it (RFC 8446 §7.5) with the label
//! [`FrameKeys::LABEL`] and an empty context. The first half is for frames of the client, the second for
//! those of the server:
//!
//! | bytes | content |
//! |---|---|
//! | 16 | key of AES-128-GCM |
//! | 12 | initialisation vector |
//! | 4 | index, by which the receiver finds the keys; the upper 8 bits are ignored |
//!
//! Two nodes have a link for each address at which one of them reaches the other on a port: paths over IPv4
//! and IPv6, or over a local and a public address, fail one by one, and the router prefers one by its metric.
//! Both ends know the links by numbers. The client of the connection names the link that the keys are for in
//! the first byte of a unidirectional stream, see [`Datagrams::link_number`]; ends that dial each other share
//! link 0.
//!
//! The engine takes keys only together with the node id of a verified SVID, and no frame without keys. When
//! the SVID expires, the driver ends the link ([`Input::Ended`]).
//!
//! # Wire format, version 1
//! Numbers are little-endian. A frame is 8 bytes that are authenticated, a ciphertext, and a tag of 16 bytes.
//! The first byte of a QUIC packet (RFC 9000 §17) is never that of a frame, so both share a link.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | `0x10` control, `0x11` short datagram, `0x12` long datagram |
//! | index | 3 | of the receiver's keys |
//! | counter | 4 | the low half of the number of the frame under these keys; numbers begin at 1 |
//!
//! The nonce is the initialisation vector, its last 8 bytes combined by XOR with the number (big-endian). A
//! receiver takes each number once, and none that is lower than the highest by 1024 or more. The
//! authenticated data of a datagram continues with the sender's session of the router and then the
//! receiver's (4 bytes each), which are not sent: a datagram of another session is refused, because its
//! sender may hold routes that the receiver no longer knows of.
//!
//! A datagram is encrypted with this header:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | hop limit | 1 | falls by one at each node, not 0 |
//! | flags | 1 | bit 0: a bound is given; bit 1: the label is announced, and no datagram follows; bit 2: a message of the mesh itself, see [`traversal`](crate::traversal); bits 3 and 4: the congestion mark, with the codepoints of IP (RFC 3168 §5) |
//! | label | 2 | stands for destination and source under these keys; 0: none |
//! | bound | 4 | of a detour, see [`router`](crate::router); 0 without bit 0 |
//! | destination, source | 8 + 8 | in a long datagram only, not 0 |
//!
//! Header and tags of a short datagram are 32 bytes: a QUIC packet of 1200 bytes fits the IPv6 minimum MTU of
//! 1280. A long datagram assigns its label to its two nodes. The sender uses the short form once the receiver
//! has acknowledged the label. A label is never assigned twice under the same keys; when all are used, the
//! remaining pairs of nodes have the long form.
//!
//! A control frame is encrypted with its kind first:
//!
//! | kind | content |
//! |---|---|
//! | 1 | a probe of [`liveness`](crate::liveness) |
//! | 2 | a message of [`router`](crate::router) |
//! | 3 | an acknowledged label (2 bytes), under the keys of that label |
//! | 4 | flooding: hop limit (1 byte, not 0), origin (8, not 0), number (8), payload |
//! | 5 | the address that frames of the receiver come from: 16 bytes of an IPv6 address, or of an IPv4 address mapped into one (RFC 4291 §2.5.5.2), and a port (2, not 0) |
//! | 6 | a padded frame: a number (2 bytes), then any bytes |
//! | 7 | a padded frame has arrived: its number (2), and the length of the whole frame (2) |
//!
//! A node sends the address when the link comes up, when it has new keys, and when the address changes: three
//! times, 10 s apart, because a frame may be lost, then every 60 s. The receiver takes it for a hint: a
//! neighbour may lie.
//!
//! A frame of kind 6 is answered by one of kind 7. With them each end examines whether the longest frame of
//! the link arrives: when the link comes up, 2 s after long datagrams were sent, and every 300 s. Ten that
//! remain without answer while the link is up show that frames of that length are lost; then the longest one
//! that passes is searched, and [`Datagrams::mtu`] follows. A link that does not carry frames of 1232 bytes
//! is degraded: paths lead over it only while there is no other one.
//!
//! A node takes a flooded message once, by origin and number, and sends it to its other neighbours while the
//! hop limit allows. The origin is authenticated hop by hop only: a member can forge it.
//!
//! # Glossary
//! - *Port*: a [`Link`](crate::link::Link) of this node, which reaches several neighbours. *Link*: one of
//!   these neighbours at one of its addresses on one port, with keys; the router's word.
//! - *Label*: a short name for a pair of destination and source on one link.

mod batch;
mod detection;
mod ecn;
mod engine;
mod error;
mod facts;
mod flood;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod io;
mod label;
mod length;
mod link;
mod links;
mod options;
mod outputs;
mod protection;
mod replay;
mod silence;

pub use batch::Batch;
pub use ecn::Ecn;
pub use engine::Datagrams;
pub use error::{DatagramError, HandleError};
pub use facts::{DatagramStats, LinkFacts, PathFacts};
pub use frame::is_frame;
pub use io::{Input, Output, PortId};
pub use options::{DatagramOptions, PortOptions};
pub use protection::FrameKeys;
