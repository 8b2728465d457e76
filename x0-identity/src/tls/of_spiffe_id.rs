//! A server that is known by its SPIFFE ID before it is dialled.

use std::sync::Arc;
use std::vec::Vec;

use pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::Verifier;
use crate::SpiffeId;

/// The server is trusted, and is another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server is {found} and not {expected}: correct the address, or the SPIFFE ID of the server")]
struct AnotherServer {
    expected: SpiffeId,
    found: SpiffeId,
}

/// Accepts a server that has an SVID of one SPIFFE ID.
#[derive(Debug)]
pub(crate) struct OfSpiffeId {
    verifier: Arc<Verifier>,
    expected: SpiffeId,
}

impl OfSpiffeId {
    pub(crate) fn new(verifier: Arc<Verifier>, expected: SpiffeId) -> OfSpiffeId {
        OfSpiffeId { verifier, expected }
    }
}

impl ServerCertVerifier for OfSpiffeId {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self.verifier.verify_server(end_entity, intermediates, now)?;
        if found != self.expected {
            let error = AnotherServer { expected: self.expected.clone(), found };
            return Err(CertificateError::Other(OtherError(Arc::new(error))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&*self.verifier, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&*self.verifier, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&*self.verifier)
    }
}
