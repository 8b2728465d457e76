//! Who may be at the other end.

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
/// server name that a client dialled is **not** looked at: an SVID names a workload, not a host. Which SPIFFE ID may do what
/// is for the caller to decide, once the handshake is over, by [`peer_spiffe_id`](crate::peer_spiffe_id) or
/// [`peer_node_id`](crate::peer_node_id).
///
/// Not supported, and refused: name constraints on URIs (X509-SVID §4.2 leaves them to the implementation), TLS 1.2.
/// A signer whose constraints cover URIs vouches for nobody here, whatever they permit.
#[derive(Debug, Clone)]
pub struct Verifier {
    anchors: Arc<Swap<Anchors>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// A verifier with a bundle of its own, for a caller who builds the rustls configuration. `Identity::verifier` gives one
    /// that follows the identity's bundle. Sessions must not be resumed in such a configuration either: see `Identity`.
    #[must_use]
    pub fn new(bundle: TrustBundle) -> Verifier {
        Verifier::reading(Arc::new(Swap::new(Anchors::new(bundle))))
    }

    pub(super) fn reading(anchors: Arc<Swap<Anchors>>) -> Verifier {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Verifier { anchors, algorithms }
    }

    /// Verifies the chain of a peer that acts as a client, the leaf first, and says who it is.
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

    /// Verifies the chain of a peer that acts as a server, the leaf first, and says who it is.
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

/// Why a chain is not trusted. A connection that failed for it carries it inside `rustls::CertificateError::Other`, but for
/// [`VerifyError::Path`], whose cause rustls has a word for.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There are more certificates than [`X509Svid::CHAIN_LEN_MAX`](crate::X509Svid::CHAIN_LEN_MAX).
    #[error("the chain has {len} certificates: at most 8 are verified")]
    ChainLength {
        /// How many there are.
        len: usize,
    },
    /// The leaf breaks a rule of X509-SVID.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The leaf belongs to another trust domain.
    #[error("{spiffe_id} is not of the trust domain {bundle}: present an SVID of this domain")]
    TrustDomain {
        /// Whom the leaf names.
        spiffe_id: SpiffeId,
        /// The domain that is trusted.
        bundle: TrustDomain,
    },
    /// A signer on the path breaks a rule of X509-SVID.
    #[error("a signer of the SVID is not one: {source}")]
    Signer {
        /// The rule.
        source: SigningError,
    },
    /// The authority of the bundle that signed it is not valid now.
    #[error(
        "the authority that signed the SVID has run out or is not valid yet: get an SVID of a current one"
    )]
    AuthorityValidity,
    /// No valid path leads to an authority of the bundle (RFC 5280 §6.1).
    #[error("no path leads from the SVID to an authority of the bundle: {reason}")]
    Path {
        /// What was wrong with it.
        reason: CertificateError,
    },
}

/// The text, as `rustls` shows the errors that it carries for others only so, and that is what an operator reads.
impl std::fmt::Debug for VerifyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
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
