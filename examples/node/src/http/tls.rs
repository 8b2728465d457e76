//! TLS of a listener.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use pki_types::pem::PemObject;
use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use x0_identity::Identity;

use super::config::{HttpConfig, TlsMode};

/// The acceptor of a listener; `None` without TLS. The mode `mutual` needs the identity.
pub(crate) fn acceptor(listener: &HttpConfig, identity: Option<&Identity>) -> Result<Option<TlsAcceptor>> {
    let config = match (listener.tls, &listener.certificate, &listener.key) {
        (TlsMode::Off, ..) => return Ok(None),
        // The configuration of the identity reads the current SVID and bundle at each handshake.
        (TlsMode::Mutual, ..) => identity.context("`tls = \"mutual\"` needs an SVID")?.server_config(),
        (TlsMode::Server, Some(certificate), Some(key)) => Arc::new(from_files(certificate, key)?),
        (TlsMode::Server, ..) => anyhow::bail!("`tls = \"server\"` needs `certificate` and `key`"),
    };
    Ok(Some(config.into()))
}

fn from_files(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain =
        chain.with_context(|| format!("cannot read the certificates in {}", certificate.display()))?;
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.with_context(|| format!("cannot read the key in {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("the TLS library lacks TLS 1.3")?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("{} and {} do not belong together", certificate.display(), key.display()))
}
