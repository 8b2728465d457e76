//! Links for tests: network namespaces, veth pairs between them, and generated and counted packets.
//!
//! File descriptors hold everything and nothing has a name outside the process, so that the kernel frees it
//! when it is dropped, when the test panics and when the process is killed. Needs root, or `CAP_SYS_ADMIN`,
//! `CAP_NET_ADMIN` and `CAP_NET_RAW`.
//!
//! ```no_run
//! use std::time::Duration;
//! use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};
//!
//! let (here, there) = (Namespace::new()?, Namespace::new()?);
//! let pair = VethPair::new(&here, &there)?;
//! let mut generator = Generator::open(&here, pair.left())?;
//! let mut receiver = Receiver::open(&there, pair.right())?;
//! let frame = Frame::between(pair.left(), pair.right()).len(128).build();
//! generator.send_counted(&mut receiver, 1000, Duration::from_secs(5), |_| frame.clone())?;
//! assert_eq!(receiver.counted().packets, 1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod frame;
#[cfg(feature = "ebpf")]
mod lookups;
mod loss;
mod namespace;
mod probe;
#[cfg(feature = "ebpf")]
mod run;
#[cfg(feature = "ebpf")]
mod snapshot;
mod traffic;
mod veth;

#[cfg(feature = "ebpf")]
pub use crate::model::{Cause, Judgement, Model};
pub use frame::Frame;
#[cfg(feature = "ebpf")]
pub use lookups::{LookupBench, LookupTable, Lookups};
pub use namespace::{Namespace, NamespaceError};
pub use probe::{Gap, Prober};
#[cfg(feature = "ebpf")]
pub use run::{PACKET_LEN_MIN, Run, RunError, Runner, Verdict};
#[cfg(feature = "ebpf")]
pub use snapshot::{SnapshotTimes, measure_snapshot};
pub use traffic::{Counted, Generator, Receiver, TrafficError};
pub use veth::{VethEnd, VethError, VethPair};
