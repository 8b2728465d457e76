//! Issuing over the network: the exchange of a workload with an issuer, as protocol engines without I/O, and
//! their drivers with threads.

mod client;
mod message;
#[cfg(feature = "issuance")]
mod network;
mod server;

pub use client::{
    ExchangeFailure, IssuanceClient, IssuanceClientError, IssuanceClientInput, IssuanceClientOutput,
    IssuanceFailure,
};
pub use message::{
    Evidence, ISSUANCE_ANSWER_LEN_MAX, ISSUANCE_REQUEST_LEN_MAX, IssuanceAnswer, IssuanceMessageError,
    IssuanceRefusal, IssuanceRequest, IssuanceResponse,
};
#[cfg(feature = "issuance")]
pub use network::{
    IssuanceEndpoint, IssuanceEndpointOptions, IssuanceSource, IssuanceSourceError, Sign, StoreKey,
    TpmAnswers,
};
pub use server::{
    IssuanceServer, IssuanceServerError, IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput,
    PresentedEvidence, Proof,
};

/// The ALPN name of the exchange (RFC 7301).
pub const ISSUANCE_ALPN: &[u8] = b"x0-issuance/1";

/// The label with which both sides export the 32 bytes that bind a proof to the TLS connection (RFC 9266 §2,
/// without context).
pub const ISSUANCE_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
