//! The services of a cluster, one file each. See [`Service`](super::service::Service).

pub(crate) mod admin;
#[cfg(feature = "blob")]
mod blobs;
#[cfg(not(feature = "blob"))]
#[path = "services/no_blobs.rs"]
mod blobs;
pub(crate) mod consensus;
#[cfg(feature = "crdt")]
mod crdt;
#[cfg(not(feature = "crdt"))]
#[path = "services/no_crdt.rs"]
mod crdt;
pub(crate) mod drive;
pub(crate) mod operations;
pub(crate) mod scrub;
pub(crate) mod snapshots;
pub(crate) mod space;
pub(crate) mod status;

use std::collections::BTreeSet;

use x0_consensus::Membership;
use x0_identity::NodeId;
use x0_mesh::Mux;

pub(super) use self::blobs::start_blobs;
pub(crate) use self::crdt::CrdtCalls;
pub(super) use self::crdt::{start_crdt, start_crdt_client};
use super::event_loop::EventLoop;
use super::inbox::Alarm;
use super::outbox::Access;
use super::readers::ReaderThreads;
use crate::space::Space;
use crate::trace::Tracing;

/// All nodes of a membership.
fn members_of(membership: &Membership) -> BTreeSet<NodeId> {
    let Membership { voters, voters_outgoing, learners, learners_next, .. } = membership;
    [voters, voters_outgoing, learners, learners_next].into_iter().flatten().copied().collect()
}

/// The parts with which a service that belongs to a feature is started.
#[cfg_attr(
    not(all(feature = "crdt", feature = "blob")),
    allow(dead_code, reason = "only these services need it")
)]
pub(super) struct Part<'a> {
    pub(super) event_loop: &'a mut EventLoop,
    pub(super) mux: &'a Mux,
    pub(super) alarm: &'a Alarm,
    pub(super) readers: &'a ReaderThreads,
    pub(super) space: &'a Space,
    pub(super) id: NodeId,
    pub(super) access: &'a Access,
    pub(super) tracing: &'a Tracing,
    /// Messages of later versions are not spoken.
    pub(super) version_max: u16,
}
