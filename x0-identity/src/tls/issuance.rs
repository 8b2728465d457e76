//! TLS of the exchange between a workload and its issuer.

use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use pki_types::{CertificateDer, UnixTime};
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{Identity, OfSpiffeId, Verifier};
use crate::{ISSUANCE_ALPN, SpiffeId};

/// Accepts a client without a certificate, or one with a valid SVID.
#[derive(Debug)]
struct OrNobody(Arc<Verifier>);

impl ClientCertVerifier for OrNobody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(&*self.0, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(&*self.0, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&*self.0)
    }
}

/// The configuration of a workload that has no SVID to present: the server is authenticated, by the verifier
/// and by the SPIFFE ID of the issuer. TLS 1.3, with the ALPN [`ISSUANCE_ALPN`], without resumption.
///
/// # Errors
/// The error of rustls, when its cryptography lacks TLS 1.3.
pub fn issuance_client_config(
    verifier: Arc<Verifier>,
    issuer: SpiffeId,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::clone(verifier.provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfSpiffeId::new(verifier, issuer)))
        .with_no_client_auth();
    Ok(Arc::new(without_sessions(config)))
}

fn without_sessions(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ISSUANCE_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

impl Identity {
    /// The configuration of a workload that renews over mutual TLS: it presents the SVID of this identity,
    /// and authenticates the issuer as [`issuance_client_config`] does.
    #[must_use]
    pub fn issuance_client_config(&self, issuer: SpiffeId) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client_config());
        config.dangerous().set_certificate_verifier(Arc::new(OfSpiffeId::new(self.verifier(), issuer)));
        Arc::new(without_sessions(config))
    }

    /// The configuration of an issuer: it presents the SVID of this identity, and accepts clients with a
    /// valid SVID and clients without any certificate, which attest. TLS 1.3, with the ALPN
    /// [`ISSUANCE_ALPN`], without sessions.
    ///
    /// # Errors
    /// The error of rustls, when its cryptography lacks TLS 1.3.
    pub fn issuance_server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let own = self.server_config();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(own.crypto_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(OrNobody(self.verifier())))
            .with_cert_resolver(Arc::clone(&own.cert_resolver));
        config.session_storage = Arc::clone(&own.session_storage);
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![ISSUANCE_ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}
