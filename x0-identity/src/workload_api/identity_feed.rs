//! An identity that follows what a Workload API sends.

use std::string::String;
use std::sync::Arc;

use super::X509Context;
use crate::{
    Identity, IdentityError, RotateError, SetBundleError, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain,
    X509Svid,
};

/// Keeps an [`Identity`] as a Workload API says: its SVID, its bundle and foreign bundles. It follows one
/// SPIFFE ID, the one that the first context has.
#[derive(Debug, Clone)]
pub struct IdentityFeed {
    identity: Identity,
    hint: Option<String>,
    context: Option<Arc<X509Context>>,
    /// Whether the identity presents the SVID of the context: it was neither redacted nor refused.
    is_presented: bool,
}

/// An identity does not follow a context.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFeedError {
    /// No SVID has the hint.
    #[error("the Workload API has no SVID with the hint {hint:?}: register one, or choose another hint")]
    NoHint {
        /// The hint.
        hint: String,
    },
    /// The SVID of the identity was redacted: handshakes present nothing until it returns.
    #[error("the Workload API has no SVID of {spiffe_id} any more: the identity presents none until it has")]
    Redacted {
        /// The SPIFFE ID.
        spiffe_id: SpiffeId,
    },
    /// The first SVID and its bundle form no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The new SVID was not rotated in; the bundles are the new ones.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// A bundle was not set.
    #[error(transparent)]
    Bundle(#[from] SetBundleError),
}

impl IdentityFeed {
    /// Builds an identity from the default SVID, or the first one with a hint.
    ///
    /// # Errors
    /// [`IdentityFeedError`], when no SVID has the hint, or its bundle does not trust the SVID.
    pub fn new(context: Arc<X509Context>, hint: Option<&str>) -> Result<IdentityFeed, IdentityFeedError> {
        let svid = match hint {
            None => context.svids().first().map(|held| &held.svid),
            Some(hint) => context.svid_with_hint(hint),
        };
        let no_hint = || IdentityFeedError::NoHint { hint: hint.unwrap_or_default().into() };
        let svid = svid.ok_or_else(no_hint)?.clone();
        let trust_domain = svid.spiffe_id().trust_domain().clone();
        let bundle = bundle_of(&context, &trust_domain);
        let identity = Identity::new(svid, bundle)?;
        let mut feed =
            IdentityFeed { identity, hint: hint.map(Into::into), context: None, is_presented: true };
        feed.set_bundles(&context)?;
        feed.context = Some(context);
        Ok(feed)
    }

    /// The identity. Clones of it follow as well.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes the next context: first the bundles, then the SVID. Bundles that are no longer in it are not
    /// trusted any more (Workload API §4.4).
    ///
    /// # Errors
    /// [`IdentityFeedError`] says what did not change. The next context is taken all the same.
    pub fn update(&mut self, context: Arc<X509Context>) -> Result<(), IdentityFeedError> {
        self.set_bundles(&context)?;
        let svid = self.svid_in(&context).cloned();
        let before = self.context.replace(context);
        let Some(svid) = svid else {
            self.is_presented = false;
            self.identity.withdraw();
            return Err(IdentityFeedError::Redacted { spiffe_id: self.identity.spiffe_id().clone() });
        };
        let unchanged = before
            .as_ref()
            .and_then(|before| self.svid_in(before))
            .is_some_and(|before| before.chain() == svid.chain());
        // An SVID that was refused is offered again: its bundle may have come since, or its time.
        if !(unchanged && self.is_presented) {
            self.is_presented = false;
            self.identity.rotate(svid)?;
            self.is_presented = true;
        }
        Ok(())
    }

    /// The workload is entitled to nothing: the identity presents no SVID until the next context.
    pub fn deny(&mut self) {
        self.context = None;
        self.is_presented = false;
        self.identity.withdraw();
    }

    /// The SVID of the identity in a context: with the hint if one was chosen, always of the SPIFFE ID.
    fn svid_in<'a>(&self, context: &'a X509Context) -> Option<&'a X509Svid> {
        context
            .svids()
            .iter()
            .filter(|held| self.hint.as_ref().is_none_or(|hint| held.hint == *hint))
            .map(|held| &held.svid)
            .find(|svid| svid.spiffe_id() == self.identity.spiffe_id())
    }

    fn set_bundles(&self, context: &X509Context) -> Result<(), SetBundleError> {
        let own = self.identity.spiffe_id().trust_domain();
        let bundle = bundle_of(context, own);
        if bundle != self.identity.trust_bundle() {
            self.identity.set_bundle(bundle)?;
        }
        let before = self.context.as_ref().map(|before| before.bundles());
        for bundle in context.bundles().iter().filter(|bundle| bundle.trust_domain() != own) {
            let known = before.and_then(|before| before.get(bundle.trust_domain()));
            if known.is_none_or(|known| **known != *bundle) {
                self.identity.federate(bundle.clone())?;
            }
        }
        let gone = before.into_iter().flat_map(TrustBundleSet::iter).map(TrustBundle::trust_domain);
        for trust_domain in gone.filter(|name| *name != own && context.bundles().get(name).is_none()) {
            self.identity.unfederate(trust_domain)?;
        }
        Ok(())
    }
}

fn bundle_of(context: &X509Context, trust_domain: &TrustDomain) -> TrustBundle {
    let bundle = context.bundles().get(trust_domain);
    bundle.map_or_else(|| TrustBundle::empty(trust_domain.clone()), |bundle| TrustBundle::clone(bundle))
}
