//! Identity: the SVID and the bundle of this process, and the TLS configurations that use them.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use std::vec::Vec;

use pki_types::{CertificateDer, UnixTime};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::held::Resolver;
use super::{Admission, Bundles, Held, KeyError, PeerRole, Swap, Verifier, VerifyError, Watchers};
use crate::crypto::ring_provider;
use crate::telemetry::IdentityTelemetry;
use crate::{BundleSource, NodeId, RevocationView, SpiffeId, TrustBundle, TrustDomain, X509Svid};

/// The SVID of this process, the bundle that it trusts, and the rustls configurations that read both. Clones
/// share one identity.
///
/// The configurations are built once, for mutual TLS 1.3 with ring's cryptography (whatever the process's
/// default provider is), or with that of [`Identity::new_with_provider`]. Each handshake reads the SVID and
/// the bundle of that moment: [`Identity::rotate`] and [`Identity::set_bundle`] take effect with the next
/// handshake, do not disturb one in progress, and rebuild nothing. An established connection continues until
/// its owner closes it: see [`Identity::admit`].
///
/// # Sessions are never resumed
/// In a resumed TLS 1.3 session neither side presents a certificate. A peer whose authority left the bundle,
/// or whose SVID expired, would be accepted on an old ticket for as long as tickets live, and a rotated SVID
/// would not be presented. The server therefore sends no tickets and keeps no sessions, the client stores
/// none, and there is no early data. The cost is a full handshake per connection. Keep these settings in a
/// clone of a configuration.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    spiffe_id: SpiffeId,
    held: Arc<Swap<Held>>,
    bundles: Arc<dyn BundleSource>,
    /// The bundles, if the identity keeps them itself.
    own_bundles: Option<Arc<Bundles>>,
    revocations: Arc<Swap<RevocationView>>,
    watchers: Arc<Watchers>,
    admissions: AtomicU64,
    telemetry: IdentityTelemetry,
    verifier: Arc<Verifier>,
    server_config: Arc<ServerConfig>,
    client_config: Arc<ClientConfig>,
}

impl Identity {
    /// Builds the identity from an SVID and the bundle to trust. The bundle must trust the SVID now.
    ///
    /// # Errors
    /// [`IdentityError`], when the key does not belong to the leaf, the bundle does not trust the SVID, or
    /// rustls refuses the configuration.
    pub fn new(svid: X509Svid, bundle: TrustBundle) -> Result<Identity, IdentityError> {
        Identity::new_with_provider(svid, bundle, ring_provider())
    }

    /// Builds the identity as [`Identity::new`] does, with the cryptography of another provider: that of the
    /// feature `graviola`, for instance, which exchanges keys with X25519MLKEM768.
    ///
    /// # Errors
    /// As for [`Identity::new`].
    pub fn new_with_provider(
        svid: X509Svid,
        bundle: TrustBundle,
        provider: Arc<CryptoProvider>,
    ) -> Result<Identity, IdentityError> {
        let bundles = Arc::new(Bundles::new(bundle));
        Identity::build(svid, Arc::clone(&bundles) as _, Some(bundles), provider)
    }

    /// Builds the identity from an SVID and a source of bundles, which is read at each handshake. The source
    /// must trust the SVID now. [`Identity::set_bundle`] and [`Identity::federate`] are not available: change
    /// the source instead.
    ///
    /// # Errors
    /// As for [`Identity::new`].
    pub fn with_source(svid: X509Svid, bundles: Arc<dyn BundleSource>) -> Result<Identity, IdentityError> {
        Identity::with_source_and_provider(svid, bundles, ring_provider())
    }

    /// Builds the identity as [`Identity::with_source`] does, with the cryptography of another provider.
    ///
    /// # Errors
    /// As for [`Identity::new`].
    pub fn with_source_and_provider(
        svid: X509Svid,
        bundles: Arc<dyn BundleSource>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Identity, IdentityError> {
        Identity::build(svid, bundles, None, provider)
    }

    fn build(
        svid: X509Svid,
        bundles: Arc<dyn BundleSource>,
        own_bundles: Option<Arc<Bundles>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Identity, IdentityError> {
        let held = Held::new(svid, &provider)?;
        let revocations = Arc::new(Swap::new(RevocationView::new()));
        let verifier =
            Verifier::reading(Arc::clone(&bundles), Arc::clone(&revocations), Arc::clone(&provider));
        let verifier = Arc::new(verifier);
        verify_own(&held.svid, &verifier)?;
        let spiffe_id = held.svid.spiffe_id().clone();
        let telemetry = IdentityTelemetry::new(held.svid.not_after());
        let held = Arc::new(Swap::new(held));
        let resolver = Arc::new(Resolver(Arc::clone(&held)));

        let mut server_config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| IdentityError::Configuration { source })?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&resolver) as _);
        server_config.session_storage = Arc::new(NoServerSessionStorage {});
        server_config.send_tls13_tickets = 0;
        server_config.max_early_data_size = 0;

        let mut client_config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| IdentityError::Configuration { source })?
            // rustls calls every verifier other than its own dangerous.
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(resolver);
        client_config.resumption = Resumption::disabled();
        client_config.enable_early_data = false;
        // The dialled name is not verified, so it is not sent in clear text.
        client_config.enable_sni = false;

        Ok(Identity(Arc::new(Shared {
            spiffe_id,
            held,
            bundles,
            own_bundles,
            revocations,
            watchers: Arc::default(),
            admissions: AtomicU64::new(0),
            telemetry,
            verifier,
            server_config: Arc::new(server_config),
            client_config: Arc::new(client_config),
        })))
    }

    /// Presents another SVID of the same SPIFFE ID from the next handshake on.
    ///
    /// # Errors
    /// [`RotateError`], when the SPIFFE ID differs, the key does not belong to the leaf, or the bundle does
    /// not trust the SVID now. The current SVID stays in use.
    pub fn rotate(&self, svid: X509Svid) -> Result<(), RotateError> {
        crate::trace::rotate(&self.0.spiffe_id, || self.take(svid))
    }

    fn take(&self, svid: X509Svid) -> Result<(), RotateError> {
        if *svid.spiffe_id() != self.0.spiffe_id {
            return Err(RotateError::SpiffeId {
                held: self.0.spiffe_id.clone(),
                offered: svid.spiffe_id().clone(),
            });
        }
        let held = Held::new(svid, self.0.server_config.crypto_provider())?;
        verify_own(&held.svid, &self.0.verifier)?;
        let not_after = held.svid.not_after();
        self.0.held.store(held);
        self.0.telemetry.rotated(not_after);
        Ok(())
    }

    /// Ceases to present the SVID from the next handshake on, until [`Identity::rotate`]: its issuer withdrew
    /// it (a Workload API redacts it, §5.2.1). Handshakes fail until then: a server without a certificate
    /// accepts nobody, and peers refuse a client without one. Established connections continue.
    pub fn withdraw(&self) {
        let withdrawn = self.0.held.load().withdrawn();
        self.0.held.store(withdrawn);
    }

    /// Trusts another bundle of the same trust domain from the next handshake on. Authorities that are not in
    /// it are revoked; an empty bundle refuses every peer. To change the root without a gap: first distribute
    /// a bundle with both roots, then rotate the SVIDs, then remove the old root.
    ///
    /// # Errors
    /// [`SetBundleError`], when the bundle is of another trust domain. The current bundle stays in use.
    pub fn set_bundle(&self, bundle: TrustBundle) -> Result<(), SetBundleError> {
        let trust_domain = self.0.spiffe_id.trust_domain();
        if bundle.trust_domain() != trust_domain {
            return Err(SetBundleError::TrustDomain {
                identity: trust_domain.clone(),
                bundle: bundle.trust_domain().clone(),
            });
        }
        let bundles = self.0.own_bundles.as_ref().ok_or(SetBundleError::Source)?;
        bundles.change(|set| _ = set.insert(bundle));
        self.0.watchers.wake_all();
        Ok(())
    }

    /// Trusts the bundle of another trust domain beside its own from the next handshake on, in the place of
    /// the one that is trusted for that domain. Authorize peers by their whole SPIFFE ID then: paths of two
    /// domains are unrelated, and [`peer_node_id`](crate::peer_node_id) does not distinguish their nodes. A
    /// mesh transport that identifies nodes by number only needs an identity that is not federated.
    ///
    /// # Errors
    /// [`SetBundleError`], when the bundle is of the identity's own trust domain, or the identity was built
    /// with a source.
    pub fn federate(&self, bundle: TrustBundle) -> Result<(), SetBundleError> {
        let trust_domain = self.0.spiffe_id.trust_domain();
        if bundle.trust_domain() == trust_domain {
            return Err(SetBundleError::OwnDomain { identity: trust_domain.clone() });
        }
        let bundles = self.0.own_bundles.as_ref().ok_or(SetBundleError::Source)?;
        bundles.change(|set| _ = set.insert(bundle));
        self.0.watchers.wake_all();
        Ok(())
    }

    /// Admits the named workloads of another trust domain, and no others, from the next handshake on, whether
    /// or not its bundle is trusted yet. With `None` every workload of the domain is admitted again.
    /// The admission of an established connection becomes ready if its peer is not in the set.
    ///
    /// # Errors
    /// As for [`Identity::federate`].
    pub fn restrict(
        &self,
        foreign: &TrustDomain,
        admitted: Option<BTreeSet<SpiffeId>>,
    ) -> Result<(), SetBundleError> {
        if foreign == self.0.spiffe_id.trust_domain() {
            return Err(SetBundleError::OwnDomain { identity: foreign.clone() });
        }
        let bundles = self.0.own_bundles.as_ref().ok_or(SetBundleError::Source)?;
        bundles.change(|set| set.restrict(foreign, admitted));
        self.0.watchers.wake_all();
        Ok(())
    }

    /// Ends the trust in another trust domain from the next handshake on. A restriction of the trust domain
    /// stays.
    ///
    /// # Errors
    /// As for [`Identity::federate`]. A domain that is not trusted is not an error.
    pub fn unfederate(&self, foreign: &TrustDomain) -> Result<(), SetBundleError> {
        if foreign == self.0.spiffe_id.trust_domain() {
            return Err(SetBundleError::OwnDomain { identity: foreign.clone() });
        }
        let bundles = self.0.own_bundles.as_ref().ok_or(SetBundleError::Source)?;
        bundles.change(|set| _ = set.remove(foreign));
        self.0.watchers.wake_all();
        Ok(())
    }

    /// Refuses what a view names, from the next handshake on, and wakes the admissions of established
    /// connections. The view takes the place of the current one: merge it into [`Identity::revocations`] if
    /// the other entries stay.
    pub fn set_revocations(&self, view: RevocationView) {
        self.0.revocations.store(view);
        self.0.watchers.wake_all();
    }

    /// The current view of revocations.
    #[must_use]
    pub fn revocations(&self) -> RevocationView {
        RevocationView::clone(&self.0.revocations.load())
    }

    /// Admits the peer of an established connection, given its chain (in rustls, `peer_certificates`) and its
    /// role. The [`Admission`] becomes ready when the connection is to be closed.
    ///
    /// # Errors
    /// [`VerifyError`], when the chain is not valid now.
    pub fn admit(
        &self,
        peer_chain: &[CertificateDer<'_>],
        role: PeerRole,
        now: SystemTime,
    ) -> Result<Admission, VerifyError> {
        let id = self.0.admissions.fetch_add(1, Ordering::Relaxed);
        let chain = peer_chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Admission::new(Arc::clone(&self.0.verifier), Arc::clone(&self.0.watchers), id, chain, role, now)
    }

    /// The configuration for accepting connections; every call returns the same one. It sets no ALPN: clone
    /// it and set `alpn_protocols` if the protocol above has a name.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.server_config)
    }

    /// The configuration for dialling; every call returns the same one. It sets no ALPN, as
    /// [`Identity::server_config`]. rustls requires a server name: pass any, it is neither sent nor verified.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.client_config)
    }

    /// The verifier of the configurations. It reads the current bundle at each handshake.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.0.verifier)
    }

    /// The SPIFFE ID. A rotation does not change it.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.spiffe_id
    }

    /// The node, if the SPIFFE ID is that of a node.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.spiffe_id.node_id()
    }

    /// The last second in which the current SVID is valid. Rotate well before; half of the lifetime is
    /// customary.
    #[must_use]
    pub fn svid_expires(&self) -> SystemTime {
        self.0.held.load().svid.not_after()
    }

    /// The serial number of the current SVID. It differs between rotations.
    #[must_use]
    pub fn svid_serial_number(&self) -> Vec<u8> {
        self.0.held.load().svid.serial_number().to_vec()
    }

    /// The certificates of the current SVID, the leaf first.
    #[must_use]
    pub fn svid_chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.held.load().svid.chain().to_vec()
    }

    /// The current bundle of the identity's own trust domain; an empty one if the source has none.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundle {
        let trust_domain = self.0.spiffe_id.trust_domain();
        let bundle = self.0.bundles.bundle(trust_domain);
        bundle.map_or_else(|| TrustBundle::empty(trust_domain.clone()), |bundle| TrustBundle::clone(&bundle))
    }
}

/// Refuses an SVID that peers with the same bundle would refuse, so that the operator sees the error before
/// the peers do.
fn verify_own(svid: &X509Svid, verifier: &Verifier) -> Result<(), VerifyError> {
    let now = UnixTime::now();
    let Some((leaf, intermediates)) = svid.chain().split_first() else { return Ok(()) };
    verifier.verify_server(leaf, intermediates, now)?;
    verifier.verify_client(leaf, intermediates, now)?;
    Ok(())
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("spiffe_id", &self.0.spiffe_id).finish_non_exhaustive()
    }
}

/// An SVID and a bundle do not form an identity.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bundle does not trust the SVID.
    #[error("the bundle does not trust the SVID: issue the SVID by an authority of the bundle")]
    Untrusted(#[from] VerifyError),
    /// rustls refused the configuration.
    #[error(
        "rustls refused the TLS 1.3 configuration with this provider: check the features of rustls and the provider"
    )]
    Configuration {
        /// The reason that rustls gives.
        source: rustls::Error,
    },
}

/// An SVID was not rotated in. The current SVID stays in use.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// The SPIFFE ID of the new SVID differs.
    #[error(
        "the SVID of {offered} cannot replace that of {held}: build a new identity; the current SVID stays in use"
    )]
    SpiffeId {
        /// The SPIFFE ID of the identity.
        held: SpiffeId,
        /// The SPIFFE ID of the new SVID.
        offered: SpiffeId,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bundle does not trust the new SVID.
    #[error(
        "the bundle of the identity does not trust the new SVID: set the new bundle before the SVID; the current SVID stays in use"
    )]
    Untrusted(#[from] VerifyError),
}

/// A bundle was not set. The current bundle stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetBundleError {
    /// The bundle is of another trust domain.
    #[error(
        "the bundle of {bundle} cannot replace that of {identity}: set a bundle of {identity}; the current bundle stays in use"
    )]
    TrustDomain {
        /// The domain of the identity.
        identity: TrustDomain,
        /// The domain of the bundle.
        bundle: TrustDomain,
    },
    /// The domain is the identity's own.
    #[error("{identity} is the identity's own trust domain: replace its bundle with set_bundle")]
    OwnDomain {
        /// The domain of the identity.
        identity: TrustDomain,
    },
    /// The identity was built with a source of bundles.
    #[error("the identity reads its bundles from a source: change the bundle there")]
    Source,
}
