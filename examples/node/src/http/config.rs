//! The section `[[http]]` of node.toml.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpConfig {
    /// The TCP address to listen on.
    pub(crate) address: SocketAddr,
    /// The routes that it serves.
    pub(crate) routes: Vec<Route>,
    /// The TLS mode.
    pub(crate) tls: TlsMode,
    /// Certificate chain, PEM, for the mode `server`.
    #[serde(default)]
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, PEM, for the mode `server`.
    #[serde(default)]
    pub(crate) key: Option<PathBuf>,
}

/// A set of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Route {
    /// `/api/v1/rag`.
    Rag,
    /// `/metrics`.
    Metrics,
    /// `/livez`, `/readyz` and `/health`.
    Health,
}

/// The security of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsMode {
    /// None: for the loopback only.
    Off,
    /// TLS with a certificate from PEM files; clients are not authenticated.
    Server,
    /// TLS with the node's SVID; a client must present an SVID of the trust domain.
    Mutual,
}

impl TlsMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            TlsMode::Off => "off",
            TlsMode::Server => "server",
            TlsMode::Mutual => "mutual",
        }
    }
}

impl HttpConfig {
    /// The first rule that the listener breaks, with the remedy.
    pub(crate) fn check(&self, has_rag: bool) -> Result<(), String> {
        let HttpConfig { address, routes, tls, .. } = self;
        if *tls == TlsMode::Off && !address.ip().is_loopback() {
            return Err(format!(
                "the [[http]] listener {address} has `tls = \"off\"`, which is allowed on a loopback address only; use \"server\" or \
                 \"mutual\""
            ));
        }
        let has_files = (self.certificate.is_some(), self.key.is_some());
        let wants_files = *tls == TlsMode::Server;
        if has_files != (wants_files, wants_files) {
            return Err(format!(
                "the [[http]] listener {address}: `certificate` and `key` belong to `tls = \"server\"`, and it needs both"
            ));
        }
        if routes.is_empty() {
            return Err(format!(
                "the [[http]] listener {address} has no `routes`; name one, such as \"rag\""
            ));
        }
        if routes.contains(&Route::Rag) && !has_rag {
            return Err(format!("the [[http]] listener {address} serves \"rag\"; add the section [rag]"));
        }
        Ok(())
    }
}
