//! An identity that follows what a Workload API sends.

use std::string::String;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::X509Context;
use crate::crypto::ring_provider;
use crate::source::{Followed, Unfollowed};
use crate::{Identity, IdentityError, RotateError, SetBundleError, SpiffeId, X509Svid};

/// Keeps an [`Identity`] as a Workload API says: its SVID, its bundle and foreign bundles. It follows one
/// SPIFFE ID, the one that the first context has.
#[derive(Debug, Clone)]
pub struct IdentityFeed {
    followed: Followed,
    hint: Option<String>,
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
    pub fn new(context: &X509Context, hint: Option<&str>) -> Result<IdentityFeed, IdentityFeedError> {
        IdentityFeed::new_with_provider(context, hint, ring_provider())
    }

    /// As [`IdentityFeed::new`], with another provider of cryptography.
    ///
    /// # Errors
    /// As for [`IdentityFeed::new`].
    pub fn new_with_provider(
        context: &X509Context,
        hint: Option<&str>,
        provider: Arc<CryptoProvider>,
    ) -> Result<IdentityFeed, IdentityFeedError> {
        let svid = match hint {
            None => context.svids().first().map(|held| &held.svid),
            Some(hint) => context.svid_with_hint(hint),
        };
        let no_hint = || IdentityFeedError::NoHint { hint: hint.unwrap_or_default().into() };
        let svid = svid.ok_or_else(no_hint)?.clone();
        let followed = Followed::new(svid, context.bundles(), provider)?;
        Ok(IdentityFeed { followed, hint: hint.map(Into::into) })
    }

    /// The identity. Clones of it follow as well.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.followed.identity()
    }

    /// Takes the next context: first the bundles, then the SVID. Bundles that are no longer in it are not
    /// trusted any more (Workload API §4.4).
    ///
    /// # Errors
    /// [`IdentityFeedError`] says what did not change. The next context is taken all the same.
    pub fn update(&mut self, context: &X509Context) -> Result<(), IdentityFeedError> {
        match self.svid_in(context).cloned() {
            Some(svid) => Ok(self.followed.update(svid, context.bundles())?),
            None => {
                self.followed.set_bundles(context.bundles())?;
                self.followed.withdraw();
                Err(IdentityFeedError::Redacted { spiffe_id: self.identity().spiffe_id().clone() })
            }
        }
    }

    /// The workload is entitled to nothing: the identity presents no SVID until the next context.
    pub fn deny(&mut self) {
        self.followed.withdraw();
    }

    /// The SVID of the identity in a context: with the hint if one was chosen, always of the SPIFFE ID.
    fn svid_in<'a>(&self, context: &'a X509Context) -> Option<&'a X509Svid> {
        context
            .svids()
            .iter()
            .filter(|held| self.hint.as_ref().is_none_or(|hint| held.hint == *hint))
            .map(|held| &held.svid)
            .find(|svid| svid.spiffe_id() == self.identity().spiffe_id())
    }
}

impl From<Unfollowed> for IdentityFeedError {
    fn from(refused: Unfollowed) -> IdentityFeedError {
        match refused {
            Unfollowed::Identity(error) => error.into(),
            Unfollowed::Rotate(error) => error.into(),
            Unfollowed::Bundle(error) => error.into(),
        }
    }
}
