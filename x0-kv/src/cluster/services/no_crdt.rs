//! The services of a CRDT store in a build without the feature `crdt`: none.

use std::path::PathBuf;

use x0_mesh::Mux;

use super::Part;
use crate::cluster::error::StartError;
use crate::cluster::event_loop::EventLoop;
use crate::cluster::inbox::Alarm;
use crate::cluster::remote::CrdtSide;
use crate::coordinator::CoordinatorOptions;
use crate::crdt::{Crdt, CrdtOptions, CrdtOutcome, Request};
use crate::request::pending::Answer;

/// Not to be had.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "it has no value")]
pub(crate) enum CrdtCalls {}

impl CrdtCalls {
    pub(crate) fn call(&self, _request: Request) -> Answer<CrdtOutcome> {
        match *self {}
    }
}

pub(in super::super) fn start_crdt(
    _: &mut Part<'_>,
    options: Option<CrdtOptions>,
    _: Option<PathBuf>,
) -> Result<Option<Crdt>, StartError> {
    match options {
        Some(options) => match options {},
        None => Ok(None),
    }
}

pub(in super::super) fn start_crdt_client(
    _: &mut EventLoop,
    _: &Mux,
    _: &Alarm,
    _: &CoordinatorOptions,
) -> Result<CrdtSide, StartError> {
    Ok(CrdtSide::Member(None))
}
