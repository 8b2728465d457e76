//! Telemetry that records nothing: the build without the feature `metrics`. The methods are those of
//! `recorded`.
#![expect(clippy::unused_self, reason = "the signatures are those of `recorded`")]

use std::time::SystemTime;

use crate::VerifyError;

pub(crate) struct IdentityTelemetry;

impl IdentityTelemetry {
    pub(crate) fn new(_: SystemTime) -> IdentityTelemetry {
        IdentityTelemetry
    }

    pub(crate) fn rotated(&self, _: SystemTime) {}
}

#[derive(Debug, Clone)]
pub(crate) struct VerifierTelemetry;

impl VerifierTelemetry {
    pub(crate) fn new() -> VerifierTelemetry {
        VerifierTelemetry
    }

    pub(crate) fn timed<T>(&self, verify: impl FnOnce() -> Result<T, VerifyError>) -> Result<T, VerifyError> {
        verify()
    }
}
