//! Counters of links and peers, from the best backend that can be opened.
//!
//! [`LinkStats`] is the seam. It has three backends, best first: eBPF programs on the links, rtnetlink with
//! sock_diag, and the text of `/proc/net/dev`. [`open`] tries sources in the given order and records the
//! reason for each one that it skips; [`LinkStats::backend`] returns the backend in use with these reasons.
//!
//! # Bytes and packets
//!
//! The backends count the same packets at different points, so that their bytes differ by headers. For one
//! Ethernet frame of `n` bytes (destination address first, without the checksum that ends it on a wire):
//!
//! | counted by | direction | bytes for the frame | packets |
//! |---|---|---|---|
//! | rtnetlink, `/proc/net/dev` on a veth link | both | `n` | frames handed over; a super-packet of TSO counts once |
//! | the same on either end while the receiving end has a native XDP program or GRO | both | `n - 14` | as above |
//! | rtnetlink, `/proc/net/dev` on a network card | both | `n`, on some cards `n + 4` (the checksum) | frames on the wire, as a rule |
//! | eBPF at XDP, native or skb | received | `n` | frames before GRO (native), after GRO (skb) |
//! | eBPF at TC | received | `n`; a super-packet of GRO has its headers once | a super-packet counts as its segments |
//! | eBPF at TC | sent | `n`; a super-packet of TSO has the headers of every segment | a super-packet counts as its segments |
//! | rtnetlink, `/proc/net/dev` on a tunnel without Ethernet (`tun`, `wg`) | both | `n - 14` | packets |
//!
//! The kernel does not report which row applies to a link, so that no backend corrects for it. Compare rates
//! of one backend only with rates of the same backend.
//!
//! # Contract of a backend
//!
//! - The counters of a link never decrease while it exists; a link that is created again starts at zero, with
//!   another index.
//! - A read is one pass over the kernel's tables, not an atomic snapshot: two links may differ by a few
//!   packets.
//! - A failed read returns an error that states the contents of the caller's vector.
//! - The network namespace is the one in which the backend was opened, regardless of the reading thread.

mod backend;
mod counters;
#[cfg(feature = "ebpf")]
mod ebpf;
mod error;
#[cfg(feature = "netlink")]
pub(crate) mod netlink;
mod open;
mod proc_net_dev;
#[cfg(feature = "netlink")]
mod rtnetlink;
#[cfg(feature = "netlink")]
mod sock_diag;

#[doc(hidden)]
pub mod fuzz;

pub use backend::{Backend, BackendKind, PassedOver, Refusal};
pub use counters::{DirectionCounters, LinkCounters, PeerCounters, TcpCounters};
#[cfg(feature = "ebpf")]
pub use ebpf::{Ebpf, EbpfSource};
pub use error::{OpenError, ReadError};
pub use open::{EbpfNotAttached, RtnetlinkSource, StatsSource, open, open_plain};
pub use proc_net_dev::{ProcNetDev, ProcNetDevSource};
#[cfg(feature = "netlink")]
pub use rtnetlink::Rtnetlink;

/// Counters of the links of one network namespace and of the peers reached through them.
///
/// The module documentation states the contract.
pub trait LinkStats: Send {
    /// The backend in use, and the reasons against better ones.
    fn backend(&self) -> &Backend;

    /// Replaces the contents of `into` by the counters of every link, in the kernel's order.
    ///
    /// # Errors
    ///
    /// The kernel refused, or its answer could not be parsed. `into` is then empty.
    fn links(&mut self, into: &mut Vec<LinkCounters>) -> Result<(), ReadError>;

    /// Replaces the contents of `into` by the counters of each peer, in the order of their addresses.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotCounted`] if the backend does not count peers; [`ReadError::TooMany`], with the first
    /// ones in `into`; otherwise as for [`links`](Self::links).
    fn peers(&mut self, into: &mut Vec<PeerCounters>) -> Result<(), ReadError>;
}
