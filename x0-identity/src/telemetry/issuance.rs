//! Telemetry of an issuer.

use std::time::Duration;

use super::facade::{Counter, Histogram, counter, histogram};
use crate::IssuanceRefusal;

#[derive(Debug)]
pub(crate) struct IssuanceTelemetry {
    seconds: Histogram,
    issued: [Counter; 5],
    refused: [Counter; 5],
}

/// What an SVID is issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssuedFor {
    Renewal,
    EarlierSvid,
    JoinToken,
    Tpm,
    Certificate,
}

impl IssuanceTelemetry {
    pub(crate) fn new() -> IssuanceTelemetry {
        let issued = |evidence| counter("x0_identity_issuances_total", "evidence", evidence);
        let refused = |reason| counter("x0_identity_issuance_refusals_total", "reason", reason);
        IssuanceTelemetry {
            seconds: histogram("x0_identity_issue_seconds"),
            issued: ["renewal", "earlier_svid", "join_token", "tpm", "certificate"].map(issued),
            refused: ["malformed", "busy", "not_attested", "not_registered", "signer"].map(refused),
        }
    }

    /// An SVID was issued, so long after its request.
    pub(crate) fn issued(&self, issued_for: IssuedFor, took: Duration) {
        let place = match issued_for {
            IssuedFor::Renewal => 0,
            IssuedFor::EarlierSvid => 1,
            IssuedFor::JoinToken => 2,
            IssuedFor::Tpm => 3,
            IssuedFor::Certificate => 4,
        };
        self.issued[place].increment(1);
        self.seconds.record(took);
    }

    pub(crate) fn refused(&self, refusal: IssuanceRefusal) {
        let place = match refusal {
            IssuanceRefusal::Malformed => 0,
            IssuanceRefusal::Busy => 1,
            IssuanceRefusal::NotAttested => 2,
            IssuanceRefusal::NotRegistered => 3,
            IssuanceRefusal::Signer => 4,
        };
        self.refused[place].increment(1);
    }
}
