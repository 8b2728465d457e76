//! Who a node is.
#![cfg_attr(not(feature = "x509"), no_std)]

extern crate alloc;

#[cfg(feature = "authority")]
mod authority;
mod node_id;
mod spiffe_id;
#[cfg(feature = "rustls")]
mod tls;
mod trust_domain;
#[cfg(feature = "x509")]
mod x509;

#[cfg(feature = "authority")]
pub use authority::{Authority, AuthorityConfig, AuthorityError, IssueError};
pub use node_id::{NodeId, ParseNodeIdError};
pub use spiffe_id::{ParseSpiffeIdError, SpiffeId};
#[cfg(feature = "rustls")]
pub use tls::{Identity, IdentityError, KeyError, RotateError, SetBundleError, Verifier, VerifyError};
pub use trust_domain::{ParseTrustDomainError, TrustDomain};
#[cfg(feature = "x509")]
pub use x509::{
    BundleError, CERTIFICATE_LEN_MAX, EncodingError, LeafError, PEM_LEN_MAX, PeerError, PemError,
    SigningError, SvidError, TrustBundle, X509Svid, peer_node_id, peer_spiffe_id, spiffe_id_of,
    spiffe_id_of_signer,
};
