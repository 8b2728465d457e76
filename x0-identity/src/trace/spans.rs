//! The spans of the `tracing` facade. Fields are formatted only for a subscriber.

use core::fmt::Display;

use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use crate::SpiffeId;

/// Verifies the chain of a peer within the span of its handshake.
pub(crate) fn handshake<E: Display>(
    peer: &'static str,
    verify: impl FnOnce() -> Result<SpiffeId, E>,
) -> Result<SpiffeId, E> {
    let span = debug_span!("identity.handshake", peer, spiffe_id = Empty, refused = Empty);
    let verified = span.in_scope(verify);
    match &verified {
        Ok(spiffe_id) => _ = span.record("spiffe_id", display(spiffe_id)),
        Err(error) => refused(&span, error),
    }
    verified
}

/// Takes another SVID within a span.
pub(crate) fn rotate<E: Display>(
    spiffe_id: &SpiffeId,
    rotate: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let span = debug_span!("identity.rotate", %spiffe_id, refused = Empty);
    let rotated = span.in_scope(rotate);
    if let Err(error) = &rotated {
        refused(&span, error);
    }
    rotated
}

fn refused(span: &Span, error: &impl Display) {
    span.record("refused", display(error));
}
