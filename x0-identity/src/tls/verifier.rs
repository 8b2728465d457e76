//! The verifier of peers' chains.

use std::sync::Arc;
use std::vec::Vec;

use pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, SignatureScheme,
};
use webpki::KeyUsage;

use super::{Anchors, Swap};
use crate::{LeafError, SigningError, SpiffeId, TrustBundle, TrustDomain};

/// Accepts a peer that has an SVID of the bundle's trust domain, as client and as server.
///
/// Checked are the rules of X509-SVID for the leaf and for each signer of the path, and the path itself as of RFC 5280. The
/// server name that a client dialled is **not** looked at: an SVID names a workload, not a host. The caller authorizes the
/// peer after the handshake, by the SPIFFE ID that it reads with [`peer_spiffe_id`](crate::peer_spiffe_id) or
/// [`peer_node_id`](crate::peer_node_id).
///
/// Not supported, and refused: name constraints on URIs (X509-SVID §4.2 leaves them to the implementation), TLS 1.2.
/// A signer whose constraints cover URIs is refused, whatever they permit.
#[derive(Debug, Clone)]
pub struct Verifier {
    anchors: Arc<Swap<Anchors>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Builds a verifier with a fixed bundle, for a caller that builds the rustls configuration. `Identity::verifier` gives one
    /// that follows the identity's bundle. Such a configuration must not resume sessions either: see `Identity`.
    #[must_use]
    pub fn new(bundle: TrustBundle) -> Verifier {
        Verifier::reading(Arc::new(Swap::new(Anchors::new(bundle))))
    }

    pub(super) fn reading(anchors: Arc<Swap<Anchors>>) -> Verifier {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Verifier { anchors, algorithms }
    }

    /// Verifies the chain of a peer that acts as a client, the leaf first, and returns its SPIFFE ID.
    ///
    /// # Errors
    /// [`VerifyError`] names the first rule that is broken.
    pub fn verify_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        self.anchors.load().verify(end_entity, intermediates, now, KeyUsage::client_auth())
    }

    /// Verifies the chain of a peer that acts as a server, the leaf first, and returns its SPIFFE ID.
    ///
    /// # Errors
    /// [`VerifyError`] names the first rule that is broken.
    pub fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        self.anchors.load().verify(end_entity, intermediates, now, KeyUsage::server_auth())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_server(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: the hints of a configuration that is built once would outlive a root rotation.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify_client(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A chain is not trusted. The error of a failed handshake carries it inside `rustls::CertificateError::Other`, except for
/// [`VerifyError::Path`], which becomes the matching variant of `rustls::CertificateError`.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The chain has more certificates than [`X509Svid::CHAIN_LEN_MAX`](crate::X509Svid::CHAIN_LEN_MAX).
    #[error(
        "the chain has {len} certificates, more than the 8 allowed: leave the root out, or use fewer intermediates"
    )]
    ChainLength {
        /// The number of certificates.
        len: usize,
    },
    /// The leaf breaks a rule of X509-SVID.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The leaf belongs to another trust domain.
    #[error("the leaf {spiffe_id} is not in the trust domain {bundle}: present an SVID of {bundle}")]
    TrustDomain {
        /// The SPIFFE ID of the leaf.
        spiffe_id: SpiffeId,
        /// The trust domain of the bundle.
        bundle: TrustDomain,
    },
    /// A signer on the path breaks a rule of X509-SVID.
    #[error(
        "certificate {position} of the chain is not a valid signing certificate: replace it with a valid issuer of the one before"
    )]
    Signer {
        /// The position in the chain as presented; the leaf has position 0.
        position: usize,
        /// The rule that is broken.
        source: SigningError,
    },
    /// The authority of the bundle that signed the path is not valid now.
    #[error(
        "the authority that signed the SVID is expired or not valid yet: renew the SVID by a current authority"
    )]
    AuthorityValidity,
    /// No valid path leads to an authority of the bundle (RFC 5280 §6.1).
    #[error("no valid path leads from the leaf to an authority of the bundle: {reason}")]
    Path {
        /// The reason.
        reason: CertificateError,
    },
}

/// The message with its causes: `rustls` shows the errors that it carries with `Debug`, and operators read that text.
impl std::fmt::Debug for VerifyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<VerifyError> for rustls::Error {
    fn from(error: VerifyError) -> rustls::Error {
        rustls::Error::InvalidCertificate(match error {
            VerifyError::Path { reason } => reason,
            error => CertificateError::Other(OtherError(Arc::new(error))),
        })
    }
}
