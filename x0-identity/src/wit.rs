//! WIT-SVIDs: tokens bound to a key of the workload, which proves that it holds the key whenever it presents
//! one.

mod confirmation;
mod issuer;
mod key;
mod proof;
mod svid;

pub use confirmation::WitConfirmation;
pub use issuer::{WitIssueError, WitIssuer};
pub use key::{WitKey, WitKeyError};
pub use proof::{WIT_PROOF_LIFETIME_MAX, WitPresentationError, WitProof, WitProofError, WitProveError};
#[cfg(feature = "workload-api")]
pub(crate) use svid::Parsed;
pub use svid::{UnprovenWitSvid, WIT_SVID_LEN_MAX, WitSvid, WitSvidError, WitSvidValidator};
