//! Reasons for the end of a connection, on the wire and as events.

use std::sync::Arc;

use quinn::{ConnectionError, VarInt};
use x0_identity::NodeId;

use crate::{DownReason, Violation};

const DETAIL_LEN_MAX: usize = 200;
/// RFC 9000 §20.1, RFC 9001 §4.8: a TLS alert is 0x100 and the number of the alert.
const CRYPTO: u64 = 0x100;
const CRYPTO_CERTIFICATE_EXPIRED: u64 = CRYPTO + 45;
const CRYPTO_NO_APPLICATION_PROTOCOL: u64 = CRYPTO + 120;

/// The application's error codes of CONNECTION_CLOSE (RFC 9000 §20.2). They are part of the wire format.
pub(super) mod code {
    use quinn::VarInt;

    pub(in crate::quic) const CLOSED: VarInt = VarInt::from_u32(0);
    /// Another connection of the same two nodes is used.
    pub(in crate::quic) const DUPLICATE: VarInt = VarInt::from_u32(1);
    pub(in crate::quic) const REPLACED: VarInt = VarInt::from_u32(2);
    pub(in crate::quic) const IDENTITY: VarInt = VarInt::from_u32(3);
    pub(in crate::quic) const VIOLATION: VarInt = VarInt::from_u32(4);
    pub(in crate::quic) const BUSY: VarInt = VarInt::from_u32(5);
    pub(in crate::quic) const REMOVED: VarInt = VarInt::from_u32(6);
    pub(in crate::quic) const EXPIRED: VarInt = VarInt::from_u32(7);
    /// The SVID of the receiver, its SPIFFE ID or its authority is not trusted any more.
    pub(in crate::quic) const UNTRUSTED: VarInt = VarInt::from_u32(8);
}

/// An attempt at a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The owner gets an event.
    Reported(DownReason),
    /// Another connection is used, or this side does not want any: no event.
    Quiet,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure::Reported(DownReason::Malformed { violation })
    }
}

/// Closes a connection, and sends the reason to the peer.
pub(super) fn close_for(connection: &quinn::Connection, reason: &DownReason) {
    let (code, text) = match reason {
        DownReason::Replaced => (code::REPLACED, String::new()),
        DownReason::WrongIdentity { .. } => (code::IDENTITY, String::from("another node was dialled")),
        DownReason::Expired => (code::EXPIRED, String::from("the SVID of the receiver has expired")),
        DownReason::Untrusted { detail } => (code::UNTRUSTED, detail.to_string()),
        DownReason::Malformed { violation } => (code::VIOLATION, violation.to_string()),
        reason => (code::CLOSED, reason.to_string()),
    };
    connection.close(code, text.as_bytes());
}

/// The end of a connection during its handshake, as a failed attempt.
pub(super) fn dial_failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == code::DUPLICATE => Failure::Quiet,
        // Before the first answer a timeout says that there is no answer, not that a peer fell silent.
        ConnectionError::TimedOut => Failure::Reported(DownReason::Unreachable),
        error => Failure::Reported(down_reason(error)),
    }
}

/// The end of an established connection, as the reason of an event.
pub(super) fn down_reason(error: &ConnectionError) -> DownReason {
    match error {
        ConnectionError::TimedOut => DownReason::TimedOut,
        ConnectionError::LocallyClosed => DownReason::Local,
        // A stateless reset (RFC 9000 §10.3): the peer, or its next process if it has a key.
        ConnectionError::Reset => DownReason::Restarted,
        ConnectionError::ApplicationClosed(close) => match close.error_code {
            code::CLOSED => DownReason::Closed,
            code::REPLACED => DownReason::Replaced,
            code::EXPIRED => DownReason::OwnIdentityExpired,
            code::UNTRUSTED => {
                DownReason::Untrusted { detail: application_detail(code::UNTRUSTED, &close.reason) }
            }
            code => DownReason::Refused { detail: application_detail(code, &close.reason) },
        },
        // The peer has verified the SVID of this node (RFC 8446 §6.2).
        ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) == CRYPTO_CERTIFICATE_EXPIRED =>
        {
            DownReason::OwnIdentityExpired
        }
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
    // RFC 9001 §8.1: no common ALPN closes the connection with this alert.
    if code == CRYPTO_NO_APPLICATION_PROTOCOL {
        return Some(DownReason::Refused { detail: "the peer does not speak x0-mesh/1".into() });
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

/// A text from a peer goes to logs and terminals: it is bounded, and control characters are replaced.
fn shortened(text: &str) -> Arc<str> {
    let characters = text.chars().map(|character| if character.is_control() { '?' } else { character });
    characters.take(DETAIL_LEN_MAX).collect::<String>().into()
}

pub(super) fn wrong_identity(expected: NodeId, found: NodeId) -> DownReason {
    DownReason::WrongIdentity { expected, found }
}
