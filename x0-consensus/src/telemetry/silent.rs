//! Telemetry that records nothing: the build without the feature `metrics`. The methods are those of
//! `recorded`.
#![expect(clippy::unused_self, reason = "the signatures are those of `recorded`")]

use std::time::Duration;

use crate::driver::{Done, SnapshotJob};
use crate::replica::{Input, MemberProgress, Output, Status};
use crate::storage::Write;

#[derive(Debug)]
pub(crate) struct DriverTelemetry;

impl DriverTelemetry {
    pub(crate) fn new(_: Duration) -> DriverTelemetry {
        DriverTelemetry
    }

    pub(crate) fn status(&mut self, _: &Status) {}

    pub(crate) fn input(&mut self, _: Duration, _: &Input) {}

    pub(crate) fn progress(&mut self, _: u64, _: impl FnOnce() -> Vec<MemberProgress>) {}

    pub(crate) fn output(&mut self, _: &Output) {}

    pub(crate) fn congested(&self) {}
}

pub(crate) struct LogTelemetry;

impl LogTelemetry {
    pub(crate) fn new() -> LogTelemetry {
        LogTelemetry
    }

    pub(crate) fn timed<E>(
        &self,
        writes: &[Write],
        write: impl FnOnce(&[Write]) -> Result<(), E>,
    ) -> Result<(), E> {
        write(writes)
    }

    pub(crate) fn size(&self, _: Option<u64>) {}
}

pub(crate) struct ApplyTelemetry;

impl ApplyTelemetry {
    pub(crate) fn new() -> ApplyTelemetry {
        ApplyTelemetry
    }

    pub(crate) fn timed<T, E>(&self, apply: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        apply()
    }
}

#[derive(Default)]
pub(crate) struct SnapshotTelemetry;

impl SnapshotTelemetry {
    pub(crate) fn job(&mut self, _: &SnapshotJob) {}

    pub(crate) fn done(&mut self, _: &Done) {}
}
