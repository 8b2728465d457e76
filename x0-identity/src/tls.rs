//! Mutual TLS 1.3 that follows a rotation: a verifier of the SPIFFE rules and rustls configurations around
//! it.

mod admission;
mod bundles;
#[cfg(feature = "graviola")]
mod graviola;
mod held;
mod identity;
#[cfg(feature = "issuer")]
mod issuance;
#[cfg(any(feature = "federation", feature = "issuer"))]
mod of_spiffe_id;
mod swap;
mod verifier;

use admission::Watchers;
use bundles::Bundles;
use held::Held;
use swap::Swap;

#[cfg(any(feature = "federation", feature = "issuer"))]
pub(crate) use of_spiffe_id::OfSpiffeId;

pub use admission::{Admission, PeerRole};
#[cfg(feature = "graviola")]
pub use graviola::graviola_provider;
pub use held::KeyError;
pub use identity::{Identity, IdentityError, RotateError, SetBundleError};
#[cfg(feature = "issuer")]
pub use issuance::issuance_client_config;
pub use verifier::{Verifier, VerifyError};
