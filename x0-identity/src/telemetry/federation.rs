//! Telemetry of a consumer of bundle endpoints.

use super::facade::counter;
use crate::federation::FetchError;

/// A fetch has ended.
pub(crate) fn fetched(failure: Option<&FetchError>) {
    let outcome = match failure {
        None => "fetched",
        Some(FetchError::NoBundle { .. }) => "no_bundle",
        Some(FetchError::Unreachable { .. }) => "unreachable",
        Some(FetchError::NotAuthenticated { .. }) => "not_authenticated",
        Some(FetchError::TimedOut) => "timed_out",
        Some(FetchError::Response(_)) => "response",
        Some(FetchError::Status { .. }) => "status",
        Some(FetchError::Redirects { .. } | FetchError::NoLocation | FetchError::Location(_)) => "redirect",
        Some(FetchError::Bundle(_)) => "bundle",
        Some(FetchError::Older { .. }) => "older",
    };
    // A fetch takes place every few minutes.
    counter("x0_identity_federation_fetches_total", "outcome", outcome).increment(1);
}
