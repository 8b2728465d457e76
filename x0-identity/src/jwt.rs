//! JWT-SVIDs: issued with a key of a trust domain, validated with the keys of its bundle.

mod algorithm;
mod es512;
mod issuer;
pub(crate) mod signature;
pub(crate) mod signing_key;
mod svid;
pub(crate) mod token;

pub use algorithm::JwtAlgorithm;
pub use issuer::{JwtIssueError, JwtIssuer, JwtKeyError};
pub use svid::{JWT_SVID_LEN_MAX, JwtSvid, JwtSvidError, JwtSvidValidator};
