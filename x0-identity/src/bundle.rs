//! SPIFFE bundles and bundle maps as JSON (Trust Domain and Bundle §4, §5).

mod document;
mod jwk;
#[cfg(feature = "workload-api")]
mod key_set;
mod map;

pub use document::{BUNDLE_LEN_MAX, Refusal, Refused, SpiffeBundle, SpiffeBundleError};
#[cfg(feature = "jwt")]
pub(crate) use jwk::positive;
pub use jwk::{JwtAuthority, JwtKey, KeyEncodingError, WitAuthority};
pub use map::{BUNDLE_MAP_LEN_MAX, BundleMap, BundleMapError};
