//! Counters of links and peers, from the best source the machine lets us have.
//!
//! [`LinkStats`] is the seam. Three backends stand behind it, best first: eBPF programs on the links, rtnetlink with
//! sock_diag, and the text of `/proc/net/dev`. [`open`] tries sources in the order given and keeps, for every one it passed
//! over, the reason; [`LinkStats::backend`] shows both for as long as the counters are used.
//!
//! # What a byte is
//!
//! The backends count the same packets at different places, so their bytes differ by headers. For one Ethernet frame of
//! `n` bytes (destination address first, without the checksum that ends it on a wire):
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
//! The kernel does not tell which row holds for a link, so no backend corrects for it. Compare rates of one backend with
//! rates of the same backend.
//!
//! # Contract of a backend
//!
//! - Counters of a link only rise until the link goes away; a link that comes back starts anew, with another index.
//! - A read is one pass over the kernel's tables, not an atomic cut: two links may be a few packets apart.
//! - A read that fails says so, and what it left in the caller's vector is stated by the error.
//! - The network namespace is the one in which the backend was opened, whatever thread reads later.

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

/// Counters of the links of one network namespace, and of the peers behind them.
///
/// The module documentation states the contract.
pub trait LinkStats: Send {
    /// Which backend this is, and why none that is better.
    fn backend(&self) -> &Backend;

    /// Replaces `into` by the counters of every link, in the kernel's order.
    ///
    /// # Errors
    ///
    /// The kernel refused, or what it said could not be read. `into` is then empty.
    fn links(&mut self, into: &mut Vec<LinkCounters>) -> Result<(), ReadError>;

    /// Replaces `into` by what is known of each peer, in the order of their addresses.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotCounted`] where the backend knows no peers. As for [`links`](Self::links) otherwise, but for
    /// [`ReadError::TooMany`], which leaves the first ones in `into`.
    fn peers(&mut self, into: &mut Vec<PeerCounters>) -> Result<(), ReadError>;
}
