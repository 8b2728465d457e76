//! The section `[bundle_endpoint]`: the bundle of the cluster, for other trust domains.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pki_types::pem::PemObject;
use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::ServerConfig;
use serde::Deserialize;
use x0_identity::federation::{PublishedBundles, Server, ServerOptions, web_endpoint_config};
use x0_identity::{Identity, SpiffeBundle};

use crate::bundles;

/// Where the bundle of the cluster is served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointConfig {
    /// The TCP address to listen on.
    pub(crate) address: SocketAddr,
    /// The path of the bundle in the URL.
    #[serde(default = "path_default")]
    pub(crate) path: String,
    /// How often others fetch the bundle, in seconds.
    #[serde(default = "refresh_hint_default")]
    pub(crate) refresh_hint_s: u64,
    /// The host of the URL, for the profile `https_web`. Without it the endpoint presents the SVID of the
    /// node, `https_spiffe`.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// Certificate chain, PEM, for `https_web`.
    #[serde(default)]
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, PEM, for `https_web`.
    #[serde(default)]
    pub(crate) key: Option<PathBuf>,
}

fn path_default() -> String {
    "/bundle.json".to_owned()
}

fn refresh_hint_default() -> u64 {
    300
}

impl EndpointConfig {
    /// The first rule that the section breaks, with the remedy.
    pub(crate) fn check(&self) -> Result<(), String> {
        let web = [self.host.is_some(), self.certificate.is_some(), self.key.is_some()];
        if web.contains(&true) && web.contains(&false) {
            return Err(
                "[bundle_endpoint]: `host`, `certificate` and `key` make the profile https_web together: set all three, or none"
                    .to_owned(),
            );
        }
        if self.refresh_hint_s == 0 {
            return Err("[bundle_endpoint]: `refresh_hint_s` is 0; set at least 1".to_owned());
        }
        Ok(())
    }
}

/// A running bundle endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    config: EndpointConfig,
    identity: Identity,
    /// The file with the bundle of the node, which has its sequence number.
    bundle: PathBuf,
    published: PublishedBundles,
    server: Server,
}

impl Endpoint {
    pub(super) fn start(config: &EndpointConfig, identity: &Identity, bundle: &Path) -> Result<Endpoint> {
        let published = PublishedBundles::new();
        let listener = TcpListener::bind(config.address).with_context(|| {
            format!("cannot listen on {}: choose another `address` in [bundle_endpoint]", config.address)
        })?;
        let tls = tls(config, identity)?;
        let server = Server::start(listener, tls, published.clone(), ServerOptions::default())?;
        let (identity, bundle) = (identity.clone(), bundle.to_owned());
        let endpoint = Endpoint { config: config.clone(), identity, bundle, published, server };
        endpoint.publish()?;
        Ok(endpoint)
    }

    /// Serves the bundle that the node trusts now, and reads the certificate of `https_web` again.
    pub(super) fn publish(&self) -> Result<()> {
        self.server.set_config(tls(&self.config, &self.identity)?);
        let trusted = self.identity.trust_bundle();
        let stored = bundles::read(&self.bundle, trusted.trust_domain().clone())?;
        // The number in the file is that of the bundle in the file: one that is not in use yet, or was
        // refused, is not what this node trusts, and one of the issuer is not that of the number.
        if stored.bundle != trusted || !stored.is_published {
            return Ok(());
        }
        let sequence = stored.sequence;
        let bundle =
            SpiffeBundle::new(trusted).with_refresh_hint(Duration::from_secs(self.config.refresh_hint_s));
        // A bundle that was never published has no number that changes with it.
        let bundle = if sequence > 0 { bundle.with_sequence(sequence) } else { bundle };
        self.published.set(&self.config.path, &bundle)?;
        Ok(())
    }
}

fn tls(config: &EndpointConfig, identity: &Identity) -> Result<Arc<ServerConfig>> {
    let (Some(host), Some(certificate), Some(key)) = (&config.host, &config.certificate, &config.key) else {
        return identity.bundle_endpoint_config().context("the TLS library lacks TLS 1.3");
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain =
        chain.with_context(|| format!("cannot read the certificates in {}", certificate.display()))?;
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.with_context(|| format!("cannot read the key in {}", key.display()))?;
    let name = ServerName::try_from(host.clone()).with_context(|| format!("`{host}` is not a host name"))?;
    Ok(web_endpoint_config(&name, chain, secret)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_has_all_of_its_settings_or_none() {
        let read = |text: &str| toml::from_str::<EndpointConfig>(text).unwrap();
        let config = read("address = \"127.0.0.1:8443\"");
        assert_eq!((config.path.as_str(), config.refresh_hint_s), ("/bundle.json", 300));
        config.check().unwrap();
        let some = read("address = \"127.0.0.1:8443\"\nhost = \"a.example\"");
        assert!(some.check().unwrap_err().contains("https_web"));
        let never = read("address = \"127.0.0.1:8443\"\nrefresh_hint_s = 0");
        assert!(never.check().unwrap_err().contains("at least 1"));
        let web = "address = \"127.0.0.1:8443\"\nhost = \"a.example\"\ncertificate = \"c\"\nkey = \"k\"";
        read(web).check().unwrap();
    }
}
