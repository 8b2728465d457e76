//! The SPIFFE Bundle Map: bundles of several trust domains in one document (Trust Domain and Bundle §5).

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec;

use super::{SpiffeBundle, SpiffeBundleError};
use crate::json::Json;
use crate::{JsonError, ParseTrustDomainError, TrustBundleSet, TrustDomain};

/// The longest bundle map that is parsed, in bytes.
pub const BUNDLE_MAP_LEN_MAX: usize = 16 * 1024 * 1024;

/// Bundles by trust domain. The document is used as a whole or not at all (Appendix B.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleMap {
    bundles: BTreeMap<TrustDomain, SpiffeBundle>,
}

/// A text is not a bundle map. No part of it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleMapError {
    /// The text is longer than [`BUNDLE_MAP_LEN_MAX`]; it was not parsed.
    #[error("the bundle map has {len} bytes, more than the {BUNDLE_MAP_LEN_MAX} allowed: split it")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The text is not JSON, or a trust domain occurs twice (§5.1.1: MUST reject).
    #[error("the bundle map is not JSON with unique names: fetch or publish it again")]
    Json(#[from] JsonError),
    /// There is no object named `trust_domains` (§5.1.1).
    #[error("the bundle map has no object \"trust_domains\": publish it with one, which may be empty")]
    TrustDomains,
    /// A name is not that of a trust domain (§5.1.1).
    #[error("name {position} of the bundle map is not a trust domain: correct or remove it")]
    TrustDomain {
        /// The position in the map, counted from zero.
        position: usize,
        /// The rule that is broken.
        source: ParseTrustDomainError,
    },
    /// A bundle is not one.
    #[error("the bundle of {trust_domain} in the bundle map cannot be read: correct or remove it")]
    Bundle {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The reason.
        source: SpiffeBundleError,
    },
}

impl BundleMap {
    /// Builds an empty map.
    #[must_use]
    pub fn new() -> BundleMap {
        BundleMap::default()
    }

    /// Reads a map. Refresh hints of single bundles are dropped: they say nothing of the map (§5.1.1).
    ///
    /// # Errors
    /// [`BundleMapError`], when the text is not a bundle map or one of its bundles cannot be read. Single
    /// elements of bundles that cannot be used are left out, see [`SpiffeBundle::refused`].
    pub fn from_json(json: &[u8]) -> Result<BundleMap, BundleMapError> {
        if json.len() > BUNDLE_MAP_LEN_MAX {
            return Err(BundleMapError::Length { len: json.len() });
        }
        let Json::Object(members) = Json::parse(json)? else { return Err(BundleMapError::TrustDomains) };
        let domains = members.into_iter().find(|(name, _)| name == "trust_domains").map(|(_, value)| value);
        let Some(Json::Object(domains)) = domains else { return Err(BundleMapError::TrustDomains) };
        let mut map = BundleMap::new();
        for (position, (name, value)) in domains.into_iter().enumerate() {
            let trust_domain = TrustDomain::parse(&name)
                .map_err(|source| BundleMapError::TrustDomain { position, source })?;
            let bundle = SpiffeBundle::read(trust_domain.clone(), value)
                .map_err(|source| BundleMapError::Bundle { trust_domain, source })?;
            map.insert(bundle.without_hint());
        }
        Ok(map)
    }

    /// The map as JSON, without refresh hints (§5.1.1).
    #[must_use]
    pub fn to_json(&self) -> String {
        let domains =
            self.bundles.iter().map(|(name, bundle)| (name.to_string(), bundle.write(false))).collect();
        let mut text = String::new();
        Json::Object(vec![("trust_domains".into(), Json::Object(domains))]).write(&mut text);
        text
    }

    /// Puts a bundle in the place of the one that its trust domain has, and returns that.
    pub fn insert(&mut self, bundle: SpiffeBundle) -> Option<SpiffeBundle> {
        self.bundles.insert(bundle.trust_domain().clone(), bundle)
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&SpiffeBundle> {
        self.bundles.get(trust_domain)
    }

    /// The bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &SpiffeBundle> {
        self.bundles.values()
    }

    /// The authorities for X.509-SVIDs of each trust domain.
    #[must_use]
    pub fn trust_bundles(&self) -> TrustBundleSet {
        self.bundles.values().map(|bundle| bundle.trust_bundle().clone()).collect()
    }
}
