//! Why a connection ends, on the wire and for the owner.

use std::sync::Arc;

use quinn::{ConnectionError, VarInt};
use x0_identity::NodeId;

use crate::{DownReason, Violation};

const DETAIL_LEN_MAX: usize = 200;
/// RFC 9000 §20.1: TLS alerts are 0x100 and the alert.
const CRYPTO: u64 = 0x100;
const CRYPTO_NO_APPLICATION_PROTOCOL: u64 = CRYPTO + 120;

/// The application's error codes.
pub(super) mod code {
    use quinn::VarInt;

    pub(in crate::quic) const CLOSED: VarInt = VarInt::from_u32(0);
    /// The other connection is the one.
    pub(in crate::quic) const DUPLICATE: VarInt = VarInt::from_u32(1);
    pub(in crate::quic) const REPLACED: VarInt = VarInt::from_u32(2);
    pub(in crate::quic) const IDENTITY: VarInt = VarInt::from_u32(3);
    pub(in crate::quic) const VIOLATION: VarInt = VarInt::from_u32(4);
    pub(in crate::quic) const BUSY: VarInt = VarInt::from_u32(5);
    pub(in crate::quic) const REMOVED: VarInt = VarInt::from_u32(6);
    pub(in crate::quic) const EXPIRED: VarInt = VarInt::from_u32(7);
}

/// Why an attempt at a connection came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Worth telling the owner.
    Told(DownReason),
    /// The other connection is the one, or our side does not want any.
    Quiet,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure::Told(DownReason::Malformed { violation })
    }
}

/// Ends a connection, and says why.
pub(super) fn close_for(connection: &quinn::Connection, reason: &DownReason) {
    let (code, text) = match reason {
        DownReason::Replaced => (code::REPLACED, String::new()),
        DownReason::WrongIdentity { .. } => (code::IDENTITY, String::from("another node was dialled")),
        DownReason::Expired => (code::EXPIRED, String::from("your SVID has expired")),
        DownReason::Malformed { violation } => (code::VIOLATION, violation.to_string()),
        reason => (code::CLOSED, reason.to_string()),
    };
    connection.close(code, text.as_bytes());
}

/// What the end of a connection means while it is made.
pub(super) fn dial_failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == code::DUPLICATE => Failure::Quiet,
        ConnectionError::TimedOut => Failure::Told(DownReason::Unreachable),
        error => Failure::Told(down_reason(error)),
    }
}

/// What the end of a connection means once it was made.
pub(super) fn down_reason(error: &ConnectionError) -> DownReason {
    match error {
        ConnectionError::TimedOut => DownReason::TimedOut,
        ConnectionError::LocallyClosed => DownReason::Local,
        // The key of resets is drawn when a transport is made: only the one that ended the connection can send it.
        ConnectionError::Reset => DownReason::Closed,
        ConnectionError::ApplicationClosed(close) => match close.error_code {
            code::CLOSED => DownReason::Closed,
            code::REPLACED => DownReason::Replaced,
            code::EXPIRED => DownReason::Untrusted {
                detail: "the SVID that we connected with has expired: rotate in another one".into(),
            },
            code => DownReason::Refused { detail: application_detail(code, &close.reason) },
        },
        ConnectionError::ConnectionClosed(close) => {
            tls_reason(close.error_code.into(), &String::from_utf8_lossy(&close.reason))
                .unwrap_or_else(|| failed(error))
        }
        ConnectionError::TransportError(transport) => {
            tls_reason(transport.code.into(), &transport.reason).unwrap_or_else(|| failed(error))
        }
        error => failed(error),
    }
}

fn failed(error: &ConnectionError) -> DownReason {
    DownReason::Failed { detail: shortened(&error.to_string()) }
}

fn tls_reason(code: u64, text: &str) -> Option<DownReason> {
    if code == CRYPTO_NO_APPLICATION_PROTOCOL {
        return Some(DownReason::Refused { detail: "it does not speak x0-mesh/1".into() });
    }
    let alert = (CRYPTO..CRYPTO + 0x100).contains(&code).then(|| code - CRYPTO)?;
    let detail = if text.is_empty() { format!("TLS alert {alert}") } else { text.to_owned() };
    Some(DownReason::Untrusted { detail: shortened(&detail) })
}

fn application_detail(code: VarInt, reason: &[u8]) -> Arc<str> {
    if reason.is_empty() {
        return format!("code {code}").into();
    }
    shortened(&String::from_utf8_lossy(&reason[..reason.len().min(DETAIL_LEN_MAX)]))
}

/// What others wrote is neither long nor does it steer a terminal.
fn shortened(text: &str) -> Arc<str> {
    let letters = text.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    letters.take(DETAIL_LEN_MAX).collect::<String>().into()
}

pub(super) fn wrong_identity(expected: NodeId, found: NodeId) -> DownReason {
    DownReason::WrongIdentity { expected, found }
}
