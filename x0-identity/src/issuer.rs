//! Issuing X.509-SVIDs to callers that keep their private keys.

mod algorithm;
mod bundle;
mod encode;
mod key;
mod request;
mod revocation;
mod signer;
mod statement;

pub(crate) use algorithm::KeyAlgorithm;
pub(crate) use key::sign;

pub use bundle::{SignedBundle, SignedBundleError};
pub use key::{RequestKey, RequestKeyError};
pub use request::{CERTIFICATE_REQUEST_LEN_MAX, CertificateRequest, CertificateRequestError};
pub use revocation::{SignedRevocations, SignedRevocationsError};
pub use signer::{
    CaSigner, CaSignerError, CaSignerOptions, FinishError, IssueRequest, IssueRequestError,
    UnsignedCertificate,
};
pub use statement::{STATEMENT_LEN_MAX, SignedStatement, SignedStatementError};
