//! What a node reports of its identity, and the service that answers `x0-node identity` with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x0_identity::{Identity, TrustBundle, X509Svid, peer_not_after};
use x0_mesh::Mux;

use crate::federation::{Federation, FederationReport};
use crate::report;
use crate::revocations::Applied;

pub(crate) const SERVICE: &str = "x0-node/identity";

/// The identity of one process. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) spiffe_id: String,
    /// The last second in which the SVID is valid.
    pub(crate) valid_until: u64,
    /// The authority that the SVID leads to, by its fingerprint; `None` if the bundle does not have it.
    pub(crate) signed_by: Option<String>,
    /// When the SVID is renewed; `None` if the process does not renew it.
    pub(crate) next_renewal: Option<u64>,
    /// Why the last attempt to renew failed, until one succeeds.
    pub(crate) failure: Option<String>,
    /// The authorities that are trusted.
    pub(crate) authorities: Vec<AuthorityRow>,
    /// The revocations that the process applies, by name.
    pub(crate) revocations: Vec<String>,
    /// The foreign trust domains; absent from older nodes.
    #[serde(default)]
    pub(crate) federation: FederationReport,
}

/// An authority of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthorityRow {
    pub(crate) fingerprint: String,
}

/// The state of the renewal of an SVID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Renewing {
    pub(crate) next: Option<Duration>,
    pub(crate) failure: Option<String>,
    /// Whether a renewal is to be made now, although it is not due or an attempt was a moment ago.
    pub(crate) is_asked: bool,
}

/// The state of a renewal, shared between the thread that renews and the service that reports.
pub(crate) type SharedRenewing = Arc<Mutex<Renewing>>;

impl Report {
    pub(crate) fn of(
        identity: &Identity,
        renewing: &SharedRenewing,
        applied: &Applied,
        federation: &Federation,
    ) -> Report {
        let renewing = renewing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (chain, bundle) = (identity.svid_chain(), identity.trust_bundle());
        Report {
            spiffe_id: identity.spiffe_id().to_string(),
            valid_until: peer_not_after(&chain).map_or(0, seconds),
            signed_by: bundle.authority_of(&chain).map(|authority| fingerprint(authority)),
            next_renewal: renewing.next.map(|at| at.as_secs()),
            failure: renewing.failure,
            authorities: authorities(&bundle),
            revocations: applied.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            federation: federation.report(),
        }
    }

    /// The report on the files of a command, which need not be valid.
    pub(crate) fn of_files(svid: &X509Svid, bundle: &TrustBundle) -> Report {
        Report {
            spiffe_id: svid.spiffe_id().to_string(),
            valid_until: seconds(svid.not_after()),
            signed_by: bundle.authority_of(svid.chain()).map(|authority| fingerprint(authority)),
            next_renewal: None,
            failure: None,
            authorities: authorities(bundle),
            revocations: Vec::new(),
            federation: FederationReport::default(),
        }
    }
}

fn authorities(bundle: &TrustBundle) -> Vec<AuthorityRow> {
    let row =
        |authority: &pki_types::CertificateDer<'_>| AuthorityRow { fingerprint: fingerprint(authority) };
    bundle.authorities().iter().map(row).collect()
}

/// The first eight bytes of the SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` begins.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Answers `x0-node identity` until the mux ends.
pub(crate) fn serve(
    mux: &Mux,
    identity: Identity,
    renewing: SharedRenewing,
    applied: Applied,
    federation: Federation,
) -> Result<()> {
    let report = move || serde_json::to_vec(&Report::of(&identity, &renewing, &applied, &federation));
    report::start(mux, SERVICE, report)
}
