//! Metrics of identities, through the `metrics` facade with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_identity_svid_not_after_seconds` | gauge | – | the last second in which the SVID is valid, in Unix time |
//! | `x0_identity_rotations_total` | counter | – | SVIDs that took the place of another one |
//! | `x0_identity_verify_seconds` | histogram | – | the time to verify one chain, that of the own SVID included |
//! | `x0_identity_refusals_total` | counter | `reason`: chain_length, leaf, trust_domain, revoked, not_yet_valid, expired, path | chains that were refused |
//!
//! Reserved for the authorizer, and absent until it exists: `x0_identity_decisions_total` (`verdict`),
//! `x0_identity_audit_records_total` and `x0_identity_audit_lag_seconds`.
//!
//! Install a recorder before an identity or a verifier is made: handles made earlier record nothing. Several
//! identities of one process share these names, and their gauges overwrite each other.

#[cfg(feature = "metrics")]
mod recorded;
#[cfg(not(feature = "metrics"))]
mod silent;

#[cfg(feature = "metrics")]
pub use recorded::describe;
#[cfg(feature = "metrics")]
pub(crate) use recorded::{IdentityTelemetry, VerifierTelemetry};
#[cfg(not(feature = "metrics"))]
pub(crate) use silent::{IdentityTelemetry, VerifierTelemetry};
