//! The types of a CRDT keyspace in a build without the feature `crdt`: none of them has a value, so that code
//! which handles an optional keyspace needs no second version.
#![allow(dead_code, reason = "which of it is used depends on the other features")]

use std::path::Path;

use x0_consensus::NodeId;

use crate::request::pending::Answer;
use crate::request::watch::Watchers;
use crate::store::embedded::OpenError;

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum Crdt {}

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum CrdtOptions {}

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum Request {}

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum CrdtOutcome {}

impl Crdt {
    pub(crate) fn submit(&self, _request: Request) -> Answer<CrdtOutcome> {
        match *self {}
    }

    pub(crate) fn watchers(&self) -> &Watchers {
        match *self {}
    }

    pub(crate) fn close(&self) {
        match *self {}
    }
}

/// Without options there is nothing to open.
pub(crate) fn open_embedded(
    _folder: &Path,
    options: Option<&CrdtOptions>,
    _node: NodeId,
) -> Result<Option<Crdt>, OpenError> {
    Ok(options.map(|options| match *options {}))
}

/// There is none.
pub(crate) fn volatile() -> Option<Crdt> {
    None
}
