//! A workload's own identity.

use core::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use std::vec::Vec;

use pki_types::UnixTime;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use webpki::KeyUsage;

use super::held::Resolver;
use super::{Anchors, Held, KeyError, Swap, Verifier, VerifyError};
use crate::{NodeId, SpiffeId, TrustBundle, TrustDomain, X509Svid};

/// Who this process is, whom it trusts, and the rustls configurations that say so. Clones share one identity.
///
/// The configurations are built once, for mutual TLS 1.3 with ring's cryptography (whatever the process's default provider
/// is). Each handshake reads the SVID and the bundle of that moment: [`Identity::rotate`] and [`Identity::set_bundle`] take
/// effect with the next handshake, disturb none that is under way, and rebuild nothing. A connection that already stands
/// keeps standing; one that must not is for its owner to close.
///
/// # Sessions are never resumed
/// In a resumed TLS 1.3 session neither side presents a certificate, so a peer whose authority was taken out of the bundle,
/// or whose SVID ran out, would get in on an old ticket for as long as tickets live, and a rotated SVID would not be seen.
/// The server therefore sends no tickets and keeps no sessions, the client remembers none, and there is no early data. The
/// price is a full handshake for each connection. Who clones a configuration to change it should leave that as it is.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    spiffe_id: SpiffeId,
    held: Arc<Swap<Held>>,
    anchors: Arc<Swap<Anchors>>,
    verifier: Arc<Verifier>,
    server_config: Arc<ServerConfig>,
    client_config: Arc<ClientConfig>,
}

impl Identity {
    /// The identity of an SVID that trusts a bundle. The SVID itself must be trusted by it, now.
    ///
    /// # Errors
    /// [`IdentityError`], when the key is not the leaf's, the bundle does not vouch for the SVID, or ring lacks TLS 1.3.
    pub fn new(svid: X509Svid, bundle: TrustBundle) -> Result<Identity, IdentityError> {
        let anchors = Anchors::new(bundle);
        let held = Held::new(svid)?;
        verify_own(&held.svid, &anchors)?;
        let spiffe_id = held.svid.spiffe_id().clone();
        let held = Arc::new(Swap::new(held));
        let anchors = Arc::new(Swap::new(anchors));
        let verifier = Arc::new(Verifier::reading(Arc::clone(&anchors)));
        let resolver = Arc::new(Resolver(Arc::clone(&held)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());

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
            // Dangerous is what rustls calls any verifier that is not its own.
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(resolver);
        client_config.resumption = Resumption::disabled();
        client_config.enable_early_data = false;
        // The name that was dialled is not verified, so nobody on the way needs to read it.
        client_config.enable_sni = false;

        Ok(Identity(Arc::new(Shared {
            spiffe_id,
            held,
            anchors,
            verifier,
            server_config: Arc::new(server_config),
            client_config: Arc::new(client_config),
        })))
    }

    /// Presents another SVID of the same SPIFFE ID from the next handshake on.
    ///
    /// # Errors
    /// [`RotateError`], when it names somebody else, the key is not the leaf's, or the bundle does not vouch for it now. The
    /// SVID that was held stays.
    pub fn rotate(&self, svid: X509Svid) -> Result<(), RotateError> {
        if *svid.spiffe_id() != self.0.spiffe_id {
            return Err(RotateError::SpiffeId {
                held: self.0.spiffe_id.clone(),
                offered: svid.spiffe_id().clone(),
            });
        }
        let held = Held::new(svid)?;
        verify_own(&held.svid, &self.0.anchors.load())?;
        self.0.held.store(held);
        Ok(())
    }

    /// Trusts another bundle of the same trust domain from the next handshake on. Authorities that are not in it any more
    /// are revoked; an empty bundle refuses everybody. To change the root without a gap: first give every node a bundle with
    /// both roots, then rotate the SVIDs, then take the old root out.
    ///
    /// # Errors
    /// [`SetBundleError`], when the bundle is of another trust domain. The bundle that was trusted stays.
    pub fn set_bundle(&self, bundle: TrustBundle) -> Result<(), SetBundleError> {
        let trust_domain = self.0.spiffe_id.trust_domain();
        if bundle.trust_domain() != trust_domain {
            return Err(SetBundleError::TrustDomain {
                identity: trust_domain.clone(),
                bundle: bundle.trust_domain().clone(),
            });
        }
        self.0.anchors.store(Anchors::new(bundle));
        Ok(())
    }

    /// For accepting connections; the same each time. It sets no ALPN: clone it and set `alpn_protocols` where the protocol
    /// on top has a name.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.server_config)
    }

    /// For dialling; the same each time. It sets no ALPN, as [`Identity::server_config`]. rustls asks for a server name:
    /// give any, it is neither sent nor verified.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.client_config)
    }

    /// The verifier in the configurations, which follows the bundle.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.0.verifier)
    }

    /// Who this is. It does not change with a rotation.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.spiffe_id
    }

    /// The node this is, if it is a node.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.spiffe_id.node_id()
    }

    /// Until when the SVID held now is valid. Rotate well before: half of the lifetime is customary.
    #[must_use]
    pub fn svid_expires(&self) -> SystemTime {
        self.0.held.load().svid.not_after()
    }

    /// The serial number of the SVID held now, which tells one rotation from the next.
    #[must_use]
    pub fn svid_serial_number(&self) -> Vec<u8> {
        self.0.held.load().svid.serial_number().to_vec()
    }

    /// The bundle that is trusted now.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundle {
        self.0.anchors.load().bundle().clone()
    }
}

/// An SVID that peers with the same bundle would refuse is refused here, where somebody can still do something about it.
fn verify_own(svid: &X509Svid, anchors: &Anchors) -> Result<(), VerifyError> {
    let now = UnixTime::now();
    let Some((leaf, intermediates)) = svid.chain().split_first() else { return Ok(()) };
    anchors.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
    anchors.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
    Ok(())
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("spiffe_id", &self.0.spiffe_id).finish_non_exhaustive()
    }
}

/// Why an SVID and a bundle make no identity.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bundle does not vouch for the SVID.
    #[error("the SVID is not trusted by its own bundle: {0}")]
    Untrusted(#[from] VerifyError),
    /// rustls refused the configuration.
    #[error("rustls refused the configuration: {source}")]
    Configuration {
        /// Why.
        source: rustls::Error,
    },
}

/// Why an SVID was not rotated in. The SVID that was held stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// It names somebody else.
    #[error("the identity is {held} and cannot become {offered}: make a new identity")]
    SpiffeId {
        /// Who the identity is.
        held: SpiffeId,
        /// Whom the SVID names.
        offered: SpiffeId,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bundle does not vouch for it.
    #[error("the SVID is not trusted by the identity's bundle, which comes first in a rotation: {0}")]
    Untrusted(#[from] VerifyError),
}

/// Why a bundle was not taken. The bundle that was trusted stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetBundleError {
    /// It is of another trust domain.
    #[error("the identity is of the trust domain {identity}, the bundle of {bundle}: give its own")]
    TrustDomain {
        /// The domain of the identity.
        identity: TrustDomain,
        /// The domain of the bundle.
        bundle: TrustDomain,
    },
}
