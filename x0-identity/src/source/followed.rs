//! An identity that is kept as a source says.

use std::sync::Arc;
use std::vec::Vec;

use pki_types::CertificateDer;
use rustls::crypto::CryptoProvider;

use super::FollowError;
use crate::{
    Identity, IdentityError, RotateError, SetBundleError, TrustBundle, TrustBundleSet, TrustDomain, X509Svid,
};

/// An identity with what its source gave last.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    identity: Identity,
    bundles: TrustBundleSet,
    /// The chain that was offered last, and whether the identity presents it: it was neither withdrawn nor
    /// refused.
    offered: Vec<CertificateDer<'static>>,
    is_presented: bool,
}

/// The refusal of an identity to follow its source.
pub(crate) enum Unfollowed {
    Identity(IdentityError),
    Rotate(RotateError),
    Bundle(SetBundleError),
}

impl From<SetBundleError> for Unfollowed {
    fn from(error: SetBundleError) -> Unfollowed {
        Unfollowed::Bundle(error)
    }
}

impl From<Unfollowed> for FollowError {
    fn from(refused: Unfollowed) -> FollowError {
        match refused {
            Unfollowed::Identity(error) => error.into(),
            Unfollowed::Rotate(error) => error.into(),
            Unfollowed::Bundle(error) => error.into(),
        }
    }
}

impl Followed {
    pub(crate) fn new(
        svid: X509Svid,
        bundles: &TrustBundleSet,
        provider: Arc<CryptoProvider>,
    ) -> Result<Followed, Unfollowed> {
        let offered = svid.chain().to_vec();
        let bundle = bundle_of(bundles, svid.spiffe_id().trust_domain());
        let identity = Identity::new_with_provider(svid, bundle, provider).map_err(Unfollowed::Identity)?;
        let mut followed = Followed { identity, bundles: TrustBundleSet::new(), offered, is_presented: true };
        followed.set_bundles(bundles)?;
        Ok(followed)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes what the source gives: first the bundles, then the SVID. Bundles that are missing are not
    /// trusted any more.
    pub(crate) fn update(&mut self, svid: X509Svid, bundles: &TrustBundleSet) -> Result<(), Unfollowed> {
        self.set_bundles(bundles)?;
        // An SVID that was refused is offered again: its bundle may have come since, or its time.
        if self.is_presented && self.offered == svid.chain() {
            return Ok(());
        }
        self.is_presented = false;
        self.offered = svid.chain().to_vec();
        self.identity.rotate(svid).map_err(Unfollowed::Rotate)?;
        self.is_presented = true;
        Ok(())
    }

    /// Ceases to present the SVID; what is trusted stays so.
    pub(crate) fn withdraw(&mut self) {
        self.is_presented = false;
        self.identity.withdraw();
    }

    pub(crate) fn set_bundles(&mut self, bundles: &TrustBundleSet) -> Result<(), SetBundleError> {
        let own = self.identity.spiffe_id().trust_domain();
        let bundle = bundle_of(bundles, own);
        if bundle != self.identity.trust_bundle() {
            self.identity.set_bundle(bundle)?;
        }
        for bundle in bundles.iter().filter(|bundle| bundle.trust_domain() != own) {
            if self.bundles.get(bundle.trust_domain()).is_none_or(|known| **known != *bundle) {
                self.identity.federate(bundle.clone())?;
            }
        }
        let gone = self.bundles.iter().map(TrustBundle::trust_domain);
        for trust_domain in gone.filter(|name| *name != own && bundles.get(name).is_none()) {
            self.identity.unfederate(trust_domain)?;
        }
        self.bundles = bundles.clone();
        Ok(())
    }
}

fn bundle_of(bundles: &TrustBundleSet, trust_domain: &TrustDomain) -> TrustBundle {
    let bundle = bundles.get(trust_domain);
    bundle.map_or_else(|| TrustBundle::empty(trust_domain.clone()), |bundle| TrustBundle::clone(bundle))
}
