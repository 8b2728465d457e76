//! Kernel telemetry, steering and fault injection for the links of a mesh node, with a plain fallback.
//!
//! The eBPF programs are part of the crate as prebuilt objects, so that using it needs neither clang nor a
//! nightly compiler. Where the kernel or the capabilities for them are missing, the counters come from
//! rtnetlink or `/proc/net/dev`, and the reason is available to the caller.
//!
//! # Counters of every link
//!
//! ```no_run
//! # #[cfg(feature = "ebpf")] {
//! use x0_ebpf::stats::{EbpfSource, ProcNetDevSource, RtnetlinkSource, open};
//!
//! let mut stats = open(&[&EbpfSource::new(["eth0"]), &RtnetlinkSource, &ProcNetDevSource])?;
//! println!("{}", stats.backend()); // the backend in use, and the reasons against better ones
//! let mut links = Vec::new();
//! stats.links(&mut links)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A filter
//!
//! ```no_run
//! # #[cfg(feature = "ebpf")] {
//! use x0_ebpf::{Action, AttachPolicy, LinkOptions, LinkProgram, Prefix, Source};
//!
//! let mut program = LinkProgram::load(LinkOptions::default())?;
//! let attached = program.attach_xdp("eth0", AttachPolicy::NativeThenGeneric)?;
//! if let Some(reason) = &attached.fallback {
//!     eprintln!("not in native mode: {reason}");
//! }
//! let network = Prefix::new("192.0.2.0".parse()?, 24)?;
//! program.filter()?.insert(Source::Network(network), Action::Drop)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parts
//!
//! | part | purpose | feature |
//! |---|---|---|
//! | [`Capabilities`] | the missing requirements of each part and their remedies, before anything is loaded | – |
//! | [`LinkStats`], [`stats`] | the seam: counters of links and peers, from the best backend that can be opened | – |
//! | [`stats::RtnetlinkSource`] | the kernel's counters over rtnetlink; TCP per peer over sock_diag | `netlink` |
//! | `LinkProgram` | at XDP and TC: packets, bytes, drops by cause, per link and peer; flows; pins and adoption | `ebpf` |
//! | `Filter` | block and allow lists (IPv4, IPv6, hardware addresses), rates per prefix or peer, counters per rule | `ebpf` |
//! | `Steering` | redirects the packets of one link to another by one write to a map | `ebpf` |
//! | `FaultInjector` | seeded loss, duplicates, flipped bits, black holes; per peer and direction | `ebpf` |
//! | `SocketProgram` | round-trip times, retransmits and bytes of TCP per peer, from a cgroup | `ebpf` |
//! | `ProbeProgram` | TCP's round-trip time and window per peer, from the tracepoint `tcp:tcp_probe` | `ebpf` |
//! | `testing` | namespaces, veth pairs, numbered packets, test runs, a model of the link program | `testing` |
//!
//! No feature is on by default, which leaves [`Capabilities`] and `/proc/net/dev`.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | link, interface | a network interface of one network namespace |
//! | peer | the other end of the traffic of a link: an IP address or a hardware address (`PeerBy`) |
//! | point | the hook that a program is attached to: XDP, TC ingress or TC egress |
//! | backend | an implementation of [`LinkStats`]; a source opens it |
//! | attachment | a program on a link; pinned ones outlive the process |
//! | adoption | a new process replaces the program of pinned attachments and continues their counters |
//! | path | an interface, with Ethernet addresses, through which `Steering` sends packets |
//! | front filter | a Bloom filter that rules out addresses without a rule before any table is read |
//! | super-packet | several segments that the kernel handles as one packet (GRO, TSO) |
//! | test run | a run of a program on a packet from memory (`BPF_PROG_TEST_RUN`) |
//!
//! # Requirements
//!
//! Linux 5.10 or newer. `CAP_BPF` and `CAP_NET_ADMIN` suffice to load and attach everything except the flow
//! table and, before Linux 5.18, exact XDP lengths, which also need `CAP_PERFMON`. Grant them to the program,
//!
//! ```text
//! setcap cap_bpf,cap_net_admin+ep /path/to/program
//! ```
//!
//! or to its unit: `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN`. Pins need a bpffs
//! (`mount -t bpf bpf /sys/fs/bpf`) that the user may write to, `SocketProgram` a mounted cgroup v2,
//! `ProbeProgram` a mounted tracefs and `CAP_PERFMON` ([`Feature::TcpProbe`]). [`Capabilities::can`] returns
//! every missing requirement at once.
//!
//! # Limitations
//!
//! - Sent packets are counted and not filtered: rules match the source of received packets, at XDP and TC
//!   ingress.
//! - Packets cannot be delayed, which needs departure times and the `fq` queueing discipline at egress.
//! - Only TCP is measured. `SocketProgram` sees connections that were opened while it was attached;
//!   `ProbeProgram` sees all.
//! - Backends count at different points, so that their bytes differ by headers, see [`stats`].
//! - Packets that entered a dead link before `Steering::flip` are lost.
//! - Native XDP depends on the driver and its settings; a veth with a large MTU lacks it, for instance.
//!   `AttachPolicy` decides whether generic XDP is used instead, and `Attached::fallback` has the reason.
//!
//! # Unsafe code
//!
//! The private module `sys`, which makes the calls of bpf(2), is the only one with unsafe code. aya loads the
//! objects and appears in no public signature.
//!
//! # Place in the family
//!
//! The crate depends on no other x0 crate. It supplies counters to `x0-mesh`'s metrics and `x0-mapek`'s
//! monitor.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "ebpf")]
mod attach;
pub mod capabilities;
#[cfg(feature = "ebpf")]
mod control;
#[cfg(feature = "ebpf")]
mod counters;
#[cfg(feature = "ebpf")]
mod fault;
#[cfg(feature = "ebpf")]
mod filter;
#[cfg(feature = "ebpf")]
mod flows;
#[cfg(feature = "ebpf")]
mod link;
#[cfg(all(feature = "ebpf", feature = "testing"))]
mod model;
#[cfg(feature = "ebpf")]
mod object;
mod prefix;
#[cfg(feature = "ebpf")]
mod probe;
#[cfg(feature = "ebpf")]
mod program;
#[cfg(feature = "ebpf")]
mod rate;
#[cfg(feature = "ebpf")]
mod sockets;
pub mod stats;
#[cfg(feature = "ebpf")]
mod steering;
#[cfg(feature = "ebpf")]
mod sys;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

pub use capabilities::{Capabilities, Feature, Missing, Need};
pub use stats::{Backend, LinkStats};

pub use prefix::{Prefix, PrefixError};
#[cfg(feature = "ebpf")]
pub use {
    attach::{AttachError, AttachMode, AttachPolicy, Attached, Fallback, Point},
    counters::{InterfaceCounters, Peer, PeerBy, PeerTraffic},
    fault::{Direction, FAULTS_MAX, Fault, FaultCounters, FaultError, FaultInjector, Outcome, Share},
    filter::{Action, Filter, FilterError, LENGTHS_V6_MAX, Mac, RuleCounters, Source},
    flows::{Flow, FlowCounters},
    link::{CountersError, LinkOptions, LinkProgram},
    object::{Object, Provenance},
    probe::{ProbeCounters, ProbeError, ProbeProgram},
    program::LoadError,
    rate::{Rate, RateError, RateUnit},
    sockets::{SocketCounters, SocketError, SocketProgram},
    steering::{
        PATHS_MAX, PathAddresses, PathCounters, PathId, STEERED_MAX, SteerError, SteerPath, Steering,
    },
};

/// The readme's examples, which compile as doctests.
#[cfg(all(doctest, feature = "ebpf"))]
#[doc = include_str!("../README.md")]
struct Readme;
