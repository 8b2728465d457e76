//! Telemetry through the `metrics` facade.

use core::fmt;
use std::time::{Instant, SystemTime};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{PathError, VerifyError};

const REASONS: [&str; 8] =
    ["chain_length", "leaf", "trust_domain", "revoked", "not_yet_valid", "expired", "path", "not_admitted"];

/// The place of the reason in [`REASONS`].
fn place(error: &VerifyError) -> usize {
    match error {
        VerifyError::ChainLength { .. } => 0,
        VerifyError::Leaf(_) => 1,
        VerifyError::TrustDomain { .. } => 2,
        VerifyError::Revoked { .. } | VerifyError::Path(PathError::Revoked { .. }) => 3,
        VerifyError::Path(PathError::NotYetValid { .. }) => 4,
        VerifyError::Path(PathError::Expired { .. }) => 5,
        VerifyError::Path(_) => 6,
        VerifyError::NotAdmitted { .. } => 7,
    }
}

/// Describes each name to the installed recorder.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!(
        "x0_identity_svid_not_after_seconds",
        Unit::Seconds,
        "The last second in which the SVID is valid, in Unix time"
    );
    describe_counter!("x0_identity_rotations_total", Unit::Count, "SVIDs that replaced another one");
    describe_histogram!("x0_identity_verify_seconds", Unit::Seconds, "The time to verify one chain");
    describe_counter!("x0_identity_refusals_total", Unit::Count, "Chains that were refused, by reason");
    describe_histogram!("x0_identity_issue_seconds", Unit::Seconds, "The time to issue one SVID");
    describe_counter!("x0_identity_issuances_total", Unit::Count, "SVIDs that were issued, by evidence");
    describe_counter!("x0_identity_issuance_refusals_total", Unit::Count, "Requests refused, by reason");
    describe_gauge!("x0_identity_workload_streams", Unit::Count, "Open streams of the Workload API");
    describe_counter!(
        "x0_identity_workload_refusals_total",
        Unit::Count,
        "Calls of the Workload API that ended with an error, by reason"
    );
    describe_counter!(
        "x0_identity_federation_fetches_total",
        Unit::Count,
        "Fetches from bundle endpoints, by outcome"
    );
}

/// Shows the SVID of an identity.
pub(crate) struct IdentityTelemetry {
    not_after: Gauge,
    rotations: Counter,
}

impl IdentityTelemetry {
    /// The telemetry of an identity whose first SVID is valid until `not_after`.
    pub(crate) fn new(not_after: SystemTime) -> IdentityTelemetry {
        let telemetry = IdentityTelemetry {
            not_after: gauge!("x0_identity_svid_not_after_seconds"),
            rotations: counter!("x0_identity_rotations_total"),
        };
        telemetry.show(not_after);
        telemetry
    }

    /// Another SVID is used from now on.
    pub(crate) fn rotated(&self, not_after: SystemTime) {
        self.rotations.increment(1);
        self.show(not_after);
    }

    fn show(&self, not_after: SystemTime) {
        let unix = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.not_after.set(unix.as_secs_f64());
    }
}

/// Times and counts verifications.
#[derive(Clone)]
pub(crate) struct VerifierTelemetry {
    seconds: Histogram,
    refusals: [Counter; REASONS.len()],
}

impl VerifierTelemetry {
    pub(crate) fn new() -> VerifierTelemetry {
        VerifierTelemetry {
            seconds: histogram!("x0_identity_verify_seconds"),
            refusals: REASONS.map(|reason| counter!("x0_identity_refusals_total", "reason" => reason)),
        }
    }

    /// Runs `verify`, and times and counts it.
    pub(crate) fn timed<T>(&self, verify: impl FnOnce() -> Result<T, VerifyError>) -> Result<T, VerifyError> {
        let begun = Instant::now();
        let verified = verify();
        self.seconds.record(begun.elapsed());
        if let Err(error) = &verified {
            self.refusals[place(error)].increment(1);
        }
        verified
    }
}

impl fmt::Debug for VerifierTelemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VerifierTelemetry").finish_non_exhaustive()
    }
}
