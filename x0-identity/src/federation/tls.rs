//! TLS of bundle endpoints and their consumers.

use std::path::Path;
use std::string::String;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::EndpointAuthentication;
use crate::crypto::ring_provider;
use crate::tls::OfSpiffeId;
use crate::x509::read_parts;
use crate::{Identity, TrustBundleSet, Verifier};

/// Where systems keep the certificate authorities of the web, the first that exists.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
const HTTP: &[u8] = b"http/1.1";

/// The certificate authorities of the system cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system's certificate authorities cannot be read: install ca-certificates, or set SSL_CERT_FILE or ClientOptions::web_roots"
)]
#[non_exhaustive]
pub struct SystemRootsError;

/// The certificate authorities of the web that this system trusts: the file in the variable `SSL_CERT_FILE`,
/// or the one that the system keeps.
///
/// # Errors
/// [`SystemRootsError`], when there is no such file or it contains no certificate.
pub fn system_roots() -> Result<RootCertStore, SystemRootsError> {
    match std::env::var_os("SSL_CERT_FILE") {
        Some(file) => read_roots(Path::new(&file)),
        None => SYSTEM_ROOTS.iter().find_map(|file| read_roots(Path::new(file)).ok()).ok_or(SystemRootsError),
    }
}

fn read_roots(file: &Path) -> Result<RootCertStore, SystemRootsError> {
    let parts = std::fs::read(file).ok().and_then(|pem| read_parts(&pem).ok()).ok_or(SystemRootsError)?;
    let mut roots = RootCertStore::empty();
    // Old authorities of the web break rules that webpki keeps; the others are used.
    roots.add_parsable_certificates(parts.certificates);
    if roots.is_empty() { Err(SystemRootsError) } else { Ok(roots) }
}

/// A certificate cannot serve an `https_web` endpoint.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WebEndpointError {
    /// The chain is empty.
    #[error("the endpoint has no certificate: configure the chain that its certificate authority issued")]
    NoCertificate,
    /// The certificate does not name the host (§5.2.1.3).
    #[error("the certificate does not name the host {host}: have one issued with that name")]
    Host {
        /// The host.
        host: String,
        /// The reason that rustls gives.
        source: rustls::Error,
    },
    /// The key cannot be used, or is not that of the certificate.
    #[error("the chain and the key cannot be used: check that the key is that of the first certificate")]
    Configuration {
        /// The reason that rustls gives.
        source: rustls::Error,
    },
}

/// The configuration of an `https_web` endpoint (§5.2.1.3): TLS 1.2 and 1.3 as Mozilla's intermediate
/// compatibility has them, without client authentication. The certificate must name `host`, the host of the
/// endpoint's URL.
///
/// # Errors
/// [`WebEndpointError`], when chain, key and host do not fit together.
pub fn web_endpoint_config(
    host: &ServerName<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, WebEndpointError> {
    web_endpoint_config_with_provider(host, chain, key, ring_provider())
}

/// As [`web_endpoint_config`], with another provider of cryptography.
///
/// # Errors
/// As for [`web_endpoint_config`].
pub fn web_endpoint_config_with_provider(
    host: &ServerName<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, WebEndpointError> {
    let leaf = chain.first().ok_or(WebEndpointError::NoCertificate)?;
    let of_host = |source| WebEndpointError::Host { host: host.to_str().into(), source };
    let parsed = ParsedCertificate::try_from(leaf).map_err(of_host)?;
    verify_server_name(&parsed, host).map_err(of_host)?;
    let of_key = |source| WebEndpointError::Configuration { source };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(of_key)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(of_key)?;
    Ok(Arc::new(without_sessions(config)))
}

fn without_sessions(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![HTTP.to_vec()];
    config
}

impl Identity {
    /// The configuration of an `https_spiffe` endpoint (Federation §5.2.2.3): it presents the SVID of this
    /// identity and asks no client for a certificate. TLS 1.2 and 1.3 as Mozilla's intermediate compatibility
    /// has them, without sessions.
    ///
    /// # Errors
    /// The error of rustls, when its cryptography lacks a version of TLS.
    pub fn bundle_endpoint_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let own = self.server_config();
        let config = ServerConfig::builder_with_provider(Arc::clone(own.crypto_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&own.cert_resolver));
        Ok(Arc::new(without_sessions(config)))
    }
}

impl EndpointAuthentication {
    /// The configuration that authenticates the endpoint: `https_web` with these certificate authorities and
    /// TLS 1.2 or 1.3, `https_spiffe` with the bundle and TLS 1.3. No session is resumed.
    ///
    /// # Errors
    /// The error of rustls, when its cryptography lacks a version of TLS.
    pub fn client_config(&self, web_roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.client_config_with_provider(web_roots, ring_provider())
    }

    /// As [`EndpointAuthentication::client_config`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`EndpointAuthentication::client_config`].
    pub fn client_config_with_provider(
        &self,
        web_roots: &Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let mut config = match self {
            EndpointAuthentication::Web { .. } => builder
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_root_certificates(Arc::clone(web_roots))
                .with_no_client_auth(),
            EndpointAuthentication::Spiffe { endpoint, bundle } => builder
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(OfSpiffeId::new(
                    Arc::new(Verifier::with_provider(
                        Arc::new(TrustBundleSet::from(bundle.clone())),
                        provider,
                    )),
                    endpoint.clone(),
                )))
                .with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Arc::new(config))
    }
}
