//! The settings of a client.

use core::time::Duration;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::SpiffeId;
use crate::crypto::ring_provider;

/// A stream of the Workload API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subscription {
    /// The X.509-SVIDs of this workload, with the bundles of their trust domains and of foreign ones.
    X509Svids,
    /// Bundles for X.509-SVIDs, for a workload that needs no SVID.
    X509Bundles,
    /// Keys for JWT-SVIDs.
    JwtBundles,
    /// The WIT-SVIDs of this workload, with their keys. Only with the feature `wit`.
    WitSvids,
    /// Keys for WIT-SVIDs. Only with the feature `wit`.
    WitBundles,
}

/// The settings of a client of the Workload API.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    pub(super) x509_svids: bool,
    pub(super) x509_bundles: bool,
    pub(super) jwt_bundles: bool,
    pub(super) wit_svids: bool,
    pub(super) wit_bundles: bool,
    /// The one identity whose WIT-SVIDs are requested; `None` for all.
    pub(super) wit_spiffe_id: Option<SpiffeId>,
    pub(super) pause_min: Duration,
    pub(super) pause_max: Duration,
    pub(super) message_len_max: usize,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            x509_svids: true,
            x509_bundles: false,
            jwt_bundles: false,
            wit_svids: false,
            wit_bundles: false,
            wit_spiffe_id: None,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(30),
            message_len_max: 4 * 1024 * 1024,
            provider: ring_provider(),
        }
    }
}

impl ClientOptions {
    /// Sets whether the client receives the X.509-SVIDs of this workload. It does by default.
    #[must_use]
    pub fn x509_svids(mut self, wanted: bool) -> ClientOptions {
        self.x509_svids = wanted;
        self
    }

    /// Sets whether the client receives bundles for X.509-SVIDs without an SVID. It does not by default.
    #[must_use]
    pub fn x509_bundles(mut self, wanted: bool) -> ClientOptions {
        self.x509_bundles = wanted;
        self
    }

    /// Sets whether the client receives the keys for JWT-SVIDs. It does not by default.
    #[must_use]
    pub fn jwt_bundles(mut self, wanted: bool) -> ClientOptions {
        self.jwt_bundles = wanted;
        self
    }

    /// Sets the first pause before the client tries again. The default is 100 ms. Pauses double.
    #[must_use]
    pub fn pause_min(mut self, pause: Duration) -> ClientOptions {
        self.pause_min = pause;
        self
    }

    /// Sets the longest pause. The default is 30 s.
    #[must_use]
    pub fn pause_max(mut self, pause: Duration) -> ClientOptions {
        self.pause_max = pause;
        self
    }

    /// Sets the longest message that is accepted, in bytes. The default is 4 MiB.
    #[must_use]
    pub fn message_len_max(mut self, bytes: usize) -> ClientOptions {
        self.message_len_max = bytes;
        self
    }

    /// Sets the provider of cryptography of identities that follow, and of the keys of WIT-SVIDs. The default
    /// is ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> ClientOptions {
        self.provider = provider;
        self
    }

    pub(super) fn wants(&self, subscription: Subscription) -> bool {
        match subscription {
            Subscription::X509Svids => self.x509_svids,
            Subscription::X509Bundles => self.x509_bundles,
            Subscription::JwtBundles => self.jwt_bundles,
            Subscription::WitSvids => self.wit_svids,
            Subscription::WitBundles => self.wit_bundles,
        }
    }
}
