//! What a bundle endpoint serves.

use core::fmt;
use std::collections::BTreeMap;
use std::string::String;
use std::sync::{Arc, PoisonError, RwLock};
use std::vec::Vec;

use super::EndpointUrl;
use super::url::is_url_text;
use crate::SpiffeBundle;

/// The bundles that a bundle endpoint serves, by path. Clones share them, and every answer reads the bundle
/// of that moment.
///
/// Publish a new authority well before it signs: three to five refresh hints (§4.1), and raise the sequence
/// number with each change.
///
/// ```
/// use x0_identity::federation::PublishedBundles;
/// use x0_identity::{SpiffeBundle, TrustBundle, TrustDomain};
///
/// let published = PublishedBundles::new();
/// let bundle = SpiffeBundle::new(TrustBundle::empty(TrustDomain::parse("example.org")?));
/// published.set("/bundle.json", &bundle.with_sequence(1))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct PublishedBundles(Arc<RwLock<BTreeMap<String, Published>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    Bundle(Arc<str>),
    Moved(EndpointUrl),
}

/// A path was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The text is not the path of a URL.
    #[error("{path:?} is not the path of a URL: begin it with a slash, and escape what a URL cannot have")]
    Path {
        /// The text.
        path: String,
    },
}

impl PublishedBundles {
    /// Builds a set without bundles.
    #[must_use]
    pub fn new() -> PublishedBundles {
        PublishedBundles::default()
    }

    /// Serves a bundle at a path from now on.
    ///
    /// # Errors
    /// [`PublishError`]; the set is unchanged.
    pub fn set(&self, path: &str, bundle: &SpiffeBundle) -> Result<(), PublishError> {
        self.put(path, Published::Bundle(bundle.to_json().into()))
    }

    /// Answers requests for a path with a temporary redirect from now on (§5.2.1.3). With `https_spiffe`, the
    /// target presents an SVID of the same SPIFFE ID (§5.2.2.3).
    ///
    /// # Errors
    /// [`PublishError`]; the set is unchanged.
    pub fn redirect(&self, path: &str, to: EndpointUrl) -> Result<(), PublishError> {
        self.put(path, Published::Moved(to))
    }

    /// Serves nothing at a path from now on.
    pub fn remove(&self, path: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    fn put(&self, path: &str, published: Published) -> Result<(), PublishError> {
        if !path.starts_with('/') || path.contains(['?', '#']) || !is_url_text(path) {
            return Err(PublishError::Path { path: path.into() });
        }
        // A panic cannot leave half a value behind.
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(path.into(), published);
        Ok(())
    }

    pub(super) fn get(&self, path: &str) -> Option<Published> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

impl fmt::Debug for PublishedBundles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.0.read().unwrap_or_else(PoisonError::into_inner);
        formatter.debug_tuple("PublishedBundles").field(&paths.keys().collect::<Vec<_>>()).finish()
    }
}
