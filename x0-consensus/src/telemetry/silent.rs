//! Telemetry that records nothing: the build without the feature `metrics`. The methods are those of
//! `recorded`.
#![expect(clippy::unused_self, reason = "the signatures are those of `recorded`")]

use crate::replica::{Output, Status};
use crate::storage::Write;

#[derive(Debug)]
pub(crate) struct DriverTelemetry;

impl DriverTelemetry {
    pub(crate) fn new() -> DriverTelemetry {
        DriverTelemetry
    }

    pub(crate) fn status(&mut self, _: &Status) {}

    pub(crate) fn output(&self, _: &Output) {}

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
}
