//! SPIFFE identities for peers, without a server: names, certificates, trust bundles and TLS configurations.
//!
//! - [`NodeId`] names a node: 64 bits, never zero. Without features it is all of the crate that most
//!   libraries need, and `no_std`.
//! - [`SpiffeId`] and [`TrustDomain`] hold every rule of the SPIFFE-ID specification.
//! - [`Renewal`] is a protocol engine that decides when an SVID is renewed, and when by attestation.
//! - `X509Svid` and `TrustBundle` (feature `x509`) hold certificates that were checked against the X509-SVID
//!   specification.
//! - `SpiffeBundle` and `BundleMap` (feature `bundle`) read and write bundles as JSON, with keys for
//!   JWT-SVIDs.
//! - `JwtIssuer` and `JwtSvidValidator` (feature `jwt`) issue and validate JWT-SVIDs.
//! - `WitIssuer`, `WitKey` and `WitSvidValidator` (feature `wit`) issue and validate WIT-SVIDs, with proofs
//!   of possession.
//! - `CaSigner`, `RegistrationEntry` and `JoinTokens` (feature `issuer`) issue SVIDs to callers that keep
//!   their private keys. `IssuanceServer` and `IssuanceClient` are both sides of issuing over the network.
//! - `Identity` and `Verifier` (feature `rustls`) provide the configurations of both sides of mutual TLS 1.3.
//!   They are built once and read the current SVID and bundle at each handshake, so that a rotation drops no
//!   connection.
//! - `IssuanceEndpoint` and `IssuanceSource` (feature `issuance`) are the drivers of both sides, with
//!   threads.
//! - `SvidFollower` (feature `rustls`) is an identity that follows an `SvidSource`: files, an issuer in this
//!   process, or any Workload API.
//! - The module `workload_api` (feature `workload-api`) serves the SPIFFE Workload API inside this process,
//!   and is a client of any. With the feature `sds` it serves Envoy as well.
//! - `UnixAttestor` (feature `unix-peers`, Linux) attests processes that connect to a Unix domain socket.
//! - The module `tpm` (feature `tpm`) attests machines by their TPM 2.0.
//! - The module `federation` (feature `federation`) serves bundles to foreign trust domains over HTTPS, and
//!   fetches theirs.
//! - `Authority` (feature `authority`) issues SVIDs in memory, for tests, demos and clusters that are their
//!   own authority.
//!
//! # Spans
//!
//! With the feature `tracing`, `identity.handshake` (fields `peer`, `spiffe_id`, `refused`) spans the
//! verification of a peer's chain in a handshake, and `identity.rotate` (`spiffe_id`, `refused`) the
//! replacement of the own SVID, both with level debug. Nothing is formatted without a subscriber.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | SPIFFE ID | the URI that names a workload: `spiffe://<trust domain>/<path>` |
//! | trust domain | a namespace of SPIFFE IDs with authorities of its own |
//! | SVID | a document that proves a SPIFFE ID: an X.509 certificate chain with the leaf's private key, or a token (JWT-SVID, WIT-SVID) |
//! | proof of possession | a signature by which the presenter of a WIT-SVID shows that it holds the key that the token names |
//! | leaf | the first certificate of a chain: the certificate of a workload |
//! | signing certificate, signer | a certificate that issues others (`cA` is true) |
//! | authority | a signing certificate that a bundle trusts; also `Authority`, the issuer that holds its key |
//! | bundle | the authorities of one trust domain; bundles of several domains are kept in a set and never merged |
//! | identity | the current SVID and bundle of this process, with the TLS configurations that read them |
//! | registration entry | which workloads receive a SPIFFE ID, by selectors, with what validity and DNS names |
//! | Workload API | the interface through which a workload on the same machine receives its SVIDs and bundles |
//! | caller | a process that connected to a Workload API; what it is entitled to is its workload |
//! | selector | a property of a workload that an attestor has proved |
//! | bundle endpoint | the HTTPS URL that serves the bundle of a trust domain |
//! | relationship | the trust in a foreign trust domain, whose bundle is fetched from its bundle endpoint; one-way |
//! | issuer | the process that has SVIDs signed by an authority for workloads over the network |
//! | evidence | what a workload presents to an issuer: a join token, an earlier SVID, what its TPM says, or a certificate of another authority |
//! | attestor | what decides for one kind of evidence whether it is good, and what it proves |
//! | TPM | the Trusted Platform Module of a machine, a chip that holds keys and measures the software that is started |
//! | endorsement key, attestation key (EK, AK) | the key by which a TPM is known, and a key of the same TPM that signs what the TPM reports |
//! | credential activation | the proof that an attestation key is in the TPM of an endorsement key: only that TPM decrypts the credential |
//! | quote | what a TPM reports of the software that was started, over a nonce, signed by its attestation key |
//! | revocation | the end of the trust in a certificate, a SPIFFE ID or an authority before it expires |
//! | admission | the acceptance of a peer for an established connection, which ends with a revocation or expiry |
//! | rotation | the replacement of an SVID by a newer one of the same SPIFFE ID; of a root: of an authority by a newer one |
//! | node | a member of a mesh; its SPIFFE ID is `spiffe://<trust domain>/node/<16 hexadecimal digits>` |
//!
//! # Example
//!
//! ```
//! use x0_identity::{NodeId, SpiffeId, TrustDomain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeId::new(7).ok_or("zero names no node")?;
//! let id = SpiffeId::for_node(&TrustDomain::parse("example.org")?, node);
//! assert_eq!(id.to_string(), "spiffe://example.org/node/0000000000000007");
//! assert_eq!(id.node_id(), Some(node));
//! assert!(SpiffeId::parse("spiffe://example.org/a/../b").is_err());
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    all(feature = "authority", feature = "rustls"),
    doc = r#"
Two nodes that trust each other, and a rotation of the SVID:

```
use std::time::Duration;
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};

# fn main() -> Result<(), Box<dyn std::error::Error>> {
let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
let node = NodeId::new(7).ok_or("zero names no node")?;
let issue = || authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), Duration::from_secs(3600));
let identity = Identity::new(issue()?, authority.bundle())?;
let (server, client) = (identity.server_config(), identity.client_config()); // for any rustls endpoint
identity.rotate(issue()?)?; // the next handshake presents the new SVID
# drop((server, client));
# Ok(())
# }
```
"#
)]
#![cfg_attr(not(feature = "x509"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

#[cfg(feature = "issuer")]
mod attest;
#[cfg(feature = "authority")]
mod authority;
#[cfg(feature = "x509")]
mod base64;
#[cfg(feature = "bundle")]
mod bundle;
#[cfg(any(feature = "authority", feature = "issuer", feature = "jwt", feature = "rustls"))]
mod crypto;
#[cfg(any(feature = "federation", feature = "issuance"))]
mod deadline;
#[cfg(feature = "federation")]
pub mod federation;
#[cfg(feature = "workload-api")]
mod grpc;
#[cfg(feature = "issuer")]
mod issuance;
#[cfg(feature = "issuer")]
mod issuer;
#[cfg(feature = "bundle")]
mod json;
#[cfg(feature = "jwt")]
mod jwt;
mod node_id;
#[cfg(feature = "rustls")]
mod path;
mod random;
mod renewal;
#[cfg(feature = "x509")]
mod revocation;
#[cfg(feature = "rustls")]
mod source;
mod spiffe_id;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(all(any(feature = "issuer", feature = "rustls"), not(feature = "metrics")))]
mod telemetry;
#[cfg(feature = "rustls")]
mod tls;
#[cfg(feature = "tpm")]
pub mod tpm;
#[cfg(feature = "rustls")]
mod trace;
mod trust_domain;
#[cfg(feature = "wit")]
mod wit;
#[cfg(feature = "workload-api")]
pub mod workload_api;
#[cfg(feature = "x509")]
mod x509;

#[cfg(feature = "issuer")]
pub use attest::{
    Attestation, Attestor, Attestors, EvidenceKind, Examine, JoinTokenError, JoinTokens, MemoryRegistry,
    RegistrationEntry, RegistrationEntryError, Registry, Selector, SelectorError, StoredToken,
};
#[cfg(all(feature = "issuer", feature = "rustls"))]
pub use attest::{CertificateAttestError, CertificateAttestor, SvidAttestor};
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
pub use attest::{UnixAttestError, UnixAttestor, UnixAttestorOptions, UnixConnection, UnixPeer};
#[cfg(feature = "authority")]
pub use authority::{Authority, AuthorityError, AuthorityOptions, IssueError};
#[cfg(feature = "bundle")]
pub use bundle::{
    BUNDLE_LEN_MAX, BUNDLE_MAP_LEN_MAX, BundleMap, BundleMapError, JwtAuthority, JwtKey, KeyEncodingError,
    Refusal, Refused, SpiffeBundle, SpiffeBundleError, WitAuthority,
};
#[cfg(feature = "issuer")]
pub use issuance::{
    Evidence, ExchangeFailure, ISSUANCE_ALPN, ISSUANCE_ANSWER_LEN_MAX, ISSUANCE_BINDING_LABEL,
    ISSUANCE_REQUEST_LEN_MAX, IssuanceAnswer, IssuanceClient, IssuanceClientError, IssuanceClientInput,
    IssuanceClientOutput, IssuanceFailure, IssuanceMessageError, IssuanceRefusal, IssuanceRequest,
    IssuanceResponse, IssuanceServer, IssuanceServerError, IssuanceServerInput, IssuanceServerOptions,
    IssuanceServerOutput, PresentedEvidence, Proof,
};
#[cfg(feature = "issuance")]
pub use issuance::{
    IssuanceEndpoint, IssuanceEndpointOptions, IssuanceSource, IssuanceSourceError, Sign, StoreKey,
    TpmAnswers,
};
#[cfg(feature = "issuer")]
pub use issuer::{
    CERTIFICATE_REQUEST_LEN_MAX, CaSigner, CaSignerError, CaSignerOptions, CertificateRequest,
    CertificateRequestError, FinishError, IssueRequest, IssueRequestError, RequestKey, RequestKeyError,
    STATEMENT_LEN_MAX, SignedBundle, SignedBundleError, SignedRevocations, SignedRevocationsError,
    SignedStatement, SignedStatementError, UnsignedCertificate,
};
#[cfg(feature = "bundle")]
pub use json::JsonError;
#[cfg(feature = "jwt")]
pub use jwt::{
    JWT_SVID_LEN_MAX, JwtAlgorithm, JwtIssueError, JwtIssuer, JwtKeyError, JwtSvid, JwtSvidError,
    JwtSvidValidator,
};
pub use node_id::{NodeId, ParseNodeIdError};
#[cfg(feature = "rustls")]
pub use path::{CertificateAt, PathError};
pub use renewal::{Renewal, RenewalError, RenewalInput, RenewalOptions, RenewalOutput};
#[cfg(feature = "x509")]
pub use revocation::{ReadRevocationsError, RevocationError, RevocationView, Revoked};
#[cfg(feature = "rustls")]
pub use source::{FollowError, SvidFiles, SvidFollower, SvidPoll, SvidSource, SvidSourceError, SvidState};
#[cfg(all(feature = "authority", feature = "rustls"))]
pub use source::{InProcessIssuer, IssuerHandle};
pub use spiffe_id::{ParseSpiffeIdError, SpiffeId};
#[cfg(feature = "graviola")]
pub use tls::graviola_provider;
#[cfg(all(feature = "issuer", feature = "rustls"))]
pub use tls::issuance_client_config;
#[cfg(feature = "rustls")]
pub use tls::{
    Admission, Identity, IdentityError, KeyError, PeerRole, RotateError, SetBundleError, Verifier,
    VerifyError,
};
pub use trust_domain::{ParseTrustDomainError, TrustDomain};
#[cfg(feature = "wit")]
pub use wit::{
    UnprovenWitSvid, WIT_PROOF_LIFETIME_MAX, WIT_SVID_LEN_MAX, WitConfirmation, WitIssueError, WitIssuer,
    WitKey, WitKeyError, WitPresentationError, WitProof, WitProofError, WitProveError, WitSvid, WitSvidError,
    WitSvidValidator,
};
#[cfg(feature = "x509")]
pub use x509::{
    BundleError, BundleSource, CERTIFICATE_LEN_MAX, EncodingError, LeafError, PEM_LEN_MAX, PeerError,
    PemError, SigningError, SvidError, TrustBundle, TrustBundleSet, X509Svid, peer_node_id, peer_node_id_in,
    peer_not_after, peer_spiffe_id, spiffe_id_of, spiffe_id_of_signer,
};

/// Entries of the targets in `fuzz/`.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    #[cfg(feature = "workload-api")]
    pub use crate::grpc::{decode_header_blocks, exchange_frames, read_messages};
}

/// The code of README.md, compiled as doctests.
#[cfg(all(doctest, feature = "authority", feature = "rustls"))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
