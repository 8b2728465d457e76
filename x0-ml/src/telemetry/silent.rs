//! The calls of the feature `metrics` without it.

use super::Stage;
use crate::embed::Embedded;
use crate::knowledge::{Knowledge, KnowledgeError};

pub(crate) struct Telemetry;

impl Telemetry {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn begin() {}

    pub(crate) fn ended(&self, _: Stage, (): ()) {}
    pub(crate) fn cached(&self, _: usize) {}
    pub(crate) fn embedded(&self, _: usize, _: Embedded) {}
    pub(crate) fn truncated(&self, _: Embedded) {}
    pub(crate) fn cache_written(&self, _: bool) {}
    pub(crate) fn saved(&self, _: usize) {}
    pub(crate) fn state(&self, _: &Knowledge) {}
    pub(crate) fn rebuilt(&self, _: &KnowledgeError) {}
}
