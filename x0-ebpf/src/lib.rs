//! See and steer every link of a node from inside the kernel, and say plainly when that cannot be.
//!
//! **Not built yet.** This page fixes what the crate will be, so that the crates around it can leave the right gap; there
//! is nothing to call.
//!
//! # What it will be
//!
//! - Prebuilt eBPF programs (no clang needed to use the crate), loaded with `aya`, which stays out of the public API.
//! - Link and peer telemetry, block and allow lists, steering between links, and seeded fault injection for tests.
//! - `Capabilities::probe()`, which names the missing capability before anything is loaded, and how to grant it.
//! - `LinkStats` (the seam): the same numbers from eBPF, from rtnetlink or from `/proc/net/dev`, with the backend in use
//!   and the reason for it always visible.
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
    program::LoadError,
    rate::{Rate, RateError, RateUnit},
    sockets::{SocketCounters, SocketError, SocketProgram},
    steering::{
        PATHS_MAX, PathAddresses, PathCounters, PathId, STEERED_MAX, SteerError, SteerPath, Steering,
    },
};
