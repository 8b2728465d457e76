//! The services of a cluster, one file each. See [`Service`](super::service::Service).

#[cfg(feature = "blob")]
pub(crate) mod blobs;
pub(crate) mod consensus;
#[cfg(feature = "crdt")]
pub(crate) mod crdt_client;
#[cfg(feature = "crdt")]
pub(crate) mod crdt_operations;
#[cfg(feature = "crdt")]
pub(crate) mod crdt_sync;
pub(crate) mod operations;
pub(crate) mod snapshots;
pub(crate) mod status;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use x0_consensus::Membership;
use x0_identity::NodeId;
use x0_mesh::Mux;

use super::error::StartError;
use super::event_loop::EventLoop;
use super::inbox::Alarm;
#[cfg(feature = "crdt")]
use super::inbox::Inbox;
use super::readers::ReaderThreads;
use super::remote::CrdtSide;
use crate::blob::Blobs;
use crate::coordinator::Config;
use crate::crdt::Crdt;

/// All nodes of a membership.
#[cfg_attr(
    not(any(feature = "blob", feature = "crdt")),
    expect(dead_code, reason = "only their services need it")
)]
fn members_of(membership: &Membership) -> BTreeSet<NodeId> {
    let Membership { voters, voters_outgoing, learners, learners_next, .. } = membership;
    [voters, voters_outgoing, learners, learners_next].into_iter().flatten().copied().collect()
}

/// What a service that belongs to a feature is started with.
#[cfg_attr(
    not(all(feature = "crdt", feature = "blob")),
    allow(dead_code, reason = "only these services need it")
)]
pub(super) struct Part<'a> {
    pub(super) event_loop: &'a mut EventLoop,
    pub(super) mux: &'a Mux,
    pub(super) alarm: &'a Alarm,
    pub(super) readers: &'a ReaderThreads,
    pub(super) id: NodeId,
}

/// Registers the services of a CRDT keyspace. Its journal lies in the folder `crdt` of `folder`, or in memory.
#[cfg(feature = "crdt")]
pub(super) fn start_crdt(
    part: &mut Part<'_>,
    options: Option<crate::crdt::CrdtOptions>,
    folder: Option<PathBuf>,
) -> Result<Option<Crdt>, StartError> {
    let crdt = match options {
        Some(options) => Some(crdt_sync::start(part, options, folder)?),
        None => None,
    };
    crdt_operations::start(part, crdt.clone())?;
    Ok(crdt)
}

/// Registers the service of blobs, which lie in the folder `blobs` of `folder`.
#[cfg(feature = "blob")]
pub(super) fn start_blobs(
    part: &mut Part<'_>,
    options: Option<crate::blob::BlobOptions>,
    folder: &Path,
) -> Result<Option<Blobs>, StartError> {
    options.map(|options| blobs::start(part, options, folder)).transpose()
}

/// Registers the service of a client's calls to CRDT keyspaces.
#[cfg(feature = "crdt")]
pub(super) fn start_crdt_client(
    event_loop: &mut EventLoop,
    mux: &Mux,
    alarm: &Alarm,
    config: &Config,
) -> Result<CrdtSide, StartError> {
    let calls = crdt_client::CrdtCalls::new(Inbox::new(alarm.clone()));
    crdt_client::start(event_loop, mux, calls.clone(), config)?;
    Ok(CrdtSide::Client(calls))
}

#[cfg(not(feature = "crdt"))]
pub(super) fn start_crdt_client(
    _: &mut EventLoop,
    _: &Mux,
    _: &Alarm,
    _: &Config,
) -> Result<CrdtSide, StartError> {
    Ok(CrdtSide::Member(None))
}

#[cfg(not(feature = "crdt"))]
pub(super) fn start_crdt(
    _: &mut Part<'_>,
    options: Option<crate::crdt::CrdtOptions>,
    _: Option<PathBuf>,
) -> Result<Option<Crdt>, StartError> {
    match options {
        Some(options) => match options {},
        None => Ok(None),
    }
}

#[cfg(not(feature = "blob"))]
pub(super) fn start_blobs(
    _: &mut Part<'_>,
    options: Option<crate::blob::BlobOptions>,
    _: &Path,
) -> Result<Option<Blobs>, StartError> {
    match options {
        Some(options) => match options {},
        None => Ok(None),
    }
}
