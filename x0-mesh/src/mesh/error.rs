//! Errors of the driver.

use std::io;

/// The mesh was not started. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no tokio runtime here.
    #[error(
        "cannot start a mesh outside of a tokio runtime: start it inside of one that has I/O and time enabled"
    )]
    NoRuntime,
    /// The TLS configuration has no cipher suite for QUIC.
    #[error(
        "cannot use the TLS configuration for the neighbours: build it for TLS 1.3 with TLS13_AES_128_GCM_SHA256 (RFC 9001 §5.2)"
    )]
    Tls,
    /// A link carries less than a handshake needs.
    #[error("cannot use a link with frames of {mtu} bytes: links need {mtu_min}")]
    Mtu {
        /// The longest frame of the link, in bytes.
        mtu: usize,
        /// The least that is needed, in bytes.
        mtu_min: usize,
    },
    /// The QUIC endpoint of a port was refused.
    #[error("cannot make the QUIC endpoint of a port")]
    Endpoint {
        /// The error of quinn.
        source: io::Error,
    },
}
