//! Anchors: a trust bundle prepared for verifying chains.

use std::vec::Vec;

use pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

use super::VerifyError;
use crate::path::{Anchor, Usage, read_leaf, validate};
use crate::{SpiffeId, TrustBundle, X509Svid};

#[derive(Debug)]
pub(super) struct Anchors {
    bundle: TrustBundle,
    anchors: Vec<Anchor>,
}

impl Anchors {
    pub(super) fn new(bundle: TrustBundle) -> Anchors {
        // The bundle has checked each authority, so none is left out.
        let anchors =
            bundle.authorities().iter().filter_map(|authority| Anchor::new(authority).ok()).collect();
        Anchors { bundle, anchors }
    }

    pub(super) fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// X509-SVID §5: the rules of the leaf first, because its trust domain selects the bundle, then path validation.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: UnixTime,
        usage: Usage,
    ) -> Result<SpiffeId, VerifyError> {
        if intermediates.len() >= X509Svid::CHAIN_LEN_MAX {
            return Err(VerifyError::ChainLength { len: intermediates.len() + 1 });
        }
        let (certificate, leaf) = read_leaf(end_entity)?;
        if leaf.spiffe_id.trust_domain() != self.bundle.trust_domain() {
            return Err(VerifyError::TrustDomain {
                spiffe_id: leaf.spiffe_id,
                bundle: self.bundle.trust_domain().clone(),
            });
        }
        validate(&certificate, intermediates, &self.anchors, algorithms, now, usage)?;
        Ok(leaf.spiffe_id)
    }
}
