//! The settings of both sides.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;

use crate::crypto::ring_provider;

/// The settings of a [`Federation`](super::Federation) and its [`Client`](super::Client).
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    pub(super) refresh_default: Duration,
    pub(super) refresh_min: Duration,
    pub(super) refresh_max: Duration,
    pub(super) fetch_max: Duration,
    pub(super) fetches_max: usize,
    pub(super) redirects_max: u32,
    pub(super) relationships_max: usize,
    pub(super) web_roots: Option<Arc<RootCertStore>>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            refresh_default: Duration::from_secs(300),
            refresh_min: Duration::from_secs(10),
            refresh_max: Duration::from_secs(24 * 3600),
            fetch_max: Duration::from_secs(30),
            fetches_max: 16,
            redirects_max: 5,
            relationships_max: 256,
            web_roots: None,
            provider: ring_provider(),
        }
    }
}

impl ClientOptions {
    /// Sets the interval between fetches of a bundle without a refresh hint. The default is 5 minutes (§4.1).
    #[must_use]
    pub fn refresh_default(mut self, interval: Duration) -> ClientOptions {
        self.refresh_default = interval;
        self
    }

    /// Sets the shortest interval between fetches, whatever the refresh hint is. The default is 10 s.
    #[must_use]
    pub fn refresh_min(mut self, interval: Duration) -> ClientOptions {
        self.refresh_min = interval;
        self
    }

    /// Sets the longest interval between fetches, whatever the refresh hint is. The default is a day.
    #[must_use]
    pub fn refresh_max(mut self, interval: Duration) -> ClientOptions {
        self.refresh_max = interval;
        self
    }

    /// Sets how long a fetch may take, its redirects included. The default is 30 s.
    #[must_use]
    pub fn fetch_max(mut self, duration: Duration) -> ClientOptions {
        self.fetch_max = duration;
        self
    }

    /// Sets how many fetches run at once; further ones wait. The default is 16.
    #[must_use]
    pub fn fetches_max(mut self, fetches: usize) -> ClientOptions {
        self.fetches_max = fetches.max(1);
        self
    }

    /// Sets how many redirects a fetch follows; with 0 it follows none (§7.5.1). The default is 5.
    #[must_use]
    pub fn redirects_max(mut self, redirects: u32) -> ClientOptions {
        self.redirects_max = redirects;
        self
    }

    /// Sets how many relationships there are at most. The default is 256.
    #[must_use]
    pub fn relationships_max(mut self, relationships: usize) -> ClientOptions {
        self.relationships_max = relationships;
        self
    }

    /// Sets the certificate authorities of the web for `https_web`. Unless set, a [`Client`](super::Client)
    /// reads those of the system for each fetch, as [`system_roots`](super::system_roots) does.
    #[must_use]
    pub fn web_roots(mut self, roots: RootCertStore) -> ClientOptions {
        self.web_roots = Some(Arc::new(roots));
        self
    }

    /// Sets the provider of cryptography of the fetches. The default is ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> ClientOptions {
        self.provider = provider;
        self
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientOptions")
            .field("refresh_default", &self.refresh_default)
            .field("refresh_min", &self.refresh_min)
            .field("refresh_max", &self.refresh_max)
            .finish_non_exhaustive()
    }
}

/// The bounds of a [`Server`](super::Server) and of each of its connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    pub(super) connections_max: usize,
    pub(super) idle_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions { connections_max: 256, idle_max: Duration::from_secs(30) }
    }
}

impl ServerOptions {
    /// Sets how many connections are open at once; further ones are closed. The default is 256.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> ServerOptions {
        self.connections_max = connections;
        self
    }

    /// Sets how long a handshake together with the first request, each further request, and the sending of
    /// an answer may take. The default is 30 s.
    #[must_use]
    pub fn idle_max(mut self, duration: Duration) -> ServerOptions {
        self.idle_max = duration;
        self
    }
}
