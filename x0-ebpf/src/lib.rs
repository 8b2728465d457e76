//! See and steer every link of a node from inside the kernel, and say plainly when that cannot be.
//!
//! The programs are in the crate as prebuilt objects: neither clang nor nightly is needed to use it. Without the rights or the
//! kernel for them, the counters still come, from rtnetlink or `/proc/net/dev`, and the reason stays visible.
//!
//! # Counters of every link
//!
//! ```no_run
//! # #[cfg(feature = "ebpf")] {
//! use x0_ebpf::stats::{EbpfSource, ProcNetDevSource, RtnetlinkSource, open};
//!
//! let mut stats = open(&[&EbpfSource::new(["eth0"]), &RtnetlinkSource, &ProcNetDevSource])?;
//! println!("{}", stats.backend()); // which one counts, and why none that is better
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
//!     eprintln!("not in the driver: {reason}");
//! }
//! let network = Prefix::new("192.0.2.0".parse()?, 24)?;
//! program.filter()?.insert(Source::Network(network), Action::Drop)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! | part | what it is | feature |
//! |---|---|---|
//! | [`Capabilities`] | what this machine and process allow, before anything is loaded; what is missing, how to grant it | – |
//! | [`LinkStats`], [`stats`] | the seam: counters of links and peers, from the best backend there is | – |
//! | [`stats::RtnetlinkSource`] | the kernel's own counters over rtnetlink; TCP per peer over sock_diag | `netlink` |
//! | `LinkProgram` | at XDP and TC: packets, bytes, drops by cause, per link and peer; flows; pins and adoption | `ebpf` |
//! | `Filter` | block and allow lists (IPv4, IPv6, hardware addresses), rates per prefix or peer, counters per rule | `ebpf` |
//! | `Steering` | what leaves through one link leaves through another, by one write to a map | `ebpf` |
//! | `FaultInjector` | seeded loss, duplicates, flipped bits, black holes; per peer and direction | `ebpf` |
//! | `SocketProgram` | round-trip times, retransmits and bytes of TCP per peer, from a cgroup | `ebpf` |
//! | `ProbeProgram` | TCP's round-trip time and window per peer, from the tracepoint `tcp:tcp_probe`, of older connections too | `ebpf` |
//! | `testing` | namespaces, veth pairs, numbered packets, test runs, a model of the link program | `testing` |
//!
//! No feature is on by default. What is left then is [`Capabilities`] and `/proc/net/dev`.
//!
//! # What it takes
//!
//! Linux 5.10 or newer. `CAP_BPF` and `CAP_NET_ADMIN` load and attach everything but the flow table, which takes
//! `CAP_PERFMON` too, as do exact XDP lengths before Linux 5.18. Grant them to the program,
//!
//! ```text
//! setcap cap_bpf,cap_net_admin+ep /path/to/program
//! ```
//!
//! or to its unit: `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN`. Pins need a bpffs (`mount -t bpf bpf /sys/fs/bpf`) that the
//! user may write, `SocketProgram` a mounted cgroup v2, `ProbeProgram` a mounted tracefs
//! and `CAP_PERFMON` ([`Feature::TcpProbe`]). [`Capabilities::can`] names whatever is missing, all at once.
//!
//! # What it cannot do
//!
//! - Filter what leaves. Rules are for the source of what arrives, at XDP and TC ingress; egress is only counted.
//! - Delay packets. That takes departure times and the `fq` queueing discipline at egress, which is not built.
//! - Measure other protocols than TCP. Of TCP, `SocketProgram` sees what was opened while it was attached; `ProbeProgram` sees all.
//! - Tell which bytes are headers: backends count at different places, see [`stats`].
//! - Save packets that were sent into a dead link before `Steering` was told to flip.
//! - Run native XDP where the driver cannot, such as veth with a large MTU. It then uses generic XDP if the policy allows
//!   that, and says so.
//!
//! # Unsafe code
//!
//! Is denied everywhere but in the private module `sys`, which speaks to bpf(2). aya loads the objects and is in no public
//! signature.
//!
//! # Where it stands in the family
//!
//! It depends on no other x0 crate. It feeds `x0-mesh`'s metrics and `x0-mapek`'s monitor.

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
    link::{LinkOptions, LinkProgram, ReadError},
    object::{Object, Provenance},
    probe::{ProbeCounters, ProbeError, ProbeProgram},
    program::LoadError,
    rate::{Rate, RateError, RateUnit},
    sockets::{SocketCounters, SocketError, SocketProgram},
    steering::{
        PATHS_MAX, PathAddresses, PathCounters, PathId, STEERED_MAX, SteerError, SteerPath, Steering,
    },
};
