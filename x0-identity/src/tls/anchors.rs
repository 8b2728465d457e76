//! Anchors: a trust bundle prepared for verifying chains.

use std::cell::Cell;
use std::vec::Vec;

use pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::CertificateError;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::VerifyError;
use crate::x509::{Leaf, Validity, check_signing_certificate};
use crate::{SpiffeId, TrustBundle, X509Svid};

#[derive(Debug)]
pub(super) struct Anchors {
    bundle: TrustBundle,
    anchors: Vec<TrustAnchor<'static>>,
    /// Of the anchor at the same position.
    validities: Vec<Validity>,
}

impl Anchors {
    pub(super) fn new(bundle: TrustBundle) -> Anchors {
        let mut anchors = Vec::new();
        let mut validities = Vec::new();
        for authority in bundle.authorities() {
            // The bundle has checked each; one that webpki cannot read is not an anchor.
            let (Ok(signer), Ok(anchor)) =
                (check_signing_certificate(authority), anchor_from_trusted_cert(authority))
            else {
                continue;
            };
            anchors.push(anchor.to_owned());
            validities.push(signer.validity);
        }
        Anchors { bundle, anchors, validities }
    }

    pub(super) fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// X509-SVID §5: the rules of the leaf first, because its trust domain selects the bundle, then RFC 5280 path
    /// validation, then the rules of RFC 5280 and X509-SVID for the signers on the path.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, VerifyError> {
        if intermediates.len() >= X509Svid::CHAIN_LEN_MAX {
            return Err(VerifyError::ChainLength { len: intermediates.len() + 1 });
        }
        let spiffe_id = Leaf::read(end_entity)?.spiffe_id;
        if spiffe_id.trust_domain() != self.bundle.trust_domain() {
            return Err(VerifyError::TrustDomain { spiffe_id, bundle: self.bundle.trust_domain().clone() });
        }
        // webpki has no error for these rules: the callback leaves the reason here, and its error makes webpki try another
        // path.
        let refusal = Cell::new(None);
        let check_path = |path: &VerifiedPath<'_>| {
            self.check_path(path, intermediates, now).map_err(|error| {
                refusal.set(Some(error));
                webpki::Error::UnknownIssuer
            })
        };
        let certificate = EndEntityCert::try_from(end_entity).map_err(path_error)?;
        let verified = certificate.verify_for_usage(
            rustls::crypto::ring::default_provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            None,
            Some(&check_path),
        );
        match verified {
            Ok(_) => Ok(spiffe_id),
            Err(error) => Err(refusal.take().unwrap_or_else(|| path_error(error))),
        }
    }

    /// Called for each path whose signatures are valid.
    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        for intermediate in path.intermediate_certificates() {
            // RFC 5280 §6.1.4 (n): webpki looks at cA only.
            let der = intermediate.der();
            check_signing_certificate(&der).map_err(|source| {
                let position = presented.iter().position(|certificate| *certificate == der);
                VerifyError::Signer { position: position.map_or(0, |position| position + 1), source }
            })?;
        }
        // RFC 5280 leaves open whether the validity of an anchor counts. An expired authority no longer issues, and its
        // key is no longer guarded: its validity counts here.
        let mut anchors = self.anchors.iter().zip(&self.validities);
        if anchors.any(|(anchor, validity)| anchor == path.anchor() && validity.holds_at(now)) {
            Ok(())
        } else {
            Err(VerifyError::AuthorityValidity)
        }
    }
}

/// Maps the errors of webpki to those of rustls, so that the peer receives the matching alert.
fn path_error(error: webpki::Error) -> VerifyError {
    use webpki::Error;
    let reason = match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Error::InvalidCertValidity => CertificateError::Expired,
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        error => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error))),
    };
    VerifyError::Path { reason }
}
