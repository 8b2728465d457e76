//! Metrics of identities, through the `metrics` facade with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_identity_svid_not_after_seconds` | gauge | – | the last second in which the SVID is valid, in Unix time |
//! | `x0_identity_rotations_total` | counter | – | SVIDs that took the place of another one |
//! | `x0_identity_verify_seconds` | histogram | – | the time to verify one chain, that of the own SVID included |
//! | `x0_identity_refusals_total` | counter | `reason`: chain_length, leaf, trust_domain, revoked, not_yet_valid, expired, path, not_admitted | chains that were refused |
//! | `x0_identity_issue_seconds` | histogram | – | the time from a request to the issued SVID, attestation and signature included |
//! | `x0_identity_issuances_total` | counter | `evidence`: renewal, earlier_svid, join_token, tpm | SVIDs that an issuer issued over the network |
//! | `x0_identity_issuance_refusals_total` | counter | `reason`: malformed, busy, not_attested, not_registered, signer | requests that an issuer refused |
//! | `x0_identity_workload_streams` | gauge | – | open streams of the Workload API, those of Envoy included |
//! | `x0_identity_workload_refusals_total` | counter | `reason`: permission_denied, invalid_argument, unimplemented, deadline_exceeded, unavailable, other | calls of the Workload API that ended with an error |
//! | `x0_identity_federation_fetches_total` | counter | `outcome`: fetched, no_bundle, unreachable, not_authenticated, timed_out, response, status, redirect, bundle, older | fetches from bundle endpoints |
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
