//! Opening a backend.

use super::LinkStats;
use super::backend::{BackendKind, PassedOver, Refusal};
use super::error::OpenError;
use super::proc_net_dev::ProcNetDevSource;

/// A source that can be opened as a backend. Other crates implement it for backends of their own.
pub trait StatsSource {
    /// The kind of its backend.
    fn kind(&self) -> BackendKind;

    /// Opens it in the network namespace of the calling thread. `passed_over` is for
    /// [`Backend::new`](super::Backend::new).
    ///
    /// # Errors
    ///
    /// The reason why it cannot be used. Nothing was changed in the kernel.
    fn open(&self, passed_over: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal>;
}

/// Opens the first source that can be opened.
///
/// # Errors
///
/// No source can be opened; the error has the reason of each.
pub fn open(sources: &[&dyn StatsSource]) -> Result<Box<dyn LinkStats>, OpenError> {
    let mut passed_over = Vec::new();
    for source in sources {
        match source.open(&passed_over) {
            Ok(stats) => return Ok(stats),
            Err(reason) => passed_over.push(PassedOver { kind: source.kind(), reason }),
        }
    }
    Err(OpenError { passed_over })
}

/// Opens the best backend that needs no programs: rtnetlink, else `/proc/net/dev`. Its reasons name eBPF as
/// not attached.
///
/// ```
/// let mut stats = x0_ebpf::stats::open_plain()?;
/// let mut links = Vec::new();
/// stats.links(&mut links)?;
/// println!("{}: {} links", stats.backend(), links.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`open`].
pub fn open_plain() -> Result<Box<dyn LinkStats>, OpenError> {
    open(&[&EbpfNotAttached, &RtnetlinkSource, &ProcNetDevSource])
}

/// A source that always refuses, in the place of the eBPF backend, so that its reason is visible: no programs
/// are attached, or the feature `ebpf` is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct EbpfNotAttached;

impl StatsSource for EbpfNotAttached {
    fn kind(&self) -> BackendKind {
        BackendKind::Ebpf
    }

    fn open(&self, _: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
        Err(if cfg!(feature = "ebpf") { Refusal::NotAttached } else { Refusal::NotBuilt { feature: "ebpf" } })
    }
}

/// The kernel's link counters over rtnetlink. Without the feature `netlink` it refuses with that reason.
#[derive(Debug, Clone, Copy, Default)]
pub struct RtnetlinkSource;

impl StatsSource for RtnetlinkSource {
    fn kind(&self) -> BackendKind {
        BackendKind::Rtnetlink
    }

    #[cfg(feature = "netlink")]
    fn open(&self, passed_over: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
        Ok(Box::new(super::Rtnetlink::open(passed_over)?))
    }

    #[cfg(not(feature = "netlink"))]
    fn open(&self, _: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
        Err(Refusal::NotBuilt { feature: "netlink" })
    }
}
