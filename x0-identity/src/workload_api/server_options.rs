//! The bounds of a server.

use core::time::Duration;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::crypto::ring_provider;

/// The bounds of a server of the Workload API and of each of its connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    pub(super) connections_max: usize,
    pub(super) streams_max: usize,
    pub(super) request_len_max: usize,
    pub(super) handshake_max: Duration,
    pub(super) idle_max: Duration,
    pub(super) wit_svids: bool,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            connections_max: 4096,
            streams_max: 100,
            request_len_max: 64 * 1024,
            handshake_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(300),
            wit_svids: false,
            provider: ring_provider(),
        }
    }
}

impl ServerOptions {
    /// Sets how many connections are open at once; further ones wait in the queue of the socket. The default
    /// is 4,096.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> ServerOptions {
        self.connections_max = connections;
        self
    }

    /// Sets how many calls a connection has open at once; further ones are refused. The default is 100.
    #[must_use]
    pub fn streams_max(mut self, streams: usize) -> ServerOptions {
        self.streams_max = streams;
        self
    }

    /// Sets the longest message of a request, in bytes. The default is 64 KiB: a JWT-SVID has at most 16 KiB.
    #[must_use]
    pub fn request_len_max(mut self, bytes: usize) -> ServerOptions {
        self.request_len_max = bytes;
        self
    }

    /// Sets how long a connection may take until its first settings. The default is 10 s.
    #[must_use]
    pub fn handshake_max(mut self, duration: Duration) -> ServerOptions {
        self.handshake_max = duration;
        self
    }

    /// Sets how long a connection stays open without a call. The default is 5 minutes.
    #[must_use]
    pub fn idle_max(mut self, duration: Duration) -> ServerOptions {
        self.idle_max = duration;
        self
    }

    /// Sets the provider of cryptography that validates JWT-SVIDs. Their issuer has its own. The default is
    /// ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> ServerOptions {
        self.provider = provider;
        self
    }

    /// Sets whether the profile WIT-SVID is served, an incubating part of the specification (§7). The default
    /// is no: its methods are `Unimplemented`.
    #[cfg(feature = "wit")]
    #[must_use]
    pub fn wit_svids(mut self, served: bool) -> ServerOptions {
        self.wit_svids = served;
        self
    }
}
