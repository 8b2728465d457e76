//! Which workload may have which SPIFFE ID: registration entries, and how a workload proves what it is.

mod attestor;
#[cfg(feature = "rustls")]
mod certificate;
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
mod digests;
mod join_token;
mod registry;
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
mod unix_peer;
#[cfg(not(all(feature = "unix-peers", target_os = "linux")))]
#[path = "attest/no_unix_peer.rs"]
mod unix_peer;

#[cfg(feature = "tpm")]
pub(crate) use attestor::another_kind;
pub use attestor::{Attestation, Attestor, Attestors, EvidenceKind, Examine};
#[cfg(feature = "rustls")]
pub use certificate::{CertificateAttestError, CertificateAttestor, SvidAttestor};
pub use join_token::{JoinTokenError, JoinTokens, StoredToken};
pub use registry::{
    MemoryRegistry, RegistrationEntry, RegistrationEntryError, Registry, Selector, SelectorError,
};
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
pub(crate) use unix_peer::ProcessHandle;
#[cfg(not(all(feature = "unix-peers", target_os = "linux")))]
pub(crate) use unix_peer::UnixConnection;
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
pub use unix_peer::{UnixAttestError, UnixAttestor, UnixAttestorOptions, UnixConnection, UnixPeer};
