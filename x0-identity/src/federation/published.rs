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
/// number with each change, which [`PublishedBundles::set`] demands of a bundle that has one (Trust Domain
/// and Bundle §4.1.1).
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
    Bundle { json: Arc<str>, sequence: Option<u64> },
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
    /// The bundle differs from the one that is served, and its sequence number is not higher: consumers that
    /// compare the numbers would miss the change, or take it for an old bundle.
    #[error(
        "the bundle for {path} differs from the one that is served with the sequence number {served}, and its own is not higher: raise it above {served}"
    )]
    Sequence {
        /// The path.
        path: String,
        /// The sequence number of the bundle that is served.
        served: u64,
    },
}

impl PublishedBundles {
    /// Builds a set without bundles.
    #[must_use]
    pub fn new() -> PublishedBundles {
        PublishedBundles::default()
    }

    /// Serves a bundle at a path from now on. A bundle that differs from the one that is served there, also
    /// in its refresh hint alone, has a higher sequence number, if that one has any.
    ///
    /// # Errors
    /// [`PublishError`]; the set is unchanged.
    pub fn set(&self, path: &str, bundle: &SpiffeBundle) -> Result<(), PublishError> {
        self.put(path, Published::Bundle { json: bundle.to_json().into(), sequence: bundle.sequence() })
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
        let mut paths = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let (
            Published::Bundle { json, sequence },
            Some(Published::Bundle { json: served_json, sequence: Some(served) }),
        ) = (&published, paths.get(path))
            && json != served_json
            && sequence.is_none_or(|sequence| sequence <= *served)
        {
            return Err(PublishError::Sequence { path: path.into(), served: *served });
        }
        paths.insert(path.into(), published);
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
