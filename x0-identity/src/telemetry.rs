//! Metrics of identities, through the `metrics` facade with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_identity_svid_not_after_seconds` | gauge | – | the last second in which the SVID is valid, in Unix time |
//! | `x0_identity_rotations_total` | counter | – | SVIDs that took the place of another one |
//! | `x0_identity_verify_seconds` | histogram | – | the time to verify one chain, that of the own SVID included |
//! | `x0_identity_refusals_total` | counter | `reason`: the rule, one of the 49 below | chains that were refused |
//! | `x0_identity_issue_seconds` | histogram | – | the time from a request to the issued SVID, attestation and signature included |
//! | `x0_identity_issuances_total` | counter | `evidence`: renewal, earlier_svid, join_token, tpm, certificate | SVIDs that an issuer issued over the network |
//! | `x0_identity_issuance_refusals_total` | counter | `reason`: malformed, busy, not_attested, not_registered, signer | requests that an issuer refused |
//! | `x0_identity_workload_streams` | gauge | – | open streams of the Workload API, those of Envoy included |
//! | `x0_identity_workload_refusals_total` | counter | `reason`: permission_denied, invalid_argument, unimplemented, deadline_exceeded, unavailable, other | calls of the Workload API that ended with an error |
//! | `x0_identity_federation_fetches_total` | counter | `outcome`: fetched, no_bundle, unreachable, not_authenticated, timed_out, response, status, redirect, bundle, older | fetches from bundle endpoints |
//!
//! The reasons of refusals: `chain_length`, `trust_domain`, `revoked`, `not_yet_valid`, `expired`,
//! `not_admitted`, `certificate_length`, `certificate_malformed`, `certificate_trailing_data`,
//! `certificate_version`, `certificate_signature_algorithm`, `certificate_issuer`,
//! `certificate_duplicate_extension`, `certificate_extension`, `leaf_authority`, `leaf_key_usage_missing`,
//! `leaf_key_usage_not_critical`, `leaf_key_usage_digital_signature`, `leaf_key_usage_cert_sign`,
//! `leaf_key_usage_crl_sign`, `leaf_extended_key_usage_server`, `leaf_extended_key_usage_client`,
//! `leaf_uri_count`, `leaf_uri_not_text`, `leaf_spiffe_id`, `leaf_root_path`,
//! `leaf_alternative_name_not_critical`, `signer_not_authority`, `signer_subject`,
//! `signer_key_usage_missing`, `signer_key_usage_not_critical`, `signer_key_usage_cert_sign`,
//! `signer_uri_count`, `signer_uri_not_text`, `signer_spiffe_id`, `signer_path`, `unknown_issuer`,
//! `signature`, `signature_algorithm`, `path_len`, `name_constraints`, `name_constraints_encoding`,
//! `extended_key_usage`, `policy`, `policy_extension`, `critical_extension`, `signatures`, `comparisons`,
//! `steps`. Six of them have a series from the start, the others after their first refusal.
//!
//! Reserved for the authorizer, and absent until it exists: `x0_identity_decisions_total` (`verdict`),
//! `x0_identity_audit_records_total` and `x0_identity_audit_lag_seconds`.
//!
//! Install a recorder before an identity or a verifier is made: handles made earlier record nothing. Several
//! identities of one process share these names, and their gauges overwrite each other.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/no_facade.rs"]
mod facade;
#[cfg(feature = "federation")]
mod federation;
#[cfg(feature = "issuer")]
mod issuance;
#[cfg(feature = "metrics")]
mod recorded;
#[cfg(all(feature = "rustls", not(feature = "metrics")))]
mod silent;
#[cfg(feature = "workload-api")]
mod workload;

#[cfg(feature = "federation")]
pub(crate) use federation::fetched;
#[cfg(feature = "issuer")]
pub(crate) use issuance::{IssuanceTelemetry, IssuedFor};
#[cfg(feature = "metrics")]
pub use recorded::describe;
#[cfg(feature = "metrics")]
pub(crate) use recorded::{IdentityTelemetry, VerifierTelemetry};
#[cfg(all(feature = "rustls", not(feature = "metrics")))]
pub(crate) use silent::{IdentityTelemetry, VerifierTelemetry};
#[cfg(feature = "workload-api")]
pub(crate) use workload::WorkloadTelemetry;
