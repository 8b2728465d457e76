//! The services of a CRDT store: one that keeps the members in sync, one for requests of clients, and one in
//! a client.

mod client;
mod operations;
mod sync;

use std::path::PathBuf;

use x0_mesh::Mux;

pub(crate) use self::client::CrdtCalls;
use super::Part;
use crate::cluster::error::StartError;
use crate::cluster::event_loop::EventLoop;
use crate::cluster::inbox::{Alarm, Inbox};
use crate::cluster::remote::CrdtSide;
use crate::coordinator::CoordinatorOptions;
use crate::crdt::{Crdt, CrdtOptions};

/// Registers the services of a CRDT keyspace. Its journal lies in the folder `crdt` of `folder`, or in
/// memory.
pub(in super::super) fn start_crdt(
    part: &mut Part<'_>,
    options: Option<CrdtOptions>,
    folder: Option<PathBuf>,
) -> Result<Option<Crdt>, StartError> {
    let crdt = match options {
        Some(options) => Some(sync::start(part, options, folder)?),
        None => None,
    };
    operations::start(part, crdt.clone())?;
    Ok(crdt)
}

/// Registers the service of a client's calls to CRDT keyspaces.
pub(in super::super) fn start_crdt_client(
    event_loop: &mut EventLoop,
    mux: &Mux,
    alarm: &Alarm,
    options: &CoordinatorOptions,
) -> Result<CrdtSide, StartError> {
    let calls = CrdtCalls::new(Inbox::new(alarm.clone()), options.tracing.clone());
    client::start(event_loop, mux, calls.clone(), options)?;
    Ok(CrdtSide::Client(calls))
}
