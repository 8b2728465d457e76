//! Telemetry through the `metrics` facade.

use core::fmt;
use std::time::{Instant, SystemTime};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{EncodingError, LeafError, PathError, SigningError, VerifyError};

/// The reasons that have a series from the start: a rate does not see a first increment. The others, one for
/// each rule, have one after their first refusal, because few of them ever occur.
const COMMON: [&str; 6] =
    ["trust_domain", "revoked", "not_yet_valid", "expired", "unknown_issuer", "signature"];

/// The reason that names the rule, so that a dashboard tells an expired intermediate from a wrong key usage.
fn reason(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::ChainLength { .. } => "chain_length",
        VerifyError::Leaf(error) => leaf_reason(error),
        VerifyError::TrustDomain { .. } => "trust_domain",
        VerifyError::NotAdmitted { .. } => "not_admitted",
        VerifyError::Revoked { .. } => "revoked",
        VerifyError::Path(error) => path_reason(error),
    }
}

fn path_reason(error: &PathError) -> &'static str {
    match error {
        PathError::UnknownIssuer { .. } => "unknown_issuer",
        PathError::Signature { .. } => "signature",
        PathError::SignatureAlgorithm { .. } => "signature_algorithm",
        PathError::NotYetValid { .. } => "not_yet_valid",
        PathError::Expired { .. } => "expired",
        PathError::Signer { source, .. } => signer_reason(*source),
        PathError::Revoked { .. } => "revoked",
        PathError::PathLen { .. } => "path_len",
        PathError::NameConstraints { .. } => "name_constraints",
        PathError::NameConstraintsEncoding { .. } => "name_constraints_encoding",
        PathError::ExtendedKeyUsage { .. } => "extended_key_usage",
        PathError::Policy { .. } => "policy",
        PathError::Extension { .. } => "policy_extension",
        PathError::CriticalExtension { .. } => "critical_extension",
        PathError::Signatures => "signatures",
        PathError::Comparisons => "comparisons",
        PathError::Steps => "steps",
    }
}

fn encoding_reason(error: EncodingError) -> &'static str {
    match error {
        EncodingError::Length { .. } => "certificate_length",
        EncodingError::Malformed => "certificate_malformed",
        EncodingError::TrailingData { .. } => "certificate_trailing_data",
        EncodingError::Version => "certificate_version",
        EncodingError::SignatureAlgorithm => "certificate_signature_algorithm",
        EncodingError::Issuer => "certificate_issuer",
        EncodingError::DuplicateExtension => "certificate_duplicate_extension",
        EncodingError::Extension { .. } => "certificate_extension",
    }
}

fn leaf_reason(error: &LeafError) -> &'static str {
    match error {
        LeafError::Encoding(error) => encoding_reason(*error),
        LeafError::Authority => "leaf_authority",
        LeafError::KeyUsageMissing => "leaf_key_usage_missing",
        LeafError::KeyUsageNotCritical => "leaf_key_usage_not_critical",
        LeafError::KeyUsageDigitalSignature => "leaf_key_usage_digital_signature",
        LeafError::KeyUsageCertSign => "leaf_key_usage_cert_sign",
        LeafError::KeyUsageCrlSign => "leaf_key_usage_crl_sign",
        LeafError::ExtendedKeyUsageServer => "leaf_extended_key_usage_server",
        LeafError::ExtendedKeyUsageClient => "leaf_extended_key_usage_client",
        LeafError::UriCount { .. } => "leaf_uri_count",
        LeafError::UriNotText => "leaf_uri_not_text",
        LeafError::SpiffeId(_) => "leaf_spiffe_id",
        LeafError::RootPath => "leaf_root_path",
        LeafError::AlternativeNameNotCritical => "leaf_alternative_name_not_critical",
    }
}

fn signer_reason(error: SigningError) -> &'static str {
    match error {
        SigningError::Encoding(error) => encoding_reason(error),
        SigningError::NotAuthority => "signer_not_authority",
        SigningError::Subject => "signer_subject",
        SigningError::KeyUsageMissing => "signer_key_usage_missing",
        SigningError::KeyUsageNotCritical => "signer_key_usage_not_critical",
        SigningError::KeyUsageCertSign => "signer_key_usage_cert_sign",
        SigningError::UriCount { .. } => "signer_uri_count",
        SigningError::UriNotText => "signer_uri_not_text",
        SigningError::SpiffeId(_) => "signer_spiffe_id",
        SigningError::Path => "signer_path",
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
}

impl VerifierTelemetry {
    pub(crate) fn new() -> VerifierTelemetry {
        for reason in COMMON {
            counter!("x0_identity_refusals_total", "reason" => reason).increment(0);
        }
        VerifierTelemetry { seconds: histogram!("x0_identity_verify_seconds") }
    }

    /// Runs `verify`, and times and counts it.
    pub(crate) fn timed<T>(&self, verify: impl FnOnce() -> Result<T, VerifyError>) -> Result<T, VerifyError> {
        let begun = Instant::now();
        let verified = verify();
        self.seconds.record(begun.elapsed());
        if let Err(error) = &verified {
            counter!("x0_identity_refusals_total", "reason" => reason(error)).increment(1);
        }
        verified
    }
}

impl fmt::Debug for VerifierTelemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VerifierTelemetry").finish_non_exhaustive()
    }
}
